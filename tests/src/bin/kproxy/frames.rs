//! Kafka's frames in one direction of a connection, followed a chunk at a time: only their headers are looked at.

/// The bytes of a header: size, api key, version and correlation id.
const HEADER: usize = 12;

/// Where in the frames a direction is.
#[derive(Default)]
pub(crate) struct Frames {
    head: [u8; HEADER],
    have: usize,
    /// Bytes of the current frame still to come after its header.
    rest: usize,
}

/// The header of a request, or of a response as far as it has one.
pub(crate) struct FrameHeader<'a>(&'a [u8; HEADER]);

impl FrameHeader<'_> {
    /// Of a request.
    pub(crate) fn api_key(&self) -> i16 {
        let [_, _, _, _, a, b, ..] = *self.0;
        i16::from_be_bytes([a, b])
    }

    /// Of a request.
    pub(crate) fn request_id(&self) -> i32 {
        let [.., a, b, c, d] = *self.0;
        i32::from_be_bytes([a, b, c, d])
    }

    /// Of a response.
    pub(crate) fn response_id(&self) -> i32 {
        let [_, _, _, _, a, b, c, d, ..] = *self.0;
        i32::from_be_bytes([a, b, c, d])
    }

    fn size(&self) -> usize {
        let [a, b, c, d, ..] = *self.0;
        usize::try_from(i32::from_be_bytes([a, b, c, d])).unwrap_or(0)
    }
}

impl Frames {
    /// Calls `seen` for each request whose header is complete within this chunk; true stops, and the place in the chunk
    /// where that request starts (0 if it began earlier) is returned.
    pub(crate) fn requests(&mut self, chunk: &[u8], seen: impl FnMut(FrameHeader<'_>) -> bool) -> Option<usize> {
        self.scan(HEADER, chunk, seen)
    }

    /// As [`Self::requests`], for responses, whose header ends with the correlation id at byte 8.
    pub(crate) fn responses(&mut self, chunk: &[u8], seen: impl FnMut(FrameHeader<'_>) -> bool) -> Option<usize> {
        self.scan(8, chunk, seen)
    }

    fn scan(&mut self, header: usize, chunk: &[u8], mut seen: impl FnMut(FrameHeader<'_>) -> bool) -> Option<usize> {
        let mut at = 0;
        let mut start = 0;
        while at < chunk.len() {
            if self.rest > 0 {
                let n = self.rest.min(chunk.len() - at);
                self.rest -= n;
                at += n;
                continue;
            }
            if self.have == 0 {
                start = at;
            }
            let n = (header - self.have).min(chunk.len() - at);
            self.head[self.have..self.have + n].copy_from_slice(&chunk[at..at + n]);
            self.have += n;
            at += n;
            if self.have == header {
                self.have = 0;
                let header_seen = FrameHeader(&self.head);
                self.rest = header_seen.size().saturating_sub(header - 4);
                if seen(header_seen) {
                    return Some(start);
                }
            }
        }
        None
    }
}

//! Parser for the headers of Kafka's frames in one direction of a connection, chunk by chunk.

/// The length of a request header: size, api key, version and correlation id.
const REQUEST_HEADER: usize = 12;

/// The length of a response header: size and correlation id.
const RESPONSE_HEADER: usize = 8;

/// The position in the frames of one direction.
#[derive(Default)]
pub(crate) struct Frames {
    head: [u8; REQUEST_HEADER],
    have: usize,
    /// The bytes of the current frame that have not arrived, without the header.
    rest: usize,
}

/// The header of a request or response.
pub(crate) struct FrameHeader<'a>(&'a [u8; REQUEST_HEADER]);

impl FrameHeader<'_> {
    /// Returns the api key of a request.
    pub(crate) fn api_key(&self) -> i16 {
        let [_, _, _, _, a, b, ..] = *self.0;
        i16::from_be_bytes([a, b])
    }

    /// Returns the correlation id of a request.
    pub(crate) fn request_id(&self) -> i32 {
        let [.., a, b, c, d] = *self.0;
        i32::from_be_bytes([a, b, c, d])
    }

    /// Returns the correlation id of a response.
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
    /// Calls `seen` for each request whose header is complete within this chunk, until a call returns true.
    ///
    /// Returns the position in the chunk at which that request starts, or 0 if the request started in an earlier chunk.
    pub(crate) fn requests(&mut self, chunk: &[u8], seen: impl FnMut(FrameHeader<'_>) -> bool) -> Option<usize> {
        self.scan(REQUEST_HEADER, chunk, seen)
    }

    /// Does the same as [`Self::requests`] for responses.
    pub(crate) fn responses(&mut self, chunk: &[u8], seen: impl FnMut(FrameHeader<'_>) -> bool) -> Option<usize> {
        self.scan(RESPONSE_HEADER, chunk, seen)
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

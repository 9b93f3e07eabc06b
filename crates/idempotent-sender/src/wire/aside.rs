//! Bytes of a request that are not copied into it: the batches of a Produce request go to the socket from where they are.
//!
//! Rules: what is put aside is found by the request's correlation id, once; a piece lies before the byte of the request whose
//! place it names, and pieces are in the order of their places. No sockets here.

use std::collections::VecDeque;
use std::io::IoSlice;
use std::sync::Arc;

use kafka_courier_batcher::EncodedBatch;
use parking_lot::Mutex;

/// Slices that are offered to the stream at once; a kernel takes no more than 1024.
const SLICES: usize = 64;

/// What was put aside for one connection's requests, until the frames that they make are written.
#[derive(Debug, Default)]
pub(crate) struct Aside {
    requests: Mutex<VecDeque<(CorrelationId, Vec<Piece>)>>,
}

/// A request's correlation id, as it is on the wire.
pub(crate) type CorrelationId = [u8; 4];

/// A batch that belongs into a request, before the byte at this place.
#[derive(Clone, Debug)]
pub(crate) struct Piece {
    pub(crate) at: usize,
    pub(crate) batch: Arc<EncodedBatch>,
}

/// The correlation id in the header that a request begins with: behind api key and version.
pub(crate) fn correlation_id(request: &[u8]) -> Option<CorrelationId> {
    request.get(4..8)?.try_into().ok()
}

impl Aside {
    pub(crate) fn put(&self, id: CorrelationId, pieces: Vec<Piece>) {
        self.requests.lock().push_back((id, pieces));
    }

    /// What belongs into a request; nothing if nothing was put aside for it.
    pub(crate) fn take(&self, id: CorrelationId) -> Vec<Piece> {
        let mut requests = self.requests.lock();
        let found = requests.iter().position(|(of, _)| *of == id);
        found.and_then(|at| requests.remove(at)).map_or_else(Vec::new, |(_, pieces)| pieces)
    }
}

/// A frame that is being written with its pieces in their places.
#[derive(Debug)]
pub(crate) struct Spliced {
    length: [u8; 4],
    pieces: VecDeque<Piece>,
    /// Bytes of the request that were written.
    request_sent: usize,
    /// Bytes that were written of what comes next: the length as long as it is not out, then the first piece.
    sent: usize,
    length_sent: bool,
}

impl Spliced {
    /// A frame of `len` bytes and these pieces, behind its length.
    pub(crate) fn new(len: usize, pieces: Vec<Piece>) -> Self {
        let all = pieces.iter().map(|piece| piece.batch.len()).sum::<usize>() + len;
        let length = u32::try_from(all).unwrap_or(u32::MAX).to_be_bytes();
        Self { length, pieces: pieces.into(), request_sent: 0, sent: 0, length_sent: false }
    }

    /// What is to be written next.
    pub(crate) fn slices<'a>(&'a self, request: &'a [u8]) -> Vec<IoSlice<'a>> {
        let mut slices = Vec::with_capacity(SLICES.min(2 * self.pieces.len() + 2));
        let mut skip = self.sent;
        if !self.length_sent {
            slices.push(IoSlice::new(self.length.get(skip..).unwrap_or_default()));
            skip = 0;
        }
        let mut from = self.request_sent;
        for piece in self.pieces.iter().take(SLICES / 2 - 1) {
            if from < piece.at {
                slices.push(IoSlice::new(request.get(from..piece.at).unwrap_or_default()));
                from = piece.at;
            }
            slices.push(IoSlice::new(piece.batch.as_bytes().get(skip..).unwrap_or_default()));
            skip = 0;
        }
        if self.pieces.len() < SLICES / 2 {
            slices.push(IoSlice::new(request.get(from..).unwrap_or_default()));
        }
        slices
    }

    /// Notes that `n` more bytes were written; whether those were the last of this request.
    pub(crate) fn advance(&mut self, mut n: usize, request: &[u8]) -> bool {
        if !self.length_sent {
            let taken = n.min(self.length.len() - self.sent);
            (self.sent, n) = (self.sent + taken, n - taken);
            if self.sent < self.length.len() {
                return false;
            }
            (self.length_sent, self.sent) = (true, 0);
        }
        while let Some(piece) = self.pieces.front() {
            let before = n.min(piece.at.saturating_sub(self.request_sent));
            (self.request_sent, n) = (self.request_sent + before, n - before);
            let taken = n.min(piece.batch.len() - self.sent);
            (self.sent, n) = (self.sent + taken, n - taken);
            if self.sent < piece.batch.len() {
                return false;
            }
            self.pieces.pop_front();
            self.sent = 0;
        }
        self.request_sent += n;
        self.request_sent >= request.len()
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::time::{Duration, Instant};

    use kafka_courier_batcher::{Accumulator, BufferPool, Compression, Limits, Record};

    use super::*;

    /// A batch of one record.
    pub(crate) fn batch(value: &[u8]) -> Arc<EncodedBatch> {
        let (limits, pool) =
            (Limits { max_records: 1, max_bytes: 1 << 20, linger: Duration::ZERO }, BufferPool::new(0));
        let mut accumulator = Accumulator::new(limits, Compression::None);
        let record = Record { key: None, value: Some(value), headers: &[], timestamp: 0 };
        let pushed = accumulator.push(Instant::now(), &record, &mut |_| true, &pool, || ()).unwrap();
        let [_, Some(filled)] = pushed.sealed else { panic!("one record fills it") };
        Arc::new(filled.encode(&pool).batch)
    }

    /// The frame that a request and its pieces make, written `step` bytes at a time.
    fn written(request: &[u8], pieces: &[Piece], step: usize) -> Vec<u8> {
        let mut spliced = Spliced::new(request.len(), pieces.to_vec());
        let mut out = Vec::new();
        loop {
            let next: Vec<u8> = spliced.slices(request).iter().flat_map(|slice| slice.to_vec()).take(step).collect();
            out.extend_from_slice(&next);
            if spliced.advance(next.len(), request) {
                return out;
            }
            assert!(!next.is_empty(), "nothing is left to write, and yet it is not done");
        }
    }

    /// The request with its pieces copied into their places.
    pub(crate) fn whole(request: &[u8], pieces: &[Piece]) -> Vec<u8> {
        let (mut out, mut from) = (Vec::new(), 0);
        for piece in pieces {
            out.extend_from_slice(&request[from..piece.at]);
            out.extend_from_slice(piece.batch.as_bytes());
            from = piece.at;
        }
        out.extend_from_slice(&request[from..]);
        out
    }

    #[test]
    fn pieces_stand_in_their_places_however_few_bytes_are_written_at_a_time() {
        let request: Vec<u8> = (0..=99).collect();
        let places: [&[usize]; 4] = [&[], &[40], &[0, 0, 7, 100], &[99, 100, 100]];
        for places in places {
            let pieces: Vec<Piece> =
                places.iter().map(|&at| Piece { at, batch: batch(&[b'a'; 30][..at % 30]) }).collect();
            let body = whole(&request, &pieces);
            let expected = [&u32::try_from(body.len()).unwrap().to_be_bytes()[..], &body].concat();
            for step in 1..expected.len() + 2 {
                assert_eq!(written(&request, &pieces, step), expected, "{places:?} by {step}");
            }
        }
    }

    #[test]
    fn a_request_of_more_pieces_than_a_stream_takes_at_once_is_written_whole() {
        let request = vec![7; 500];
        let pieces: Vec<Piece> = (0..200).map(|at| Piece { at: 2 * at, batch: batch(b"v") }).collect();
        let spliced = Spliced::new(request.len(), pieces.clone());
        assert!(spliced.slices(&request).len() <= SLICES);
        assert_eq!(written(&request, &pieces, usize::MAX)[4..], whole(&request, &pieces));
    }

    #[test]
    fn what_was_put_aside_is_found_by_its_request_and_once() {
        let aside = Aside::default();
        let piece = Piece { at: 3, batch: batch(b"v") };
        aside.put([0, 0, 0, 1], vec![piece.clone()]);
        aside.put([0, 0, 0, 2], vec![piece.clone(), piece]);
        assert_eq!(aside.take([0, 0, 0, 2]).len(), 2);
        assert_eq!(aside.take([0, 0, 0, 2]).len(), 0);
        assert_eq!(aside.take([0, 0, 0, 1]).len(), 1);
    }
}

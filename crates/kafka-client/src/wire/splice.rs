//! Batches of Produce requests, which are written to the socket without a copy.
//!
//! Rules:
//! - A request's batches are found by its correlation id, and are taken once.
//! - A slot lies before the byte of the request at its position. Slots are sorted by position.
//! - No sockets here.

use std::collections::VecDeque;
use std::io::IoSlice;
use std::sync::Arc;

use kafka_courier_batcher::EncodedBatch;
use parking_lot::Mutex;

/// The largest number of slices in one write. A kernel accepts up to 1024.
const SLICES: usize = 64;

/// The batches of one connection's requests, until their frames are written.
#[derive(Debug, Default)]
pub(crate) struct PendingBatches {
    requests: Mutex<VecDeque<(CorrelationId, Vec<BatchSlot>)>>,
}

/// A request's correlation id on the wire.
pub(crate) type CorrelationId = [u8; 4];

/// A batch inside a request: it is written before the byte at `at`.
#[derive(Clone, Debug)]
pub(crate) struct BatchSlot {
    pub(crate) at: usize,
    pub(crate) batch: Arc<EncodedBatch>,
}

/// Returns the correlation id from a request's header. It follows the API key and the version.
pub(crate) fn correlation_id(request: &[u8]) -> Option<CorrelationId> {
    request.get(4..8)?.try_into().ok()
}

impl PendingBatches {
    pub(crate) fn put(&self, id: CorrelationId, slots: Vec<BatchSlot>) {
        self.requests.lock().push_back((id, slots));
    }

    /// Takes the batches of a request. Returns none if the request has none.
    pub(crate) fn take(&self, id: CorrelationId) -> Vec<BatchSlot> {
        let mut requests = self.requests.lock();
        let found = requests.iter().position(|(of, _)| *of == id);
        found.and_then(|at| requests.remove(at)).map_or_else(Vec::new, |(_, slots)| slots)
    }
}

/// A frame that is being written, with its batches in their places.
#[derive(Debug)]
pub(crate) struct SplicedFrame {
    length: [u8; 4],
    slots: VecDeque<BatchSlot>,
    /// Bytes of the request that are written.
    request_sent: usize,
    /// Bytes that are written of the current part: the length until it is complete, then the first slot.
    sent: usize,
    length_sent: bool,
}

impl SplicedFrame {
    /// Creates a frame of a request of `len` bytes and its batches. The frame begins with its length.
    pub(crate) fn new(len: usize, slots: Vec<BatchSlot>) -> Self {
        let all = slots.iter().map(|slot| slot.batch.len()).sum::<usize>() + len;
        let length = u32::try_from(all).unwrap_or(u32::MAX).to_be_bytes();
        Self { length, slots: slots.into(), request_sent: 0, sent: 0, length_sent: false }
    }

    /// Returns the slices to write next.
    pub(crate) fn slices<'a>(&'a self, request: &'a [u8]) -> Vec<IoSlice<'a>> {
        let mut slices = Vec::with_capacity(SLICES.min(2 * self.slots.len() + 2));
        let mut skip = self.sent;
        if !self.length_sent {
            slices.push(IoSlice::new(self.length.get(skip..).unwrap_or_default()));
            skip = 0;
        }
        let mut from = self.request_sent;
        for slot in self.slots.iter().take(SLICES / 2 - 1) {
            if from < slot.at {
                slices.push(IoSlice::new(request.get(from..slot.at).unwrap_or_default()));
                from = slot.at;
            }
            slices.push(IoSlice::new(slot.batch.as_bytes().get(skip..).unwrap_or_default()));
            skip = 0;
        }
        if self.slots.len() < SLICES / 2 {
            slices.push(IoSlice::new(request.get(from..).unwrap_or_default()));
        }
        slices
    }

    /// Counts `n` written bytes. Returns whether the frame is complete.
    pub(crate) fn advance(&mut self, mut n: usize, request: &[u8]) -> bool {
        if !self.length_sent {
            let taken = n.min(self.length.len() - self.sent);
            (self.sent, n) = (self.sent + taken, n - taken);
            if self.sent < self.length.len() {
                return false;
            }
            (self.length_sent, self.sent) = (true, 0);
        }
        while let Some(slot) = self.slots.front() {
            let before = n.min(slot.at.saturating_sub(self.request_sent));
            (self.request_sent, n) = (self.request_sent + before, n - before);
            let taken = n.min(slot.batch.len() - self.sent);
            (self.sent, n) = (self.sent + taken, n - taken);
            if self.sent < slot.batch.len() {
                return false;
            }
            self.slots.pop_front();
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

    /// Returns the frame of a request and its batches, written `step` bytes at a time.
    fn written(request: &[u8], slots: &[BatchSlot], step: usize) -> Vec<u8> {
        let mut spliced = SplicedFrame::new(request.len(), slots.to_vec());
        let mut out = Vec::new();
        loop {
            let next: Vec<u8> = spliced.slices(request).iter().flat_map(|slice| slice.to_vec()).take(step).collect();
            out.extend_from_slice(&next);
            if spliced.advance(next.len(), request) {
                return out;
            }
            assert!(!next.is_empty(), "no byte is left to write, and the frame is not complete");
        }
    }

    /// Returns the request with its batches copied into their places.
    pub(crate) fn whole(request: &[u8], slots: &[BatchSlot]) -> Vec<u8> {
        let (mut out, mut from) = (Vec::new(), 0);
        for slot in slots {
            out.extend_from_slice(&request[from..slot.at]);
            out.extend_from_slice(slot.batch.as_bytes());
            from = slot.at;
        }
        out.extend_from_slice(&request[from..]);
        out
    }

    #[test]
    fn batches_are_written_in_their_places() {
        let request: Vec<u8> = (0..=99).collect();
        let places: [&[usize]; 4] = [&[], &[40], &[0, 0, 7, 100], &[99, 100, 100]];
        for places in places {
            let slots: Vec<BatchSlot> =
                places.iter().map(|&at| BatchSlot { at, batch: batch(&[b'a'; 30][..at % 30]) }).collect();
            let body = whole(&request, &slots);
            let expected = [&u32::try_from(body.len()).unwrap().to_be_bytes()[..], &body].concat();
            for step in 1..expected.len() + 2 {
                assert_eq!(written(&request, &slots, step), expected, "{places:?} by {step}");
            }
        }
    }

    #[test]
    fn many_batches_are_written_whole() {
        let request = vec![7; 500];
        let slots: Vec<BatchSlot> = (0..200).map(|at| BatchSlot { at: 2 * at, batch: batch(b"v") }).collect();
        let spliced = SplicedFrame::new(request.len(), slots.clone());
        assert!(spliced.slices(&request).len() <= SLICES);
        assert_eq!(written(&request, &slots, usize::MAX)[4..], whole(&request, &slots));
    }

    #[test]
    fn batches_are_taken_once_per_request() {
        let pending = PendingBatches::default();
        let slot = BatchSlot { at: 3, batch: batch(b"v") };
        pending.put([0, 0, 0, 1], vec![slot.clone()]);
        pending.put([0, 0, 0, 2], vec![slot.clone(), slot]);
        assert_eq!(pending.take([0, 0, 0, 2]).len(), 2);
        assert_eq!(pending.take([0, 0, 0, 2]).len(), 0);
        assert_eq!(pending.take([0, 0, 0, 1]).len(), 1);
    }
}

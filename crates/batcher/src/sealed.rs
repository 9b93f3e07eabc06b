//! A batch between its partition's lock and the sender: sealed, then encoded.
//!
//! Rule: sealing is cheap and happens under the lock. Compression is slow and happens outside it.

use crate::buffer_pool::BufferPool;
use crate::encoded::EncodedBatch;
use crate::limits::Compression;
use crate::raw::RawBatch;
use crate::seal::SealReason;
use std::time::Instant;

/// A sealed batch that is not yet compressed and has no header yet.
#[derive(Debug)]
pub struct SealedBatch<T> {
    /// The caller's token for this batch.
    pub token: T,
    /// The batch's number among the partition's batches: dense, from 0.
    pub ordinal: u64,
    /// Time of the first push.
    pub opened_at: Instant,
    /// Why the batch was sealed.
    pub reason: SealReason,
    pub(crate) raw: RawBatch,
    pub(crate) compression: Compression,
}

/// An encoded batch, ready to be stamped and sent.
#[derive(Debug)]
pub struct CompressedBatch<T> {
    /// The caller's token for this batch.
    pub token: T,
    /// The batch's number among the partition's batches: dense, from 0.
    pub ordinal: u64,
    /// Time of the first push.
    pub opened_at: Instant,
    /// Why the batch was sealed.
    pub reason: SealReason,
    /// The batch. Its [`EncodedBatch::capacity`] stays charged.
    pub batch: EncodedBatch,
    /// Charged bytes that the batch no longer holds. The caller returns them to its budget.
    pub released: usize,
}

impl<T> SealedBatch<T> {
    /// Returns the number of records.
    #[must_use]
    pub fn record_count(&self) -> u32 {
        self.raw.records()
    }

    /// Returns the reserved bytes, which equal the bytes that the batch holds.
    #[must_use]
    pub fn charged(&self) -> usize {
        self.raw.capacity()
    }

    /// Returns the bytes of the whole batch before compression, header included.
    #[must_use]
    pub fn uncompressed_len(&self) -> usize {
        self.raw.len()
    }

    /// Compresses the batch and writes its header. Buffers are taken from `pool` and returned to it. This method uses
    /// up to twice the charged memory while it runs.
    #[must_use]
    pub fn encode(self, pool: &BufferPool) -> CompressedBatch<T> {
        let charged = self.charged();
        let batch = self.raw.finish(self.compression, pool);
        CompressedBatch {
            token: self.token,
            ordinal: self.ordinal,
            opened_at: self.opened_at,
            reason: self.reason,
            released: charged.saturating_sub(batch.capacity()),
            batch,
        }
    }
}

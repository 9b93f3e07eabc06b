//! A batch between its partition's lock and the sender: sealed, and then encoded.
//!
//! Rule: sealing is cheap and done under the lock; compressing is not, and is done outside it.

use crate::buffer_pool::BufferPool;
use crate::encoded::EncodedBatch;
use crate::limits::Compression;
use crate::raw::RawBatch;
use crate::seal::SealReason;
use std::time::Instant;

/// A batch that takes no more records; not yet compressed, its header not yet written.
#[derive(Debug)]
pub struct Filled<T> {
    /// The caller's token for this batch.
    pub token: T,
    /// Its place among the partition's batches: dense, from 0.
    pub ordinal: u64,
    /// When its first record was pushed.
    pub opened_at: Instant,
    /// Why it was sealed.
    pub reason: SealReason,
    pub(crate) raw: RawBatch,
    pub(crate) compression: Compression,
}

/// A batch ready to be stamped and sent.
#[derive(Debug)]
pub struct Sealed<T> {
    /// The caller's token for this batch.
    pub token: T,
    /// Its place among the partition's batches: dense, from 0.
    pub ordinal: u64,
    /// When its first record was pushed.
    pub opened_at: Instant,
    /// Why it was sealed.
    pub reason: SealReason,
    /// The batch itself; what it holds, [`EncodedBatch::capacity`], stays charged.
    pub batch: EncodedBatch,
    /// Bytes that were charged and are held no more; the caller gives them back to its budget.
    pub released: usize,
}

impl<T> Filled<T> {
    /// Records in it.
    #[must_use]
    pub fn record_count(&self) -> u32 {
        self.raw.records()
    }

    /// Bytes that were reserved for it: exactly what it holds.
    #[must_use]
    pub fn charged(&self) -> usize {
        self.raw.capacity()
    }

    /// Bytes of the whole batch, header included, uncompressed.
    #[must_use]
    pub fn uncompressed_len(&self) -> usize {
        self.raw.len()
    }

    /// Compresses and writes the header. Buffers come from the pool and go back to it; while it runs, up to twice what
    /// is charged is in use.
    #[must_use]
    pub fn encode(self, pool: &BufferPool) -> Sealed<T> {
        let charged = self.charged();
        let batch = self.raw.finish(self.compression, pool);
        Sealed {
            token: self.token,
            ordinal: self.ordinal,
            opened_at: self.opened_at,
            reason: self.reason,
            released: charged.saturating_sub(batch.capacity()),
            batch,
        }
    }
}

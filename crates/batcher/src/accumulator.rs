//! Records of one topic-partition, gathered into batches.
//!
//! Rules: a record is accepted whole or not at all, and a refusal changes nothing; memory is asked for before it is
//! taken, and what is charged is what the open batch's buffer holds; sealing is decided by [`seal_reason`] alone.

use crate::buffer_pool::BufferPool;
use crate::filled::Filled;
use crate::header::HEADER_LEN;
use crate::limits::{Compression, Limits};
use crate::raw::RawBatch;
use crate::record::{Layout, Record};
use crate::seal::{Fill, SealEvent, SealReason, seal_reason};
use std::time::Instant;

/// The open batch of one partition. `T` is the caller's token for a batch, cloned for each of its records.
#[derive(Debug)]
pub struct Accumulator<T> {
    limits: Limits,
    compression: Compression,
    open: Option<Open<T>>,
    next_ordinal: u64,
    /// A record that takes more than `max_bytes` still goes, in a batch of its own, up to this.
    max_single: usize,
    /// Capacity that the last batch came to: the next one starts with it.
    hint: usize,
    /// Records in the batches that were sealed.
    sealed_records: u64,
}

#[derive(Debug)]
struct Open<T> {
    raw: RawBatch,
    opened_at: Instant,
    token: T,
    ordinal: u64,
}

/// A record that was accepted. `R` is what its caller made of its batch's token.
#[derive(Debug)]
pub struct Pushed<T, R = T> {
    /// A clone of its batch's token; from [`Accumulator::push_at`], what its `receipt` made of that token.
    pub token: R,
    /// Its index in the batch.
    pub index: u32,
    /// If it opened the batch: the batch's linger deadline.
    pub opened: Option<Instant>,
    /// Its batch's place among the partition's batches: dense, from 0.
    pub ordinal: u64,
    /// In order: the batch that it did not fit in, and its own if that is full now. Boxed, so that the many records that
    /// seal nothing do not carry the room for two batches around.
    pub sealed: [Option<Box<Filled<T>>>; 2],
}

impl<T> Accumulator<T> {
    /// An accumulator with nothing open. Limits beyond what the format can hold are cut to it.
    #[must_use]
    pub fn new(limits: Limits, compression: Compression) -> Self {
        Self {
            limits: limits.bounded(),
            compression,
            open: None,
            next_ordinal: 0,
            max_single: 0,
            hint: 0,
            sealed_records: 0,
        }
    }

    /// Changes the limits, for instance when a topic turns out to take less. They count from the next call on; what an
    /// open batch already holds stays in it.
    pub fn set_limits(&mut self, limits: Limits) {
        self.limits = limits.bounded();
    }

    /// Lets a record that takes more than `max_bytes` go in a batch of its own, if that batch is no larger than `bytes`
    /// on the wire, uncompressed: what the topic takes. At most 1 GiB.
    pub fn allow_single(&mut self, bytes: usize) {
        self.max_single = Limits { max_bytes: bytes, ..self.limits }.bounded().max_bytes;
    }

    /// Adds a record to the open batch, or to a new one if there is none or it does not fit.
    ///
    /// `reserve` is asked for the capacity that is about to be taken, bytes: what it says yes to is charged. For a new
    /// batch it may be asked twice, the second time for less. `token` makes the token of a batch that is about to be
    /// opened. Linger is not looked at: see [`due`](Self::due).
    ///
    /// # Errors
    /// [`PushError::TooLarge`] if no batch can hold the record, [`PushError::NoMemory`] if `reserve` says no. Nothing
    /// has changed then; on `NoMemory` a caller that is going to wait should [`seal`](Self::seal) what is open first.
    pub fn push(
        &mut self,
        now: Instant,
        record: &Record<'_>,
        reserve: &mut impl FnMut(usize) -> bool,
        pool: &BufferPool,
        token: impl FnOnce() -> T,
    ) -> Result<Pushed<T>, PushError>
    where
        T: Clone,
    {
        self.push_at(|| now, record, reserve, pool, token, T::clone)
    }

    /// As [`push`](Self::push), for those to whom a look at the clock and a clone are dear: `now` is asked only if a batch is
    /// opened, and each record gets what `receipt` makes of its batch's token.
    ///
    /// # Errors
    /// As [`push`](Self::push).
    pub fn push_at<R>(
        &mut self,
        now: impl FnOnce() -> Instant,
        record: &Record<'_>,
        reserve: &mut impl FnMut(usize) -> bool,
        pool: &BufferPool,
        token: impl FnOnce() -> T,
        receipt: impl FnOnce(&T) -> R,
    ) -> Result<Pushed<T, R>, PushError> {
        let payload = record.payload_len();
        if let Some(open) = &mut self.open {
            let layout = open.raw.layout(payload, record.timestamp);
            if seal_reason(&open.fill(), &self.limits, SealEvent::Incoming(layout.len())).is_none() {
                open.make_room(layout.len(), reserve, pool)?;
                let index = open.raw.append(record, layout);
                let pushed = Pushed {
                    token: receipt(&open.token),
                    index,
                    opened: None,
                    ordinal: open.ordinal,
                    sealed: [None, None],
                };
                return Ok(self.seal_full(pushed));
            }
        }
        self.push_first(now, record, reserve, pool, token, receipt)
    }

    fn push_first<R>(
        &mut self,
        now: impl FnOnce() -> Instant,
        record: &Record<'_>,
        reserve: &mut impl FnMut(usize) -> bool,
        pool: &BufferPool,
        token: impl FnOnce() -> T,
        receipt: impl FnOnce(&T) -> R,
    ) -> Result<Pushed<T, R>, PushError> {
        let layout = Layout::new(record.payload_len(), 0, 0);
        let buffer = self.first_buffer(layout.len(), reserve, pool)?;
        let now = now();
        let token = token();
        let before = self.reason_against(record).and_then(|reason| self.seal_for(reason)).map(Box::new);
        let mut raw = RawBatch::new(buffer);
        let index = raw.append(record, layout);
        let ordinal = self.next_ordinal;
        self.next_ordinal += 1;
        let made = receipt(&token);
        self.open = Some(Open { raw, opened_at: now, token, ordinal });
        let opened = Some(self.limits.deadline(now));
        Ok(self.seal_full(Pushed { token: made, index, opened, ordinal, sealed: [before, None] }))
    }

    /// A buffer for a batch that begins with a record of `len` bytes, as big as the last batch was if memory allows.
    fn first_buffer(
        &self,
        len: usize,
        reserve: &mut impl FnMut(usize) -> bool,
        pool: &BufferPool,
    ) -> Result<Vec<u8>, PushError> {
        let size = len.saturating_add(HEADER_LEN);
        let limit = self.limits.max_bytes.max(self.max_single);
        if size > limit {
            return Err(PushError::TooLarge { size, limit });
        }
        let needed = BufferPool::class_of(size);
        let hinted = self.hint.min(BufferPool::class_of(self.limits.max_bytes));
        if hinted > needed && reserve(hinted) {
            return Ok(pool.get(hinted));
        }
        if reserve(needed) {
            return Ok(pool.get(needed));
        }
        Err(PushError::NoMemory { needed })
    }

    /// Hands out the record's own batch if that is full now.
    #[inline]
    fn seal_full<R>(&mut self, mut pushed: Pushed<T, R>) -> Pushed<T, R> {
        if let Some(reason) = self.reason_on(SealEvent::Joined) {
            pushed.sealed[1] = self.seal_for(reason).map(Box::new);
        }
        pushed
    }

    /// Whether a record would join the open batch, or find none open. A record without key may then rather go to another
    /// partition, so that no batch of one record is left behind (KIP-480).
    #[must_use]
    pub fn fits(&self, record: &Record<'_>) -> bool {
        self.reason_against(record).is_none()
    }

    /// Why the open batch, if any, cannot take this record.
    fn reason_against(&self, record: &Record<'_>) -> Option<SealReason> {
        let raw = &self.open.as_ref()?.raw;
        let len = raw.layout(record.payload_len(), record.timestamp).len();
        self.reason_on(SealEvent::Incoming(len))
    }

    /// Whether the open batch has waited long enough.
    #[must_use]
    pub fn due(&self, now: Instant) -> bool {
        self.reason_on(SealEvent::Tick(now)).is_some()
    }

    /// When the open batch will have waited long enough.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        self.open.as_ref().map(|open| self.limits.deadline(open.opened_at))
    }

    /// Whether no batch is open.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.open.is_none()
    }

    /// How much the open batch has gathered and how much memory it holds for that, in bytes; both 0 if none is open. What
    /// it has gathered is the whole batch as on the wire, header included, uncompressed.
    #[must_use]
    pub fn gathered_and_held(&self) -> (usize, usize) {
        self.open.as_ref().map_or((0, 0), |open| (open.raw.len(), open.raw.capacity()))
    }

    /// The open batch's place among the partition's batches.
    #[must_use]
    pub fn open_ordinal(&self) -> Option<u64> {
        self.open.as_ref().map(|open| open.ordinal)
    }

    /// How many records it has accepted since it was made, those of the open batch included.
    #[must_use]
    pub fn accepted_records(&self) -> u64 {
        let open = self.open.as_ref().map_or(0, |open| open.raw.records());
        self.sealed_records + u64::from(open)
    }

    /// Seals the open batch if it is due.
    pub fn seal_due(&mut self, now: Instant) -> Option<Filled<T>> {
        self.seal_on(SealEvent::Tick(now))
    }

    /// Seals whatever is open.
    pub fn seal(&mut self) -> Option<Filled<T>> {
        self.seal_on(SealEvent::Asked)
    }

    fn reason_on(&self, event: SealEvent) -> Option<SealReason> {
        seal_reason(&self.open.as_ref()?.fill(), &self.limits, event)
    }

    fn seal_on(&mut self, event: SealEvent) -> Option<Filled<T>> {
        let reason = self.reason_on(event)?;
        self.seal_for(reason)
    }

    fn seal_for(&mut self, reason: SealReason) -> Option<Filled<T>> {
        let open = self.open.take()?;
        self.hint = BufferPool::class_of(open.raw.len());
        self.sealed_records += u64::from(open.raw.records());
        Some(Filled {
            token: open.token,
            ordinal: open.ordinal,
            opened_at: open.opened_at,
            reason,
            raw: open.raw,
            compression: self.compression,
        })
    }
}

impl<T> Open<T> {
    fn fill(&self) -> Fill {
        Fill { records: self.raw.records(), bytes: self.raw.len(), opened_at: self.opened_at }
    }

    fn make_room(
        &mut self,
        len: usize,
        reserve: &mut impl FnMut(usize) -> bool,
        pool: &BufferPool,
    ) -> Result<(), PushError> {
        let held = self.raw.capacity();
        let size = self.raw.len() + len;
        if size <= held {
            return Ok(());
        }
        let capacity = BufferPool::class_of(size);
        let needed = capacity.saturating_sub(held);
        if !reserve(needed) {
            return Err(PushError::NoMemory { needed });
        }
        self.raw.grow(capacity, pool);
        Ok(())
    }
}

/// Why a record was not accepted. Nothing has changed then, and the record is still the caller's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PushError {
    /// Even alone it makes a batch over the limit.
    #[error("a batch of this record alone takes {size} bytes, {limit} are allowed")]
    TooLarge {
        /// Bytes of a batch with this record alone, header included, uncompressed.
        size: usize,
        /// The limit, `max_bytes`.
        limit: usize,
    },
    /// The memory that it needs was refused.
    #[error("no memory for {needed} more bytes of buffer")]
    NoMemory {
        /// Bytes that `reserve` refused.
        needed: usize,
    },
}

//! Gathers the records of one topic-partition into batches.
//!
//! Rules:
//!  - A record is accepted whole or refused. A refusal changes nothing.
//!  - Memory is reserved before it is taken. The amount charged is the capacity of the open batch's buffer.
//!  - [`seal_reason`] alone decides when a batch is sealed.

use crate::buffer_pool::BufferPool;
use crate::header::HEADER_LEN;
use crate::limits::{Compression, Limits};
use crate::raw::RawBatch;
use crate::record::{Layout, Record};
use crate::seal::{Fill, SealEvent, SealReason, seal_reason};
use crate::sealed::SealedBatch;
use std::time::Instant;

/// The open batch of one partition. `T` is the caller's token for a batch.
#[derive(Debug)]
pub struct Accumulator<T> {
    limits: Limits,
    compression: Compression,
    open: Option<Open<T>>,
    next_ordinal: u64,
    /// Largest batch, in bytes, that a single record over `max_bytes` may form.
    max_single: usize,
    /// Capacity that the previous batch needed. The next batch starts with this capacity.
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

/// An accepted record. `R` is the receipt that the caller made from the batch's token.
#[derive(Debug)]
pub struct Pushed<T, R = T> {
    /// A clone of the batch's token, or the receipt if [`Accumulator::push_at`] accepted the record.
    pub token: R,
    /// The record's index in the batch.
    pub index: u32,
    /// The batch's linger deadline, if this record opened the batch.
    pub opened: Option<Instant>,
    /// The batch's number among the partition's batches: dense, from 0.
    pub ordinal: u64,
    /// Batches that this record sealed, in order: the batch that had no room for the record, then the record's own
    /// batch if the record filled it. Boxed, because most records seal nothing.
    pub sealed: [Option<Box<SealedBatch<T>>>; 2],
}

impl<T> Accumulator<T> {
    /// Creates an accumulator with no open batch. Limits beyond the format's maximum are reduced to that maximum.
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

    /// Numbers the batches from `ordinal` on, where earlier batches of the partition were sealed elsewhere. Call it before
    /// the first push.
    #[must_use]
    pub fn starting_at(self, ordinal: u64) -> Self {
        Self { next_ordinal: ordinal, ..self }
    }

    /// Changes the limits, for instance when a topic accepts smaller batches than assumed. The new limits apply from
    /// the next call. An open batch keeps the records that it already holds.
    pub fn set_limits(&mut self, limits: Limits) {
        self.limits = limits.bounded();
    }

    /// Sets the largest batch that a single record over `max_bytes` may form: the topic's limit, in `bytes` on the wire
    /// before compression. At most 1 GiB.
    pub fn allow_single(&mut self, bytes: usize) {
        self.max_single = Limits { max_bytes: bytes, ..self.limits }.bounded().max_bytes;
    }

    /// Adds a record to the open batch. Opens a new batch if there is none or the record does not fit.
    ///
    /// `reserve` is called with the capacity, in bytes, that the record needs, and that capacity is charged if
    /// `reserve` returns true. A new batch may call `reserve` twice, the second time with less. `token` makes the token
    /// of a new batch. This method does not check the linger deadline: see [`due`](Self::due).
    ///
    /// # Errors
    /// Returns [`PushError::TooLarge`] if no batch can hold the record, and [`PushError::NoMemory`] if `reserve`
    /// returns false. Nothing has changed in either case. A caller that waits for memory should [`seal`](Self::seal)
    /// the open batch first.
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

    /// Adds a record as [`push`](Self::push) does, without reading the clock or cloning the token for each record:
    /// `now` is called only when a batch is opened, and `receipt` turns the batch's token into the record's receipt.
    ///
    /// # Errors
    /// See [`push`](Self::push).
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

    /// Returns a buffer for a batch that starts with a record of `len` bytes: as large as the previous batch if memory
    /// allows.
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

    /// Seals the record's own batch if the record filled it.
    #[inline]
    fn seal_full<R>(&mut self, mut pushed: Pushed<T, R>) -> Pushed<T, R> {
        if let Some(reason) = self.reason_on(SealEvent::Joined) {
            pushed.sealed[1] = self.seal_for(reason).map(Box::new);
        }
        pushed
    }

    /// Returns whether a record would join the open batch, or no batch is open. A record without a key can otherwise
    /// choose another partition, which avoids batches of one record (KIP-480).
    #[must_use]
    pub fn fits(&self, record: &Record<'_>) -> bool {
        self.reason_against(record).is_none()
    }

    /// Returns why the open batch has no room for this record.
    fn reason_against(&self, record: &Record<'_>) -> Option<SealReason> {
        let raw = &self.open.as_ref()?.raw;
        let len = raw.layout(record.payload_len(), record.timestamp).len();
        self.reason_on(SealEvent::Incoming(len))
    }

    /// Returns whether the open batch has reached its linger deadline.
    #[must_use]
    pub fn due(&self, now: Instant) -> bool {
        self.reason_on(SealEvent::Tick(now)).is_some()
    }

    /// Returns the open batch's linger deadline.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        self.open.as_ref().map(|open| self.limits.deadline(open.opened_at))
    }

    /// Returns whether no batch is open.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.open.is_none()
    }

    /// Returns the size of the open batch and the memory that it holds, both in bytes and 0 if no batch is open. The
    /// size is the whole batch on the wire before compression, header included.
    #[must_use]
    pub fn open_len_and_capacity(&self) -> (usize, usize) {
        self.open.as_ref().map_or((0, 0), |open| (open.raw.len(), open.raw.capacity()))
    }

    /// Returns the open batch's number among the partition's batches.
    #[must_use]
    pub fn open_ordinal(&self) -> Option<u64> {
        self.open.as_ref().map(|open| open.ordinal)
    }

    /// Returns the number of records accepted since creation, those of the open batch included.
    #[must_use]
    pub fn accepted_records(&self) -> u64 {
        let open = self.open.as_ref().map_or(0, |open| open.raw.records());
        self.sealed_records + u64::from(open)
    }

    /// Seals the open batch if it is due.
    pub fn seal_due(&mut self, now: Instant) -> Option<SealedBatch<T>> {
        self.seal_on(SealEvent::Tick(now))
    }

    /// Seals the open batch.
    pub fn seal(&mut self) -> Option<SealedBatch<T>> {
        self.seal_on(SealEvent::Asked)
    }

    fn reason_on(&self, event: SealEvent) -> Option<SealReason> {
        seal_reason(&self.open.as_ref()?.fill(), &self.limits, event)
    }

    fn seal_on(&mut self, event: SealEvent) -> Option<SealedBatch<T>> {
        let reason = self.reason_on(event)?;
        self.seal_for(reason)
    }

    fn seal_for(&mut self, reason: SealReason) -> Option<SealedBatch<T>> {
        let open = self.open.take()?;
        self.hint = BufferPool::class_of(open.raw.len());
        self.sealed_records += u64::from(open.raw.records());
        Some(SealedBatch {
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

/// Why a record was refused. Nothing has changed, and the caller still owns the record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PushError {
    /// A batch of this record alone exceeds the limit.
    #[error(
        "a batch of this record alone takes {size} bytes, over the limit of {limit}: shrink the record, or raise the limit"
    )]
    TooLarge {
        /// Bytes of a batch with only this record, before compression, header included.
        size: usize,
        /// The limit, `max_bytes`.
        limit: usize,
    },
    /// `reserve` refused the memory that the record needs.
    #[error("the buffer needs {needed} more bytes, which are not available: retry once memory is released")]
    NoMemory {
        /// Bytes that `reserve` refused.
        needed: usize,
    },
}

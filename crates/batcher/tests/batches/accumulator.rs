//! Accumulation by count, bytes and linger, and its memory.
//!
//! Rules:
//!  - The clock is simulated.
//!  - Every reserved byte is compared with the held bytes.

use kafka_courier_batcher::{
    Accumulator, BufferPool, Compression, HEADER_LEN, Limits, PushError, Pushed, Record, SealReason, SealedBatch,
};
use std::borrow::Borrow;
use std::time::{Duration, Instant};

const LIMITS: Limits = Limits { max_records: 100, max_bytes: 10_000, linger: Duration::from_millis(5) };

fn value(bytes: &[u8]) -> Record<'_> {
    Record { key: None, value: Some(bytes), headers: &[], timestamp: 1_700_000_000_000 }
}

/// An accumulator with its pool, clock and budget.
struct Rig {
    accumulator: Accumulator<u64>,
    pool: BufferPool,
    now: Instant,
    free: usize,
    charged: usize,
    tokens: u64,
}

impl Rig {
    fn new(limits: Limits) -> Self {
        Self {
            accumulator: Accumulator::new(limits, Compression::None),
            pool: BufferPool::new(0),
            now: Instant::now(),
            free: usize::MAX,
            charged: 0,
            tokens: 0,
        }
    }

    fn push(&mut self, record: &Record<'_>) -> Result<Pushed<u64>, PushError> {
        let (free, charged, tokens) = (&mut self.free, &mut self.charged, &mut self.tokens);
        let mut reserve = |bytes: usize| {
            let Some(left) = free.checked_sub(bytes) else {
                return false;
            };
            *free = left;
            *charged += bytes;
            true
        };
        self.accumulator.push(self.now, record, &mut reserve, &self.pool, || {
            *tokens += 1;
            *tokens
        })
    }
}

fn held(filled: Option<impl Borrow<SealedBatch<u64>>>) -> (u64, u32, SealReason) {
    let filled = filled.unwrap();
    let filled = filled.borrow();
    (filled.ordinal, filled.record_count(), filled.reason)
}

#[test]
fn last_record_seals_by_count() {
    let mut rig = Rig::new(Limits { max_records: 3, ..LIMITS });
    for index in 0..2 {
        let pushed = rig.push(&value(b"v")).unwrap();
        assert_eq!((pushed.token, pushed.index, pushed.ordinal), (1, index, 0));
        assert!(pushed.sealed.iter().all(Option::is_none));
    }
    let [before, own] = rig.push(&value(b"v")).unwrap().sealed;
    assert!(before.is_none());
    assert_eq!(held(own), (0, 3, SealReason::Count));
    assert!(rig.accumulator.is_empty());
    assert_eq!(rig.push(&value(b"v")).unwrap().token, 2);
}

#[test]
fn record_without_room_seals_previous() {
    let mut rig = Rig::new(LIMITS);
    rig.push(&value(&[0; 6000])).unwrap();
    let pushed = rig.push(&value(&[1; 6000])).unwrap();
    assert_eq!((pushed.index, pushed.ordinal, pushed.token), (0, 1, 2));
    assert_eq!(pushed.opened, Some(rig.now + LIMITS.linger));
    let [before, own] = pushed.sealed;
    assert_eq!(held(before), (0, 1, SealReason::Bytes));
    assert!(own.is_none());
}

#[test]
fn one_record_seals_two_batches() {
    let mut rig = Rig::new(LIMITS);
    rig.push(&value(b"small")).unwrap();
    let [before, own] = rig.push(&value(&[0; 9927])).unwrap().sealed;
    assert_eq!(held(before), (0, 1, SealReason::Bytes));
    assert_eq!(held(own), (1, 1, SealReason::Bytes));
}

#[test]
fn batch_fills_to_last_byte() {
    let mut rig = Rig::new(LIMITS);
    // Length 3, attributes, two deltas, null key, value length 3, header count: 11 bytes besides the value.
    let biggest = LIMITS.max_bytes - HEADER_LEN - 11;
    let [_, own] = rig.push(&value(&vec![0; biggest])).unwrap().sealed;
    assert_eq!(own.unwrap().uncompressed_len(), LIMITS.max_bytes);
    let error = rig.push(&value(&vec![0; biggest + 1])).unwrap_err();
    assert_eq!(error, PushError::TooLarge { size: LIMITS.max_bytes + 1, limit: LIMITS.max_bytes });
}

#[test]
fn oversized_record_changes_nothing() {
    let mut rig = Rig::new(LIMITS);
    rig.push(&value(b"v")).unwrap();
    let charged = rig.charged;
    assert!(matches!(rig.push(&value(&[0; 10_000])), Err(PushError::TooLarge { .. })));
    assert_eq!((rig.charged, rig.tokens, rig.accumulator.open_ordinal()), (charged, 1, Some(0)));
    assert_eq!(rig.push(&value(b"w")).unwrap().index, 1);
}

#[test]
fn refused_reservation_changes_nothing() {
    let mut rig = Rig::new(LIMITS);
    rig.free = 512;
    rig.push(&value(&[0; 300])).unwrap();
    assert_eq!(rig.push(&value(&[0; 300])).unwrap_err(), PushError::NoMemory { needed: 512 });
    assert_eq!(rig.push(&value(&[0; 9800])).unwrap_err(), PushError::NoMemory { needed: 16_384 });
    assert_eq!((rig.charged, rig.tokens, rig.accumulator.open_ordinal()), (512, 1, Some(0)));
    rig.free = 512;
    assert_eq!(rig.push(&value(&[0; 300])).unwrap().index, 1);
    assert_eq!(rig.accumulator.seal().unwrap().charged(), 1024);
}

#[test]
fn linger_starts_with_first_record() {
    let mut rig = Rig::new(LIMITS);
    assert_eq!(rig.accumulator.deadline(), None);
    let opened = rig.push(&value(b"v")).unwrap().opened;
    let deadline = rig.now + LIMITS.linger;
    assert_eq!((opened, rig.accumulator.deadline()), (Some(deadline), Some(deadline)));
    rig.now += Duration::from_millis(3);
    assert_eq!(rig.push(&value(b"v")).unwrap().opened, None);
    assert_eq!(rig.accumulator.deadline(), Some(deadline));
    let early = deadline - Duration::from_nanos(1);
    assert!(!rig.accumulator.due(early) && rig.accumulator.seal_due(early).is_none());
    assert!(rig.accumulator.due(deadline));
    let filled = rig.accumulator.seal_due(deadline).unwrap();
    assert_eq!((filled.reason, filled.opened_at), (SealReason::Linger, deadline - LIMITS.linger));
    assert!(!rig.accumulator.due(deadline));
}

#[test]
fn zero_linger_still_gathers_records() {
    let mut rig = Rig::new(Limits { linger: Duration::ZERO, ..LIMITS });
    rig.push(&value(b"v")).unwrap();
    assert!(rig.push(&value(b"v")).unwrap().sealed.iter().all(Option::is_none));
    assert!(rig.accumulator.due(rig.now));
    assert_eq!(held(rig.accumulator.seal()), (0, 2, SealReason::Asked));
    assert!(rig.accumulator.seal().is_none());
}

#[test]
fn endless_linger_has_a_deadline() {
    let mut rig = Rig::new(Limits { linger: Duration::MAX, ..LIMITS });
    let opened = rig.push(&value(b"v")).unwrap().opened.unwrap();
    assert!(opened > rig.now + Duration::from_hours(24 * 300));
}

#[test]
fn zero_max_records_is_one() {
    let mut rig = Rig::new(Limits { max_records: 0, ..LIMITS });
    let [_, own] = rig.push(&value(b"v")).unwrap().sealed;
    assert_eq!(held(own), (0, 1, SealReason::Count));
}

#[test]
fn tighter_limits_apply_to_next() {
    let mut rig = Rig::new(LIMITS);
    rig.push(&value(&[0; 3000])).unwrap();
    rig.accumulator.set_limits(Limits { max_bytes: 1000, ..LIMITS });
    let [before, _] = rig.push(&value(b"v")).unwrap().sealed;
    assert_eq!(held(before), (0, 1, SealReason::Bytes));
    assert!(matches!(rig.push(&value(&[0; 3000])), Err(PushError::TooLarge { limit: 1000, .. })));
}

#[test]
fn fits_predicts_push() {
    let mut rig = Rig::new(LIMITS);
    assert!(rig.accumulator.fits(&value(&[0; 6000])));
    rig.push(&value(&[0; 6000])).unwrap();
    assert!(rig.accumulator.fits(&value(&[0; 3000])));
    assert!(!rig.accumulator.fits(&value(&[0; 6000])));
}

#[test]
fn next_batch_reuses_last_capacity() {
    let mut rig = Rig::new(LIMITS);
    (0..30).for_each(|_| drop(rig.push(&value(&[0; 200])).unwrap()));
    assert_eq!(rig.accumulator.seal().unwrap().charged(), 8192);
    rig.charged = 0;
    rig.push(&value(b"v")).unwrap();
    assert_eq!(rig.charged, 8192);
    assert_eq!(rig.accumulator.seal().unwrap().charged(), 8192);
    rig.charged = 0;
    rig.push(&value(b"v")).unwrap();
    assert_eq!(rig.charged, 512);
}

#[test]
fn short_memory_shrinks_first_buffer() {
    let mut rig = Rig::new(LIMITS);
    (0..30).for_each(|_| drop(rig.push(&value(&[0; 200])).unwrap()));
    rig.accumulator.seal().unwrap();
    rig.free = 1000;
    rig.charged = 0;
    rig.push(&value(b"v")).unwrap();
    assert_eq!(rig.charged, 512);
}

#[test]
fn encode_moves_small_batch() {
    let mut rig = Rig::new(LIMITS);
    (0..30).for_each(|_| drop(rig.push(&value(&[0; 200])).unwrap()));
    rig.accumulator.seal().unwrap();
    rig.push(&value(b"v")).unwrap();
    let sealed = rig.accumulator.seal().unwrap().encode(&rig.pool);
    assert_eq!((sealed.batch.capacity(), sealed.released), (512, 8192 - 512));
}

#[test]
fn uncompressed_batch_is_not_copied() {
    let mut rig = Rig::new(LIMITS);
    let pool = BufferPool::new(1 << 20);
    (0..30).for_each(|_| drop(rig.push(&value(&[0; 200])).unwrap()));
    let sealed = rig.accumulator.seal().unwrap().encode(&pool);
    assert_eq!((sealed.released, pool.retained()), (0, 0));
}

#[test]
fn large_record_forms_own_batch() {
    let mut rig = Rig::new(LIMITS);
    rig.accumulator.allow_single(20_000);
    rig.push(&value(b"small")).unwrap();
    let [before, own] = rig.push(&value(&[0; 15_000])).unwrap().sealed;
    assert_eq!(held(before), (0, 1, SealReason::Bytes));
    assert_eq!(held(own), (1, 1, SealReason::Bytes));
    assert!(matches!(rig.push(&value(&[0; 20_000])), Err(PushError::TooLarge { limit: 20_000, .. })));
    assert!(rig.accumulator.is_empty());
}

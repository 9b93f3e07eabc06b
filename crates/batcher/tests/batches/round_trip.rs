//! Pushed records decode to the same records, and predicted sizes are exact.
//!
//! Rule: records are arbitrary, and limits are tight enough for every reason to seal.

use crate::arbitrary::{Owned, compression, fill_batches, owned, owned_records, pushed_into};
use kafka_courier_batcher::{
    Accumulator, BatchView, BufferPool, Compression, EncodedBatch, Header, Limits, Record, Stamp,
};
use proptest::prelude::*;
use std::time::{Duration, Instant};

fn decoded(batch: &EncodedBatch) -> Vec<Owned> {
    let (view, rest) = BatchView::parse(batch.as_bytes()).unwrap();
    assert!(rest.is_empty());
    assert_eq!(view.record_count, batch.record_count());
    assert_eq!(view.base_timestamp, batch.first_timestamp());
    assert_eq!(view.max_timestamp, batch.max_timestamp());
    let records = view.records(batch.uncompressed_len()).unwrap();
    records.iter().map(|record| Owned::from(&record.unwrap())).collect()
}

fn stamped(stamp: Stamp, batch: &mut EncodedBatch) {
    batch.stamp(stamp);
    let (view, _) = BatchView::parse(batch.as_bytes()).unwrap();
    assert!(view.check_crc());
    assert_eq!((view.stamp(), batch.current_stamp()), (Some(stamp), Some(stamp)));
}

fn one_batch(records: &[Owned], compression: Compression) -> EncodedBatch {
    let limits = Limits { max_records: u32::MAX, max_bytes: 1 << 30, linger: Duration::ZERO };
    let mut accumulator = Accumulator::new(limits, compression);
    let pool = BufferPool::new(0);
    for owned in records {
        pushed_into(&mut accumulator, owned, &pool, &mut |_| true).unwrap();
    }
    accumulator.seal().unwrap().encode(&pool).batch
}

proptest! {
    #[test]
    fn pushed_records_decode_unchanged(records in owned_records(), compression in compression()) {
        let mut batch = one_batch(&records, compression);
        prop_assert_eq!(decoded(&batch), records);
        stamped(Stamp { producer_id: 9, epoch: 3, base_sequence: 5 }, &mut batch);
        stamped(Stamp { producer_id: i64::MAX, epoch: i16::MAX, base_sequence: i32::MAX }, &mut batch);
    }

    #[test]
    fn single_equals_accumulated_batch(record in owned()) {
        let headers: Vec<_> = record.headers.iter().map(|(key, value)| Header { key, value: value.as_deref() }).collect();
        let Owned { key, value, timestamp, .. } = &record;
        let single = Record { key: key.as_deref(), value: value.as_deref(), headers: &headers, timestamp: *timestamp };
        let mut batch = EncodedBatch::single(&single).unwrap();
        let mut expected = one_batch(std::slice::from_ref(&record), Compression::None);
        prop_assert_eq!(batch.as_bytes(), expected.as_bytes());
        for batch in [&mut batch, &mut expected] {
            stamped(Stamp { producer_id: 9, epoch: 3, base_sequence: 5 }, batch);
        }
        prop_assert_eq!(batch.as_bytes(), expected.as_bytes());
    }

    #[test]
    fn sizes_and_charges_are_exact(
        records in owned_records(),
        compression in compression(),
        max_records in 1_u32..20,
        max_bytes in 61_usize..3000,
    ) {
        let limits = Limits { max_records, max_bytes, linger: Duration::ZERO };
        let pool = BufferPool::new(1 << 16);
        let (batches, accepted) = fill_batches(&records, limits, compression, &pool);
        let all: Vec<_> = batches.iter().flat_map(decoded).collect();
        prop_assert_eq!(all, accepted);
        for batch in &batches {
            prop_assert!(batch.record_count() <= max_records);
            prop_assert!(batch.uncompressed_len() <= max_bytes && batch.len() <= batch.uncompressed_len());
            prop_assert!(batch.capacity().is_power_of_two() && batch.len() <= batch.capacity());
        }
    }

    #[test]
    fn only_oversized_records_are_refused(record in owned(), max_bytes in 61_usize..600) {
        let alone = one_batch(std::slice::from_ref(&record), Compression::None).len();
        let limits = Limits { max_records: 10, max_bytes, linger: Duration::ZERO };
        let mut accumulator = Accumulator::new(limits, Compression::None);
        let result = pushed_into(&mut accumulator, &record, &BufferPool::new(0), &mut |_| true);
        prop_assert_eq!(result.is_ok(), alone <= max_bytes);
    }

    #[test]
    fn halves_keep_order_and_sequences(
        records in owned_records(),
        compression in compression(),
        base_sequence in prop_oneof![0..100, i32::MAX - 10..=i32::MAX],
    ) {
        let mut batch = one_batch(&records, compression);
        let stamp = Stamp { producer_id: 4, epoch: 1, base_sequence };
        stamped(stamp, &mut batch);
        let Some((front, back)) = batch.split().unwrap() else {
            prop_assert_eq!(records.len(), 1);
            return Ok(());
        };
        let moved = front.record_count() as usize;
        prop_assert_eq!(decoded(&front), &records[..moved]);
        prop_assert_eq!(decoded(&back), &records[moved..]);
        prop_assert_eq!(front.current_stamp(), Some(stamp));
        prop_assert_eq!(back.current_stamp(), Some(stamp.advance(front.record_count())));
        for half in [&front, &back] {
            prop_assert!(BatchView::parse(half.as_bytes()).unwrap().0.check_crc());
            prop_assert_eq!(half.capacity(), half.len());
        }
    }

    #[test]
    fn without_keeps_other_records(
        records in owned_records(),
        compression in compression(),
        rejected in proptest::collection::btree_set(0_u32..40, 0..10),
    ) {
        let batch = one_batch(&records, compression);
        let kept: Vec<_> = (0_u32..).zip(&records).filter(|(index, _)| !rejected.contains(index)).collect();
        let kept: Vec<_> = kept.into_iter().map(|(_, record)| record.clone()).collect();
        let rejected: Vec<u32> = rejected.into_iter().collect();
        match batch.without(&rejected).unwrap() {
            None => prop_assert!(kept.is_empty()),
            Some(rest) => {
                prop_assert_eq!(decoded(&rest), kept);
                prop_assert_eq!(rest.current_stamp(), None);
            }
        }
    }
}

#[test]
fn halves_have_equal_size_and_codec() {
    for compression in [Compression::None, Compression::Snappy] {
        let record = |value: Vec<u8>| Owned { value: Some(value), ..Owned::default() };
        let mut records = vec![record(vec![b'a'; 10_000])];
        records.extend(std::iter::repeat_n(record(vec![b'b'; 100]), 100));
        let batch = one_batch(&records, compression);
        let (front, back) = batch.split().unwrap().unwrap();
        assert_eq!(front.compression(), compression);
        assert_eq!(back.compression(), compression);
        let half = batch.uncompressed_len() / 2;
        assert!(front.uncompressed_len().abs_diff(half) < 200 && back.uncompressed_len().abs_diff(half) < 200);
    }
}

#[test]
fn repeated_splits_end_with_singles() {
    let records: Vec<_> = (0..37).map(|i| Owned { timestamp: i, ..Owned::default() }).collect();
    let mut batches = vec![one_batch(&records, Compression::None)];
    let mut singles = Vec::new();
    while let Some(batch) = batches.pop() {
        match batch.split().unwrap() {
            Some((front, back)) => batches.extend([back, front]),
            None => singles.extend(decoded(&batch)),
        }
    }
    assert_eq!(singles, records);
}

#[test]
fn back_half_has_own_base_timestamp() {
    let records: Vec<_> = [500, 1000, 200, 900].map(|timestamp| Owned { timestamp, ..Owned::default() }).into();
    let (front, back) = one_batch(&records, Compression::None).split().unwrap().unwrap();
    assert_eq!((front.first_timestamp(), front.max_timestamp()), (500, 1000));
    assert_eq!((back.first_timestamp(), back.max_timestamp()), (200, 900));
}

#[test]
fn incompressible_batch_is_sent_uncompressed() {
    let record = Record { key: None, value: Some(b"x"), headers: &[], timestamp: 0 };
    let limits = Limits { max_records: 1, max_bytes: 1000, linger: Duration::ZERO };
    let mut accumulator = Accumulator::new(limits, Compression::Snappy);
    let pool = BufferPool::new(0);
    let pushed = accumulator.push(Instant::now(), &record, &mut |_| true, &pool, || ()).unwrap();
    let [_, own] = pushed.sealed;
    let batch = own.unwrap().encode(&pool).batch;
    assert_eq!((batch.compression(), batch.len()), (Compression::None, batch.uncompressed_len()));
    assert_eq!(BatchView::parse(batch.as_bytes()).unwrap().0.codec(), 0);
}

//! Malformed batches: one wrong field at a time.
//!
//! Rule: each fault has its own error, and none panics.

use crate::arbitrary::{compression, fill_batches, owned_records};
use kafka_courier_batcher::{BatchView, BufferPool, DecodeError, Limits, Stamp};
use proptest::prelude::*;
use std::time::Duration;

const HEADER: usize = 61;

/// Builds a batch v2 from encoded records, without a CRC.
fn batch(attributes: i16, count: i32, last_offset_delta: i32, body: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0; HEADER];
    bytes[8..12].copy_from_slice(&(49 + body.len() as i32).to_be_bytes());
    bytes[16] = 2;
    bytes[21..23].copy_from_slice(&attributes.to_be_bytes());
    bytes[23..27].copy_from_slice(&last_offset_delta.to_be_bytes());
    bytes[27..35].copy_from_slice(&1000_i64.to_be_bytes());
    bytes[35..43].copy_from_slice(&5000_i64.to_be_bytes());
    bytes[57..61].copy_from_slice(&count.to_be_bytes());
    bytes.extend_from_slice(body);
    bytes
}

/// Returns a batch's first error, from its header or its records.
fn error(bytes: &[u8]) -> Option<DecodeError> {
    let view = match BatchView::parse(bytes) {
        Ok((view, _)) => view,
        Err(error) => return Some(error),
    };
    match view.records(1 << 20) {
        Ok(records) => records.iter().find_map(Result::err),
        Err(error) => Some(error),
    }
}

/// Length 6, attributes, timestamp delta 1, offset delta 0, null key, null value, no headers.
const RECORD: [u8; 7] = [12, 0, 2, 0, 1, 1, 0];

#[test]
fn smallest_record_is_decoded() {
    let bytes = batch(0, 1, 0, &RECORD);
    let (view, rest) = BatchView::parse(&bytes).unwrap();
    assert!(rest.is_empty() && view.stamp().is_some());
    let records = view.records(7).unwrap();
    let record = records.iter().next().unwrap().unwrap();
    assert_eq!((record.offset_delta, record.timestamp), (0, 1001));
    assert_eq!((record.key, record.value, record.headers.len()), (None, None, 0));
}

#[test]
fn consecutive_batches_are_decoded() {
    let bytes = [batch(0, 1, 0, &RECORD), batch(0, 1, 9, &RECORD)].concat();
    let (_, rest) = BatchView::parse(&bytes).unwrap();
    let (second, rest) = BatchView::parse(rest).unwrap();
    assert_eq!((second.last_offset_delta, rest.len()), (9, 0));
}

#[test]
fn wrong_header_names_its_fault() {
    let good = batch(0, 1, 0, &RECORD);
    let with = |at: usize, bytes: &[u8]| {
        let mut wrong = good.clone();
        wrong[at..at + bytes.len()].copy_from_slice(bytes);
        error(&wrong)
    };
    assert_eq!(error(&good), None);
    assert_eq!(error(&good[..60]), Some(DecodeError::Truncated));
    assert_eq!(error(&good[..67]), Some(DecodeError::Truncated));
    assert_eq!(with(16, &[1]), Some(DecodeError::UnsupportedMagic(1)));
    assert_eq!(with(8, &48_i32.to_be_bytes()), Some(DecodeError::BadLength));
    assert_eq!(with(8, &(-1_i32).to_be_bytes()), Some(DecodeError::BadLength));
    assert_eq!(with(8, &i32::MAX.to_be_bytes()), Some(DecodeError::Truncated));
    assert_eq!(with(57, &(-1_i32).to_be_bytes()), Some(DecodeError::BadCount));
    assert_eq!(with(57, &2_i32.to_be_bytes()), Some(DecodeError::BadCount));
    assert_eq!(with(21, &4_i16.to_be_bytes()), Some(DecodeError::UnsupportedCodec(4)));
    assert_eq!(with(21, &2_i16.to_be_bytes()), Some(DecodeError::Snappy));
}

#[test]
fn wrong_record_names_its_fault() {
    let of = |body: &[u8]| error(&batch(0, 1, 0, body));
    assert_eq!(of(&[]), Some(DecodeError::BadRecord));
    assert_eq!(of(&[14, 0, 2, 0, 1, 1, 0]), Some(DecodeError::BadRecord));
    assert_eq!(of(&[1, 0, 2, 0, 1, 1, 0]), Some(DecodeError::BadRecord));
    assert_eq!(of(&[14, 0, 2, 0, 1, 1, 0, 0]), Some(DecodeError::TrailingBytes));
    assert_eq!(of(&[12, 0, 2, 0, 1, 1, 0, 0]), Some(DecodeError::TrailingBytes));
    assert_eq!(of(&[12, 0, 2, 0, 3, 1, 0]), Some(DecodeError::BadRecord));
    assert_eq!(of(&[12, 0, 2, 0, 1, 1, 1]), Some(DecodeError::BadRecord));
    assert_eq!(of(&[0xff, 0xff, 0xff, 0xff, 0xff, 1]), Some(DecodeError::BadVarint));
    assert_eq!(of(&[16, 0, 2, 0, 1, 1, 2, 2, b'k']), Some(DecodeError::BadRecord));
    assert_eq!(of(&[18, 0, 2, 0, 1, 1, 2, 2, 0xff, 1]), Some(DecodeError::BadHeaderKey));
    assert_eq!(of(&[18, 0, 2, 0, 1, 1, 2, 2, b'k', 1]), None);
}

#[test]
fn offsets_must_rise_within_batch() {
    let record = |offset: u8| [12, 0, 2, offset * 2, 1, 1, 0];
    assert_eq!(error(&batch(0, 2, 9, &[record(3), record(9)].concat())), None);
    assert_eq!(error(&batch(0, 2, 9, &[record(3), record(3)].concat())), Some(DecodeError::BadOffset));
    assert_eq!(error(&batch(0, 2, 9, &[record(3), record(10)].concat())), Some(DecodeError::BadOffset));
    assert_eq!(error(&batch(0, 1, 0, &[12, 0, 2, 1, 1, 1, 0])), Some(DecodeError::BadOffset));
}

#[test]
fn compacted_batch_may_be_empty() {
    assert_eq!(error(&batch(0, 0, 9, &[])), None);
    assert_eq!(error(&batch(0, 0, 9, &RECORD)), Some(DecodeError::TrailingBytes));
}

#[test]
fn leader_timestamps_override_records() {
    let bytes = batch(1 << 3, 1, 0, &RECORD);
    let (view, _) = BatchView::parse(&bytes).unwrap();
    let records = view.records(7).unwrap();
    assert_eq!(records.iter().next().unwrap().unwrap().timestamp, 5000);
}

#[test]
fn attributes_are_decoded() {
    let bytes = batch(1 << 4 | 1 << 5, 1, 0, &RECORD);
    let (view, _) = BatchView::parse(&bytes).unwrap();
    assert!(view.is_transactional() && view.is_control() && !view.is_log_append_time());
}

#[test]
fn uncompressed_bound_is_enforced() {
    let bytes = batch(0, 1, 0, &RECORD);
    let (view, _) = BatchView::parse(&bytes).unwrap();
    assert_eq!(view.records(6).err(), Some(DecodeError::TooLarge { max: 6 }));
}

#[test]
fn header_count_reserves_nothing() {
    // 2^31 - 1 headers in a record of eleven bytes.
    let body = [20, 0, 2, 0, 1, 1, 0xfe, 0xff, 0xff, 0xff, 0x0f];
    assert_eq!(error(&batch(0, 1, 0, &body)), Some(DecodeError::BadRecord));
}

#[test]
fn iteration_ends_after_error() {
    let bytes = batch(0, 2, 1, &[13, 0]);
    let (view, _) = BatchView::parse(&bytes).unwrap();
    let records = view.records(100).unwrap();
    assert_eq!(records.iter().count(), 1);
}

proptest! {
    #[test]
    fn changed_byte_is_detected(
        records in owned_records(),
        compression in compression(),
        at in any::<prop::sample::Index>(),
        flip in 1_u8..,
    ) {
        let limits = Limits { max_records: 1000, max_bytes: 1 << 20, linger: Duration::ZERO };
        let (mut batches, _) = fill_batches(&records, limits, compression, &BufferPool::new(0));
        let mut batch = batches.remove(0);
        batch.stamp(Stamp { producer_id: 1, epoch: 2, base_sequence: 3 });
        let mut bytes = batch.as_bytes().to_vec();
        // The leader sets base offset and leader epoch, so the CRC does not cover them.
        let at = 16 + at.index(bytes.len() - 16);
        bytes[at] ^= flip;
        let caught = BatchView::parse(&bytes).map_or(true, |(view, _)| !view.check_crc());
        prop_assert!(caught);
        error(&bytes);
    }

    #[test]
    fn arbitrary_records_never_panic(
        attributes in prop_oneof![Just(0_i16), Just(2)],
        count in 0..20_i32,
        body in proptest::collection::vec(any::<u8>(), 0..200),
    ) {
        let bytes = batch(attributes, count, 100, &body);
        let (view, _) = BatchView::parse(&bytes).unwrap();
        if let Ok(records) = view.records(1 << 16) {
            prop_assert!(records.iter().filter(Result::is_ok).count() <= count as usize);
        }
    }
}

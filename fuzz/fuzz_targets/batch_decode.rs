//! Decodes arbitrary bytes as record batches, encodes the records again, and decodes them once more.
//!
//! Rules:
//!  - No input panics or reserves more memory than its bound.
//!  - Decoded records survive another encoding.
//!  - The CRC is computed and not enforced, so that inputs reach the code after it.
#![no_main]

use kafka_courier_batcher::{
    Accumulator, BatchView, BufferPool, Compression, DecodedRecord, EncodedBatch, Limits, Records, Stamp,
};
use libfuzzer_sys::fuzz_target;
use std::time::{Duration, Instant};

const MAX_UNCOMPRESSED: usize = 1 << 20;
const STAMP: Stamp = Stamp { producer_id: 1, epoch: 2, base_sequence: i32::MAX };

fuzz_target!(|data: &[u8]| {
    let mut rest = data;
    while let Ok((view, after)) = BatchView::parse(rest) {
        assert_eq!(view.as_bytes().len() + after.len(), rest.len());
        let _ = (view.check_crc(), view.stamp(), view.is_control());
        if let Ok(records) = view.records(MAX_UNCOMPRESSED) {
            inspect(&records);
        }
        rest = after;
    }
});

fn inspect(records: &Records<'_>) {
    let Ok(decoded) = records.iter().collect::<Result<Vec<_>, _>>() else {
        return;
    };
    if decoded.is_empty() {
        return;
    }
    for compression in [Compression::None, Compression::Snappy] {
        let mut batch = encode(&decoded, compression);
        batch.stamp(STAMP);
        assert_same(&decoded, &batch);
        if let Some((front, back)) = batch.split().expect("our own batch can be split") {
            let (first, second) = decoded.split_at(front.record_count() as usize);
            assert_same(first, &front);
            assert_same(second, &back);
        }
    }
}

fn encode(records: &[DecodedRecord<'_>], compression: Compression) -> EncodedBatch {
    let limits = Limits { max_records: u32::MAX, max_bytes: 1 << 30, linger: Duration::ZERO };
    let pool = BufferPool::new(0);
    let mut accumulator = Accumulator::new(limits, compression);
    for record in records {
        let pushed = accumulator.push(Instant::now(), &record.as_record(), &mut |_| true, &pool, || ());
        assert!(pushed.is_ok_and(|pushed| pushed.sealed.iter().all(Option::is_none)));
    }
    accumulator.seal().expect("a batch is open").encode(&pool).batch
}

fn assert_same(expected: &[DecodedRecord<'_>], batch: &EncodedBatch) {
    let (view, rest) = BatchView::parse(batch.as_bytes()).expect("our own batch can be read");
    assert!(rest.is_empty() && view.check_crc());
    assert_eq!(view.record_count as usize, expected.len());
    let records = view.records(batch.uncompressed_len()).expect("our own records can be read");
    for (record, expected) in records.iter().zip(expected) {
        let record = record.expect("our own record can be read");
        assert_eq!(record.as_record(), expected.as_record());
    }
}

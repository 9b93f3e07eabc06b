//! Arbitrary records, and batches of them with every reservation checked.
//!
//! Rule: alphabets are small and repeats long, so that nulls, empty values, varint borders and compressible bytes
//! occur.

use kafka_courier_batcher::{
    Accumulator, BufferPool, Compression, DecodedRecord, EncodedBatch, Header, Limits, PushError, Pushed, Record,
    SealedBatch,
};
use proptest::collection::vec;
use proptest::prelude::*;
use std::time::Instant;

type Bytes = Option<Vec<u8>>;

/// A record that owns its bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Owned {
    pub(crate) key: Bytes,
    pub(crate) value: Bytes,
    pub(crate) headers: Vec<(String, Bytes)>,
    pub(crate) timestamp: i64,
}

impl From<&DecodedRecord<'_>> for Owned {
    fn from(record: &DecodedRecord<'_>) -> Self {
        let header = |header: &Header<'_>| (header.key.to_owned(), header.value.map(<[u8]>::to_vec));
        Self {
            key: record.key.map(<[u8]>::to_vec),
            value: record.value.map(<[u8]>::to_vec),
            headers: record.headers.iter().map(header).collect(),
            timestamp: record.timestamp,
        }
    }
}

fn bytes() -> impl Strategy<Value = Bytes> {
    let repeated = (any::<u8>(), 0_usize..300).prop_map(|(byte, count)| vec![byte; count]);
    prop_oneof![
        1 => Just(None),
        1 => Just(Some(Vec::new())),
        3 => vec(any::<u8>(), 0..80).prop_map(Some),
        2 => repeated.prop_map(Some),
    ]
}

pub(crate) fn owned() -> impl Strategy<Value = Owned> {
    let timestamp = prop_oneof![8 => 1_700_000_000_000..1_700_000_100_000_i64, 1 => any::<i64>()];
    (bytes(), bytes(), vec((".{0,5}", bytes()), 0..3), timestamp).prop_map(|(key, value, headers, timestamp)| Owned {
        key,
        value,
        headers,
        timestamp,
    })
}

pub(crate) fn owned_records() -> impl Strategy<Value = Vec<Owned>> {
    vec(owned(), 1..40)
}

pub(crate) fn compression() -> impl Strategy<Value = Compression> {
    prop_oneof![Just(Compression::None), Just(Compression::Snappy)]
}

/// Pushes one record.
pub(crate) fn pushed_into(
    accumulator: &mut Accumulator<()>,
    owned: &Owned,
    pool: &BufferPool,
    reserve: &mut impl FnMut(usize) -> bool,
) -> Result<Pushed<()>, PushError> {
    let headers: Vec<_> = owned.headers.iter().map(|(key, value)| Header { key, value: value.as_deref() }).collect();
    let record = Record {
        key: owned.key.as_deref(),
        value: owned.value.as_deref(),
        headers: &headers,
        timestamp: owned.timestamp,
    };
    accumulator.push(Instant::now(), &record, reserve, pool, || ())
}

/// Fills batches under `limits`. Returns the batches and the accepted records. Asserts at every step that the reserved
/// bytes equal the held bytes.
pub(crate) fn fill_batches(
    records: &[Owned],
    limits: Limits,
    compression: Compression,
    pool: &BufferPool,
) -> (Vec<EncodedBatch>, Vec<Owned>) {
    let mut accumulator = Accumulator::new(limits, compression);
    let (mut batches, mut accepted, mut charged) = (Vec::new(), Vec::new(), 0_usize);
    let mut encode = |filled: SealedBatch<()>, charged: &mut usize| {
        let before = filled.charged();
        let sealed = filled.encode(pool);
        assert_eq!(before - sealed.released, sealed.batch.capacity());
        *charged -= before;
        batches.push(sealed.batch);
    };
    for owned in records {
        let mut reserve = |bytes| {
            charged += bytes;
            true
        };
        if let Ok(pushed) = pushed_into(&mut accumulator, owned, pool, &mut reserve) {
            accepted.push(owned.clone());
            for filled in pushed.sealed.into_iter().flatten() {
                encode(*filled, &mut charged);
            }
        }
    }
    if let Some(filled) = accumulator.seal() {
        assert_eq!(filled.charged(), charged);
        encode(filled, &mut charged);
    }
    assert_eq!(charged, 0);
    (batches, accepted)
}

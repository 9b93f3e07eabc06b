//! Compares this crate with Apache Kafka's Java client. See golden/README.md.
//!
//! Rule: Java wrote or accepted the expected bytes of every comparison.

use crate::cases::{self, Case};
use kafka_courier_batcher::{BatchView, Compression, murmur2, partition_for_key};
use std::path::{Path, PathBuf};

fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden")
}

fn golden(folder: &str, case: &Case) -> Vec<u8> {
    let file = directory().join(folder).join(format!("{}.bin", case.name));
    std::fs::read(&file).unwrap_or_default()
}

#[test]
fn uncompressed_bytes_equal_javas() {
    let cases = cases::load(&directory());
    let plain: Vec<_> = cases.iter().filter(|case| case.compression == Compression::None).collect();
    assert!(plain.len() >= 6);
    for case in plain {
        assert!(case.encode().as_bytes() == golden("java", case), "{}", case.name);
    }
}

#[test]
fn java_batches_decode_exactly() {
    for case in cases::load(&directory()) {
        let bytes = golden("java", &case);
        let (view, rest) = BatchView::parse(&bytes).unwrap();
        assert!(rest.is_empty() && view.check_crc(), "{}", case.name);
        assert_eq!(view.stamp(), Some(case.stamp));
        assert_eq!((view.base_offset, view.partition_leader_epoch), (0, -1));
        assert_eq!(view.record_count as usize, case.records.len());
        assert_eq!(view.codec(), if case.compression == Compression::Snappy { 2 } else { 0 });
        let records = view.records(1 << 20).unwrap();
        assert_eq!(records.iter().count(), case.records.len());
        for (index, (decoded, expected)) in records.iter().zip(&case.records).enumerate() {
            let decoded = decoded.unwrap();
            assert_eq!(decoded.offset_delta as usize, index);
            assert_eq!(decoded.timestamp, expected.timestamp);
            assert_eq!(decoded.key, expected.key.as_deref());
            assert_eq!(decoded.value, expected.value.as_deref());
            assert_eq!(decoded.headers, expected.headers());
        }
    }
}

#[test]
fn bytes_equal_those_java_accepted() {
    for case in cases::load(&directory()) {
        let batch = case.encode();
        assert_eq!(batch.compression(), case.compression, "{}", case.name);
        assert!(batch.as_bytes() == golden("ours", &case), "{}", case.name);
    }
}

#[test]
fn partitions_equal_javas() {
    let text = std::fs::read_to_string(directory().join("murmur2.json")).unwrap();
    let vectors: serde_json::Value = serde_json::from_str(&text).unwrap();
    let vectors = vectors.as_array().unwrap();
    assert!(vectors.len() > 80);
    for vector in vectors {
        let key = cases::bytes(&vector["key"]).unwrap();
        assert_eq!(Some(i64::from(murmur2(&key))), vector["murmur2"].as_i64(), "{key:?}");
        for partitions in [1, 6, 1000] {
            let expected = vector[format!("of_{partitions}")].as_i64();
            assert_eq!(Some(i64::from(partition_for_key(&key, partitions))), expected, "{key:?}");
        }
    }
}

//! The batches of golden/cases.json, encoded by this crate.
//!
//! Rule: a field that a case lacks is an error and has no default.
#![allow(clippy::unwrap_used, reason = "test set-up: a broken case file must fail loudly")]

use kafka_courier_batcher::{Accumulator, BufferPool, Compression, EncodedBatch, Header, Limits, Record, Stamp};
use serde_json::Value;
use std::path::Path;
use std::time::{Duration, Instant};

/// A record that owns its bytes.
#[derive(Clone)]
pub(crate) struct CaseRecord {
    pub(crate) key: Option<Vec<u8>>,
    pub(crate) value: Option<Vec<u8>>,
    pub(crate) headers: Vec<(String, Option<Vec<u8>>)>,
    pub(crate) timestamp: i64,
}

/// One batch of cases.json.
pub(crate) struct Case {
    pub(crate) name: String,
    pub(crate) compression: Compression,
    pub(crate) stamp: Stamp,
    pub(crate) records: Vec<CaseRecord>,
}

impl CaseRecord {
    fn from_json(json: &Value) -> Self {
        let headers = json["headers"].as_array().into_iter().flatten();
        Self {
            key: bytes(&json["key"]),
            value: bytes(&json["value"]),
            headers: headers.map(|header| (header[0].as_str().unwrap().to_owned(), bytes(&header[1]))).collect(),
            timestamp: json["timestamp"].as_i64().unwrap(),
        }
    }

    /// Returns the headers in the crate's form.
    pub(crate) fn headers(&self) -> Vec<Header<'_>> {
        self.headers.iter().map(|(key, value)| Header { key, value: value.as_deref() }).collect()
    }
}

impl Case {
    fn from_json(json: &Value) -> Self {
        let records = json["records"].as_array().unwrap().iter();
        Self {
            name: json["name"].as_str().unwrap().to_owned(),
            compression: match json["codec"].as_str().unwrap() {
                "snappy" => Compression::Snappy,
                _ => Compression::None,
            },
            stamp: Stamp {
                producer_id: json["producer_id"].as_i64().unwrap(),
                epoch: json["epoch"].as_i64().unwrap().try_into().unwrap(),
                base_sequence: json["base_sequence"].as_i64().unwrap().try_into().unwrap(),
            },
            records: records
                .flat_map(|record| {
                    let copies = record["copies"].as_u64().unwrap_or(1) as usize;
                    std::iter::repeat_n(CaseRecord::from_json(record), copies)
                })
                .collect(),
        }
    }

    /// Encodes and stamps the case with this crate.
    pub(crate) fn encode(&self) -> EncodedBatch {
        let limits = Limits { max_records: u32::MAX, max_bytes: 1 << 20, linger: Duration::ZERO };
        let pool = BufferPool::new(0);
        let mut accumulator = Accumulator::new(limits, self.compression);
        for case in &self.records {
            let headers = case.headers();
            let record = Record {
                key: case.key.as_deref(),
                value: case.value.as_deref(),
                headers: &headers,
                timestamp: case.timestamp,
            };
            accumulator.push(Instant::now(), &record, &mut |_| true, &pool, || ()).unwrap();
        }
        let mut batch = accumulator.seal().unwrap().encode(&pool).batch;
        batch.stamp(self.stamp);
        batch
    }
}

/// Decodes hex: "6162" is two bytes, "6162*3" six, null is null.
pub(crate) fn bytes(json: &Value) -> Option<Vec<u8>> {
    let (hex, count) = match json.as_str()?.split_once('*') {
        Some((hex, count)) => (hex, count.parse().unwrap()),
        None => (json.as_str()?, 1),
    };
    let digit = |at: usize| u8::from_str_radix(&hex[at..at + 2], 16).unwrap();
    Some((0..hex.len()).step_by(2).map(digit).collect::<Vec<_>>().repeat(count))
}

/// Loads all cases of `directory`/cases.json.
pub(crate) fn load(directory: &Path) -> Vec<Case> {
    let text = std::fs::read_to_string(directory.join("cases.json")).unwrap();
    let json: Value = serde_json::from_str(&text).unwrap();
    json.as_array().unwrap().iter().map(Case::from_json).collect()
}

//! A producer on a cluster inside the process, and the records that a test published on it.
#![allow(dead_code, reason = "each test binary uses a part of this module")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]
mod audited;
pub(crate) mod captured_log;
pub(crate) mod leak;
pub(crate) mod process;
pub(crate) mod stores;
#[cfg(feature = "tls")]
pub(crate) mod tls;

use std::collections::BTreeMap;
use std::sync::LazyLock;
use std::time::Duration;

use kafka_courier::{Delivery, KafkaConfig, KafkaProducer, ProducerRecord, RecordMetadata};
use kafka_courier_test_broker::{Record, TestCluster};

pub(crate) use audited::Producer;

pub(crate) const LONG: Duration = Duration::from_secs(60);

/// Returns settings for a quick test: short waits, and timeouts that no test reaches.
pub(crate) fn config(cluster: &TestCluster) -> KafkaConfig {
    let variables = [("KAFKA_BROKERS".to_owned(), cluster.bootstrap())];
    let mut config = KafkaConfig::from_variables(variables).unwrap();
    config.flush_timeout = Duration::from_millis(1);
    config.retry_backoff = Duration::from_millis(2);
    config.retry_backoff_max = Duration::from_millis(20);
    config.retry_max = 100;
    config.delivery_timeout = LONG;
    config
}

/// Waits until the condition is true. Panics if this takes longer than a minute.
pub(crate) async fn wait_until(condition: impl Fn() -> bool) {
    let waited = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(LONG, waited).await.expect("the condition is false for a minute");
}

/// Keeps log lines enabled for a test that listens on one thread. A test calls this function before it listens.
///
/// While a single dispatcher exists, the first thread that reaches a line decides for the process whether the line is
/// enabled, and the thread of another test has no dispatcher. A second dispatcher prevents this.
pub(crate) fn keep_callsites_enabled() {
    static SECOND: LazyLock<tracing::Dispatch> =
        LazyLock::new(|| tracing::Dispatch::new(tracing_subscriber::registry()));
    LazyLock::force(&SECOND);
}

pub(crate) fn producer(cluster: &TestCluster) -> Producer {
    Producer::build(config(cluster)).unwrap()
}

pub(crate) fn record<'a>(topic: &'a str, key: &'a str, value: &'a str) -> ProducerRecord<'a> {
    ProducerRecord { topic, key: Some(key.as_bytes()), value: Some(value.as_bytes()), ..ProducerRecord::default() }
}

/// Published records in their order. The value of a record is `key#number`, and `number` counts up within each key.
#[derive(Default)]
pub(crate) struct PublishedRecords {
    sent: Vec<(String, String, Delivery)>,
    next: BTreeMap<String, u32>,
}

impl PublishedRecords {
    /// Publishes one record with this key.
    pub(crate) async fn send(&mut self, producer: &KafkaProducer, topic: &str, key: &str) {
        let number = self.next.entry(key.to_owned()).or_default();
        let value = format!("{key}#{number}");
        *number += 1;
        let delivery = producer.send(&record(topic, key, &value)).await.unwrap();
        self.sent.push((key.to_owned(), value, delivery));
    }

    /// Publishes `count` records with `keys` keys in turn.
    pub(crate) async fn send_many(&mut self, producer: &KafkaProducer, topic: &str, count: usize, keys: usize) {
        for index in 0..count {
            self.send(producer, topic, &format!("key-{}", index % keys)).await;
        }
    }

    /// Asserts that every record was delivered: the log has the record once, at the reported offset, and each key's
    /// records are in order.
    pub(crate) async fn assert_delivered(self, cluster: &TestCluster, topic: &str) {
        let mut reported = BTreeMap::new();
        for (_, value, delivery) in self.sent {
            let metadata: RecordMetadata = delivery.await.unwrap_or_else(|error| panic!("{value}: {error}"));
            reported.insert(value, (metadata.partition, metadata.offset));
        }
        let log = cluster.records(topic);
        assert_in_order(&log);
        let written: Vec<_> = log.iter().map(|r| r.value_text().unwrap().to_owned()).collect();
        assert_eq!(written.len(), reported.len(), "as many records in the log as published");
        for record in &log {
            let (partition, offset) = &reported[record.value_text().unwrap()];
            assert_eq!(*partition, record.partition);
            assert!(offset.is_none_or(|offset| offset == record.offset), "{record:?} was reported at {offset:?}");
        }
    }
}

/// Asserts that each key's records count up from 0 without a gap.
pub(crate) fn assert_in_order(log: &[Record]) {
    let mut next: BTreeMap<&str, u32> = BTreeMap::new();
    for record in log {
        let (key, number) = record.value_text().unwrap().rsplit_once('#').unwrap();
        let expected = next.entry(key).or_default();
        assert_eq!(number.parse(), Ok(*expected), "{record:?}");
        *expected += 1;
    }
}

pub(crate) fn now_ms() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    since.as_millis() as i64
}

//! A producer on a cluster inside the process, and the books that are kept on both.
#![allow(dead_code)] // each test file uses its own part
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // helpers of tests may, as tests do
mod audited;
pub(crate) mod letters;

use std::collections::BTreeMap;
use std::sync::LazyLock;
use std::time::Duration;

use kafka_courier::{Delivery, KafkaConfig, KafkaProducer, ProducerRecord, RecordMetadata};
use kafka_courier_test_broker::{Record, TestCluster};

pub(crate) use audited::Producer;

pub(crate) const LONG: Duration = Duration::from_secs(60);

/// Settings for a quick test: little waiting, and more patience than any test needs.
pub(crate) fn config(cluster: &TestCluster) -> KafkaConfig {
    let variables = [("KAFKA_BROKERS".to_owned(), cluster.bootstrap())];
    let (mut config, _) = KafkaConfig::from_variables(variables).unwrap();
    config.flush_timeout = Duration::from_millis(1);
    config.retry_backoff = Duration::from_millis(2);
    config.retry_backoff_max = Duration::from_millis(20);
    config.retry_max = 100;
    config.delivery_timeout = LONG;
    config
}

/// Waits until it is so. Panics when it is not within a minute.
pub(crate) async fn until(is_so: impl Fn() -> bool) {
    let waited = async {
        while !is_so() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(LONG, waited).await.expect("it is not so within a minute");
}

/// Called before a test listens to the log of its own thread. With a single dispatcher a line counts as unwanted for the
/// whole process if a thread without one, such as another test's, reaches it first; with a second one it does not.
pub(crate) fn keep_lines_wanted() {
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

/// Records that were published, in order: `number` counts up within each key.
#[derive(Default)]
pub(crate) struct Books {
    sent: Vec<(String, String, Delivery)>,
    next: BTreeMap<String, u32>,
}

impl Books {
    /// Publishes one record of that key.
    pub(crate) async fn send(&mut self, producer: &KafkaProducer, topic: &str, key: &str) {
        let number = self.next.entry(key.to_owned()).or_default();
        let value = format!("{key}#{number}");
        *number += 1;
        let delivery = producer.send(&record(topic, key, &value)).await.unwrap();
        self.sent.push((key.to_owned(), value, delivery));
    }

    /// Publishes `count` records over so many keys.
    pub(crate) async fn send_many(&mut self, producer: &KafkaProducer, topic: &str, count: usize, keys: usize) {
        for index in 0..count {
            self.send(producer, topic, &format!("key-{}", index % keys)).await;
        }
    }

    /// Every record was delivered: it is in the log once, where its delivery says, and each key's records are in order.
    pub(crate) async fn all_delivered(self, cluster: &TestCluster, topic: &str) {
        let mut reported = BTreeMap::new();
        for (_, value, delivery) in self.sent {
            let metadata: RecordMetadata = delivery.await.unwrap_or_else(|error| panic!("{value}: {error}"));
            reported.insert(value, (metadata.partition, metadata.offset));
        }
        let log = cluster.records(topic);
        in_order(&log);
        let written: Vec<_> = log.iter().map(|r| r.value_text().unwrap().to_owned()).collect();
        assert_eq!(written.len(), reported.len(), "records in the log, and records published");
        for record in &log {
            let (partition, offset) = &reported[record.value_text().unwrap()];
            assert_eq!(*partition, record.partition);
            assert!(offset.is_none_or(|offset| offset == record.offset), "{record:?} was reported at {offset:?}");
        }
    }
}

/// Each key's records count up from 0 without a gap.
pub(crate) fn in_order(log: &[Record]) {
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

//! What is said of a broker that goes away under load and comes back: one line each, and in the statistics.
#![allow(clippy::unwrap_used, clippy::panic)] // helpers of tests may, as tests do
mod support;

use std::io::{self, Write};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use kafka_courier::Reachability;
use kafka_courier_test_broker::TestCluster;
use support::{LONG, producer, record, until};

#[derive(Clone, Debug, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Lines {
    fn with(&self, text: &str) -> Vec<String> {
        let all = String::from_utf8(self.0.lock().unwrap().clone()).unwrap();
        all.lines().filter(|line| line.contains(text)).map(str::to_owned).collect()
    }
}

#[tokio::test]
async fn each_outage_has_two_lines() {
    let lines = Lines::default();
    let writer = lines.clone();
    let subscriber = tracing_subscriber::fmt().with_max_level(tracing::Level::INFO).with_ansi(false);
    support::keep_lines_wanted();
    // For this test's thread, on which the producer runs too.
    let _guard = tracing::subscriber::set_default(subscriber.with_writer(move || writer.clone()).finish());
    let cluster = TestCluster::builder().topic("t", 2).start().await.unwrap();
    let producer = producer(&cluster);
    producer.send(&record("t", "k", "v")).await.unwrap().await.unwrap();
    assert_eq!(producer.stats().brokers[0].outage, None);
    assert!(cluster.kill(1).await);
    for key in 0..50 {
        producer.send(&record("t", &key.to_string(), "v")).await.unwrap().detach();
    }
    // That takes many attempts to connect: the longest backoff is 20 ms.
    let outage = || producer.stats().brokers[0].outage.clone();
    until(|| outage().is_some_and(|outage| outage.lasts > Duration::from_millis(300) && outage.events_waiting == 50))
        .await;
    assert_eq!(producer.stats().brokers[0].state, Reachability::Unreachable);
    assert!(outage().unwrap().first_fails_in.unwrap() < LONG);
    let json = serde_json::to_value(producer.stats()).unwrap();
    let told = &json["brokers"][0];
    assert_eq!((&told["state"], &told["outage"]["events_waiting"]), (&"unreachable".into(), &50.into()), "{json}");
    assert!(told["outage"]["lasts_ms"].as_u64().unwrap() >= 300, "{json}");
    assert!(cluster.restart(1).unwrap());
    assert!(producer.flush(LONG).await);
    assert_eq!(producer.stats().brokers[0].outage, None);

    let address = cluster.bootstrap();
    let [lost] = &lines.with("broker unavailable")[..] else { panic!("{lines:?}") };
    for part in ["WARN", "broker=1", &address, "waiting=", "first_fails_in=", "why="] {
        assert!(lost.contains(part), "{part}: {lost}");
    }
    let [back] = &lines.with("broker available again")[..] else { panic!("{lines:?}") };
    for part in ["INFO", "broker=1", &address, "away_for="] {
        assert!(back.contains(part), "{part}: {back}");
    }
    assert_eq!(lines.with("WARN").len(), 1, "{:?}", lines.with("WARN"));
}

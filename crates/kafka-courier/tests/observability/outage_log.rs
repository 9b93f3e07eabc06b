//! The log and the statistics of an outage under load. The log has one line when the broker becomes unavailable, and
//! one when the broker is available again.

use std::time::Duration;

use crate::support::captured_log::CapturedLog;
use crate::support::{self, LONG, producer, record, wait_until};
use kafka_courier::Reachability;
use kafka_courier_test_broker::TestCluster;

/// Returns the lines that contain `text`.
fn lines_with(log: &CapturedLog, text: &str) -> Vec<String> {
    log.text().lines().filter(|line| line.contains(text)).map(str::to_owned).collect()
}

#[tokio::test]
async fn each_outage_has_two_lines() {
    let log = CapturedLog::default();
    let subscriber = tracing_subscriber::fmt().with_max_level(tracing::Level::INFO).with_ansi(false);
    support::keep_callsites_enabled();
    // The producer runs on this thread too.
    let _guard = tracing::subscriber::set_default(subscriber.with_writer(log.clone()).finish());
    let cluster = TestCluster::builder().topic("t", 2).start().await.unwrap();
    let producer = producer(&cluster);
    producer.send(&record("t", "k", "v")).await.unwrap().await.unwrap();
    assert_eq!(producer.stats().brokers[0].outage, None);
    assert!(cluster.kill(1).await);
    for key in 0..50 {
        producer.send(&record("t", &key.to_string(), "v")).await.unwrap().detach();
    }
    // 300 ms are many attempts to connect: the longest backoff is 20 ms.
    let outage = || producer.stats().brokers[0].outage.clone();
    wait_until(|| {
        outage().is_some_and(|outage| outage.lasts > Duration::from_millis(300) && outage.events_waiting == 50)
    })
    .await;
    assert_eq!(producer.stats().brokers[0].state, Reachability::Unreachable);
    assert!(outage().unwrap().first_fails_in.unwrap() < LONG);
    let json = serde_json::to_value(producer.stats()).unwrap();
    let broker = &json["brokers"][0];
    assert_eq!((&broker["state"], &broker["outage"]["events_waiting"]), (&"unreachable".into(), &50.into()), "{json}");
    assert!(broker["outage"]["lasts_ms"].as_u64().unwrap() >= 300, "{json}");
    assert!(cluster.restart(1).unwrap());
    assert!(producer.flush(LONG).await);
    assert_eq!(producer.stats().brokers[0].outage, None);

    let address = cluster.bootstrap();
    let [lost] = &lines_with(&log, "broker unavailable")[..] else { panic!("{log:?}") };
    for part in ["WARN", "broker=1", &address, "waiting=", "first_fails_in=", "why="] {
        assert!(lost.contains(part), "{part}: {lost}");
    }
    let [back] = &lines_with(&log, "broker available again")[..] else { panic!("{log:?}") };
    for part in ["INFO", "broker=1", &address, "away_for="] {
        assert!(back.contains(part), "{part}: {back}");
    }
    let warnings = lines_with(&log, "WARN");
    assert_eq!(warnings.len(), 1, "{warnings:?}");
}

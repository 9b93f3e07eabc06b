//! Five batches whose answers are lost, and a leader that restarts before they are sent again: it remembers only the last of
//! them then (the snapshot of its producer state keeps one batch of each id). Kafka's own Java producer goes through the
//! same, for comparison.
//!
//! Rules: one broker, one replica, one record a batch; the answers are swallowed by the proxy; a Java consumer reads the log.
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use kafka_courier::ProducerRecord;
use kafka_courier_tests::audited::Producer;
use kafka_courier_tests::cluster::Cluster;
use kafka_courier_tests::java_traffic;

const LEADER: u32 = 1;
const RECORDS: usize = 6;

/// How the leader goes down.
#[derive(Clone, Copy, Debug)]
enum Down {
    Killed,
    Stopped,
}

/// Swallows every answer to Produce, late enough for all five requests to be on their way.
fn lose_answers(cluster: &Cluster) -> Result<()> {
    cluster.fault(&["latency_ms=150", "drop_response=100000", "api=0"])
}

/// Once the leader has all records it goes down, the answers are let through again, and it comes back.
async fn restart_once_written(cluster: &Cluster, topic: &str, down: Down) -> Result<()> {
    let log = cluster.file(&format!("broker-{LEADER}/data/{topic}-0/00000000000000000000.log"));
    let deadline = Instant::now() + Duration::from_secs(60);
    let last = format!("record-{}", RECORDS - 1);
    while !std::fs::read(&log)?.windows(last.len()).any(|bytes| bytes == last.as_bytes()) {
        ensure!(Instant::now() < deadline, "the records were not all written within a minute");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    match down {
        Down::Killed => cluster.kill(LEADER)?,
        Down::Stopped => cluster.stop(LEADER)?,
    }
    cluster.fault(&["clear"])?;
    cluster.restart(LEADER)
}

/// How often each record is in the log.
fn copies(cluster: &Cluster, topic: &str) -> Result<Vec<usize>> {
    let mut counts = BTreeMap::new();
    cluster.dump(topic, |record| {
        *counts.entry(record.value.as_deref().unwrap_or_default().to_owned()).or_default() += 1;
        Ok(())
    })?;
    ensure!(counts.len() == RECORDS, "{counts:?}");
    Ok(counts.into_values().collect())
}

async fn publish_with_courier(cluster: &Cluster, topic: &str, down: Down) -> Result<Vec<usize>> {
    let mut config = cluster.config()?;
    config.flush_messages = 1;
    config.delivery_timeout = Duration::from_secs(120);
    config.retry_max = 100;
    let producer = Producer::build(config)?;
    let values: Vec<String> = (0..RECORDS).map(|number| format!("record-{number}")).collect();
    let record = |value| ProducerRecord { topic, value: Some(str::as_bytes(value)), ..ProducerRecord::default() };
    producer.send(&record(&values[0])).await?.await?;
    lose_answers(cluster)?;
    let mut deliveries = Vec::new();
    for value in &values[1..] {
        deliveries.push(producer.send(&record(value)).await?);
    }
    restart_once_written(cluster, topic, down).await?;
    for delivery in deliveries {
        delivery.await?;
    }
    producer.close(Duration::from_secs(10)).await;
    copies(cluster, topic)
}

async fn publish_with_java(cluster: &Cluster, topic: &str, down: Down) -> Result<(u32, Vec<usize>)> {
    let mut java = java_traffic::spawn(cluster, "Unanswered.java", topic)?;
    let mut lines = BufReader::new(java.stdout.take().context("no output")?).lines();
    let mut line = || lines.next().context("the Java producer ended early")?.context("its output can't be read");
    ensure!(line()? == "ready");
    lose_answers(cluster)?;
    let mut input = java.stdin.take().context("no input")?;
    input.write_all(b"\n")?;
    input.flush()?;
    restart_once_written(cluster, topic, down).await?;
    let acknowledged = line()?.parse()?;
    ensure!(java.wait()?.success());
    Ok((acknowledged, copies(cluster, topic)?))
}

async fn compare(down: Down) -> Result<()> {
    let cluster = Cluster::start_with(1, &["--proxied"])?;
    for topic in ["ours", "javas"] {
        cluster.create_topic(topic, 1, 1, &[])?;
    }
    let copies = publish_with_courier(&cluster, "ours", down).await?;
    let (acknowledged, by_java) = publish_with_java(&cluster, "javas", down).await?;
    println!(
        "leader {down:?}: copies of each record: kafka-courier {copies:?}; Java {by_java:?}, {acknowledged} of 5 acknowledged"
    );
    ensure!(copies == [1; RECORDS], "{copies:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_leader_with_five_unanswered_batches() {
    compare(Down::Killed).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn stopped_leader_with_five_unanswered_batches() {
    compare(Down::Stopped).await.unwrap();
}

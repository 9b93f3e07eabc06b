//! Five batches lose their answers, and the leader restarts before the retries. The leader then remembers only the last
//! of the five batches, because the snapshot of its producer state keeps one batch of each producer id. Kafka's own
//! Java producer runs under the same fault, for comparison.
//!
//! Rules:
//! - One broker, one replica, one record a batch.
//! - The proxy drops the answers.
//! - A Java consumer reads the log.
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

/// How the leader stops.
#[derive(Clone, Copy, Debug)]
enum LeaderStop {
    Killed,
    Stopped,
}

/// Drops every answer to Produce, after a delay in which the client sends all five requests.
fn lose_answers(cluster: &Cluster) -> Result<()> {
    cluster.fault(&["latency_ms=150", "drop_response=100000", "api=0"])
}

/// Waits until the leader has all records, stops the leader, removes the fault, and starts the leader again.
async fn restart_once_written(cluster: &Cluster, topic: &str, stop: LeaderStop) -> Result<()> {
    let log = cluster.file(&format!("broker-{LEADER}/data/{topic}-0/00000000000000000000.log"));
    let deadline = Instant::now() + Duration::from_secs(60);
    let last = format!("record-{}", RECORDS - 1);
    while !std::fs::read(&log)?.windows(last.len()).any(|bytes| bytes == last.as_bytes()) {
        ensure!(Instant::now() < deadline, "the records were not all written within a minute");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    match stop {
        LeaderStop::Killed => cluster.kill(LEADER)?,
        LeaderStop::Stopped => cluster.stop(LEADER)?,
    }
    cluster.fault(&["clear"])?;
    cluster.restart(LEADER)
}

/// Returns how often each record is in the log.
fn copies(cluster: &Cluster, topic: &str) -> Result<Vec<usize>> {
    let mut counts = BTreeMap::new();
    cluster.dump(topic, |record| {
        *counts.entry(record.value.as_deref().unwrap_or_default().to_owned()).or_default() += 1;
        Ok(())
    })?;
    ensure!(counts.len() == RECORDS, "{counts:?}");
    Ok(counts.into_values().collect())
}

async fn publish_with_courier(cluster: &Cluster, topic: &str, stop: LeaderStop) -> Result<Vec<usize>> {
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
    restart_once_written(cluster, topic, stop).await?;
    for delivery in deliveries {
        delivery.await?;
    }
    producer.close(Duration::from_secs(10)).await;
    copies(cluster, topic)
}

async fn publish_with_java(cluster: &Cluster, topic: &str, stop: LeaderStop) -> Result<(u32, Vec<usize>)> {
    let mut java = java_traffic::spawn(cluster, "Unanswered.java", topic)?;
    let mut lines = BufReader::new(java.stdout.take().context("the Java producer has no output")?).lines();
    let mut line = || {
        lines.next().context("the Java producer ended early")?.context("the output of the Java producer can't be read")
    };
    ensure!(line()? == "ready");
    lose_answers(cluster)?;
    let mut input = java.stdin.take().context("the Java producer has no input")?;
    input.write_all(b"\n")?;
    input.flush()?;
    restart_once_written(cluster, topic, stop).await?;
    let acknowledged = line()?.parse()?;
    ensure!(java.wait()?.success());
    Ok((acknowledged, copies(cluster, topic)?))
}

async fn compare(stop: LeaderStop) -> Result<()> {
    let cluster = Cluster::start_with(1, &["--proxied"])?;
    for topic in ["by-courier", "by-java"] {
        cluster.create_topic(topic, 1, 1, &[])?;
    }
    let copies = publish_with_courier(&cluster, "by-courier", stop).await?;
    let (acknowledged, by_java) = publish_with_java(&cluster, "by-java", stop).await?;
    println!(
        "leader {stop:?}: copies of each record: kafka-courier {copies:?}, Java {by_java:?}, {acknowledged} of 5 acknowledged"
    );
    ensure!(copies == [1; RECORDS], "{copies:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_leader_with_five_unanswered_batches() {
    compare(LeaderStop::Killed).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn stopped_leader_with_five_unanswered_batches() {
    compare(LeaderStop::Stopped).await.unwrap();
}

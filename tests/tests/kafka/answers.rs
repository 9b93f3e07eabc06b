//! The sender's assumptions about a broker's answers, checked on real brokers. An error can follow the append, and its
//! base offset then shows the append.
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use kafka_courier::ProducerRecord;
use kafka_courier_batcher::Stamp;
use kafka_courier_tests::audited::Producer;
use kafka_courier_tests::cluster::Cluster;
use kafka_courier_tests::raw::{ProduceAnswer, RawConnection};

const TOPIC: &str = "answers";
const VALUE: &str = "written before the error";

fn address(cluster: &Cluster, broker: u32) -> Result<String> {
    let index = usize::try_from(broker)? - 1;
    Ok(cluster.bootstrap().split(',').nth(index).context("the cluster has no such broker")?.to_owned())
}

/// Returns the id of the third broker.
fn third_broker(a: u32, b: u32) -> u32 {
    6 - a - b
}

fn is_in_log(cluster: &Cluster) -> Result<bool> {
    let mut found = false;
    cluster.dump(TOPIC, |record| {
        found |= record.value.as_deref() == Some(VALUE);
        Ok(())
    })?;
    Ok(found)
}

async fn connect_with_stamp(address: &str) -> Result<(RawConnection, Stamp)> {
    let mut raw = RawConnection::connect(address).await?;
    let producer_id = raw.producer_id().await?;
    Ok((raw, Stamp { producer_id, epoch: 0, base_sequence: 0 }))
}

#[tokio::test(flavor = "multi_thread")]
async fn timed_out_write_has_its_offset() {
    async fn run() -> Result<()> {
        let cluster = Cluster::start(3)?;
        cluster.create_topic(TOPIC, 1, 3, &[])?;
        let leader = cluster.leader(TOPIC, 0)?;
        let (mut raw, stamp) = connect_with_stamp(&address(&cluster, leader)?).await?;
        let follower = leader % 3 + 1;
        cluster.pause(follower)?;
        let answer = raw.produce(TOPIC, 0, stamp, VALUE.as_bytes(), Duration::from_secs(3)).await;
        cluster.resume(follower)?;
        ensure!(answer? == ProduceAnswer { code: 7, base_offset: 0 });
        ensure!(is_in_log(&cluster)?);
        Ok(())
    }
    run().await.unwrap();
}

/// Returns the broker with the active controller.
fn active_controller(cluster: &Cluster) -> Result<u32> {
    let servers = cluster.internal_bootstrap()?;
    let words = ["--bootstrap-server", &servers, "describe", "--status"];
    let output = cluster.java("org.apache.kafka.tools.MetadataQuorumCommand", &words, Stdio::null())?;
    let leader = output.lines().find_map(|line| line.strip_prefix("LeaderId:"));
    leader.and_then(|id| id.trim().parse().ok()).with_context(|| format!("no LeaderId in {output:?}"))
}

/// Creates the topic with one partition on these replicas. The first replica is the leader.
fn create_topic_on(cluster: &Cluster, replicas: &[u32]) -> Result<()> {
    let servers = cluster.internal_bootstrap()?;
    let replicas: Vec<String> = replicas.iter().map(u32::to_string).collect();
    let words =
        ["--bootstrap-server", &servers, "--create", "--topic", TOPIC, "--replica-assignment", &replicas.join(":")];
    cluster.java("org.apache.kafka.tools.TopicCommand", &words, Stdio::null()).map(drop)
}

/// Changes the order of the replicas. No data moves, and the first replica becomes the preferred leader.
fn reorder_replicas(cluster: &Cluster, replicas: &[u32]) -> Result<()> {
    let servers = cluster.internal_bootstrap()?;
    let plan = cluster.file("order.json");
    let partition = serde_json::json!({ "topic": TOPIC, "partition": 0, "replicas": replicas });
    std::fs::write(&plan, serde_json::json!({ "version": 1, "partitions": [partition] }).to_string())?;
    let plan = plan.to_str().context("the path is not UTF-8")?;
    let words = ["--bootstrap-server", &servers, "--reassignment-json-file", plan, "--execute"];
    let class = "org.apache.kafka.tools.reassign.ReassignPartitionsCommand";
    cluster.java(class, &words, Stdio::null()).map(drop)
}

#[tokio::test(flavor = "multi_thread")]
async fn replaced_leader_answers_with_offset() {
    async fn run() -> Result<()> {
        // With these settings a paused broker stays alive and in sync, and leadership moves only by the election below.
        let settings = [
            "auto.leader.rebalance.enable=false",
            "broker.session.timeout.ms=120000",
            "replica.lag.time.max.ms=120000",
        ];
        let cluster = Cluster::start_with(3, &settings.map(|setting| ["--set", setting]).concat())?;
        // The test must not pause the active controller, because the election would wait for a new one.
        let leader = active_controller(&cluster)?;
        let next = leader % 3 + 1;
        let paused = third_broker(leader, next);
        create_topic_on(&cluster, &[leader, next, paused])?;
        ensure!(cluster.leader(TOPIC, 0)? == leader);
        let (mut raw, stamp) = connect_with_stamp(&address(&cluster, leader)?).await?;
        let first = raw.produce(TOPIC, 0, stamp, b"first", Duration::from_secs(20)).await?;
        ensure!(first == ProduceAnswer { code: 0, base_offset: 0 }, "{first:?}");
        reorder_replicas(&cluster, &[next, leader, paused])?;
        cluster.pause(paused)?;
        let second = Stamp { base_sequence: 1, ..stamp };
        let waiting =
            tokio::spawn(async move { raw.produce(TOPIC, 0, second, VALUE.as_bytes(), Duration::from_secs(90)).await });
        let elected = elect_once_written(&cluster, leader).await;
        let answer = waiting.await?;
        cluster.resume(paused)?;
        elected?;
        let answer = answer?;
        ensure!(answer == ProduceAnswer { code: 6, base_offset: 1 }, "{answer:?}");
        ensure!(cluster.leader(TOPIC, 0)? == next);
        ensure!(is_in_log(&cluster)?);
        Ok(())
    }
    run().await.unwrap();
}

/// Waits until the leader has appended the unacknowledged record, and elects the preferred leader. The request is sent
/// directly to this leader, because Kafka's tools sometimes wait for the paused broker.
async fn elect_once_written(cluster: &Cluster, leader: u32) -> Result<()> {
    let log = cluster.file(&format!("broker-{leader}/data/{TOPIC}-0/00000000000000000000.log"));
    let deadline = Instant::now() + Duration::from_secs(60);
    while !std::fs::read(&log)?.windows(VALUE.len()).any(|bytes| bytes == VALUE.as_bytes()) {
        ensure!(Instant::now() < deadline, "the record was not appended within 60 s");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    RawConnection::connect(&address(cluster, leader)?).await?.elect_preferred_leader(TOPIC, 0).await
}

/// The leader checks record times before duplicates, so that it refuses a batch that it has already written. The sender
/// finds such a batch through the leader's producer state and the log, instead of retries until the delivery timeout.
#[tokio::test(flavor = "multi_thread")]
async fn too_old_repeat_counts_as_delivered() {
    async fn run() -> Result<()> {
        let cluster = Cluster::start_with(1, &["--proxied"])?;
        cluster.create_topic(TOPIC, 1, 1, &[("message.timestamp.before.max.ms", "500")])?;
        let mut config = cluster.config()?;
        (config.retry_backoff, config.retry_backoff_max) = (Duration::from_secs(2), Duration::from_secs(2));
        let producer = Producer::build(config)?;
        let record = |value| ProducerRecord { topic: TOPIC, value: Some(str::as_bytes(value)), ..Default::default() };
        // The leader of a new topic may not know the topic yet. A retry of the first record may then be too old as
        // well.
        let mut tries = 0;
        while producer.send(&record("first")).await?.await.is_err() {
            tries += 1;
            ensure!(tries < 20, "the first record was not delivered");
        }
        cluster.fault(&["drop_response=1", "api=0"])?;
        let retried = producer.stats().retried;
        let began = Instant::now();
        let written = producer.send(&record(VALUE)).await?.await?;
        let retries = producer.stats().retried - retried;
        println!("delivered at {:?} after {:.1?}, {retries} retries", written.offset, began.elapsed());
        ensure!(written.offset == Some(1) && began.elapsed() < Duration::from_secs(10));
        ensure!(retries == 1, "expected one refused retry, and no other");
        let mut copies = 0;
        cluster.dump(TOPIC, |record| {
            copies += u32::from(record.value.as_deref() == Some(VALUE));
            Ok(())
        })?;
        ensure!(copies == 1, "{copies} copies");
        Ok(())
    }
    run().await.unwrap();
}

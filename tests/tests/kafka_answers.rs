//! What the sender takes for granted of a broker's answers, seen on real brokers: an error can come after the append, and
//! its base offset says so.
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use kafka_courier_batcher::Stamp;
use kafka_courier_tests::cluster::Cluster;
use kafka_courier_tests::raw::{Answer, Raw};

const TOPIC: &str = "answers";
const VALUE: &str = "written before the error";

fn address(cluster: &Cluster, broker: u32) -> Result<String> {
    let index = usize::try_from(broker)? - 1;
    Ok(cluster.bootstrap().split(',').nth(index).context("no such broker")?.to_owned())
}

/// The third broker, besides these two.
fn third(a: u32, b: u32) -> u32 {
    6 - a - b
}

fn is_in_the_log(cluster: &Cluster) -> Result<bool> {
    let mut found = false;
    cluster.dump(TOPIC, |record| {
        found |= record.value.as_deref() == Some(VALUE);
        Ok(())
    })?;
    Ok(found)
}

async fn stamped(address: &str) -> Result<(Raw, Stamp)> {
    let mut raw = Raw::connect(address).await?;
    let producer_id = raw.producer_id().await?;
    Ok((raw, Stamp { producer_id, epoch: 0, base_sequence: 0 }))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_that_times_out_on_its_replicas_is_answered_with_its_offset_and_is_in_the_log() {
    async fn run() -> Result<()> {
        let cluster = Cluster::start(3)?;
        cluster.create_topic(TOPIC, 1, 3, &[])?;
        let leader = cluster.leader(TOPIC, 0)?;
        let (mut raw, stamp) = stamped(&address(&cluster, leader)?).await?;
        let follower = leader % 3 + 1;
        cluster.pause(follower)?;
        let answer = raw.produce(TOPIC, 0, stamp, VALUE.as_bytes(), Duration::from_secs(3)).await;
        cluster.resume(follower)?;
        ensure!(answer? == Answer { code: 7, base_offset: 0 });
        ensure!(is_in_the_log(&cluster)?);
        Ok(())
    }
    run().await.unwrap();
}

/// The broker whose controller is the active one.
fn active_controller(cluster: &Cluster) -> Result<u32> {
    let servers = cluster.internal_bootstrap()?;
    let words = ["--bootstrap-server", &servers, "describe", "--status"];
    let said = cluster.java("org.apache.kafka.tools.MetadataQuorumCommand", &words, Stdio::null())?;
    let leader = said.lines().find_map(|line| line.strip_prefix("LeaderId:"));
    leader.and_then(|id| id.trim().parse().ok()).with_context(|| format!("no LeaderId in {said:?}"))
}

/// Makes the topic, of one partition, with these replicas; the first is its preferred leader, and the order that of succession.
fn create_on(cluster: &Cluster, replicas: &[u32]) -> Result<()> {
    let servers = cluster.internal_bootstrap()?;
    let replicas: Vec<String> = replicas.iter().map(u32::to_string).collect();
    let words =
        ["--bootstrap-server", &servers, "--create", "--topic", TOPIC, "--replica-assignment", &replicas.join(":")];
    cluster.java("org.apache.kafka.tools.TopicCommand", &words, Stdio::null()).map(drop)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_is_replaced_while_a_write_waits_answers_not_leader_with_the_offset_and_the_record_is_in_the_log()
{
    async fn run() -> Result<()> {
        // Leadership goes back to the preferred replica soon; a paused broker counts as alive all the while.
        let settings = ["leader.imbalance.check.interval.seconds=2", "leader.imbalance.per.broker.percentage=0"];
        let cluster = Cluster::start_with(
            3,
            &["--set", settings[0], "--set", settings[1], "--set", "broker.session.timeout.ms=120000"],
        )?;
        // The active controller is not the one that is paused: without it the preferred leader could not come back in time.
        let active = active_controller(&cluster)?;
        let preferred = if active == 1 { 2 } else { 1 };
        create_on(&cluster, &[preferred, active, third(preferred, active)])?;
        ensure!(cluster.leader(TOPIC, 0)? == preferred);
        cluster.stop(preferred)?;
        let leader = cluster.leader(TOPIC, 0)?;
        ensure!(leader == active, "{leader} leads, not {active}");
        let (mut raw, stamp) = stamped(&address(&cluster, leader)?).await?;
        let first = raw.produce(TOPIC, 0, stamp, b"first", Duration::from_secs(20)).await?;
        ensure!(first == Answer { code: 0, base_offset: 0 }, "{first:?}");
        let paused = third(preferred, leader);
        cluster.pause(paused)?;
        let next = Stamp { base_sequence: 1, ..stamp };
        let waiting =
            tokio::spawn(async move { raw.produce(TOPIC, 0, next, VALUE.as_bytes(), Duration::from_secs(55)).await });
        let restarted = cluster.restart(preferred);
        let answer = waiting.await?;
        cluster.resume(paused)?;
        restarted?;
        let answer = answer?;
        ensure!(answer == Answer { code: 6, base_offset: 1 }, "{answer:?}");
        ensure!(is_in_the_log(&cluster)?);
        Ok(())
    }
    run().await.unwrap();
}

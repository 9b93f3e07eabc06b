//! Three real brokers, replication 3, steady traffic, and one fault at a time: the ledger balances.
//!
//! Rules: default settings unless the test is about another; after each fault traffic must flow again before it is stopped.
use std::time::Duration;

use anyhow::{Result, ensure};
use kafka_courier::KafkaConfig;
use kafka_courier_tests::cluster::Cluster;
use kafka_courier_tests::faults::{FLOW, Fault, Flow};
use kafka_courier_tests::traffic::{Balance, Traffic};

const TOPIC: &str = "ledger";
/// Runs traffic through a cluster while `fault` breaks it, and checks the ledger.
fn under(
    arguments: &[&str],
    config: KafkaConfig,
    fault: impl AsyncFnOnce(&Cluster, &Traffic) -> Result<()>,
) -> Result<Balance> {
    let cluster = Cluster::start_with(3, arguments)?;
    cluster.create_topic(TOPIC, 6, 3, &[])?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(async {
        let traffic = Traffic::start(&cluster, TOPIC, config)?;
        traffic.flows(FLOW).await?;
        fault(&cluster, &traffic).await?;
        traffic.flows(FLOW).await?;
        let balance = traffic.balance(&cluster).await?;
        println!("{balance}");
        Ok(balance)
    })
}

/// With default settings every record is delivered.
fn all_delivered(fault: Fault) -> Result<()> {
    let strike = async |cluster: &Cluster, traffic: &Traffic| fault.strike(cluster, TOPIC, traffic).await;
    let balance = under(fault.arguments(), KafkaConfig::default(), strike)?;
    ensure!(balance.delivered == balance.accepted, "{balance}");
    Ok(())
}

fn quick() -> KafkaConfig {
    let mut config = KafkaConfig::default();
    config.delivery_timeout = Duration::from_secs(5);
    config.request_timeout = Duration::from_secs(3);
    config
}

#[test]
fn a_leader_killed_and_started_again_loses_and_doubles_nothing() {
    all_delivered(Fault::KillLeader).unwrap();
}

#[test]
fn a_leader_that_is_stopped_and_continued_loses_and_doubles_nothing() {
    all_delivered(Fault::PauseLeader).unwrap();
}

#[test]
fn a_rolling_restart_loses_and_doubles_nothing() {
    all_delivered(Fault::RollingRestart).unwrap();
}

#[test]
fn connections_that_are_cut_again_and_again_lose_and_double_nothing() {
    all_delivered(Fault::CutConnections).unwrap();
}

#[test]
fn answers_that_are_lost_after_the_write_lose_and_double_nothing() {
    all_delivered(Fault::LoseAnswers).unwrap();
}

#[test]
fn after_an_outage_longer_than_delivery_timeout_every_verdict_is_true() {
    let balance = under(&[], quick(), async |cluster, traffic| {
        for broker in 1..=3 {
            cluster.pause(broker)?;
        }
        tokio::time::sleep(Duration::from_secs(12)).await; // the outage itself
        for broker in 1..=3 {
            cluster.resume(broker)?;
        }
        traffic.flows(FLOW).await
    })
    .and_then(|balance| {
        ensure!(balance.not_written + balance.unknown > 0, "the outage was not felt: {balance}");
        Ok(balance)
    })
    .unwrap();
    assert_eq!(balance.delivered + balance.not_written + balance.unknown, balance.accepted, "{balance}");
}

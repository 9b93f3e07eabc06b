//! Three real brokers, replication 3, steady traffic, and one fault at a time. Every verdict agrees with the log.
//!
//! Rules:
//! - Settings have their defaults unless the test is about a setting.
//! - Records must be acknowledged again after a fault before the traffic stops.
use std::time::Duration;

use anyhow::{Result, ensure};
use kafka_courier::KafkaConfig;
use kafka_courier_tests::cluster::Cluster;
use kafka_courier_tests::faults::{AcknowledgedTraffic, ClusterFault, RECORDS_PER_STEP};
use kafka_courier_tests::traffic::{Traffic, TrafficReport};

const TOPIC: &str = "ledger";

/// Runs traffic through a cluster during `fault`, and checks every verdict against the log.
fn run_under(
    arguments: &[&str],
    config: KafkaConfig,
    fault: impl AsyncFnOnce(&Cluster, &Traffic) -> Result<()>,
) -> Result<TrafficReport> {
    let cluster = Cluster::start_with(3, arguments)?;
    cluster.create_topic(TOPIC, 6, 3, &[])?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(async {
        let traffic = Traffic::start(&cluster, TOPIC, config)?;
        traffic.wait_for_acknowledgements(RECORDS_PER_STEP).await?;
        fault(&cluster, &traffic).await?;
        traffic.wait_for_acknowledgements(RECORDS_PER_STEP).await?;
        let report = traffic.finish(&cluster).await?;
        println!("{report}");
        Ok(report)
    })
}

/// Checks that every record is delivered with default settings.
fn check_all_delivered(fault: ClusterFault) -> Result<()> {
    let apply = async |cluster: &Cluster, traffic: &Traffic| fault.apply(cluster, TOPIC, traffic).await;
    let report = run_under(fault.arguments(), KafkaConfig::default(), apply)?;
    ensure!(report.delivered == report.accepted, "{report}");
    Ok(())
}

fn short_timeouts() -> KafkaConfig {
    let mut config = KafkaConfig::default();
    config.delivery_timeout = Duration::from_secs(5);
    config.request_timeout = Duration::from_secs(3);
    config
}

#[test]
fn killed_leader_delivers_exactly_once() {
    check_all_delivered(ClusterFault::KillLeader).unwrap();
}

#[test]
fn paused_leader_delivers_exactly_once() {
    check_all_delivered(ClusterFault::PauseLeader).unwrap();
}

#[test]
fn rolling_restart_delivers_exactly_once() {
    check_all_delivered(ClusterFault::RollingRestart).unwrap();
}

#[test]
fn cut_connections_deliver_exactly_once() {
    check_all_delivered(ClusterFault::CutConnections).unwrap();
}

#[test]
fn lost_answers_deliver_exactly_once() {
    check_all_delivered(ClusterFault::LoseAnswers).unwrap();
}

#[test]
fn verdicts_hold_after_long_outage() {
    let report = run_under(&[], short_timeouts(), async |cluster, traffic| {
        for broker in 1..=3 {
            cluster.pause(broker)?;
        }
        tokio::time::sleep(Duration::from_secs(12)).await; // longer than the delivery timeout
        for broker in 1..=3 {
            cluster.resume(broker)?;
        }
        traffic.wait_for_acknowledgements(RECORDS_PER_STEP).await
    })
    .and_then(|report| {
        ensure!(report.not_written + report.unknown > 0, "no record failed in the outage: {report}");
        Ok(report)
    })
    .unwrap();
    assert_eq!(report.delivered + report.not_written + report.unknown, report.accepted, "{report}");
}

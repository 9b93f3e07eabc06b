//! How long a fault of the cluster is felt: the longest time without an acknowledgement, for this project's library and for
//! Kafka's Java producer, in the same set-up. `gaps [RUNS] [FAULT..]`; prints each run and the medians.
//!
//! Rules: a fresh cluster for every run; the two in turn, so that a machine that grows slower slows both.
use std::time::Duration;

use anyhow::{Result, ensure};
use kafka_courier::KafkaConfig;
use kafka_courier_tests::cluster::Cluster;
use kafka_courier_tests::faults::{FLOW, Fault, Flow};
use kafka_courier_tests::java_traffic::JavaTraffic;
use kafka_courier_tests::traffic::Traffic;

const TOPIC: &str = "ledger";

/// The Java producer's default since Kafka 4.0; ours is longer, and would be felt as a gap.
const JAVAS_LINGER: Duration = Duration::from_millis(5);

/// Of all partitions together, and of the worst.
type Gaps = (Duration, Duration);

fn main() -> Result<()> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let runs: usize = words.first().map_or(Ok(5), |runs| runs.parse())?;
    let wanted = |fault: &Fault| words.len() < 2 || words[1..].contains(&format!("{fault:?}"));
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    for fault in Fault::ALL.into_iter().filter(wanted) {
        let (mut ours, mut java) = (Vec::new(), Vec::new());
        for _ in 0..runs {
            ours.push(runtime.block_on(run_ours(fault))?);
            java.push(runtime.block_on(run_java(fault))?);
        }
        println!("{fault:?}: kafka-courier {}; Java {}", medians(ours), medians(java));
    }
    Ok(())
}

fn cluster(fault: Fault) -> Result<Cluster> {
    let cluster = Cluster::start_with(3, fault.arguments())?;
    cluster.create_topic(TOPIC, 6, 3, &[])?;
    Ok(cluster)
}

async fn run_ours(fault: Fault) -> Result<Gaps> {
    let cluster = cluster(fault)?;
    let mut config = KafkaConfig::default();
    config.flush_timeout = JAVAS_LINGER;
    let traffic = Traffic::start(&cluster, TOPIC, config)?;
    traffic.flows(FLOW).await?;
    fault.strike(&cluster, TOPIC, &traffic).await?;
    traffic.flows(FLOW).await?;
    let balance = traffic.balance(&cluster).await?;
    eprintln!("{fault:?}: kafka-courier: {balance}");
    ensure!(balance.delivered == balance.accepted, "{balance}");
    Ok((balance.longest_gap, balance.worst_partition_gap))
}

async fn run_java(fault: Fault) -> Result<Gaps> {
    let cluster = cluster(fault)?;
    let traffic = JavaTraffic::start(&cluster, TOPIC)?;
    traffic.flows(FLOW).await?;
    fault.strike(&cluster, TOPIC, &traffic).await?;
    traffic.flows(FLOW).await?;
    let (longest, worst, errors) = traffic.end()?;
    eprintln!("{fault:?}: Java: longest gap {longest:.1?}, of a partition {worst:.1?}, {errors} failed");
    Ok((longest, worst))
}

fn medians(gaps: Vec<Gaps>) -> String {
    let median = |mut values: Vec<Duration>| {
        values.sort_unstable();
        values[values.len() / 2].as_secs_f64()
    };
    let (all, worst): (Vec<_>, Vec<_>) = gaps.into_iter().unzip();
    format!("{:.1} s, worst partition {:.1} s", median(all), median(worst))
}

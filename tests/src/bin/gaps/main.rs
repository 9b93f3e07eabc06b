//! `gaps [RUNS] [FAULT..]` measures the longest time without an acknowledgement during a fault of the cluster.
//!
//! The program runs this project's library and Kafka's Java producer in the same set-up, and prints each run and the
//! medians. Every run has a new cluster. The two producers take turns, so that a slower machine slows down both.
use std::time::Duration;

use anyhow::{Result, ensure};
use kafka_courier::KafkaConfig;
use kafka_courier_tests::cluster::Cluster;
use kafka_courier_tests::faults::{AcknowledgedTraffic, ClusterFault, RECORDS_PER_STEP};
use kafka_courier_tests::java_traffic::JavaTraffic;
use kafka_courier_tests::traffic::Traffic;

const TOPIC: &str = "ledger";

/// The Java producer's default since Kafka 4.0. kafka-courier's default is longer and would add to the gaps.
const JAVA_LINGER: Duration = Duration::from_millis(5);

/// The longest gaps: over all partitions together, and within one partition.
type Gaps = (Duration, Duration);

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let runs: usize = arguments.first().map_or(Ok(5), |runs| runs.parse())?;
    let wanted = |fault: &ClusterFault| arguments.len() < 2 || arguments[1..].contains(&format!("{fault:?}"));
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    for fault in ClusterFault::ALL.into_iter().filter(wanted) {
        let (mut courier, mut java) = (Vec::new(), Vec::new());
        for _ in 0..runs {
            courier.push(runtime.block_on(run_courier(fault))?);
            java.push(runtime.block_on(run_java(fault))?);
        }
        println!("{fault:?}: kafka-courier {}; Java {}", medians(courier), medians(java));
    }
    Ok(())
}

fn start_cluster(fault: ClusterFault) -> Result<Cluster> {
    let cluster = Cluster::start_with(3, fault.arguments())?;
    cluster.create_topic(TOPIC, 6, 3, &[])?;
    Ok(cluster)
}

async fn run_courier(fault: ClusterFault) -> Result<Gaps> {
    let cluster = start_cluster(fault)?;
    let mut config = KafkaConfig::default();
    config.flush_timeout = JAVA_LINGER;
    let traffic = Traffic::start(&cluster, TOPIC, config)?;
    traffic.wait_for_acknowledgements(RECORDS_PER_STEP).await?;
    fault.apply(&cluster, TOPIC, &traffic).await?;
    traffic.wait_for_acknowledgements(RECORDS_PER_STEP).await?;
    let report = traffic.finish(&cluster).await?;
    eprintln!("{fault:?}: kafka-courier: {report}");
    ensure!(report.delivered == report.accepted, "{report}");
    Ok((report.longest_gap, report.worst_partition_gap))
}

async fn run_java(fault: ClusterFault) -> Result<Gaps> {
    let cluster = start_cluster(fault)?;
    let traffic = JavaTraffic::start(&cluster, TOPIC)?;
    traffic.wait_for_acknowledgements(RECORDS_PER_STEP).await?;
    fault.apply(&cluster, TOPIC, &traffic).await?;
    traffic.wait_for_acknowledgements(RECORDS_PER_STEP).await?;
    let (longest, worst, errors) = traffic.end()?;
    eprintln!("{fault:?}: Java: longest gap {longest:.1?}, within a partition {worst:.1?}, {errors} failed");
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

//! Processes with a spool that are killed at random moments, on brokers that are killed, stopped and hung as well.
//!
//! Rules:
//! - `SPOOL_KILLS` is the number of kills, `SPOOL_CUTS` the number of power cuts.
//! - The seed is printed, and `SPOOL_KILLS_SEED` repeats it.
use std::path::Path;
use std::time::Duration;

use anyhow::Result;
use kafka_courier_tests::cluster::Cluster;
use kafka_courier_tests::settings::number;
use kafka_courier_tests::spool_lives::SpoolLives;

use crate::broker_faults::{BrokerFaults, Rng};

const TOPIC: &str = "stored";
const WRITER: &str = env!("CARGO_BIN_EXE_spool_writer");
/// The library that makes kill -9 a power cut, beside the writer, and its package.
pub(crate) const POWER_CUT: (&str, &str) = ("libkafka_courier_power_cut.so", "kafka-courier-power-cut");

#[test]
fn killed_processes_store_once() -> Result<()> {
    let cluster = cluster()?;
    let lives = SpoolLives::new(&cluster, TOPIC, Path::new(WRITER))?;
    run(&cluster, lives, number("SPOOL_KILLS", 60)?, "killed_processes_store_once")
}

#[test]
fn power_cuts_lose_nothing_stored() -> Result<()> {
    let cluster = cluster()?;
    let mut lives = SpoolLives::new(&cluster, TOPIC, Path::new(WRITER))?;
    let (library, package) = POWER_CUT;
    lives.preload(library, package)?;
    run(&cluster, lives, number("SPOOL_CUTS", 20)?, "power_cuts_lose_nothing_stored")
}

fn cluster() -> Result<Cluster> {
    let cluster = Cluster::start(3)?;
    cluster.create_topic(TOPIC, 6, 3, &[("min.insync.replicas", "2")])?;
    Ok(cluster)
}

/// Kills writers and brokers, then compares the ledger with the log.
fn run(cluster: &Cluster, mut lives: SpoolLives<'_>, count: u64, test: &str) -> Result<()> {
    let seed = number("SPOOL_KILLS_SEED", 1)?;
    println!("replay: SPOOL_KILLS_SEED={seed} tests/kafka/run-suite {test}");
    let (mut rng, mut faults) = (Rng(seed), BrokerFaults::default());
    for life in 0..count {
        faults.before_life(cluster, life, &mut rng)?;
        // Every fifth process is killed while it opens the spool.
        let time = if life % 5 == 4 { rng.below(40) } else { 50 + rng.below(1_500) };
        let writer = lives.start()?;
        std::thread::sleep(Duration::from_millis(time));
        writer.kill()?;
    }
    faults.end(cluster)?;
    println!("{:?}", lives.check()?);
    Ok(())
}

//! Processes with a spool that are killed at random moments, on brokers that are killed, stopped and hung as well.
//!
//! Rules:
//! - `SPOOL_KILLS` is the number of kills, `SPOOL_CUTS` the number of power cuts.
//! - The seed is printed, and `SPOOL_KILLS_SEED` repeats it.
use std::path::Path;
use std::time::Duration;

use anyhow::Result;
use kafka_courier_tests::cluster::Cluster;
use kafka_courier_tests::spool_kills::KillLoop;

const TOPIC: &str = "stored";
const WRITER: &str = env!("CARGO_BIN_EXE_spool_writer");

pub(crate) fn number(name: &str, default: u64) -> Result<u64> {
    std::env::var(name).map_or(Ok(default), |value| Ok(value.parse()?))
}

/// Splitmix64.
pub(crate) struct Rng(pub(crate) u64);

impl Rng {
    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (mixed ^ (mixed >> 31)) % limit
    }
}

#[test]
fn killed_processes_store_once() -> Result<()> {
    let cluster = cluster()?;
    let kills = KillLoop::new(&cluster, TOPIC, Path::new(WRITER))?;
    run(&cluster, kills, number("SPOOL_KILLS", 60)?, "killed_processes_store_once")
}

#[test]
fn power_cuts_lose_nothing_stored() -> Result<()> {
    let cluster = cluster()?;
    let kills = KillLoop::new(&cluster, TOPIC, Path::new(WRITER))?.with_power_cuts()?;
    run(&cluster, kills, number("SPOOL_CUTS", 20)?, "power_cuts_lose_nothing_stored")
}

fn cluster() -> Result<Cluster> {
    let cluster = Cluster::start(3)?;
    cluster.create_topic(TOPIC, 6, 3, &[("min.insync.replicas", "2")])?;
    Ok(cluster)
}

/// Kills writers and brokers, then compares the ledger with the log.
fn run(cluster: &Cluster, mut kills: KillLoop<'_>, count: u64, test: &str) -> Result<()> {
    let seed = number("SPOOL_KILLS_SEED", 1)?;
    println!("replay: SPOOL_KILLS_SEED={seed} tests/kafka/run-suite {test}");
    let mut rng = Rng(seed);
    let mut paused = None;
    let mut dead = None;
    for life in 0..count {
        if let Some(broker) = paused.take() {
            cluster.resume(broker)?;
        }
        if life % 8 == 7
            && let Some(broker) = dead.take()
        {
            cluster.restart(broker)?;
        }
        let broker = 1 + u32::try_from(rng.below(3))?;
        match life % 16 {
            3 | 11 if dead.is_none() => {
                cluster.kill(broker)?;
                dead = Some(broker);
            }
            5 | 13 if dead.is_none() => {
                cluster.pause(broker)?;
                paused = Some(broker);
            }
            _ => {}
        }
        // Every fifth process is killed while it opens the spool.
        let time = if life % 5 == 4 { rng.below(40) } else { 50 + rng.below(1_500) };
        kills.live(Duration::from_millis(time))?;
    }
    paused.map(|broker| cluster.resume(broker)).transpose()?;
    dead.map(|broker| cluster.restart(broker)).transpose()?;
    println!("{:?}", kills.check()?);
    Ok(())
}

//! A spool through long outages, changes of topics and brokers, missing rights, wrong clocks and full spools.
//!
//! Rules:
//! - A Java consumer reads the log. Every stored record is there once, in order per key, unless a test names its exceptions.
//! - Tests wait for states of the ledger, of the log and of leaders.
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use kafka_courier_tests::cluster::Cluster;
use kafka_courier_tests::raw::RawConnection;
use kafka_courier_tests::spool_lives::{Life, SpoolLives};

mod clocks;
mod expired_ids;
mod outage;
mod rights;
mod room;
mod topics;

const PARTITIONS: u32 = 6;
/// The longest wait for a state.
const PATIENCE: Duration = Duration::from_secs(120);
/// Records that a writer stores before and between the steps of a test.
const STEP: u64 = 300;
/// The leaders look for forgotten producer ids in this interval.
const QUICK_EXPIRY_CHECK: [&str; 2] = ["--set", "producer.id.expiration.check.interval.ms=200"];

fn lives<'a>(cluster: &'a Cluster, topic: &str) -> Result<SpoolLives<'a>> {
    SpoolLives::new(cluster, topic, Path::new(env!("CARGO_BIN_EXE_spool_writer")))
}

/// Waits until a condition holds.
fn wait_until(state: &str, mut condition: impl FnMut() -> Result<bool>) -> Result<()> {
    let begun = Instant::now();
    while !condition()? {
        ensure!(begun.elapsed() < PATIENCE, "not within {PATIENCE:?}: {state}");
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

/// Lets each broker apply Produce requests and lose the answers, and waits until some requests had none.
fn write_without_answers(cluster: &Cluster) -> Result<()> {
    cluster.fault(&["drop_response=1000000", "api=0"])?;
    wait_until("lost answers", || Ok(cluster.dropped_responses()? >= 4))
}

/// Loses all answers, and lets the process wait for them, so that the process repeats nothing.
fn write_without_repeats(cluster: &Cluster, life: &mut Life) -> Result<()> {
    cluster.fault(&["blackhole=down"])?;
    life.wait_stored_more(STEP)
}

/// Waits until the leaders of a topic know no producer id. The cluster has one broker.
fn wait_until_forgotten(cluster: &Cluster, topic: &str) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let address = cluster.internal_bootstrap()?;
    let mut broker = runtime.block_on(RawConnection::connect(&address)).context(address)?;
    wait_until("forgotten producer ids", || Ok(runtime.block_on(broker.known_producers(topic, PARTITIONS))? == 0))
}

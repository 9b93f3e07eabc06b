//! Spools that are full while brokers are away.
use anyhow::{Context, Result};
use kafka_courier_tests::cluster::Cluster;
use kafka_courier_tests::spool_lives::SpoolLives;

use super::{PARTITIONS, lives};

/// The smallest spool.
const SMALLEST: &str = "67108864";
/// Records of [`RECORD_BYTES`] between two steps of a test.
const FEW: u64 = 50;
const RECORD_BYTES: &str = "100000";

/// Prepares large records that are not compressed, and memory for all of them.
fn large_records<'a>(cluster: &'a Cluster, topic: &str) -> Result<SpoolLives<'a>> {
    cluster.create_topic(topic, PARTITIONS, 1, &[])?;
    let mut lives = lives(cluster, topic)?;
    lives.set("SPOOL_WRITER_BYTES", RECORD_BYTES).set("KAFKA_COMPRESSION", "none");
    lives.set("KAFKA_BUFFER_MEMORY", "1073741824").set("KAFKA_SPOOL_KEEP_FREE", "0");
    Ok(lives)
}

/// Fills a spool while the broker is away, kills the process, starts the next one, and then the broker.
fn fill_and_deliver(cluster: &Cluster, lives: &mut SpoolLives<'_>) -> Result<()> {
    let mut first = lives.start()?;
    first.wait_stored(FEW)?;
    cluster.kill(1)?;
    first.wait_refused()?;
    first.kill()?;
    let mut second = lives.start()?;
    second.wait_refused()?;
    let full = second.stored()?;
    cluster.restart(1)?;
    second.wait_stored(full + FEW)?;
    second.kill()?;
    println!("{:?}", lives.check()?);
    Ok(())
}

#[test]
fn full_spool_keeps_stored_records() -> Result<()> {
    let cluster = Cluster::start(1)?;
    for choice in ["refuse", "block"] {
        let mut lives = large_records(&cluster, choice)?;
        lives.set("KAFKA_SPOOL_MAX_BYTES", SMALLEST).set("KAFKA_SPOOL_FULL", choice).set("KAFKA_MAX_BLOCK", "200ms");
        fill_and_deliver(&cluster, &mut lives).context(choice)?;
    }
    Ok(())
}

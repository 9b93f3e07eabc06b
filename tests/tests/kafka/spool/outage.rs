//! Brokers that are away while a writer stores records.
//!
//! Rule: `SPOOL_AWAY` is the duration of the outage in seconds, `SPOOL_AWAY_RATE` the number of records per second.
use anyhow::Result;
use kafka_courier_tests::cluster::Cluster;
use kafka_courier_tests::settings::number;

use super::{PARTITIONS, STEP, lives};

const TOPIC: &str = "away";

/// The process is killed in the middle of the outage.
#[test]
fn long_outage_delivers_once() -> Result<()> {
    let (seconds, rate) = (number("SPOOL_AWAY", 4)?, number("SPOOL_AWAY_RATE", 1_000)?);
    let cluster = Cluster::start(1)?;
    cluster.create_topic(TOPIC, PARTITIONS, 1, &[])?;
    let mut lives = lives(&cluster, TOPIC)?;
    lives.set("SPOOL_WRITER_RATE", rate.to_string());
    // Three of four records are in the ledger.
    let half = seconds * rate * 3 / 8;
    let mut first = lives.start()?;
    first.wait_stored(STEP)?;
    cluster.kill(1)?;
    first.wait_stored_more(half)?;
    first.kill()?;
    let mut second = lives.start()?;
    second.wait_stored(half)?;
    cluster.restart(1)?;
    second.wait_stored_more(STEP)?;
    second.kill()?;
    println!("{:?}", lives.check()?);
    Ok(())
}

//! Processes whose clock is two days off.
//!
//! The library `kafka-courier-power-cut` changes the clock of a process that loads it. A kill is then a power cut, too.
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Result, ensure};
use kafka_courier_tests::cluster::Cluster;
use kafka_courier_tests::spool_lives::{LoggedNumbers, SpoolLives};

use super::{PARTITIONS, STEP, lives, write_without_answers};
use crate::spool_kills::POWER_CUT;

const HOUR_MS: i64 = 60 * 60 * 1000;
/// In seconds.
const TWO_DAYS: i64 = 2 * 24 * 60 * 60;

/// Sets the clock of the next processes off by these seconds.
fn set_clock(lives: &mut SpoolLives<'_>, seconds: i64) -> Result<()> {
    let (library, package) = POWER_CUT;
    lives.preload(library, package)?.set("COURIER_TEST_CLOCK_OFFSET", seconds.to_string());
    Ok(())
}

fn set_true_clock(lives: &mut SpoolLives<'_>) {
    lives.unset("COURIER_TEST_CLOCK_OFFSET");
}

fn now_ms() -> Result<i64> {
    Ok(i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH)?.as_millis())?)
}

/// The topic takes no record that is an hour old, or an hour in the future. The broker refuses the records of both clocks.
#[test]
fn wrong_clocks_meet_timestamp_limits() -> Result<()> {
    const TOPIC: &str = "limited";
    let cluster = Cluster::start(1)?;
    let limit = HOUR_MS.to_string();
    let limits = ["message.timestamp.before.max.ms", "message.timestamp.after.max.ms"].map(|name| (name, &*limit));
    cluster.create_topic(TOPIC, PARTITIONS, 1, &limits)?;
    let mut lives = lives(&cluster, TOPIC)?;
    for offset in [-TWO_DAYS, TWO_DAYS] {
        set_clock(&mut lives, offset)?;
        let mut life = lives.start()?;
        life.wait_stored(STEP)?;
        life.kill()?;
    }
    ensure!(cluster.end_offsets(TOPIC)? == 0, "the broker took records with wrong times");
    set_true_clock(&mut lives);
    println!("{:?}", lives.check()?);
    let logged = LoggedNumbers::read(&cluster, TOPIC)?;
    let now = now_ms()?;
    let wrong = logged.timestamps.iter().find(|(_, timestamp)| (now - **timestamp).abs() > HOUR_MS);
    ensure!(wrong.is_none(), "{wrong:?} has a wrong time");
    Ok(())
}

/// The clock is right again, and the times of the records are in the future.
#[test]
fn clock_ahead_leaves_doubts() -> Result<()> {
    const TOPIC: &str = "ahead";
    let cluster = Cluster::start_with(1, &["--proxied"])?;
    let week = (7 * 24 * HOUR_MS).to_string();
    cluster.create_topic(TOPIC, PARTITIONS, 1, &[("message.timestamp.after.max.ms", &week)])?;
    let mut lives = lives(&cluster, TOPIC)?;
    set_clock(&mut lives, TWO_DAYS)?;
    let mut life = lives.start()?;
    life.wait_stored(STEP)?;
    write_without_answers(&cluster)?;
    life.wait_stored_more(STEP)?;
    life.kill()?;
    cluster.fault(&["clear"])?;
    set_true_clock(&mut lives);
    println!("{:?}", lives.check()?);
    Ok(())
}

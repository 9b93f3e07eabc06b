//! Leaders that forget producer ids after seconds (`producer.id.expiration.ms`), while the process is down.
//!
//! Rule: a process is killed long before a leader forgets the producer id of its lost answers.
use anyhow::{Result, ensure};
use kafka_courier_tests::cluster::Cluster;

use super::{PARTITIONS, QUICK_EXPIRY_CHECK, STEP, lives, wait_until_forgotten, write_without_answers};

fn cluster(topic: &str) -> Result<Cluster> {
    let arguments = ["--proxied", "--set", "producer.id.expiration.ms=10000"];
    let cluster = Cluster::start_with(1, &[&arguments[..], &QUICK_EXPIRY_CHECK].concat())?;
    cluster.create_topic(topic, PARTITIONS, 1, &[])?;
    Ok(cluster)
}

#[test]
fn expired_id_after_acknowledgements() -> Result<()> {
    const TOPIC: &str = "acknowledged";
    let cluster = cluster(TOPIC)?;
    let mut lives = lives(&cluster, TOPIC)?;
    let mut life = lives.start()?;
    life.wait_stored(STEP)?;
    write_without_answers(&cluster)?;
    life.kill()?;
    cluster.fault(&["clear"])?;
    wait_until_forgotten(&cluster, TOPIC)?;
    println!("{:?}", lives.check()?);
    Ok(())
}

/// The leader has acknowledged nothing of the process, and knows nothing of it any more.
#[test]
fn expired_id_before_acknowledgements() -> Result<()> {
    const TOPIC: &str = "unacknowledged";
    let cluster = cluster(TOPIC)?;
    let mut lives = lives(&cluster, TOPIC)?;
    cluster.fault(&["drop_response=1000000", "api=0"])?;
    let life = lives.start()?;
    write_without_answers(&cluster)?;
    life.kill()?;
    ensure!(cluster.end_offsets(TOPIC)? > 0, "nothing is written");
    cluster.fault(&["clear"])?;
    wait_until_forgotten(&cluster, TOPIC)?;
    println!("{:?}", lives.check()?);
    Ok(())
}

//! A principal that may write to a topic, and not read it.
use anyhow::Result;
use kafka_courier_tests::cluster::Cluster;
use kafka_courier_tests::spool_lives::SpoolLives;

use super::{PARTITIONS, STEP, lives, write_without_repeats};
use crate::security::{AUTHORIZER, TOPIC, change_acl};

const CLIENT: [(&str, &str); 4] = [
    ("KAFKA_SECURITY_PROTOCOL", "SASL_PLAINTEXT"),
    ("KAFKA_SASL_MECHANISM", "PLAIN"),
    ("KAFKA_SASL_USERNAME", "alice"),
    ("KAFKA_SASL_PASSWORD", "alice-secret"),
];

fn cluster_with_writer() -> Result<Cluster> {
    let arguments = [&AUTHORIZER[..], &["--sasl", "plain", "--proxied"]].concat();
    let cluster = Cluster::start_with(1, &arguments)?;
    cluster.create_topic(TOPIC, PARTITIONS, 1, &[])?;
    change_acl(&cluster, "--add", "User:alice", "Write")?;
    Ok(cluster)
}

/// Kills a process whose last records have no answers.
fn die_in_doubt(cluster: &Cluster, lives: &mut SpoolLives<'_>) -> Result<()> {
    let mut life = lives.start()?;
    life.wait_stored(STEP)?;
    write_without_repeats(cluster, &mut life)?;
    life.kill()?;
    cluster.fault(&["clear"])
}

/// No state of a leader and no log is readable. A leader that knows the producer id recognizes repeats.
#[test]
fn writer_without_read_delivers_once() -> Result<()> {
    let cluster = cluster_with_writer()?;
    let mut lives = lives(&cluster, TOPIC)?;
    CLIENT.iter().for_each(|(name, value)| _ = lives.set(name, *value));
    die_in_doubt(&cluster, &mut lives)?;
    println!("{:?}", lives.check()?);
    Ok(())
}

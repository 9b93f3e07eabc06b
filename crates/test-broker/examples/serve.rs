//! Runs a cluster for clients in other processes: `serve [BROKERS] [TOPIC=PARTITIONS ..] [USER:PASSWORD ..]`.
//!
//! The first line of output is the bootstrap addresses. The cluster runs until standard input ends. The program then
//! prints each record batch in the cluster.

use std::error::Error;
use std::io::Write;

use kafka_courier_test_broker::TestCluster;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let brokers = arguments.next().map_or(Ok(1), |count| count.parse())?;
    let mut builder = TestCluster::builder().brokers(brokers);
    let mut topics = Vec::new();
    for argument in arguments {
        if let Some((user, password)) = argument.split_once(':') {
            builder = builder.user(user, password);
            continue;
        }
        let (name, partitions) = argument
            .split_once('=')
            .ok_or("invalid argument: write a topic as NAME=PARTITIONS, a user as NAME:PASSWORD")?;
        builder = builder.topic(name, partitions.parse()?);
        topics.push(name.to_owned());
    }
    let cluster = builder.start().await?;
    let mut out = std::io::stdout();
    writeln!(out, "{}", cluster.bootstrap())?;
    tokio::task::spawn_blocking(|| std::io::copy(&mut std::io::stdin(), &mut std::io::sink())).await??;
    for topic in &topics {
        for batch in cluster.batches(topic) {
            writeln!(
                out,
                "{topic} {} offset={} count={} producer={} epoch={} sequence={} codec={}",
                batch.partition,
                batch.base_offset,
                batch.record_count,
                batch.producer_id,
                batch.producer_epoch,
                batch.base_sequence,
                batch.codec
            )?;
        }
    }
    Ok(())
}

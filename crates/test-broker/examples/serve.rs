//! A cluster for clients in other processes: `serve [BROKERS] [TOPIC=PARTITIONS ..]`.
//!
//! The first line of output is the bootstrap addresses. It runs until its standard input ends, and then prints each
//! record batch that it holds.

use std::error::Error;

use kafka_courier_test_broker::TestCluster;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let brokers = arguments.next().map_or(Ok(1), |count| count.parse())?;
    let mut builder = TestCluster::builder().brokers(brokers);
    let mut topics = Vec::new();
    for topic in arguments {
        let (name, partitions) = topic.split_once('=').ok_or("a topic is NAME=PARTITIONS")?;
        builder = builder.topic(name, partitions.parse()?);
        topics.push(name.to_owned());
    }
    let cluster = builder.start().await?;
    println!("{}", cluster.bootstrap());
    tokio::task::spawn_blocking(|| std::io::copy(&mut std::io::stdin(), &mut std::io::sink())).await??;
    for topic in &topics {
        for batch in cluster.batches(topic) {
            println!(
                "{topic} {} offset={} count={} producer={} epoch={} sequence={} codec={}",
                batch.partition,
                batch.base_offset,
                batch.record_count,
                batch.producer_id,
                batch.producer_epoch,
                batch.base_sequence,
                batch.codec
            );
        }
    }
    Ok(())
}

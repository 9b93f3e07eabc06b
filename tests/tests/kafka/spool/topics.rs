//! Topics that are deleted, created again and enlarged.
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Result, ensure};
use kafka_courier::{Delivery, FailedOutcome, ProducerRecord};
use kafka_courier_tests::audited::Producer;
use kafka_courier_tests::cluster::Cluster;
use kafka_courier_tests::spool_lives::LoggedNumbers;

use super::{PARTITIONS, PATIENCE, STEP, lives, wait_until, write_without_answers};

/// Publishes numbers until it is stopped.
async fn publish(producer: Producer, topic: &str, stored: &AtomicU64, stop: &AtomicBool) -> Result<Vec<Delivery>> {
    let mut deliveries = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        let number = deliveries.len();
        let (key, value) = ((number % 30).to_string(), number.to_string());
        let (key, value) = (Some(key.as_bytes()), Some(value.as_bytes()));
        let delivery = producer.send(&ProducerRecord { topic, key, value, ..ProducerRecord::default() }).await?;
        delivery.stored().await?;
        deliveries.push(delivery);
        stored.fetch_add(1, Ordering::Relaxed);
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    Ok(deliveries)
}

/// A record of the former topic is delivered there, or is a dead letter with the outcome unknown. All later ones are in the new
/// topic.
#[test]
fn topic_recreated_while_publishing() -> Result<()> {
    const TOPIC: &str = "replaced";
    let cluster = Cluster::start(1)?;
    cluster.create_topic(TOPIC, PARTITIONS, 1, &[])?;
    let folder = tempfile::tempdir()?;
    let mut config = cluster.config()?;
    config.spool_dir = folder.path().join("spool").display().to_string();
    config.spool_any_filesystem = true;
    let (stored, stop) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let producer = runtime.block_on(async { Producer::build(config) })?;
    let publishing = runtime.spawn({
        let (producer, stored, stop) = (producer.clone(), stored.clone(), stop.clone());
        async move { publish(producer, TOPIC, &stored, &stop).await }
    });
    let wait_stored = |count| wait_until("stored records", || Ok(stored.load(Ordering::Relaxed) >= count));
    wait_until("delivered records", || Ok(cluster.end_offsets(TOPIC)? > 0))?;
    cluster.delete_topic(TOPIC)?;
    wait_stored(stored.load(Ordering::Relaxed) + STEP)?;
    cluster.create_topic(TOPIC, PARTITIONS, 1, &[])?;
    let created = stored.load(Ordering::Relaxed);
    wait_stored(created + STEP)?;
    stop.store(true, Ordering::Relaxed);
    let (deliveries, failed) = runtime.block_on(async {
        let deliveries = publishing.await??;
        ensure!(producer.flush(PATIENCE).await, "not everything is settled");
        let mut failed = BTreeSet::new();
        for (number, delivery) in (0..).zip(&deliveries) {
            if let Err(error) = delivery.clone().await {
                ensure!(error.outcome() == FailedOutcome::Unknown, "record {number}: {error}");
                failed.insert(number);
            }
        }
        producer.close(PATIENCE).await;
        anyhow::Ok((deliveries, failed))
    })?;
    let found: BTreeSet<u64> = LoggedNumbers::read(&cluster, TOPIC)?.numbers().collect();
    ensure!(failed.is_disjoint(&found), "records with the outcome unknown are in the new topic");
    let lost: Vec<_> = (created..deliveries.len() as u64).filter(|number| !found.contains(number)).collect();
    ensure!(lost.is_empty(), "records that were published later are not in the new topic: {lost:?}");
    println!("{} records, {} unknown, {} in the new topic", deliveries.len(), failed.len(), found.len());
    drop(producer);
    Ok(())
}

/// A record keeps the partition in which it was stored.
#[test]
fn partitions_added_while_down() -> Result<()> {
    const TOPIC: &str = "grown";
    let cluster = Cluster::start_with(1, &["--proxied"])?;
    cluster.create_topic(TOPIC, PARTITIONS, 1, &[])?;
    let mut lives = lives(&cluster, TOPIC)?;
    let mut first = lives.start()?;
    first.wait_stored(STEP)?;
    write_without_answers(&cluster)?;
    first.wait_stored_more(STEP)?;
    first.kill()?;
    cluster.add_partitions(TOPIC, 2 * PARTITIONS)?;
    cluster.fault(&["clear"])?;
    let mut second = lives.start()?;
    second.wait_stored(STEP)?;
    second.kill()?;
    let mut third = lives.start()?;
    third.wait_stored(STEP)?;
    third.kill()?;
    let letters = lives.drain()?;
    ensure!(letters.is_empty(), "{letters:?}");
    let logged = LoggedNumbers::read(&cluster, TOPIC)?;
    println!("{:?}", lives.compare(&logged)?);
    let grown = i32::try_from(PARTITIONS)?..;
    let is_used = logged.partitions.values().flatten().any(|partition| grown.contains(partition));
    ensure!(is_used, "no record is in an added partition: {:?}", logged.partitions);
    Ok(())
}

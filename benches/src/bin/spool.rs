//! Measures how fast events become durable, beside a bare loop of write and sync on the same disk in the same run.
//!
//! Rules:
//!  - The broker is the test broker in this process, so rates with and without a spool bear the same load of it.
//!  - The file of the bare loop has its full size before, as the segments of a spool have.
//!  - Every rate is the median of five parts of a second.
//!
//! `cargo run --release -p kafka-courier-benches --bin spool -- [FOLDER]`
use std::error::Error;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use kafka_courier::{KafkaProducer, ProducerRecord};
use kafka_courier_test_broker::TestCluster;

type Failure = Box<dyn Error + Send + Sync>;

const PART: Duration = Duration::from_secs(1);
const PARTS: usize = 5;
const VALUE: [u8; 1024] = [b'v'; 1024];
const PARTITIONS: i32 = 10;

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> Result<(), Failure> {
    let folder = std::env::args().nth(1).unwrap_or_else(|| ".".to_owned());
    let folder = tempfile::tempdir_in(folder)?;
    let syncs = bare_loop(folder.path(), 4096)?;
    let bytes = bare_loop(folder.path(), 1 << 20)? << 20;
    println!("| measured | per second |\n|---|---|");
    println!("| bare loop, 4 KiB a sync | {syncs} |\n| bare loop, 1 MiB a sync, bytes | {bytes} |");
    for waiting in [1, 16, 64, 1000] {
        let rate = stored(folder.path(), waiting).await?;
        println!("| events of 1 KiB stored, {waiting} waiting | {rate} |");
    }
    println!("| events of 1 KiB delivered without a spool | {} |", delivered(None).await?);
    println!("| events of 1 KiB delivered through a spool | {} |", delivered(Some(folder.path())).await?);
    Ok(())
}

fn median(mut parts: Vec<u64>) -> u64 {
    parts.sort_unstable();
    parts.get(parts.len() / 2).copied().unwrap_or(0)
}

fn bare_loop(folder: &Path, bytes: usize) -> Result<u64, Failure> {
    let file = std::fs::File::create(folder.join("bare"))?;
    let size = 64 << 20;
    file.write_all_at(&vec![0; size], 0)?;
    file.sync_all()?;
    let buffer = vec![1; bytes];
    let mut parts = Vec::new();
    let mut offset = 0;
    for _ in 0..PARTS {
        let (since, mut count) = (Instant::now(), 0);
        while since.elapsed() < PART {
            file.write_all_at(&buffer, offset as u64)?;
            file.sync_data()?;
            offset = (offset + bytes) % size;
            count += 1;
        }
        parts.push(count);
    }
    Ok(median(parts))
}

async fn producer(cluster: &TestCluster, spool: Option<&Path>) -> Result<KafkaProducer, Failure> {
    let builder = KafkaProducer::builder().brokers(cluster.bootstrap()).buffer_memory(256_usize << 20);
    let builder = match spool {
        Some(spool) => builder.spool_dir(spool.join("spool").display().to_string()),
        None => builder,
    };
    let producer = builder.build()?;
    producer.learn_topic("t").await?;
    Ok(producer)
}

/// Returns the events a second that become durable while this number of tasks wait for one each.
async fn stored(folder: &Path, waiting: u64) -> Result<u64, Failure> {
    let cluster = TestCluster::builder().topic("t", PARTITIONS).start().await?;
    let producer = producer(&cluster, Some(folder)).await?;
    let count = Arc::new(AtomicU64::new(0));
    let mut tasks = Vec::new();
    for task in 0..waiting {
        let (producer, count) = (producer.clone(), count.clone());
        tasks.push(tokio::spawn(async move {
            let key = task.to_be_bytes();
            let record = ProducerRecord { topic: "t", key: Some(&key), value: Some(&VALUE), ..Default::default() };
            while let Ok(delivery) = producer.send(&record).await
                && delivery.stored().await.is_ok()
            {
                count.fetch_add(1, Ordering::Relaxed);
            }
        }));
    }
    let rate = rate(|| count.load(Ordering::Relaxed)).await;
    tasks.iter().for_each(tokio::task::JoinHandle::abort);
    producer.close(Duration::from_secs(60)).await;
    Ok(rate)
}

/// Returns the events a second that are delivered while one task publishes without waiting for any.
async fn delivered(spool: Option<&Path>) -> Result<u64, Failure> {
    let cluster = TestCluster::builder().topic("t", PARTITIONS).start().await?;
    let producer = producer(&cluster, spool).await?;
    let publisher = producer.clone();
    let task = tokio::spawn(async move {
        for number in 0_u64.. {
            let key = number.to_be_bytes();
            let record = ProducerRecord { topic: "t", key: Some(&key), value: Some(&VALUE), ..Default::default() };
            match publisher.send(&record).await {
                Ok(delivery) => delivery.detach(),
                Err(_) => return,
            }
        }
    });
    let rate = rate(|| producer.stats().sent).await;
    task.abort();
    producer.close(Duration::from_secs(60)).await;
    Ok(rate)
}

async fn rate(count: impl Fn() -> u64) -> u64 {
    let mut parts = Vec::new();
    tokio::time::sleep(PART).await;
    for _ in 0..PARTS {
        let (since, before) = (Instant::now(), count());
        tokio::time::sleep(PART).await;
        let done = count() - before;
        parts.push((done as f64 / since.elapsed().as_secs_f64()) as u64);
    }
    median(parts)
}

//! An outage that is longer than memory: the disk bounds it.

use std::os::unix::fs::FileExt as _;

use crate::spool_folder::SpoolFolder;
use crate::support::{LONG, Producer, record, wait_until};
use kafka_courier::{Compression, KafkaConfig};
use kafka_courier_test_broker::{ApiKey, Fault, Rule, TestCluster};

const KEYS: usize = 5;
/// The bytes of memory.
const MEMORY: usize = 1 << 20;
/// The bytes of an event.
const EVENT: usize = 4_000;
/// Six times as many events as fit into memory.
const EVENTS: usize = 6 * MEMORY / EVENT;

fn small(cluster: &TestCluster, folder: &SpoolFolder) -> KafkaConfig {
    let mut config = folder.config(cluster);
    (config.compression, config.buffer_memory) = (Compression::None, MEMORY);
    (config.flush_bytes, config.max_block) = (40_000, LONG);
    config
}

/// Builds a producer whose topic is known, and publishes an event of each key.
async fn known(config: KafkaConfig, folder: &SpoolFolder, next: &mut [u32]) -> Producer {
    let producer = folder.next_producer(config).await;
    publish(&producer, next, KEYS).await;
    assert!(producer.flush(LONG).await);
    producer
}

/// Publishes events over all keys, and waits until the last one is stored. Memory stays within its bounds.
async fn publish(producer: &Producer, next: &mut [u32], count: usize) {
    let mut last = None;
    for event in 0..count {
        let key = event % KEYS;
        let value = format!("key-{key}#{}", next[key]);
        let value = format!("{value:.<EVENT$}");
        next[key] += 1;
        last = Some(producer.send(&record("t", &format!("key-{key}"), &value)).await.unwrap());
        if event % 50 == 0 {
            last.as_ref().unwrap().stored().await.unwrap();
            let used = producer.stats().buffered_bytes;
            assert!(used <= MEMORY + MEMORY / 2, "{used} bytes are in memory");
        }
    }
    last.unwrap().stored().await.unwrap();
}

fn assert_each_once(cluster: &TestCluster, next: &[u32]) {
    let log = cluster.records("t");
    assert_eq!(log.len(), next.iter().sum::<u32>() as usize);
    let number = |value: &str| value.split(['#', '.']).nth(1).unwrap().parse::<u32>().unwrap();
    for key in 0..KEYS {
        let key = format!("key-{key}");
        let of_key = log.iter().filter(|record| record.key_text() == Some(&key));
        let numbers: Vec<u32> = of_key.map(|record| number(record.value_text().unwrap())).collect();
        assert!(numbers.iter().copied().eq(0..numbers.len() as u32), "{key}: {numbers:?}");
    }
}

#[tokio::test]
async fn outage_larger_than_memory_is_delivered() {
    let cluster = TestCluster::builder().topic("t", 3).start().await.unwrap();
    let (folder, mut next) = (SpoolFolder::new(), [0; KEYS]);
    let producer = known(small(&cluster, &folder), &folder, &mut next).await;
    cluster.kill(1).await;
    publish(&producer, &mut next, EVENTS).await;
    // The counts are at most a quarter of a second old.
    wait_until(|| {
        let spool = producer.stats().spool.unwrap();
        spool.bytes > 4 * MEMORY as u64 && spool.resident_bytes <= (MEMORY / 2) as u64
    })
    .await;
    assert!(cluster.restart(1).unwrap());
    assert!(producer.flush(LONG).await, "{:?}", producer.stats());
    let report = producer.close(LONG).await;
    assert_eq!((report.failed, report.stored), (0, 0));
    assert_each_once(&cluster, &next);
}

#[tokio::test]
async fn awaited_deliveries_outlive_memory() {
    let cluster = TestCluster::builder().topic("t", 2).start().await.unwrap();
    let (folder, mut next) = (SpoolFolder::new(), [0; KEYS]);
    let producer = known(small(&cluster, &folder), &folder, &mut next).await;
    cluster.kill(1).await;
    let mut deliveries = Vec::new();
    for event in 0..EVENTS {
        let key = event % KEYS;
        let value = format!("{:.<EVENT$}", format!("key-{key}#{}", next[key]));
        next[key] += 1;
        deliveries.push(producer.send(&record("t", &format!("key-{key}"), &value)).await.unwrap());
    }
    assert!(cluster.restart(1).unwrap());
    for delivery in deliveries {
        delivery.await.unwrap();
    }
    producer.close(LONG).await;
    assert_each_once(&cluster, &next);
}

/// The first process dies with a backlog that some of its requests have reached the leader with.
#[tokio::test]
async fn next_process_drains_large_backlog() {
    let cluster = TestCluster::builder().topic("t", 2).start().await.unwrap();
    let (folder, mut next) = (SpoolFolder::new(), [0; KEYS]);
    let producer = known(small(&cluster, &folder), &folder, &mut next).await;
    // The leader writes, and the process learns nothing.
    cluster.inject(Rule::for_api(ApiKey::Produce).always().then(Fault::ApplyThenDisconnect));
    publish(&producer, &mut next, EVENTS).await;
    let report = producer.close(std::time::Duration::ZERO).await;
    assert!(report.stored > (EVENTS / 2) as u64, "{report:?}");
    cluster.clear_faults();
    drop(producer);
    let heir = folder.next_producer(small(&cluster, &folder)).await;
    assert_eq!(heir.stats().in_flight, report.stored);
    assert!(heir.stats().buffered_bytes <= MEMORY / 2, "{:?}", heir.stats());
    assert!(heir.flush(LONG).await, "{:?}", heir.stats());
    let report = heir.close(LONG).await;
    assert_eq!((report.failed, report.stored), (0, 0));
    assert_each_once(&cluster, &next);
}

/// Damages the first byte of a text in the journal. Returns the number of files that have it.
fn damage(folder: &SpoolFolder, text: &str) -> usize {
    let mut damaged = 0;
    for entry in std::fs::read_dir(folder.path()).unwrap() {
        let path = entry.unwrap().path();
        if !path.file_name().unwrap().to_str().unwrap().starts_with("journal-") {
            continue;
        }
        let bytes = std::fs::read(&path).unwrap();
        let found = bytes.windows(text.len()).position(|window| window == text.as_bytes());
        if let Some(at) = found {
            let file = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
            file.write_all_at(b"!", at as u64).unwrap();
            damaged += 1;
        }
    }
    damaged
}

#[tokio::test]
async fn damaged_backlog_is_lost_by_name() {
    let cluster = TestCluster::builder().topic("t", 1).start().await.unwrap();
    let (folder, mut next) = (SpoolFolder::new(), [0; KEYS]);
    let producer = known(small(&cluster, &folder), &folder, &mut next).await;
    cluster.kill(1).await;
    publish(&producer, &mut next, EVENTS).await;
    assert_eq!(damage(&folder, &format!("key-1#{}.", EVENTS / KEYS / 2)), 1);
    assert!(cluster.restart(1).unwrap());
    assert!(producer.flush(LONG).await, "{:?}", producer.stats());
    let lost = producer.stats().spool.unwrap().lost;
    assert!(lost > 0 && lost < 20, "{lost} events of one batch are lost");
    let report = producer.close(LONG).await;
    assert_eq!((report.failed, report.stored), (lost, 0));
    assert_eq!(cluster.record_count("t") as u64, next.iter().sum::<u32>() as u64 - lost);
    drop(producer);
    // The next process does not name the events again, and has nothing to send.
    let heir = folder.next_producer(small(&cluster, &folder)).await;
    assert_eq!(heir.stats().in_flight, 0);
    heir.close(LONG).await;
}

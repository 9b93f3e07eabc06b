//! A spool that can't be written, and processes that are killed.

use std::collections::BTreeSet;
use std::io::{BufRead as _, BufReader};
use std::process::Stdio;

use crate::spool_folder::SpoolFolder;
use crate::support::{LONG, Producer, process, record, wait_until};
use kafka_courier::{Compression, DeliveryErrorKind, FailedOutcome, HealthPart, PublishError, SpoolFault, StoreError};
use kafka_courier_test_broker::{ApiKey, Fault, Rule, TestCluster};

#[tokio::test]
async fn latched_spool_refuses_events() {
    let (cluster, folder) = (TestCluster::builder().topic("t", 1).start().await.unwrap(), SpoolFolder::new());
    let mut config = folder.config(&cluster);
    config.compression = Compression::None;
    let producer = Producer::build(config).unwrap();
    producer.send(&record("t", "k", "v")).await.unwrap().await.unwrap();
    wait_until(|| folder.path().join("spare").exists()).await;
    // The present file takes more rounds. The next one can't be created.
    // The spool's thread may rename a file meanwhile.
    wait_until(|| std::fs::remove_dir_all(folder.path()).is_ok() || !folder.path().exists()).await;
    let large = "x".repeat(500_000);
    let (mut failed, mut published) = (None, 1);
    while failed.is_none() {
        let delivery = producer.send(&record("t", "k", &large)).await.unwrap();
        published += 1;
        if let Err(StoreError::NotStored(error)) = delivery.stored().await {
            assert_eq!(delivery.await.unwrap_err().kind(), error.kind());
            failed = Some(error);
        }
    }
    let error = failed.unwrap();
    assert_eq!((error.kind(), error.outcome()), (DeliveryErrorKind::NotStored, FailedOutcome::Unknown));
    let refused = producer.send(&record("t", "k", "v")).await.map(drop).unwrap_err();
    assert!(matches!(&refused, PublishError::Spool(SpoolFault::Write(_))), "{refused}");
    assert_eq!(refused.name(), "spool");
    let unhealthy = producer.health_check(LONG).await.unwrap_err();
    assert!(unhealthy.part() == HealthPart::Producer && unhealthy.to_string().contains("spool"), "{unhealthy}");
    assert!(producer.stats().spool.unwrap().is_latched());
    let report = producer.close(LONG).await;
    assert_eq!((report.delivered, report.failed, report.dead_lettered), (published - 1, 1, 1));
    assert_eq!(cluster.record_count("t"), published - 1, "an event that is not stored is not sent");
}

/// The variable with the folder of the process that is killed.
const FOLDER: &str = "KAFKA_COURIER_SPOOL_TEST";
/// The number of processes.
const LIVES: usize = 8;

/// Publishes events until the process is killed, and prints each stored one.
async fn publish_until_killed(folder: String) {
    let mut config = kafka_courier::KafkaConfig::from_env().unwrap();
    (config.spool_dir, config.client_id) = (folder, "killed".to_owned());
    config.flush_timeout = std::time::Duration::from_millis(1);
    config.spool_any_filesystem = true;
    let producer = Producer::build(config).unwrap();
    let life = std::process::id();
    for number in 0.. {
        let (key, value) = (format!("k{}", number % 3), format!("{life}#{number}"));
        let delivery = producer.send(&record("t", &key, &value)).await.unwrap();
        delivery.stored().await.unwrap();
        println!("stored {value}");
    }
}

#[test]
fn killed_process_loses_and_doubles_nothing() {
    let path = concat!(module_path!(), "::killed_process_loses_and_doubles_nothing");
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    if process::runs_only(path) {
        return runtime.block_on(publish_until_killed(std::env::var(FOLDER).unwrap()));
    }
    let folder = SpoolFolder::new();
    let cluster = runtime.block_on(TestCluster::builder().topic("t", 2).start()).unwrap();
    let mut stored = BTreeSet::new();
    for life in 0..LIVES {
        if life % 2 == 1 {
            cluster.inject(Rule::for_api(ApiKey::Produce).times(3).then(Fault::ApplyThenDisconnect));
        }
        let mut command = process::only(path);
        command.env(FOLDER, folder.path()).env("KAFKA_BROKERS", cluster.bootstrap()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
        let values = lines.filter_map(|line| line.strip_prefix("stored ").map(str::to_owned));
        stored.extend(values.take(10 + 17 * life));
        child.kill().unwrap();
        child.wait().unwrap();
    }
    assert_eq!(stored.len(), (0..LIVES).map(|life| 10 + 17 * life).sum::<usize>(), "every process stored events");
    runtime.block_on(async {
        let last = folder.next_producer(folder.config(&cluster)).await;
        assert!(last.flush(LONG).await);
        let report = last.close(LONG).await;
        assert_eq!((report.failed, report.stored), (0, 0));
    });
    let log = cluster.records("t");
    let values: Vec<&str> = log.iter().map(|record| record.value_text().unwrap()).collect();
    let once: BTreeSet<&str> = values.iter().copied().collect();
    assert_eq!(once.len(), values.len(), "no event is in the log twice");
    let lost: Vec<&String> = stored.iter().filter(|value| !once.contains(value.as_str())).collect();
    assert_eq!(lost, Vec::<&String>::new(), "each stored event is in the log");
    let of =
        |value: &str| value.split_once('#').map(|(life, number)| (life.to_owned(), number.parse::<u32>().unwrap()));
    for key in ["k0", "k1", "k2"] {
        let order: Vec<_> = log.iter().filter(|record| record.key_text() == Some(key)).collect();
        let order: Vec<_> = order.iter().filter_map(|record| of(record.value_text().unwrap())).collect();
        assert!(order.windows(2).all(|pair| pair[0].0 != pair[1].0 || pair[0].1 < pair[1].1), "{key}: {order:?}");
    }
}

/// The ranges of Kafka 2.7, without DescribeProducers.
#[tokio::test]
async fn brokers_without_producer_states_are_refused() {
    let cluster = TestCluster::builder().topic("t", 1).start().await.unwrap();
    let ranges: [(i16, i16, i16); 9] =
        [(0, 0, 8), (1, 0, 12), (2, 0, 5), (3, 0, 9), (18, 0, 3), (22, 0, 4), (23, 0, 3), (32, 0, 3), (36, 0, 2)];
    let mut answer = vec![0, 0, ranges.len() as u8 + 1];
    for (key, lowest, highest) in ranges {
        answer.extend([key, lowest, highest].iter().flat_map(|field| field.to_be_bytes()));
        answer.push(0);
    }
    answer.extend([0; 5]);
    cluster.inject(Rule::for_api(ApiKey::ApiVersions).always().then(Fault::ApplyThenAnswer(answer)));
    let folder = SpoolFolder::new();
    let producer = folder.producer(&cluster);
    producer.send(&record("t", "k", "v")).await.unwrap().detach();
    wait_until(|| producer.stats().spool.unwrap().has_outdated_brokers).await;
    let error = producer.send(&record("t", "k", "v")).await.unwrap_err().to_string();
    assert!(error.contains("Kafka 2.8 or newer is needed") && error.contains("spool_dir"), "{error}");
    producer.close(std::time::Duration::ZERO).await;
    assert_eq!(cluster.record_count("t"), 0);
}

//! Processes that end without a close, and later processes on the same folder.

use std::time::Duration;

use crate::spool_folder::SpoolFolder;
use crate::support::{LONG, assert_in_order, record};
use kafka_courier::KafkaConfig;
use kafka_courier_test_broker::{ApiKey, Fault, Rule, TestCluster};
use tokio::runtime::{Builder, Runtime};

const KEYS: usize = 7;

fn runtime() -> Runtime {
    Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap()
}

/// Publishes `count` events over all keys in a separate runtime, and shuts the runtime down. Returns how many events of
/// each key were published.
fn publish_and_die(test: &Runtime, folder: &SpoolFolder, config: &KafkaConfig, next: &mut [u32], count: usize) {
    let own = runtime();
    let producer = own.block_on(folder.next_producer(config.clone()));
    for event in 0..count {
        let key = event % KEYS;
        let value = format!("key-{key}#{}", next[key]);
        next[key] += 1;
        let sent = test.block_on(producer.send(&record("t", &format!("key-{key}"), &value))).unwrap();
        // Some events are only stored when the runtime ends.
        if event % 3 == 0 {
            test.block_on(sent.stored()).unwrap();
        }
    }
    own.shutdown_background();
}

/// Delivers everything that the folder has.
async fn deliver_rest(folder: &SpoolFolder, config: KafkaConfig) {
    let last = folder.next_producer(config).await;
    assert!(last.flush(LONG).await);
    last.close(LONG).await;
}

fn assert_each_once(cluster: &TestCluster, next: &[u32]) {
    let log = cluster.records("t");
    assert_eq!(log.len(), next.iter().sum::<u32>() as usize);
    assert_in_order(&log);
}

#[test]
fn killed_producers_deliver_each_event_once() {
    let (test, folder) = (runtime(), SpoolFolder::new());
    let cluster = test.block_on(TestCluster::builder().topic("t", 3).start()).unwrap();
    let config = folder.config(&cluster);
    let mut next = [0; KEYS];
    for life in 0..6 {
        if life % 2 == 1 {
            cluster.inject(Rule::for_api(ApiKey::Produce).times(2).then(Fault::ApplyThenDisconnect));
        }
        publish_and_die(&test, &folder, &config, &mut next, 60);
    }
    test.block_on(deliver_rest(&folder, config));
    assert_each_once(&cluster, &next);
}

#[test]
fn next_process_settles_lost_answers() {
    let (test, folder) = (runtime(), SpoolFolder::new());
    let cluster = test.block_on(TestCluster::builder().topic("t", 1).start()).unwrap();
    let config = folder.config(&cluster);
    let mut next = [0; KEYS];
    publish_and_die(&test, &folder, &config, &mut next, 10);
    for _ in 0..3 {
        // The leader writes everything, and no process learns that.
        cluster.inject(Rule::for_api(ApiKey::Produce).always().then(Fault::ApplyThenDisconnect));
        publish_and_die(&test, &folder, &config, &mut next, 30);
        cluster.clear_faults();
    }
    test.block_on(async {
        let last = folder.next_producer(config).await;
        assert!(last.flush(LONG).await);
        let report = last.close(LONG).await;
        assert_eq!((report.failed, report.stored), (0, 0));
    });
    assert_each_once(&cluster, &next);
}

#[test]
fn outage_ends_after_several_processes() {
    let (test, folder) = (runtime(), SpoolFolder::new());
    let cluster = test.block_on(TestCluster::builder().topic("t", 3).start()).unwrap();
    let config = folder.config(&cluster);
    let mut next = [0; KEYS];
    publish_and_die(&test, &folder, &config, &mut next, 10);
    assert!(test.block_on(cluster.kill(1)));
    for _ in 0..4 {
        publish_and_die(&test, &folder, &config, &mut next, 20);
    }
    test.block_on(async { assert!(cluster.restart(1).unwrap()) });
    test.block_on(deliver_rest(&folder, config));
    assert_each_once(&cluster, &next);
}

#[test]
fn recreated_topic_gets_unsent_events() {
    let (test, folder) = (runtime(), SpoolFolder::new());
    let cluster = test.block_on(TestCluster::builder().topic("t", 1).start()).unwrap();
    let config = folder.config(&cluster);
    let mut next = [0; KEYS];
    publish_and_die(&test, &folder, &config, &mut next, 7);
    test.block_on(deliver_rest(&folder, config.clone()));
    assert!(test.block_on(cluster.kill(1)));
    let mut unsent = [0; KEYS];
    publish_and_die(&test, &folder, &config, &mut unsent, 14);
    test.block_on(async { assert!(cluster.restart(1).unwrap()) });
    assert!(cluster.delete_topic("t"));
    cluster.create_topic(&kafka_courier_test_broker::TopicSpec::new("t", 1)).unwrap();
    test.block_on(async {
        let last = folder.next_producer(config).await;
        assert!(last.flush(LONG).await);
        let report = last.close(Duration::from_secs(30)).await;
        assert_eq!((report.failed, report.stored), (0, 0), "no event was sent to the deleted topic");
    });
    assert_each_once(&cluster, &unsent);
}

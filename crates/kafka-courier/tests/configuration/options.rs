//! The visible effect of options that no other test shows. `options_coverage` lists the test of every option.

use std::time::{Duration, Instant};

use crate::support::{LONG, Producer, config, record};
use kafka_courier::events::{EventBuilder, SystemAlert};
use kafka_courier::{Compression, KafkaConfig};
use kafka_courier_test_broker::{ApiKey, Batch, ErrorCode, Fault, Gate, Rule, TestCluster};
use metrics_util::debugging::{DebugValue, DebuggingRecorder};
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpListener;

/// Publishes `count` records of 1000 bytes, and returns their batches.
async fn batches_of(count: usize, change: impl FnOnce(&mut KafkaConfig)) -> Vec<Batch> {
    let cluster = TestCluster::builder().topic("t", 1).start().await.unwrap();
    let mut config = config(&cluster);
    config.flush_timeout = LONG;
    change(&mut config);
    let producer = Producer::build(config).unwrap();
    let value = "x".repeat(1000);
    for _ in 0..count {
        producer.send(&record("t", "k", &value)).await.unwrap().detach();
    }
    assert!(producer.flush(LONG).await);
    cluster.batches("t")
}

#[tokio::test]
async fn brokers_are_tried_in_turn() {
    let cluster = TestCluster::builder().topic("t", 1).start().await.unwrap();
    let closed_port = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let mut config = config(&cluster);
    let live = std::mem::take(&mut config.brokers);
    config.brokers = [vec![closed_port.to_string().parse().unwrap()], live].concat();
    Producer::build(config).unwrap().send(&record("t", "k", "v")).await.unwrap().await.unwrap();
}

#[tokio::test]
async fn client_id_reaches_the_broker() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let brokers = listener.local_addr().unwrap().to_string();
    let producer = Producer::with(|builder| builder.brokers(brokers).client_id("a-name")).unwrap();
    let probe = tokio::spawn(async move { producer.health_check(LONG).await });
    let (mut connection, _) = listener.accept().await.unwrap();
    let mut request = vec![0; 4 + 8 + 2 + 6];
    connection.read_exact(&mut request).await.unwrap();
    assert_eq!(&request[12..], b"\x00\x06a-name");
    probe.abort();
}

#[tokio::test]
async fn connect_timeout_bounds_silent_brokers() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let brokers = listener.local_addr().unwrap().to_string();
    let producer = Producer::with(|builder| builder.brokers(brokers).connect_timeout("50ms")).unwrap();
    let error = producer.health_check(LONG).await.unwrap_err().to_string();
    assert!(error.contains("50ms"), "{error}");
}

#[tokio::test]
async fn retry_max_bounds_attempts() {
    let cluster = TestCluster::builder().topic("t", 1).start().await.unwrap();
    for retry_max in [0, 2] {
        cluster.clear_faults();
        cluster.inject(Rule::for_api(ApiKey::Produce).always().then(Fault::Refuse(ErrorCode::RequestTimedOut)));
        let mut config = config(&cluster);
        config.retry_max = retry_max;
        let producer = Producer::build(config).unwrap();
        let error = producer.send(&record("t", "k", "v")).await.unwrap().await.unwrap_err();
        assert_eq!(error.attempts(), retry_max + 1, "{error}");
    }
}

#[tokio::test]
async fn retry_backoff_separates_attempts() {
    let cluster = TestCluster::builder().topic("t", 1).start().await.unwrap();
    cluster.inject(Rule::for_api(ApiKey::Produce).then(Fault::Refuse(ErrorCode::RequestTimedOut)));
    let mut config = config(&cluster);
    (config.retry_backoff, config.retry_backoff_max) = (Duration::from_millis(500), Duration::from_millis(500));
    let producer = Producer::build(config).unwrap();
    let began = Instant::now();
    producer.send(&record("t", "k", "v")).await.unwrap().await.unwrap();
    // Jitter leaves at least half of the backoff. The default backoff is 100 ms.
    assert!(began.elapsed() >= Duration::from_millis(250), "{:?}", began.elapsed());
}

#[tokio::test]
async fn retry_backoff_max_caps_waits() {
    let cluster = TestCluster::builder().topic("t", 1).start().await.unwrap();
    cluster.inject(Rule::for_api(ApiKey::Produce).times(12).then(Fault::Refuse(ErrorCode::RequestTimedOut)));
    let mut config = config(&cluster);
    (config.retry_backoff, config.retry_backoff_max) = (Duration::from_millis(40), Duration::from_millis(40));
    let producer = Producer::build(config).unwrap();
    let began = Instant::now();
    producer.send(&record("t", "k", "v")).await.unwrap().await.unwrap();
    // Jitter leaves at least half of 12 waits of 40 ms. Doubled waits up to the default of 1 s take at least 4.1 s.
    assert!((240..4_000).contains(&began.elapsed().as_millis()), "{:?}", began.elapsed());
}

/// Returns the number of connections to one broker once the batches of eight partitions had to wait for each other.
async fn connections_under_load(connections_per_broker: u32) -> u32 {
    let cluster = TestCluster::builder().topic("t", 8).start().await.unwrap();
    let mut config = config(&cluster);
    (config.connections_per_broker, config.max_in_flight, config.max_request_bytes) =
        (connections_per_broker, 1, 15_000);
    config.compression = Compression::None;
    let producer = Producer::build(config).unwrap();
    let gate = Gate::new();
    cluster.inject(Rule::for_api(ApiKey::Produce).always().then(Fault::Hold(gate.clone())));
    let value = "x".repeat(10_000);
    for partition in 0..8 {
        let record = kafka_courier::ProducerRecord { partition: Some(partition), ..record("t", "k", &value) };
        producer.send(&record).await.unwrap().detach();
    }
    // A broker serves one request of a connection at a time, so N concurrent requests are on N connections.
    tokio::time::timeout(LONG, gate.arrived(connections_per_broker as usize)).await.unwrap();
    gate.open();
    assert!(producer.flush(LONG).await);
    producer.stats().brokers[0].connections
}

#[tokio::test]
async fn connections_per_broker_bounds_connections() {
    for allowed in [1, 3, 4] {
        assert_eq!(connections_under_load(allowed).await, allowed);
    }
}

#[tokio::test]
async fn flush_messages_fills_a_batch() {
    let counts = |batches: Vec<Batch>| batches.iter().map(|batch| batch.record_count).collect::<Vec<_>>();
    assert_eq!(counts(batches_of(10, |config| config.flush_messages = 4).await), [4, 4, 2]);
    assert_eq!(counts(batches_of(10, |config| config.flush_messages = 1).await), [1; 10]);
}

#[tokio::test]
async fn flush_bytes_fills_a_batch() {
    let batches = batches_of(10, |config| {
        config.flush_bytes = 4500;
        config.compression = Compression::None;
    });
    let sizes: Vec<_> = batches.await.iter().map(|batch| (batch.record_count, batch.size_bytes <= 4500)).collect();
    assert_eq!(sizes, [(4, true), (4, true), (2, true)]);
}

#[tokio::test]
async fn compression_is_snappy_or_none() {
    let snappy = batches_of(10, |_| {}).await;
    let plain = batches_of(10, |config| config.compression = Compression::None).await;
    assert_eq!((snappy[0].codec, plain[0].codec), (2, 0));
    assert!(snappy[0].size_bytes * 5 < plain[0].size_bytes);
}

#[tokio::test]
async fn metadata_max_age_triggers_refreshes() {
    let cluster = TestCluster::builder().topic("t", 1).start().await.unwrap();
    let mut config = config(&cluster);
    config.metadata_max_age = Duration::from_millis(5);
    let producer = Producer::build(config).unwrap();
    producer.send(&record("t", "k", "v")).await.unwrap().await.unwrap();
    let refreshed = cluster.wait_for_requests(ApiKey::Metadata, 10);
    tokio::time::timeout(LONG, refreshed).await.unwrap();
}

/// Returns the number of Produce requests for four batches of four partitions.
async fn requests_for_four_batches(max_request_bytes: usize) -> u64 {
    let cluster = TestCluster::builder().topic("t", 4).start().await.unwrap();
    let mut config = config(&cluster);
    config.flush_timeout = LONG;
    config.max_request_bytes = max_request_bytes;
    config.compression = Compression::None;
    let producer = Producer::build(config).unwrap();
    let value = "x".repeat(10_000);
    for partition in 0..4 {
        let record = kafka_courier::ProducerRecord { partition: Some(partition), ..record("t", "k", &value) };
        producer.send(&record).await.unwrap().detach();
    }
    assert!(producer.flush(LONG).await);
    cluster.requests(ApiKey::Produce)
}

#[tokio::test]
async fn max_request_bytes_bounds_a_request() {
    assert_eq!(requests_for_four_batches(1 << 20).await, 1);
    assert_eq!(requests_for_four_batches(15_000).await, 4);
}

/// Returns the peak number of unanswered requests for ten batches of one partition.
async fn peak_in_flight(max_in_flight: u32) -> f64 {
    let recorder = DebuggingRecorder::new();
    let snapshotter = recorder.snapshotter();
    let _guard = metrics::set_default_local_recorder(&recorder);
    let cluster = TestCluster::builder().topic("t", 1).start().await.unwrap();
    let mut config = config(&cluster);
    (config.max_in_flight, config.flush_messages, config.connections_per_broker) = (max_in_flight, 1, 1);
    let producer = Producer::build(config).unwrap();
    producer.send(&record("t", "k", "v")).await.unwrap().await.unwrap();
    let gate = Gate::new();
    cluster.inject(Rule::for_api(ApiKey::Produce).then(Fault::Hold(gate.clone())));
    for _ in 0..10 {
        producer.send(&record("t", "k", "v")).await.unwrap().detach();
    }
    gate.arrived(1).await;
    let mut most: f64 = 0.0;
    let mut sample = || {
        for (key, _, _, value) in snapshotter.snapshot().into_vec() {
            if let ("kafka_requests_in_flight", DebugValue::Gauge(value)) = (key.key().name(), value) {
                most = most.max(value.into_inner());
            }
        }
        most
    };
    while sample() < f64::from(max_in_flight) {
        tokio::task::yield_now().await;
    }
    gate.open();
    assert!(producer.flush(LONG).await);
    sample()
}

#[tokio::test]
async fn max_in_flight_bounds_unanswered_batches() {
    for max_in_flight in [1, 3, 5] {
        assert_eq!(peak_in_flight(max_in_flight).await, f64::from(max_in_flight));
    }
}

#[tokio::test]
async fn topic_mapping_chooses_the_topic() {
    let cluster = TestCluster::builder().topic("elsewhere", 1).start().await.unwrap();
    let mut config = config(&cluster);
    config.topic_mapping = "system.alert=elsewhere".to_owned();
    let producer = Producer::build(config).unwrap();
    let event = EventBuilder::new("tests", "1.0").system_alert(SystemAlert::default());
    assert_eq!(&*producer.publish_and_wait(&event).await.unwrap().topic, "elsewhere");
}

#[tokio::test]
async fn mapping_to_dead_letters_is_refused() {
    let cluster = TestCluster::builder().topic("t", 1).topic("dead", 1).start().await.unwrap();
    let mut config = config(&cluster);
    config.dlq_topic = "dead".to_owned();
    let producer = Producer::build(config).unwrap();
    for event_type in ["system.alert", "system.*", "*"] {
        let error = producer.set_topic_mapping(event_type, "dead").unwrap_err().to_string();
        assert!(error.contains("dlq_topic") && error.contains(event_type), "{error}");
    }
    producer.set_topic_mapping("system.*", "t").unwrap();
}

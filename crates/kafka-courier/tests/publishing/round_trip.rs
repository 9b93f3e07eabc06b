//! Publishing without faults, from the event to the log.

use std::time::Duration;

use crate::support::{self, LONG, Producer, PublishedRecords, config, producer, record};
use kafka_courier::events::{EventBuilder, EventId, SystemAlert, TraceContext};
use kafka_courier::{Header, ProducerRecord, PublishError, headers};
use kafka_courier_test_broker::{ApiKey, TestCluster};

fn alert(service: &str) -> SystemAlert {
    SystemAlert { alert_id: "a-1".to_owned(), service: service.to_owned(), ..SystemAlert::default() }
}

#[tokio::test]
async fn event_arrives_with_key_and_headers() {
    let cluster = TestCluster::builder().topic("system-events", 6).start().await.unwrap();
    let producer = producer(&cluster);
    let trace = TraceContext::new("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", None).unwrap();
    let builder = EventBuilder::new("tests", "1.0").with_correlation_id("c-9").with_trace_context(trace);
    let event = builder.system_alert(alert("billing"));
    let metadata = producer.publish(&event).await.unwrap().await.unwrap();

    let records = cluster.records("system-events");
    assert_eq!(records.len(), 1);
    assert_eq!((metadata.partition, metadata.offset), (records[0].partition, Some(records[0].offset)));
    assert_eq!((&*metadata.topic, metadata.timestamp), ("system-events", records[0].timestamp));
    assert_eq!(records[0].key_text(), Some("billing"));
    let mut id = [0; EventId::UUID_LEN];
    assert_eq!(records[0].header(headers::EVENT_ID), Some(event.id.as_str(&mut id).as_bytes()));
    assert_eq!(records[0].header(headers::EVENT_TYPE), Some(&b"system.alert"[..]));
    assert_eq!(records[0].header(headers::CORRELATION_ID), Some(&b"c-9"[..]));
    let parent = b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    assert_eq!(records[0].header("traceparent"), Some(&parent[..]));
    assert_eq!(records[0].headers.len(), 4);
    assert!(records[0].value_text().unwrap().contains("\"service\":\"billing\""));
}

#[tokio::test]
async fn optional_headers_are_left_out() {
    let cluster = TestCluster::builder().topic("system-events", 1).start().await.unwrap();
    let event = EventBuilder::new("tests", "1.0").system_alert(alert("billing"));
    producer(&cluster).publish(&event).await.unwrap().await.unwrap();
    let names: Vec<_> = cluster.records("system-events")[0].headers.iter().map(|(name, _)| name.clone()).collect();
    assert_eq!(names, [headers::EVENT_ID, headers::EVENT_TYPE]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_records_arrive_in_order() {
    let cluster = TestCluster::builder().brokers(3).topic("t", 6).start().await.unwrap();
    let producer = producer(&cluster);
    let mut published = PublishedRecords::default();
    published.send_many(&producer, "t", 10_000, 97).await;
    published.assert_delivered(&cluster, "t").await;
    let batches = cluster.batches("t");
    assert!(batches.iter().all(|batch| batch.producer_id >= 0 && batch.producer_epoch == 0));
    for partition in 0..6 {
        let of = batches.iter().filter(|batch| batch.partition == partition);
        let sequences: Vec<i64> = of.clone().map(|batch| batch.base_sequence.into()).collect();
        assert_eq!(sequences, of.map(|batch| batch.base_offset).collect::<Vec<_>>(), "sequence numbers have no gaps");
    }
}

#[tokio::test]
async fn new_mapping_affects_later_publishes() {
    let cluster = TestCluster::builder().topic("system-events", 1).topic("alarms", 1).start().await.unwrap();
    let producer = producer(&cluster);
    let event = EventBuilder::new("tests", "1.0").system_alert(alert("billing"));
    let first = producer.publish(&event).await.unwrap();
    producer.set_topic_mapping("system.alert", "alarms").unwrap();
    let second = producer.publish(&event).await.unwrap();
    assert_eq!((first.topic(), second.topic()), ("system-events", "alarms"));
    first.await.unwrap();
    second.await.unwrap();
    assert_eq!((cluster.record_count("system-events"), cluster.record_count("alarms")), (1, 1));
    producer.publish_to("alarms", &event).await.unwrap().await.unwrap();
    assert_eq!(cluster.record_count("alarms"), 2);
    assert!(producer.set_topic_mapping("system.alert", "no good").is_err());
}

#[tokio::test]
async fn record_is_written_unchanged() {
    let cluster = TestCluster::builder().topic("t", 3).start().await.unwrap();
    let producer = producer(&cluster);
    let headers = [Header { key: "a", value: None }, Header { key: "a", value: Some(b"") }];
    let empty =
        ProducerRecord { topic: "t", key: Some(b""), headers: &headers, partition: Some(2), ..Default::default() };
    let now = support::now_ms();
    let null = ProducerRecord { key: None, value: Some(b""), timestamp: Some(now - 5000), ..empty };
    assert_eq!(producer.send(&empty).await.unwrap().await.unwrap().offset, Some(0));
    assert_eq!(producer.send(&null).await.unwrap().await.unwrap().timestamp, now - 5000);
    let records = cluster.records("t");
    assert_eq!((records[0].key.as_deref(), records[0].value.as_deref()), (Some(&b""[..]), None));
    assert_eq!((records[1].key.as_deref(), records[1].value.as_deref()), (None, Some(&b""[..])));
    assert_eq!(records[1].timestamp, now - 5000);
    assert_eq!(records[0].headers, [("a".to_owned(), None), ("a".to_owned(), Some(vec![]))]);
    let beyond = ProducerRecord { partition: Some(3), ..empty };
    assert!(matches!(producer.send(&beyond).await, Err(PublishError::Partition { partition: 3, highest: 2, .. })));
}

#[tokio::test]
async fn log_append_time_is_reported() {
    let topic = kafka_courier_test_broker::TopicSpec::new("t", 1).config("message.timestamp.type", "LogAppendTime");
    let cluster = TestCluster::builder().topic_spec(topic).start().await.unwrap();
    let old = ProducerRecord { timestamp: Some(7), ..record("t", "k", "v") };
    let metadata = producer(&cluster).send(&old).await.unwrap().await.unwrap();
    assert_eq!(metadata.timestamp, cluster.records("t")[0].timestamp);
    assert!(metadata.timestamp > 7);
}

#[tokio::test]
async fn auto_created_topic_is_awaited() {
    let cluster = TestCluster::builder().brokers(3).auto_create_topics(4).start().await.unwrap();
    let mut published = PublishedRecords::default();
    let producer = producer(&cluster);
    published.send_many(&producer, "made-on-demand", 100, 10).await;
    published.assert_delivered(&cluster, "made-on-demand").await;
}

#[tokio::test]
async fn unknown_topic_fails_after_metadata_timeout() {
    let cluster = TestCluster::builder().topic("t", 1).start().await.unwrap();
    let mut config = config(&cluster);
    config.metadata_timeout = Duration::from_secs(1);
    let producer = Producer::build(config).unwrap();
    let known = producer.send(&record("t", "k", "v")).await.unwrap();
    let error = producer.send(&record("nowhere", "k", "v")).await.unwrap_err();
    assert!(matches!(&error, PublishError::Topic { topic, .. } if &**topic == "nowhere"), "{error}");
    assert!(error.is_retriable());
    known.await.unwrap();
    producer.send(&record("t", "k", "w")).await.unwrap().await.unwrap();
    assert!(producer.send(&record("nowhere", "k", "v")).await.is_err(), "the failure is remembered");
}

/// The batch is neither full nor older than `flush_timeout`.
#[tokio::test]
async fn flush_sends_open_batches() {
    let cluster = TestCluster::builder().topic("t", 1).start().await.unwrap();
    let mut config = config(&cluster);
    config.flush_timeout = Duration::from_secs(600);
    config.delivery_timeout = Duration::from_secs(600);
    let producer = Producer::build(config).unwrap();
    let delivery = producer.send(&record("t", "k", "v")).await.unwrap();
    assert!(producer.flush(LONG).await);
    assert!(delivery.now().unwrap().is_ok());
}

#[tokio::test]
async fn health_check_contacts_the_cluster() {
    let cluster = TestCluster::builder().topic("t", 1).start().await.unwrap();
    let producer = producer(&cluster);
    producer.health_check(LONG).await.unwrap();
    assert!(cluster.requests(ApiKey::Metadata) > 0);
    assert!(cluster.kill(1).await);
    assert!(producer.health_check(Duration::from_millis(200)).await.is_err());
}

/// `Stats` counts a verdict before the caller has it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stats_count_verdicts_before_delivery() {
    let cluster = TestCluster::builder().topic("t", 1).start().await.unwrap();
    let producer = producer(&cluster);
    for sent in 1..=2_000 {
        producer.send(&record("t", "k", "v")).await.unwrap().await.unwrap();
        assert_eq!(producer.stats().sent, sent);
    }
}

//! Brokers with other protocol versions than the producer.

use std::time::{Duration, Instant};

use crate::support::{PublishedRecords, producer, record};
use kafka_courier::{PublishError, Reason};
use kafka_courier_test_broker::{ApiKey, Fault, Rule, TestCluster};

/// Returns an ApiVersions answer (version 3) with (API key, lowest, highest) of each request.
fn api_versions_answer(ranges: &[(i16, i16, i16)]) -> Vec<u8> {
    let mut answer = vec![0, 0, ranges.len() as u8 + 1];
    for (key, lowest, highest) in ranges {
        answer.extend([key, lowest, highest].iter().flat_map(|field| field.to_be_bytes()));
        answer.push(0);
    }
    answer.extend([0; 5]); // throttle time, tags
    answer
}

async fn cluster(ranges: &[(i16, i16, i16)]) -> TestCluster {
    let cluster = TestCluster::builder().topic("t", 2).start().await.unwrap();
    cluster
        .inject(Rule::for_api(ApiKey::ApiVersions).always().then(Fault::ApplyThenAnswer(api_versions_answer(ranges))));
    cluster
}

#[tokio::test]
async fn outdated_broker_is_one_error() {
    let kafka_0_10 = [(0, 0, 2), (1, 0, 3), (2, 0, 1), (3, 0, 2), (18, 0, 0)];
    let cluster = cluster(&kafka_0_10).await;
    let producer = producer(&cluster);
    let began = Instant::now();
    let error = producer.send(&record("t", "k", "v")).await.unwrap_err();
    assert!(began.elapsed() < Duration::from_secs(5), "the producer does not retry");
    let words = "speaks Produce 0 to 2, kafka-courier speaks 3 to 13: Kafka 0.11 or newer is needed";
    assert!(error.to_string().contains(words), "{error}");
    assert!(!error.to_string().contains("TLS") && !error.is_retriable(), "{error}");
    let PublishError::Topic { reason: Reason::NoCommonVersion(none), .. } = &error else { panic!("{error:?}") };
    assert_eq!((none.api, none.theirs), ("Produce", Some((0, 2))));
    let health = producer.health_check(Duration::from_secs(10)).await.unwrap_err();
    assert!(health.to_string().contains(words), "{health}");
}

#[tokio::test]
async fn oldest_versions_deliver_without_topic_limits() {
    let kafka_0_11 = [(0, 0, 3), (1, 0, 5), (2, 0, 2), (3, 0, 4), (18, 0, 1), (22, 0, 0), (32, 0, 0)];
    let cluster = cluster(&kafka_0_11).await;
    let producer = producer(&cluster);
    let mut published = PublishedRecords::default();
    published.send_many(&producer, "t", 50, 7).await;
    published.assert_delivered(&cluster, "t").await;
    assert_eq!(cluster.requests(ApiKey::DescribeConfigs), 0, "no common version: the producer sends no request");
    assert!(cluster.requests(ApiKey::ApiVersions) <= 2, "the connection for metadata is reused");
}

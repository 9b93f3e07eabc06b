//! Records as JSON.

use crate::support::{Service, cluster};

const RECORDS: &str = "content-type: application/vnd.kafka-courier.records+json\r\n";

#[tokio::test]
async fn records_are_written_as_given() {
    let cluster = cluster().await;
    let service = Service::start(&cluster, |_| {}).await;
    let target = "/v1/topics/default-events";
    let body = r#"[{"key":"k","value":{"base64":"AP8="},"headers":[{"name":"h","value":"1"}],"timestamp":1700000000000},
        {"value":{"json":{"a": 1}},"partition":0},{"key":"k","value":null}]"#;
    let answer = service.post(target, RECORDS, body).await.expect(200);
    assert_eq!((&answer["succeeded"], &answer["events"][2]["offset"]), (&3.into(), &2.into()), "{answer}");
    let one = service.post(target, RECORDS, r#"{"value":"v"}"#).await.expect(200);
    assert_eq!((&one["topic"], &one["offset"]), (&"default-events".into(), &3.into()));
    let records = cluster.records("default-events");
    let values: Vec<_> = records.iter().map(|record| record.value.as_deref()).collect();
    assert_eq!(values, [Some(&[0, 255][..]), Some(br#"{"a": 1}"#), None, Some(b"v")]);
    let (key, timestamp) = (records[0].key.as_deref(), records[0].timestamp);
    assert_eq!((key, timestamp), (Some(&b"k"[..]), 1_700_000_000_000));
}

#[tokio::test]
async fn invalid_record_refuses_all() {
    let cluster = cluster().await;
    let service = Service::start(&cluster, |_| {}).await;
    let target = "/v1/topics/default-events";
    let refused = service.post(target, RECORDS, r#"[{"value":"v"},{"vlaue":"v"}]"#).await;
    assert_eq!(refused.expect_problem(422, "not-a-record")["index"], 1);
    let query = service.post("/v1/topics/default-events?key=k", RECORDS, r#"{"value":"v"}"#).await;
    query.expect_problem(400, "bad-query");
    assert!(cluster.records("default-events").is_empty());
}

/// Each name of a topic has a state in the producer.
#[tokio::test]
async fn topic_names_are_bounded() {
    let cluster = cluster().await;
    let service = Service::start(&cluster, |config| config.max_topics = 2).await;
    let plain = "content-type: application/octet-stream\r\n";
    service.post("/v1/topics/default-events", plain, "v").await.expect(200);
    service.post("/v1/topics/nowhere?timeout=200ms", plain, "v").await;
    service.post("/v1/topics/user-events", plain, "v").await.expect_problem(503, "too-many-topics");
    service.post("/v1/topics/default-events", plain, "v").await.expect(200);
}

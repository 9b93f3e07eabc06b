//! Each answer is true: acknowledgements, failures, doubt, and the dead letters of all of them.

use std::time::Duration;

use kafka_courier::KafkaProducer;
use kafka_courier::dlq::{Letter, Selection};
use kafka_courier_gateway::shapes::ack::{Ack, TopicAcks};
use kafka_courier_test_broker::{ApiKey, ErrorCode, Fault, Gate, Rule};

use crate::support::{JSON, LOGIN, LONG, Service, cluster, kafka};

async fn letters(producer: &KafkaProducer) -> Vec<Letter> {
    let held = producer.dead_letters().list(&Selection::all(), 1000).await.unwrap();
    held.into_iter().map(|held| held.letter).collect()
}

#[tokio::test]
async fn memory_answers_before_kafka() {
    let cluster = cluster().await;
    let service = Service::start(&cluster, |_| {}).await;
    service.producer.learn_topic("user-events").await.unwrap();
    let gate = Gate::new();
    cluster.inject(Rule::for_api(ApiKey::Produce).times(1).then(Fault::Hold(gate.clone())));
    let body = service.post("/v1/events?ack=memory", JSON, LOGIN).await.expect(202);
    assert_eq!(body["ack"], "memory");
    assert!(body["note"].as_str().unwrap().contains("lost if the process dies"));
    gate.open();
    cluster.wait_for_records("user-events", 1).await;
}

#[tokio::test]
async fn disk_answers_while_kafka_is_away() {
    let cluster = cluster().await;
    let folder = tempfile::tempdir().unwrap();
    let mut kafka = kafka(&cluster);
    kafka.spool_dir = folder.path().join("spool").display().to_string();
    let service = Service::with(kafka, |_| {}).await;
    assert_eq!(service.post("/v1/events?ack=disk", JSON, LOGIN).await.expect(202)["ack"], "disk");
    cluster.wait_for_records("user-events", 1).await;
    cluster.pause(1);
    assert_eq!(service.post("/v1/events?ack=disk", JSON, LOGIN).await.expect(202)["ack"], "disk");
    let late = service.post("/v1/events?ack=broker&timeout=200ms", JSON, LOGIN).await.expect(202);
    assert_eq!(late["ack"], "disk", "the answer says which acknowledgement was given");
    cluster.resume(1);
    cluster.wait_for_records("user-events", 3).await;
    assert!(letters(&service.producer).await.is_empty());
}

#[tokio::test]
async fn disk_without_spool_is_refused() {
    let cluster = cluster().await;
    let service = Service::start(&cluster, |_| {}).await;
    service.post("/v1/events?ack=disk", JSON, LOGIN).await.expect_problem(400, "ack-unavailable");
}

#[tokio::test]
async fn operator_sets_default_and_floor() {
    let cluster = cluster().await;
    let service = Service::start(&cluster, |config| {
        config.ack = Ack::Memory;
        config.topic_acks = TopicAcks::parse("user-events=broker:broker").unwrap();
    })
    .await;
    assert_eq!(service.post("/v1/events", JSON, r#"{"type":"other"}"#).await.expect(202)["ack"], "memory");
    assert_eq!(service.post("/v1/events", JSON, LOGIN).await.expect(200)["ack"], "broker");
    service.post("/v1/events?ack=memory", JSON, LOGIN).await.expect_problem(403, "ack-too-weak");
    assert_eq!(cluster.records("user-events").len(), 1);
}

#[tokio::test]
async fn away_cluster_is_503_without_letter() {
    let cluster = cluster().await;
    cluster.pause(1);
    let service = Service::start(&cluster, |_| {}).await;
    let reply = service.post("/v1/events?timeout=300ms", JSON, LOGIN).await;
    assert_eq!(reply.expect_problem(503, "kafka-unavailable")["verdict"], "not_written");
    assert!(reply.head.contains("retry-after: 1"), "{reply:?}");
    assert!(letters(&service.producer).await.is_empty());
    cluster.resume(1);
    service.post("/v1/events", JSON, LOGIN).await.expect(200);
}

#[tokio::test]
async fn rejected_event_returns_without_letter() {
    let cluster = cluster().await;
    let service = Service::start(&cluster, |_| {}).await;
    cluster.inject(Rule::for_api(ApiKey::Produce).times(1).then(Fault::Refuse(ErrorCode::InvalidRecord)));
    let body = service.post("/v1/events", JSON, LOGIN).await.expect_problem(422, "rejected");
    assert_eq!((&body["verdict"], &body["dead_letter"]), (&"not_written".into(), &serde_json::Value::Null));
    assert!(letters(&service.producer).await.is_empty(), "the client has the event");
    cluster.deny_writes("user-events", true);
    service.post("/v1/events", JSON, LOGIN).await.expect_problem(403, "topic-forbidden");
}

#[tokio::test]
async fn unknown_event_names_its_letter() {
    let cluster = cluster().await;
    let mut kafka = kafka(&cluster);
    (kafka.delivery_timeout, kafka.request_timeout) = (Duration::from_millis(600), Duration::from_millis(200));
    let service = Service::with(kafka, |_| {}).await;
    service.post("/v1/events", JSON, LOGIN).await.expect(200);
    cluster.inject(Rule::for_api(ApiKey::Produce).always().then(Fault::ApplyThenDisconnect));
    let reply = service.post("/v1/events", JSON, LOGIN).await;
    let body = reply.expect_problem(504, "unknown");
    assert!(!reply.head.contains("retry-after"), "a retry could write the event twice: {reply:?}");
    let [letter] = &letters(&service.producer).await[..] else { panic!("expected one dead letter") };
    assert_eq!((&body["verdict"], &body["dead_letter"]), (&"unknown".into(), &letter.id.to_string().into()));
}

#[tokio::test]
async fn late_failure_has_the_promised_letter() {
    let cluster = cluster().await;
    let service = Service::start(&cluster, |_| {}).await;
    service.producer.learn_topic("user-events").await.unwrap();
    let gate = Gate::new();
    cluster.inject(Rule::for_api(ApiKey::Produce).times(1).then(Fault::Hold(gate.clone())));
    cluster.reject_records(|_| Some("rejected".to_owned()));
    let body = service.post("/v1/events?timeout=200ms", JSON, LOGIN).await.expect_problem(504, "unknown");
    gate.open();
    service.producer.flush(LONG).await;
    let [letter] = &letters(&service.producer).await[..] else { panic!("expected one dead letter") };
    assert_eq!(body["dead_letter"], letter.id.to_string());
}

#[tokio::test]
async fn large_event_is_refused_before_kafka() {
    let cluster = cluster().await;
    cluster.set_topic_config("user-events", "max.message.bytes", "2000").unwrap();
    let service = Service::start(&cluster, |_| {}).await;
    let large = format!(r#"{{"type":"user.logged_in","data":{{"user_id":"{}"}}}}"#, "u".repeat(3000));
    for ack in ["broker", "memory"] {
        let target = format!("/v1/events?ack={ack}");
        service.post(&target, JSON, &large).await.expect_problem(413, "event-too-large");
    }
    let both = format!("[{large},{LOGIN}]");
    assert_eq!(service.post("/v1/events", JSON, both).await.expect(207)["succeeded"], 1, "the order is not at stake");
}

#[tokio::test]
async fn order_survives_a_refused_event() {
    let cluster = cluster().await;
    let service = Service::start(&cluster, |_| {}).await;
    let events = r#"[{"type":"user.logged_in"},{"type":"user.logged_in"}]"#;
    cluster.pause(1);
    let body = service.post("/v1/events?timeout=300ms", JSON, events).await.expect(503);
    let codes: Vec<&str> = body["events"].as_array().unwrap().iter().map(|it| it["code"].as_str().unwrap()).collect();
    assert_eq!(codes, ["kafka-unavailable", "not-tried"]);
}

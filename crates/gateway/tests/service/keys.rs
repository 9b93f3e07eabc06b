//! Requests with a key are published once.

use std::time::Duration;

use kafka_courier_test_broker::{ApiKey, ErrorCode, Fault, Gate, Rule};

use kafka_courier::dlq::Selection;
use kafka_courier_gateway::Dedupe;

use crate::support::{JSON, LOGIN, LONG, Service, cluster, kafka};

fn keyed(key: &str) -> String {
    format!("{JSON}idempotency-key: {key}\r\n")
}

#[tokio::test]
async fn repeated_request_gets_first_answer() {
    let cluster = cluster().await;
    let service = Service::start(&cluster, |_| {}).await;
    let first = service.post("/v1/events", &keyed("k-1"), LOGIN).await;
    let again = service.post("/v1/events?timeout=5s", &keyed("\"k-1\""), LOGIN).await;
    assert_eq!(first.expect(200), again.expect(200));
    assert!(!first.head.contains("idempotent-replayed") && again.head.contains("idempotent-replayed: true"));
    let other = format!("[{LOGIN}]");
    service.post("/v1/events", &keyed("k-1"), &other).await.expect_problem(422, "key-reused");
    service.post("/v1/events", &keyed("k-2"), LOGIN).await.expect(200);
    assert_eq!(cluster.records("user-events").len(), 2);
}

#[tokio::test]
async fn lost_answer_is_found_again() {
    let cluster = cluster().await;
    let service = Service::start(&cluster, |_| {}).await;
    service.producer.learn_topic("user-events").await.unwrap();
    let gate = Gate::new();
    cluster.inject(Rule::for_api(ApiKey::Produce).times(1).then(Fault::Hold(gate.clone())));
    let mut client = service.connect().await;
    let (head, length) = (keyed("k-1"), LOGIN.len());
    client
        .send(format!("POST /v1/events HTTP/1.1\r\nhost: localhost\r\n{head}content-length: {length}\r\n\r\n{LOGIN}"))
        .await;
    gate.arrived(1).await;
    drop(client); // the client hangs up before the answer
    let waiting = service.post("/v1/events?timeout=200ms", &keyed("k-1"), LOGIN).await;
    let refused = waiting.expect_problem(409, "key-under-way");
    assert_eq!((&refused["verdict"], &refused["retry_after"]), (&serde_json::Value::Null, &1.into()));
    gate.open();
    let answer = service.post("/v1/events", &keyed("k-1"), LOGIN).await;
    assert_eq!(answer.expect(200)["offset"], 0);
    assert_eq!(cluster.records("user-events").len(), 1);
}

#[tokio::test]
async fn failure_after_hang_up_is_kept() {
    let cluster = cluster().await;
    let service = Service::start(&cluster, |_| {}).await;
    service.producer.learn_topic("user-events").await.unwrap();
    let gate = Gate::new();
    cluster.inject(Rule::for_api(ApiKey::Produce).times(1).then(Fault::Hold(gate.clone())));
    cluster.reject_records(|_| Some("rejected".to_owned()));
    let mut client = service.connect().await;
    let (head, length) = (keyed("k-1"), LOGIN.len());
    client
        .send(format!("POST /v1/events HTTP/1.1\r\nhost: localhost\r\n{head}content-length: {length}\r\n\r\n{LOGIN}"))
        .await;
    gate.arrived(1).await;
    drop(client);
    service.post("/v1/events?timeout=200ms", &keyed("k-1"), LOGIN).await.expect_problem(409, "key-under-way");
    gate.open();
    service.producer.flush(LONG).await;
    let [letter] = &service.producer.dead_letters().list(&Selection::all(), 10).await.unwrap()[..] else {
        panic!("expected one dead letter")
    };
    let again = service.post("/v1/events", &keyed("k-1"), LOGIN).await.expect_problem(422, "rejected");
    assert_eq!(again["dead_letter"], letter.letter.id.to_string());
}

/// The memory for events is full, which refuses other requests early.
#[tokio::test]
async fn repeated_request_needs_no_room() {
    let cluster = cluster().await;
    let mut kafka = kafka(&cluster);
    kafka.buffer_memory = 64 << 10;
    (kafka.flush_bytes, kafka.max_request_bytes) = (16 << 10, 32 << 10);
    let service = Service::with(kafka, |_| {}).await;
    let first = service.post("/v1/events", &keyed("k-1"), LOGIN).await.expect(200);
    service.producer.learn_topic("default-events").await.unwrap();
    cluster.pause(1);
    let event = format!(r#"{{"type":"t","data":{{"text":"{}"}}}}"#, "x".repeat(8000));
    while service.post("/v1/events?ack=memory&timeout=50ms", JSON, &event).await.status != 503 {}
    assert_eq!(service.post("/v1/events", &keyed("k-1"), LOGIN).await.expect(200), first);
    let refused = service.post("/v1/events", &keyed("k-1"), "no").await.expect(400);
    assert_eq!(refused["verdict"], serde_json::Value::Null, "the first request may have written events");
    cluster.resume(1);
}

#[tokio::test]
async fn certain_failure_may_be_retried() {
    let cluster = cluster().await;
    let service = Service::start(&cluster, |_| {}).await;
    cluster.inject(Rule::for_api(ApiKey::Produce).times(1).then(Fault::Refuse(ErrorCode::InvalidRecord)));
    service.post("/v1/events", &keyed("k-1"), LOGIN).await.expect_problem(422, "rejected");
    service.post("/v1/events", &keyed("k-1"), LOGIN).await.expect(200);
    assert_eq!(cluster.records("user-events").len(), 1);
}

#[tokio::test]
async fn unknown_answer_is_repeated() {
    let cluster = cluster().await;
    let mut kafka = kafka(&cluster);
    (kafka.delivery_timeout, kafka.request_timeout) = (Duration::from_millis(600), Duration::from_millis(200));
    let service = Service::with(kafka, |_| {}).await;
    service.post("/v1/events", JSON, LOGIN).await.expect(200);
    cluster.inject(Rule::for_api(ApiKey::Produce).always().then(Fault::ApplyThenDisconnect));
    let first = service.post("/v1/events", &keyed("k-1"), LOGIN).await.expect_problem(504, "unknown");
    cluster.clear_faults();
    let again = service.post("/v1/events", &keyed("k-1"), LOGIN).await.expect_problem(504, "unknown");
    assert_eq!(first["dead_letter"], again["dead_letter"]);
    assert_eq!(cluster.records("user-events").len(), 2, "a retry does not write the event twice");
}

#[tokio::test]
async fn keyed_lines_are_published_once() {
    let cluster = cluster().await;
    let service = Service::start(&cluster, |_| {}).await;
    let headers = "content-type: application/x-ndjson\r\nidempotency-key: k-1\r\n";
    let lines = format!("{LOGIN}\nnonsense\n{LOGIN}\n");
    let first = service.post("/v1/events", headers, &lines).await.expect(207);
    assert_eq!(first, service.post("/v1/events", headers, &lines).await.expect(207));
    assert_eq!(cluster.records("user-events").len(), 2);
}

#[tokio::test]
async fn keys_can_be_switched_off() {
    let cluster = cluster().await;
    let service = Service::start(&cluster, |config| config.dedupe_window = Duration::ZERO).await;
    service.post("/v1/events", &keyed("k-1"), LOGIN).await.expect_problem(400, "bad-request");
}

#[tokio::test]
async fn keys_can_be_refused() {
    let cluster = cluster().await;
    let service = Service::start(&cluster, |config| config.dedupe = Dedupe::Off).await;
    service.post("/v1/events", &keyed("k-1"), LOGIN).await.expect_problem(400, "bad-request");
}

const NAMED: &str = r#"{"id":"e-1","source":"web","type":"user.logged_in","data":{"user_id":"u-1"}}"#;

#[tokio::test]
async fn event_with_id_is_published_once() {
    let cluster = cluster().await;
    let service = Service::start(&cluster, |config| config.dedupe = Dedupe::EventId).await;
    let first = service.post("/v1/events", JSON, NAMED).await;
    let again = service.post("/v1/events?timeout=5s", JSON, NAMED).await;
    assert_eq!(first.expect(200), again.expect(200));
    assert!(again.head.contains("idempotent-replayed: true"));
    let other = NAMED.replace("u-1", "u-2");
    service.post("/v1/events", JSON, &other).await.expect_problem(422, "key-reused");
    // A request's own key takes precedence.
    service.post("/v1/events", &keyed("k-1"), NAMED).await.expect(200);
    assert_eq!(cluster.records("user-events").len(), 2);
}

/// The id of an event names it only together with its source.
#[tokio::test]
async fn event_without_source_has_no_key() {
    let cluster = cluster().await;
    let service = Service::start(&cluster, |config| config.dedupe = Dedupe::EventId).await;
    let without_id = r#"{"source":"web","type":"user.logged_in","data":{"user_id":"u-1"}}"#;
    for event in [LOGIN, LOGIN, without_id, without_id] {
        service.post("/v1/events", JSON, event).await.expect(200);
    }
    assert_eq!(cluster.records("user-events").len(), 4);
}

#[tokio::test]
async fn cloud_event_is_published_once() {
    let cluster = cluster().await;
    let service = Service::start(&cluster, |config| config.dedupe = Dedupe::EventId).await;
    let structured = "content-type: application/cloudevents+json\r\n";
    let event = r#"{"specversion":"1.0","id":"1","source":"/s","type":"t"}"#;
    let binary = "ce-specversion: 1.0\r\nce-id: 2\r\nce-source: /s\r\nce-type: t\r\n";
    for (headers, body) in [(structured, event), (binary, "data")] {
        let first = service.post("/v1/events", headers, body).await.expect(200);
        assert_eq!(service.post("/v1/events", headers, body).await.expect(200), first);
    }
    let other_source = event.replace("/s", "/other");
    service.post("/v1/events", structured, &other_source).await.expect(200);
    assert_eq!(cluster.records("default-events").len(), 3);
}

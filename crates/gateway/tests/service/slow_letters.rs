//! Answers while the store of dead letters is slow.

use std::time::Duration;

use http_body_util::Full;
use hyper::Request;
use hyper::body::Bytes;
use kafka_courier::KafkaProducer;
use kafka_courier_gateway::{Gateway, GatewayConfig};
use kafka_courier_test_broker::{ApiKey, ErrorCode, Fault, Rule};

use crate::gated_store::gated_store;
use crate::support::{JSON, LOGIN, LONG, Service, cluster, kafka};

/// The verdict waits for the dead letter of another record of the batch.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn certain_failure_is_never_unknown() {
    let cluster = cluster().await;
    let (store, open, appends) = gated_store();
    let mut kafka = kafka(&cluster);
    kafka.flush_timeout = Duration::from_millis(200);
    let builder = KafkaProducer::builder().with_config(kafka.clone()).dead_letter_store(store);
    let service = Service::over(builder.build().unwrap(), &kafka, |_| {}).await;
    service.producer.learn_topic("user-events").await.unwrap();
    cluster.inject(Rule::for_api(ApiKey::Produce).times(1).then(Fault::Refuse(ErrorCode::InvalidRecord)));
    service.post("/v1/events?ack=memory", JSON, LOGIN).await.expect(202);
    let reply = service.post("/v1/events?timeout=1s", JSON, LOGIN).await;
    appends.recv_timeout(LONG).expect("the store is asked before the verdict");
    let body = reply.expect_problem(503, "not-written");
    assert_eq!((&body["verdict"], &body["dead_letter"]), (&"not_written".into(), &serde_json::Value::Null));
    open.send(()).unwrap();
}

/// The failure of the second event is on its way to a client that has left.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn failure_of_left_client_has_letter() {
    let cluster = cluster().await;
    let (store, open, appends) = gated_store();
    let mut kafka = kafka(&cluster);
    kafka.flush_timeout = Duration::from_millis(200);
    let builder = KafkaProducer::builder().with_config(kafka.clone()).dead_letter_store(store);
    let producer = builder.build().unwrap();
    producer.learn_topic("user-events").await.unwrap();
    cluster.inject(Rule::for_api(ApiKey::Produce).times(1).then(Fault::Refuse(ErrorCode::InvalidRecord)));
    let gateway = Gateway::new(producer.clone(), &kafka, GatewayConfig::default()).unwrap();
    let request = |target: &str| {
        let request = Request::post(target).header("content-type", "application/json");
        request.body(Full::new(Bytes::from_static(LOGIN.as_bytes()))).unwrap()
    };
    assert_eq!(gateway.answer(request("/v1/events?ack=memory")).await.status(), 202);
    let answer = tokio::spawn(async move { gateway.answer(request("/v1/events")).await.status() });
    tokio::task::spawn_blocking(move || appends.recv_timeout(LONG).map(|()| appends)).await.unwrap().unwrap();
    answer.abort();
    assert!(answer.await.unwrap_err().is_cancelled());
    open.send(()).unwrap();
    open.send(()).unwrap();
    producer.close(LONG).await;
    assert_eq!(producer.dead_letters().len(), 2);
}

//! Tests of injected faults and of connections under them.

use std::time::Duration;

use crate::support::{self, Client, batch, cluster, produce_request};
use kafka_courier_test_broker::{ApiKey, ErrorCode, Fault, Gate, Rule, TestCluster};
use kafka_protocol::messages::{InitProducerIdRequest, MetadataRequest, ProduceRequest};
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

fn count(cluster: &TestCluster) -> usize {
    cluster.records("t").len()
}

#[tokio::test]
async fn fail_next_fails_counted_requests() {
    let cluster = cluster(1, 1).await;
    let mut client = Client::connect(&cluster, 1).await;
    cluster.fail_next(ApiKey::Produce, 2, ErrorCode::RequestTimedOut);
    for expected in [7, 7, 0] {
        assert_eq!(client.produce(0, batch(0, 0, &["a"])).await.error_code, expected);
    }
    assert_eq!((count(&cluster), cluster.requests(ApiKey::Produce)), (1, 3));
    cluster.fail_next(ApiKey::InitProducerId, 1, ErrorCode::CoordinatorLoadInProgress);
    let request = InitProducerIdRequest::default().with_transactional_id(None);
    assert_eq!(client.call(&request, 4).await.error_code, 14);
    assert_eq!(client.call(&request, 4).await.error_code, 0);
}

#[tokio::test]
async fn error_after_append_keeps_offset() {
    let cluster = cluster(1, 1).await;
    let mut client = Client::connect(&cluster, 1).await;
    client.produce(0, batch(0, 0, &["a"])).await;
    cluster
        .inject(Rule::for_api(ApiKey::Produce).then(Fault::ApplyThenRefuse(ErrorCode::NotEnoughReplicasAfterAppend)));
    let answer = client.produce(0, batch(0, 1, &["b"])).await;
    assert_eq!((answer.error_code, answer.base_offset, count(&cluster)), (20, 1, 2));
}

#[tokio::test]
async fn partition_fault_spares_other_partitions() {
    let cluster = cluster(1, 2).await;
    let mut client = Client::connect(&cluster, 1).await;
    let rule = Rule::for_api(ApiKey::Produce).partition("t", 1).times(1);
    cluster.inject(rule.then(Fault::Refuse(ErrorCode::TopicAuthorizationFailed)));
    let mut request = produce_request(0, batch(0, 0, &["a"]));
    let other = produce_request(1, batch(0, 0, &["b"])).topic_data.remove(0).partition_data.remove(0);
    request.topic_data[0].partition_data.push(other);
    let answer = client.call(&request, 12).await;
    let codes: Vec<i16> = answer.responses[0].partition_responses.iter().map(|p| p.error_code).collect();
    assert_eq!(codes, [0, 29]);
}

#[tokio::test]
async fn apply_then_disconnect_writes_without_answer() {
    let cluster = cluster(1, 1).await;
    let mut client = Client::connect(&cluster, 1).await;
    cluster.apply_then_disconnect(1);
    let id = client.send(&produce_request(0, batch(0, 0, &["a"])), 12).await;
    assert!(client.receive::<ProduceRequest>(id, 12).await.is_none());
    assert_eq!(count(&cluster), 1);
    let mut client = Client::connect(&cluster, 1).await;
    assert_eq!(client.produce(0, batch(0, 0, &["a"])).await.base_offset, 0);
    assert_eq!(count(&cluster), 1);
}

#[tokio::test]
async fn read_requests_survive_a_disconnect() {
    let cluster = cluster(1, 1).await;
    let mut client = Client::connect(&cluster, 1).await;
    let gate = Gate::new();
    cluster.inject(Rule::for_api(ApiKey::Produce).then(Fault::Hold(gate.clone())));
    for sequence in 0..3 {
        client.send(&produce_request(0, batch(0, sequence, &["a"])), 12).await;
    }
    gate.arrived(1).await;
    assert_eq!(count(&cluster), 0);
    drop(client);
    gate.open();
    cluster.wait_for_records("t", 3).await;
}

#[tokio::test]
async fn connection_serves_requests_in_order() {
    let cluster = cluster(1, 1).await;
    let mut client = Client::connect(&cluster, 1).await;
    let gate = Gate::new();
    cluster.inject(Rule::for_api(ApiKey::Produce).then(Fault::ApplyThenHold(gate.clone())));
    let first = client.send(&produce_request(0, batch(0, 0, &["a"])), 12).await;
    let second = client.send(&produce_request(0, batch(0, 1, &["b"])), 12).await;
    gate.arrived(1).await;
    // An answer on another connection shows that the broker runs. The held connection has not read its second request.
    Client::connect(&cluster, 1).await.call(&MetadataRequest::default().with_topics(None), 12).await;
    assert_eq!((count(&cluster), cluster.requests(ApiKey::Produce)), (1, 1));
    gate.open();
    assert!(client.receive::<ProduceRequest>(first, 12).await.is_some());
    assert!(client.receive::<ProduceRequest>(second, 12).await.is_some());
    assert_eq!(count(&cluster), 2);
}

#[tokio::test]
async fn swallowed_request_is_never_answered() {
    let cluster = cluster(1, 1).await;
    let mut client = Client::connect(&cluster, 1).await;
    cluster.inject(Rule::for_api(ApiKey::Produce).then(Fault::Swallow));
    cluster.inject(Rule::for_api(ApiKey::Produce).then(Fault::ApplyThenSwallow));
    client.send(&produce_request(0, batch(0, 7, &["lost"])), 12).await;
    client.send(&produce_request(0, batch(0, 0, &["a"])), 12).await;
    let third = client.send(&produce_request(0, batch(0, 1, &["b"])), 12).await;
    assert!(client.receive::<ProduceRequest>(third, 12).await.is_some());
    assert_eq!(count(&cluster), 2);
}

#[tokio::test(start_paused = true)]
async fn delay_and_throttle_take_time() {
    let cluster = cluster(1, 1).await;
    let mut client = Client::in_memory(&cluster, 1);
    let began = tokio::time::Instant::now();
    cluster.delay_next(ApiKey::Produce, 1, Duration::from_secs(40));
    assert_eq!(client.produce(0, batch(0, 0, &["a"])).await.error_code, 0);
    assert_eq!(began.elapsed().as_secs(), 40);
    cluster.inject(Rule::for_api(ApiKey::Produce).then(Fault::Throttle(Duration::from_secs(15))));
    let answer = client.call(&produce_request(0, batch(0, 1, &["b"])), 12).await;
    assert_eq!((answer.throttle_time_ms, began.elapsed().as_secs()), (15_000, 40));
    client.produce(0, batch(0, 2, &["c"])).await;
    assert_eq!(began.elapsed().as_secs(), 55);
}

#[tokio::test]
async fn paused_broker_serves_after_resume() {
    let cluster = cluster(1, 1).await;
    let mut client = Client::connect(&cluster, 1).await;
    client.produce(0, batch(0, 0, &["a"])).await;
    assert!(cluster.pause(1));
    let held = client.send(&produce_request(0, batch(0, 1, &["b"])), 12).await;
    let mut late = Client::connect(&cluster, 1).await;
    let other = late.send(&MetadataRequest::default().with_topics(None), 12).await;
    assert_eq!(count(&cluster), 1);
    assert!(cluster.resume(1));
    assert!(client.receive::<ProduceRequest>(held, 12).await.is_some());
    assert!(late.receive::<MetadataRequest>(other, 12).await.is_some());
    assert_eq!(count(&cluster), 2);
}

#[tokio::test]
async fn killed_broker_restarts_at_its_address() {
    let cluster = cluster(1, 1).await;
    let mut in_memory = Client::in_memory(&cluster, 1);
    let mut client = Client::connect(&cluster, 1).await;
    client.produce(0, batch(0, 0, &["a"])).await;
    assert!(cluster.kill(1).await);
    assert!(!cluster.kill(1).await);
    assert!(client.frame().await.is_none() && in_memory.frame().await.is_none());
    let address = cluster.address(1).unwrap();
    assert!(TcpStream::connect(address).await.is_err());
    assert_eq!((cluster.leader("t", 0), cluster.connect_in_memory(1).is_none()), (None, true));
    assert!(cluster.restart(1).unwrap());
    assert!(!cluster.restart(1).unwrap());
    assert_eq!(cluster.address(1), Some(address));
    let mut client = Client::connect(&cluster, 1).await;
    assert_eq!(client.produce(0, batch(0, 1, &["b"])).await.base_offset, 1);
}

#[tokio::test]
async fn restarted_replica_remembers_last_batch() {
    let cluster = cluster(2, 1).await;
    let mut client = Client::connect(&cluster, 1).await;
    for sequence in 0..3 {
        client.produce(0, batch(0, sequence, &["a"])).await;
    }
    cluster.kill(2).await;
    cluster.restart(2).unwrap();
    assert!(cluster.move_leader("t", 0, 2));
    let mut client = Client::connect(&cluster, 2).await;
    assert_eq!(client.produce(0, batch(0, 2, &["a"])).await.base_offset, 2);
    assert_eq!(client.produce(0, batch(0, 1, &["a"])).await.error_code, ErrorCode::OutOfOrderSequenceNumber.code());
}

#[tokio::test]
async fn old_timestamps_let_producers_expire() {
    let cluster = cluster(1, 1).await;
    let mut client = Client::connect(&cluster, 1).await;
    client.produce(0, batch(0, 0, &["a"])).await;
    cluster.expire_producer_ids();
    assert_eq!(client.produce(0, batch(0, 5, &["b"])).await.error_code, ErrorCode::OutOfOrderSequenceNumber.code());
    let stamp = kafka_courier_batcher::Stamp { producer_id: 7, epoch: 0, base_sequence: 1 };
    let yesterday = support::now_ms() - 86_400_000;
    let old = support::stamped(Some(stamp), &[(None, "b", yesterday)], kafka_courier_batcher::Compression::None);
    assert_eq!(client.produce(0, old).await.error_code, 0);
    cluster.expire_producer_ids();
    assert_eq!(client.produce(0, batch(0, 5, &["c"])).await.error_code, 0);
}

#[tokio::test]
async fn blackhole_ignores_requests_until_cleared() {
    let cluster = cluster(2, 1).await;
    cluster.blackhole(1);
    let mut client = Client::connect(&cluster, 1).await;
    client.send(&MetadataRequest::default().with_topics(None), 12).await;
    cluster.wait_for_requests(ApiKey::Metadata, 1).await;
    cluster.clear_faults();
    let answered = client.send(&MetadataRequest::default().with_topics(None), 12).await;
    assert!(client.receive::<MetadataRequest>(answered, 12).await.is_some());
}

#[tokio::test]
async fn acks_zero_error_ends_connection() {
    let cluster = cluster(1, 1).await;
    let mut client = Client::connect(&cluster, 1).await;
    client.send(&produce_request(0, batch(0, 0, &["a"])).with_acks(0), 12).await;
    assert_eq!(client.produce(0, batch(0, 1, &["b"])).await.base_offset, 1);
    client.send(&produce_request(0, batch(0, 9, &["c"])).with_acks(0), 12).await;
    assert_eq!(client.stream.read(&mut [0]).await.unwrap_or(0), 0);
}

#[tokio::test]
async fn answers_can_be_any_bytes() {
    let cluster = cluster(1, 1).await;
    let mut client = Client::connect(&cluster, 1).await;
    cluster.inject(Rule::for_api(ApiKey::Produce).then(Fault::ApplyThenAnswer(b"nonsense".to_vec())));
    let id = client.send(&produce_request(0, batch(0, 0, &["a"])), 12).await;
    assert_eq!(client.frame().await.unwrap(), [&id.to_be_bytes()[..], b"nonsense"].concat());
    cluster.inject(Rule::for_api(ApiKey::Produce).then(Fault::ApplyThenSend(vec![0, 0, 0, 1, 7])));
    client.send(&produce_request(0, batch(0, 1, &["b"])), 12).await;
    assert_eq!(client.frame().await.unwrap()[..], [7]);
    assert_eq!(count(&cluster), 2);
}

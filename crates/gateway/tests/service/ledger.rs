//! Every answer agrees with the brokers' log and the dead letters, whatever faults the brokers have.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use kafka_courier::dlq::Selection;
use kafka_courier_test_broker::{ApiKey, ErrorCode, Fault, Rule, TestCluster};

use crate::support::{Client, JSON, LONG, Service, kafka};

const CLIENTS: u64 = 6;
const REQUESTS: u64 = 60;

/// An answer about one event.
struct EventAnswer {
    id: String,
    status: u64,
    offset: Option<i64>,
    dead_letter: Option<String>,
}

/// Publishes requests of one to three events on one connection, and returns the answer about each event.
async fn client(address: std::net::SocketAddr, number: u64) -> Vec<EventAnswer> {
    let mut random = fastrand::Rng::with_seed(number);
    let (mut connection, mut answers) = (Client::connect(address).await, Vec::new());
    for request in 0..REQUESTS {
        let ids: Vec<String> = (0..random.u64(1..=3)).map(|event| format!("{number}-{request}-{event}")).collect();
        let event = |id: &String| format!(r#"{{"id":"{id}","type":"t","partition_key":"{number}"}}"#);
        let events: Vec<String> = ids.iter().map(event).collect();
        let ack = *random.choice(&["broker", "broker", "memory"]).unwrap();
        let target = format!("/v1/events?ack={ack}&timeout={}ms", random.u64(20..800));
        let reply = connection.post(&target, JSON, format!("[{}]", events.join(","))).await;
        let body = reply.json();
        let results = body["events"].as_array().unwrap_or_else(|| panic!("{reply:?}"));
        assert_eq!(results.len(), ids.len(), "{reply:?}");
        answers.extend(ids.into_iter().zip(results).map(|(id, result)| EventAnswer {
            id,
            status: result["status"].as_u64().unwrap(),
            offset: result["offset"].as_i64(),
            dead_letter: result["dead_letter"].as_str().map(str::to_owned),
        }));
    }
    answers
}

/// Injects faults until it is dropped.
async fn faults(cluster: Arc<TestCluster>) {
    let mut random = fastrand::Rng::with_seed(7);
    loop {
        let fault = match random.u32(0..6) {
            0 => Fault::Refuse(ErrorCode::InvalidRecord),
            1 => Fault::Refuse(ErrorCode::NotEnoughReplicas),
            2 => Fault::Disconnect,
            3 => Fault::ApplyThenDisconnect,
            4 => Fault::ApplyThenSwallow,
            _ => Fault::Delay(Duration::from_millis(100)),
        };
        cluster.inject(Rule::for_api(ApiKey::Produce).times(random.u64(1..4)).then(fault));
        tokio::time::sleep(Duration::from_millis(random.u64(5..40))).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_agree_with_the_log() {
    let cluster = Arc::new(TestCluster::builder().topic("default-events", 3).start().await.unwrap());
    let mut kafka = kafka(&cluster);
    (kafka.delivery_timeout, kafka.request_timeout) = (Duration::from_millis(700), Duration::from_millis(150));
    (kafka.retry_max, kafka.dlq_buffer) = (2, 100_000);
    let service = Service::with(kafka, |_| {}).await;
    service.producer.learn_topic("default-events").await.unwrap();
    let faults = tokio::spawn(faults(cluster.clone()));
    let clients: Vec<_> = (0..CLIENTS).map(|number| tokio::spawn(client(service.server.address(), number))).collect();
    let mut answers = Vec::new();
    for client in clients {
        answers.extend(client.await.unwrap());
    }
    faults.abort();
    cluster.clear_faults();
    service.producer.close(LONG).await;

    let mut log: BTreeMap<String, Vec<i64>> = BTreeMap::new();
    for record in cluster.records("default-events") {
        let id = String::from_utf8(record.header("event_id").unwrap().to_vec()).unwrap();
        log.entry(id).or_default().push(record.offset);
    }
    let held = service.producer.dead_letters().list(&Selection::all(), 100_000).await.unwrap();
    let letters: BTreeMap<String, String> =
        held.into_iter().map(|held| (held.letter.event_id.unwrap(), held.letter.id.to_string())).collect();
    let mut seen: BTreeMap<u64, u32> = BTreeMap::new();
    for EventAnswer { id, status, offset, dead_letter } in answers {
        *seen.entry(status).or_default() += 1;
        let (written, letter) = (log.get(&id).map_or(&[][..], Vec::as_slice), letters.get(&id));
        let state =
            format!("{id}: {status}, in the log at {written:?}, dead letter {letter:?}, answered {dead_letter:?}");
        assert!(written.len() <= 1, "written twice: {state}");
        match status {
            200 => {
                assert!(written.len() == 1 && letter.is_none(), "{state}");
                assert!(offset.is_none_or(|offset| written[0] == offset), "{offset:?}: {state}");
            }
            202 => assert!(written.len() == 1 || letter.is_some(), "lost: {state}"),
            504 => {
                assert!(written.len() == 1 || letter.is_some(), "lost: {state}");
                assert!(letter.is_none() || letter == dead_letter.as_ref(), "{state}");
            }
            _ => assert!(written.is_empty() && letter.is_none(), "the client would write it twice: {state}"),
        }
    }
    for status in [200, 202, 422, 504] {
        assert!(seen.contains_key(&status), "no answer {status}: {seen:?}");
    }
}

//! Clients repeat their requests with the same keys while `courier serve` with a spool is killed again and again: each event is
//! in Kafka once, and its id never changes.

use std::collections::BTreeMap;

use kafka_courier_test_broker::TestCluster;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};

use crate::support::{CourierProcess, command};

const LIVES: u32 = 6;
const CLIENTS: u32 = 4;
/// The answers after which a life ends.
const ANSWERS: u32 = 60;
/// The partition keys of a request's events. The topic has two partitions.
const KEYS: [&str; 3] = ["a", "b", "c"];

/// A client, and the ids of its answered requests.
struct Client {
    number: u32,
    answered: Vec<Vec<Value>>,
    repeats: u32,
}

fn event(client: u32, request: usize, index: usize) -> String {
    format!(r#"{{"type":"t","partition_key":"{}","data":{{"name":"{client}-{request}-{index}"}}}}"#, KEYS[index])
}

/// Returns the number of events of a request.
fn events_of(request: usize) -> usize {
    if request.is_multiple_of(3) { 3 } else { 1 }
}

/// Posts a request, and returns the status and the body of its answer.
async fn post(stream: &mut TcpStream, client: u32, request: usize) -> Option<(u16, Value)> {
    let events: Vec<String> = (0..events_of(request)).map(|index| event(client, request, index)).collect();
    let body = if events.len() == 1 { events.concat() } else { format!("[{}]", events.join(",")) };
    let ack = ["broker", "disk"][request % 2];
    let head = format!(
        "POST /v1/events?ack={ack}&timeout=300ms HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n\
         idempotency-key: {client}-{request}\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all((head + &body).as_bytes()).await.ok()?;
    let mut answer = Vec::new();
    loop {
        let text = String::from_utf8_lossy(&answer).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let head = head.to_ascii_lowercase();
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: "))?.parse().ok()?;
            if body.len() >= length {
                return Some((head.split(' ').nth(1)?.parse().ok()?, serde_json::from_str(body).ok()?));
            }
        }
        if stream.read_buf(&mut answer).await.ok()? == 0 {
            return None;
        }
    }
}

/// Returns the ids of an answer's events.
fn ids(body: &Value) -> Vec<Value> {
    match body["events"].as_array() {
        Some(events) => events.iter().map(|event| event["id"].clone()).collect(),
        None => vec![body["id"].clone()],
    }
}

impl Client {
    /// Repeats each request until it has an answer of success, and some requests later. Ends when the service dies.
    async fn run(mut self, address: String, answers: UnboundedSender<()>) -> Self {
        let Ok(mut stream) = TcpStream::connect(&address).await else { return self };
        for turn in 0_usize.. {
            let next = self.answered.len();
            let request = if turn % 4 == 1 && next > 0 { (turn * 7) % next } else { next };
            let Some((status, body)) = post(&mut stream, self.number, request).await else { return self };
            match (status, self.answered.get(request)) {
                (200 | 202, Some(first)) => {
                    let is_known = first.is_empty() || ids(&body) == *first;
                    assert!(is_known, "request {request} of client {}: {body}", self.number);
                    self.repeats += 1;
                }
                (200 | 202, None) => self.answered.push(ids(&body)),
                // The disk was too slow for the answer, and the key has this answer for the life of the process.
                (504, None) => self.answered.push(Vec::new()),
                (504, Some(first)) if first.is_empty() => {}
                (503 | 409, _) => {}
                other => panic!("request {request} of client {}: {other:?} {body}", self.number),
            }
            // The test has enough answers, and kills the service.
            let _ = answers.send(());
        }
        self
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn repeated_requests_survive_kills() {
    let cluster = TestCluster::builder().topic("default-events", 2).start().await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let (spool, brokers) = (folder.path().join("spool").display().to_string(), cluster.bootstrap());
    let arguments = ["serve", "--listen", "127.0.0.1:0", "--management", "127.0.0.1:0", "--drain-delay", "0s"];
    let arguments: Vec<&str> = arguments.into_iter().chain(["--spool", &spool, "--brokers", &brokers]).collect();
    let mut clients: Vec<Client> =
        (0..CLIENTS).map(|number| Client { number, answered: Vec::new(), repeats: 0 }).collect();
    for life in 0..=LIVES {
        let mut process = CourierProcess::start(command(&arguments, &[]));
        let line = process.wait_for_line("events: http://").await;
        let address = line.split("http://").nth(1).unwrap().split('/').next().unwrap().to_owned();
        let (sender, mut answers) = unbounded_channel();
        let run = |client: Client| tokio::spawn(client.run(address.clone(), sender.clone()));
        let running: Vec<_> = clients.drain(..).map(run).collect();
        for answer in 0..ANSWERS {
            answers.recv().await.unwrap();
            if answer == ANSWERS / 2 && life % 2 == 1 {
                cluster.pause(1); // the spool alone takes the events
            }
        }
        process.signal(if life == LIVES { "TERM" } else { "KILL" });
        cluster.resume(1);
        for client in running {
            clients.push(client.await.unwrap());
        }
        process.output().await;
    }
    let mut log: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for record in cluster.records("default-events") {
        let event: Value = serde_json::from_slice(record.value.as_deref().unwrap()).unwrap();
        let id = String::from_utf8(record.header("event_id").unwrap().to_vec()).unwrap();
        log.entry(event["data"]["name"].as_str().unwrap().to_owned()).or_default().push(id);
    }
    let repeats: u32 = clients.iter().map(|client| client.repeats).sum();
    assert!(repeats > 20, "{repeats} answered requests were repeated");
    for Client { number, answered, .. } in clients {
        for (request, ids) in answered.iter().enumerate() {
            for (index, id) in ids.iter().enumerate() {
                let name = format!("{number}-{request}-{index}");
                let expected = vec![id.as_str().unwrap().to_owned()];
                assert_eq!(log.remove(&name), Some(expected), "{name}");
            }
        }
    }
    // The service died before the answer.
    assert!(log.values().all(|ids| ids.len() == 1), "{log:?}");
}

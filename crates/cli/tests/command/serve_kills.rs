//! `courier serve` with a spool is killed again and again: each acknowledged event is in Kafka once.

use std::collections::BTreeMap;
use std::time::Duration;

use kafka_courier_test_broker::TestCluster;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::{CourierProcess, command};

const LIVES: u32 = 6;
const CLIENTS: u32 = 4;

/// Publishes events one after the other until the service dies, and returns the ids with the status of each answer.
async fn publish(address: String, life: u32, client: u32) -> Vec<(String, Option<u16>)> {
    let mut answers = Vec::new();
    let Ok(mut stream) = TcpStream::connect(&address).await else { return answers };
    for number in 0_u32.. {
        let (id, ack) = (format!("{life}-{client}-{number}"), if number % 3 == 0 { "broker" } else { "disk" });
        let body = format!(r#"{{"id":"{id}","type":"t","partition_key":"{client}"}}"#);
        let head = format!("POST /v1/events?ack={ack} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json");
        let sent = stream.write_all(format!("{head}\r\ncontent-length: {}\r\n\r\n{body}", body.len()).as_bytes()).await;
        let mut answer = [0; 4096];
        let read = stream.read(&mut answer).await.unwrap_or(0);
        let text = String::from_utf8_lossy(&answer[..read]).into_owned();
        let status = text.split(' ').nth(1).and_then(|status| status.parse().ok());
        answers.push((id, status));
        if sent.is_err() || status.is_none() {
            break;
        }
    }
    answers
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn acknowledged_events_survive_kills() {
    let cluster = TestCluster::builder().topic("default-events", 2).start().await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let (spool, brokers) = (folder.path().join("spool").display().to_string(), cluster.bootstrap());
    let arguments = ["serve", "--listen", "127.0.0.1:0", "--management", "127.0.0.1:0", "--drain-delay", "0s"];
    let arguments: Vec<&str> = arguments.into_iter().chain(["--spool", &spool, "--brokers", &brokers]).collect();
    let mut answers = Vec::new();
    for life in 0..LIVES {
        let mut process = CourierProcess::start(command(&arguments, &[]));
        let line = process.wait_for_line("events: http://").await;
        let address = line.split("http://").nth(1).unwrap().split('/').next().unwrap().to_owned();
        let clients: Vec<_> = (0..CLIENTS).map(|client| tokio::spawn(publish(address.clone(), life, client))).collect();
        if life % 2 == 1 {
            cluster.pause(1); // the spool alone takes the events
        }
        tokio::time::sleep(Duration::from_millis(400)).await;
        process.signal("KILL");
        cluster.resume(1);
        for client in clients {
            answers.extend(client.await.unwrap());
        }
        process.output().await;
    }
    let mut process = CourierProcess::start(command(&arguments, &[]));
    process.wait_for_line("events: http://").await;
    process.signal("TERM");
    process.output().await.expect(0, &[]);

    let mut log: BTreeMap<String, u32> = BTreeMap::new();
    for record in cluster.records("default-events") {
        *log.entry(String::from_utf8(record.header("event_id").unwrap().to_vec()).unwrap()).or_default() += 1;
    }
    let mut acknowledged = 0;
    for (id, status) in answers {
        let written = log.get(&id).copied().unwrap_or(0);
        match status {
            Some(200 | 202) => {
                assert_eq!(written, 1, "{id} was acknowledged with {status:?}");
                acknowledged += 1;
            }
            // The service died before the answer.
            None => assert!(written <= 1, "{id} was written {written} times"),
            Some(status) => panic!("{id}: {status}"),
        }
    }
    assert!(acknowledged > 100, "{acknowledged} events were acknowledged");
}

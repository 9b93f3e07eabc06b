//! `courier serve` and `courier health`: start, an event, and the orderly end.

use std::time::Duration;

use kafka_courier_test_broker::TestCluster;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::{CourierProcess, LOGIN, command, command_in};

const FREE: [&str; 7] = ["serve", "--listen", "127.0.0.1:0", "--management", "127.0.0.1:0", "--drain-delay", "0s"];

/// Starts the service, and returns its addresses for events and for probes.
async fn start(more: &[&str], settings: &[(&str, &str)]) -> (CourierProcess, String, String) {
    let arguments: Vec<&str> = FREE.iter().chain(more).copied().collect();
    let mut process = CourierProcess::start(command(&arguments, settings));
    let line = process.wait_for_line("events: http://").await;
    let address = |before: &str| {
        let (_, rest) = line.split_once(before).unwrap();
        rest.trim_start_matches("http://").split(['/', ',', '\n']).next().unwrap().trim().to_owned()
    };
    (process, address("events: "), address("metrics: "))
}

async fn request(address: &str, request: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

async fn post(address: &str, body: &str) -> String {
    let length = body.len();
    let head = "POST /v1/events HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-type: application/json";
    request(address, &format!("{head}\r\ncontent-length: {length}\r\n\r\n{body}")).await
}

#[tokio::test]
async fn embedded_broker_takes_the_example() {
    let (mut process, events, management) = start(&["--embedded-broker"], &[]).await;
    let example = process.wait_for_line("curl -i ").await;
    let body = example.split_once("-d '").unwrap().1.trim_end().trim_end_matches('\'');
    let answer = post(&events, body).await;
    assert!(answer.starts_with("HTTP/1.1 200 ") && answer.contains(r#""offset":0"#), "{answer}");
    let metrics = request(&management, "GET /metrics HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").await;
    for line in ["http_server_events_succeeded_total 1\n", "http_server_request_duration_seconds_bucket{"] {
        assert!(metrics.contains(line), "{metrics}");
    }
    let url = format!("http://{management}/readyz");
    let health = CourierProcess::start(command(&["health", "--url", &url], &[])).output_with_input("").await;
    health.expect(0, &[]);
    process.signal("TERM");
    let ended = process.output_with_input("").await;
    ended.expect(0, &["1 requests, 1 events delivered"]);
    let health = CourierProcess::start(command(&["health", "--url", &url], &[])).output_with_input("").await;
    health.expect(1, &["start the service"]);
}

#[tokio::test]
async fn service_starts_without_kafka() {
    let cluster = TestCluster::builder().topic("user-events", 1).start().await.unwrap();
    cluster.pause(1);
    let folder = tempfile::tempdir().unwrap();
    let letters = folder.path().join("letters.redb").display().to_string();
    let settings = [("KAFKA_BROKERS", cluster.bootstrap()), ("KAFKA_DLQ_FILE", letters)];
    let settings: Vec<(&str, &str)> = settings.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let (process, events, _) = start(&["--answer-timeout", "200ms"], &settings).await;
    let answer = post(&events, LOGIN).await;
    assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
    cluster.resume(1);
    let answered = async {
        while !post(&events, LOGIN).await.starts_with("HTTP/1.1 200 ") {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(crate::support::LONG, answered).await.expect("Kafka is back");
    process.signal("INT");
    process.output_with_input("").await.expect(0, &["events delivered"]);
}

#[tokio::test]
async fn few_descriptors_mean_few_connections() {
    let shell = ["-c", "ulimit -n 400 && exec \"$0\" \"$@\""];
    let arguments: Vec<&str> = FREE.iter().chain(&["--embedded-broker"]).copied().collect();
    let mut process = CourierProcess::start(command_in("sh", &shell, &arguments));
    process.wait_for_line("at most 80 connections instead of 10000").await;
    process.wait_for_line("events: http://").await;
    process.signal("TERM");
    process.output_with_input("").await.expect(0, &[]);
}

#[tokio::test]
async fn bad_starts_have_their_exit_code() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    std::fs::write(&file, "x").unwrap();
    let file = file.display().to_string();
    let letters = format!("dlq_file={file}/letters");
    for (more, code, words) in [
        (&["--spool", &file][..], 73, &file[..]),
        (&["--set", &letters], 73, "file of dead letters"),
        (&["--insecure-no-auth=maybe"], 64, "--insecure-no-auth"),
        (&["--listen", "0.0.0.0:0"], 78, "insecure_no_auth"),
        (&["--ack-floor", "broker", "--ack", "memory"], 78, "ack:"),
    ] {
        let base = if more[0] == "--listen" { &["serve"][..] } else { &FREE[..] };
        let arguments: Vec<&str> = base.iter().chain(more).copied().collect();
        let output = CourierProcess::start(command(&arguments, &[])).output_with_input("").await;
        output.expect(code, &[words]);
    }
}

#[tokio::test]
async fn json_log_has_object_a_line() {
    let more = ["--embedded-broker", "--log-format", "json", "--log-level", "info"];
    let arguments: Vec<&str> = FREE.iter().chain(&more).copied().collect();
    let mut process = CourierProcess::start(command(&arguments, &[]));
    let line = process.wait_for_line("events: http://").await;
    let started: serde_json::Value = serde_json::from_str(line.trim()).unwrap();
    let events =
        started["message"].as_str().unwrap().split_once("http://").unwrap().1.split('/').next().unwrap().to_owned();
    post(&events, LOGIN).await;
    let answered = process.wait_for_line("request answered").await;
    let answered: serde_json::Value = serde_json::from_str(answered.trim()).unwrap();
    assert_eq!(
        (&answered["level"], &answered["status"], &answered["succeeded"]),
        (&"info".into(), &200.into(), &1.into())
    );
    assert!(answered["target"].as_str().unwrap().starts_with("kafka_courier_gateway"), "{answered}");
    process.signal("TERM");
    process.output_with_input("").await.expect(0, &["1 requests, 1 events delivered"]);
}

#[tokio::test]
async fn settings_file_has_serve_options() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("courier.toml");
    let write = |text: &str| std::fs::write(&file, format!("client_id = \"a\"\n[serve]\n{text}\n")).unwrap();
    let file = file.display().to_string();
    write("max_events = 1\nlisten = \"127.0.0.1:1\"");
    let (process, events, _) = start(&["--embedded-broker", "--config", &file], &[]).await;
    let answer = post(&events, &format!("[{LOGIN},{LOGIN}]")).await;
    assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
    process.signal("TERM");
    process.output_with_input("").await.expect(0, &[]);
    for (text, words) in
        [("max_evens = 1", "no option of courier serve"), ("grace = \"soon\"", "[serve] grace: expected a time")]
    {
        write(text);
        let arguments: Vec<&str> = FREE.iter().chain(&["--embedded-broker", "--config", &file]).copied().collect();
        CourierProcess::start(command(&arguments, &[])).output_with_input("").await.expect(78, &[words]);
    }
    let output = CourierProcess::start(command(&["config", "--config", &file], &[])).output_with_input("").await;
    output.expect(0, &[]);
}

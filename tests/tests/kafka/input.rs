//! Invalid input and environments: `courier` reports each error, exits with the right code, and delivers all other
//! events.
use std::fs;
use std::net::TcpListener;

use anyhow::{Context, Result, ensure};
use kafka_courier_tests::cluster::Cluster;
use kafka_courier_tests::courier::{Courier, FinishedRun};
use kafka_courier_tests::ledger::Ledger;
use kafka_courier_tests::receipts;
use serde_json::json;

/// Exit codes of `courier`, from sysexits.h where it has one.
const SOME_FAILED: i32 = 1;
const USAGE: i32 = 64;
const DATA: i32 = 65;
const UNREACHABLE: i32 = 69;
const CONFIG: i32 = 78;

const TOPIC: &str = "all-events";
const BIG_ID: &str = "018f0000-0000-7000-8000-0000000000b1";

/// Returns sample events, one a line.
fn sample(count: usize) -> Result<Vec<String>> {
    let run = Courier::new(&["sample", "--count", &count.to_string(), "--seed", "7"])?.run()?;
    Ok(run.expect_code(0)?.stdout.lines().map(String::from).collect())
}

fn cluster_with_topic() -> Result<Cluster> {
    let cluster = Cluster::start(1)?;
    cluster.create_topic(TOPIC, 3, 1, &[])?;
    Ok(cluster)
}

/// Publishes the lines into [`TOPIC`].
fn publish(cluster: &Cluster, lines: &[String], more: &[&str]) -> Result<FinishedRun> {
    let mut arguments = vec!["publish", "--brokers", cluster.bootstrap(), "--topic", TOPIC];
    arguments.extend_from_slice(more);
    Courier::new(&arguments)?.input_bytes((lines.join("\n") + "\n").as_bytes())?.run()
}

/// Checks that the topic has exactly these events, each once and in order.
fn check_arrived(cluster: &Cluster, events: &[String]) -> Result<()> {
    let mut ledger = Ledger::read(events.join("\n").as_bytes(), Some(TOPIC))?;
    let counts = ledger.check(cluster)?;
    ensure!(counts == [(TOPIC.to_owned(), events.len() as u64)], "{counts:?}");
    Ok(())
}

/// Returns an address on which no process listens.
fn unused_address() -> Result<String> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.to_string())
}

/// Returns incompressible text of `length` bytes.
fn incompressible_text(length: usize) -> String {
    let mut state: u64 = 0x9e37_79b9_7f4a_7c15;
    let mut character = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        char::from(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"[(state >> 58) as usize])
    };
    (0..length).map(|_| character()).collect()
}

#[test]
fn garbage_lines_are_named_and_skipped() {
    let cluster = cluster_with_topic().unwrap();
    let events = sample(300).unwrap();
    let mut lines = events.clone();
    lines.insert(0, "garbage".to_owned());
    lines.insert(100, r#"{"type": 5}"#.to_owned());
    lines.insert(200, r#"{"type":"user.logged_in","data":"#.to_owned());
    publish(&cluster, &lines, &[])
        .and_then(|run| run.expect_code(DATA))
        .and_then(|run| run.expect_stderr(&["line 1", "line 101", "line 201"]))
        .unwrap();
    check_arrived(&cluster, &events).unwrap();
}

#[test]
fn strict_stops_at_first_bad_line() {
    let cluster = cluster_with_topic().unwrap();
    let events = sample(300).unwrap();
    let mut lines = events.clone();
    lines.insert(100, "garbage".to_owned());
    publish(&cluster, &lines, &["--strict"])
        .and_then(|run| run.expect_code(DATA))
        .and_then(|run| run.expect_stderr(&["line 101"]))
        .unwrap();
    check_arrived(&cluster, &events[..100]).unwrap();
}

#[test]
fn oversized_event_fails_alone() {
    let cluster = cluster_with_topic().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("receipts.ndjson");
    let events = sample(300).unwrap();
    let big = json!({
        "id": BIG_ID, "type": "report.made", "source": "test", "version": "1",
        "timestamp": "2026-01-15T10:00:00Z", "data": {"text": incompressible_text(2_000_000)},
    });
    let mut lines = events.clone();
    lines.insert(150, big.to_string());
    publish(&cluster, &lines, &["--receipts", file.to_str().unwrap()])
        .and_then(|run| run.expect_code(SOME_FAILED))
        .and_then(|run| run.expect_stderr(&["line 151"]))
        .unwrap();
    check_arrived(&cluster, &events).unwrap();

    let (mut delivered, mut refused) = (0, 0);
    receipts::read(&file, |receipt| {
        let id = receipt.id.context("the receipt has no id")?.to_string();
        ensure!(receipt.error.is_some() == (id == BIG_ID), "{receipt:?}");
        *if receipt.error.is_some() { &mut refused } else { &mut delivered } += 1;
        Ok(())
    })
    .unwrap();
    assert_eq!((delivered, refused), (300, 1));
}

#[test]
fn events_for_missing_topic_fail_alone() {
    let cluster = cluster_with_topic().unwrap();
    let mut expected = Vec::new();
    let mut lines = sample(300).unwrap();
    for (number, line) in lines.iter_mut().enumerate() {
        let mut event: serde_json::Value = serde_json::from_str(line).unwrap();
        if number % 10 == 3 {
            event["type"] = json!("lost.event");
            *line = event.to_string();
        } else if event["type"] == "system.alert" {
            expected.push(line.clone());
        }
    }
    lines.retain(|line| line.contains(r#""lost.event""#) || expected.contains(line));
    let mapping = format!("lost.event=no-such-topic,system.alert={TOPIC}");
    let input = lines.join("\n");
    let run = Courier::new(&["publish", "--brokers", cluster.bootstrap()]).unwrap();
    run.env("KAFKA_TOPIC_MAPPING", &mapping)
        .input_bytes(input.as_bytes())
        .and_then(Courier::run)
        .and_then(|run| run.expect_code(SOME_FAILED))
        .and_then(|run| run.expect_stderr(&["no-such-topic"]))
        .unwrap();
    let mut found = Vec::new();
    cluster
        .dump(TOPIC, |record| {
            found.extend(record.value.as_deref().map(String::from));
            Ok(())
        })
        .unwrap();
    let ids = |events: &[String]| -> Vec<String> {
        let id = |line: &String| serde_json::from_str::<serde_json::Value>(line).unwrap()["id"].to_string();
        let mut ids: Vec<String> = events.iter().map(id).collect();
        ids.sort();
        ids
    };
    assert!(!expected.is_empty());
    assert_eq!(ids(&found), ids(&expected));
}

#[test]
fn directory_is_refused_as_input() {
    let folder = tempfile::tempdir().unwrap();
    let name = folder.path().to_str().unwrap();
    Courier::new(&["publish", "--brokers", &unused_address().unwrap(), name])
        .and_then(Courier::run)
        .and_then(|run| run.expect_code(DATA))
        .and_then(|run| run.expect_stderr(&[name, "directory"]))
        .unwrap();
}

#[test]
fn missing_file_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let name = folder.path().join("absent.ndjson");
    let name = name.to_str().unwrap();
    Courier::new(&["publish", "--brokers", &unused_address().unwrap(), name])
        .and_then(Courier::run)
        .and_then(|run| run.expect_code(DATA))
        .and_then(|run| run.expect_stderr(&[name]))
        .unwrap();
}

#[test]
fn unreachable_brokers_are_named() {
    let address = unused_address().unwrap();
    let input = sample(10).unwrap().join("\n");
    Courier::new(&["publish", "--brokers", &address, "-"])
        .and_then(|run| run.input_bytes(input.as_bytes()))
        .and_then(Courier::run)
        .and_then(|run| run.expect_code(UNREACHABLE))
        .and_then(|run| run.expect_stderr(&[&address]))
        .unwrap();
}

#[test]
fn invalid_topic_name_is_refused() {
    let too_long = "t".repeat(250);
    for name in ["all events", "..", "überraschung", "", &too_long] {
        Courier::new(&["publish", "--brokers", &unused_address().unwrap(), "--topic", name])
            .and_then(Courier::run)
            .and_then(|run| run.expect_code(USAGE))
            .and_then(|run| run.expect_stderr(&["topic"]))
            .unwrap();
    }
}

#[test]
fn invalid_setting_is_named() {
    for (name, value) in [("KAFKA_FLUSH_MESSAGES", "many"), ("KAFKA_TOPIC_MAPPING", "a=b c")] {
        let run = Courier::new(&["publish", "--brokers", &unused_address().unwrap()]).unwrap();
        run.env(name, value)
            .run()
            .and_then(|run| run.expect_code(CONFIG))
            .and_then(|run| run.expect_stderr(&[name]))
            .unwrap();
    }
}

#[test]
fn json_array_is_read_as_lines() {
    let cluster = cluster_with_topic().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("events.json");
    let events = sample(50).unwrap();
    fs::write(&file, format!("[\n{}\n]\n", events.join(",\n"))).unwrap();
    Courier::new(&["publish", "--brokers", cluster.bootstrap(), "--topic", TOPIC, file.to_str().unwrap()])
        .and_then(Courier::run)
        .and_then(|run| run.expect_code(0))
        .unwrap();
    check_arrived(&cluster, &events).unwrap();
}

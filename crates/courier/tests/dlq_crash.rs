//! A publisher that is killed while it keeps dead letters: each failure that it told of is in the file, once.
#![cfg(unix)]
#![allow(clippy::unwrap_used, clippy::panic)] // helpers of tests may, as tests do
mod support;

use std::collections::HashSet;
use std::time::Duration;

use kafka_courier_test_broker::TestCluster;
use support::{Courier, command, receipts};

const KILLS: u64 = 20;
/// Told failures after which a kill may come.
const TOLD: u64 = 50;

fn events(round: u64, from: u64) -> String {
    let event = |n| format!(r#"{{"id":"e-{round}-{n}","type":"user.logged_in","data":{{"user_id":"u-{}"}}}}"#, n % 50);
    (from..from + 500).map(|n| event(n) + "\n").collect()
}

/// Publishes until it is killed; returns the ids of the events that it told had failed.
async fn killed(cluster: &TestCluster, file: &str, round: u64, random: &mut fastrand::Rng) -> Vec<String> {
    let arguments = ["--dlq-file", file, "--receipts", "-"];
    let mut courier = Courier::publish(cluster, &arguments, &[("KAFKA_FLUSH_MESSAGES", "20")]);
    let (mut input, mut output) = courier.pipes();
    let feeder = tokio::spawn(async move {
        // It ends when nobody reads any more.
        for from in (0..).step_by(500) {
            if tokio::io::AsyncWriteExt::write_all(&mut input, events(round, from).as_bytes()).await.is_err() {
                return;
            }
        }
    });
    let (mut told, enough) = (Vec::new(), TOLD + random.u64(..200));
    while (told.len() as u64) < enough {
        told.push(failed(&support::read_line(&mut output).await));
    }
    tokio::time::sleep(Duration::from_micros(random.u64(..20_000))).await; // anywhere between two flushes
    courier.signal("KILL");
    let text = support::read_all(&mut output).await;
    // The last line may be cut off.
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    told.extend(whole.lines().map(failed));
    assert_eq!(courier.ended().await.code, None, "it was killed");
    feeder.await.unwrap();
    told
}

fn failed(line: &str) -> String {
    let receipt = receipts(line).remove(0);
    assert!(receipt["error"].is_string(), "every event is refused: {receipt}");
    receipt["id"].as_str().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn each_failure_that_was_told_before_a_kill_is_in_the_file_once() {
    let cluster = TestCluster::builder().topic("user-events", 3).start().await.unwrap();
    cluster.reject_records(|_| Some("no".to_owned()));
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("letters").display().to_string();
    let mut random = fastrand::Rng::with_seed(7);
    let mut told = Vec::new();
    for round in 0..KILLS {
        told.extend(killed(&cluster, &file, round, &mut random).await);
    }
    let listed = Courier::start(command(&["dlq", "list", "--json", "--file", &file], &[])).ended_with("").await;
    listed.expect(0, &[]);
    let mut held = HashSet::new();
    for letter in receipts(&listed.out) {
        assert!(held.insert(letter["event_id"].as_str().unwrap().to_owned()), "twice: {letter}");
    }
    assert!(told.len() as u64 >= KILLS * TOLD, "{}", told.len());
    let missing: Vec<_> = told.iter().filter(|id| !held.contains(*id)).collect();
    assert!(missing.is_empty(), "{} of {} are missing: {missing:?}", missing.len(), told.len());
    println!("{KILLS} kills: {} failures told, all in the file; {} letters in it", told.len(), held.len());
}

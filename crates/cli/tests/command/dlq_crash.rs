//! Kills of a publisher that stores dead letters: the file has each reported failure once.

use std::collections::HashSet;
use std::time::Duration;

use crate::support::{self, CourierProcess, command, receipts};
use kafka_courier_test_broker::TestCluster;

const KILLS: u64 = 20;
/// Reported failures before each kill.
const REPORTED: u64 = 50;

fn events(round: u64, from: u64) -> String {
    let event = |n| format!(r#"{{"id":"e-{round}-{n}","type":"user.logged_in","data":{{"user_id":"u-{}"}}}}"#, n % 50);
    (from..from + 500).map(|n| event(n) + "\n").collect()
}

/// Publishes until the kill. Returns the ids of the events that the command reported as failed.
async fn killed(cluster: &TestCluster, file: &str, round: u64, random: &mut fastrand::Rng) -> Vec<String> {
    let arguments = ["--dlq-file", file, "--receipts", "-"];
    let mut courier = CourierProcess::publish(cluster, &arguments, &[("KAFKA_FLUSH_MESSAGES", "20")]);
    let (mut input, mut output) = courier.pipes();
    let feeder = tokio::spawn(async move {
        // The loop ends with the command.
        for from in (0..).step_by(500) {
            if tokio::io::AsyncWriteExt::write_all(&mut input, events(round, from).as_bytes()).await.is_err() {
                return;
            }
        }
    });
    let (mut reported, enough) = (Vec::new(), REPORTED + random.u64(..200));
    while (reported.len() as u64) < enough {
        reported.push(failed(&support::read_line(&mut output).await));
    }
    tokio::time::sleep(Duration::from_micros(random.u64(..20_000))).await; // any time between two flushes
    courier.signal("KILL");
    let text = support::read_all(&mut output).await;
    // The last line may be incomplete.
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    reported.extend(whole.lines().map(failed));
    assert_eq!(courier.output().await.code, None, "the command was killed");
    feeder.await.unwrap();
    reported
}

fn failed(line: &str) -> String {
    let receipt = receipts(line).remove(0);
    assert!(receipt["error"].is_string(), "every event is rejected: {receipt}");
    receipt["id"].as_str().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn reported_failures_survive_kills() {
    let cluster = TestCluster::builder().topic("user-events", 3).start().await.unwrap();
    cluster.reject_records(|_| Some("no".to_owned()));
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("letters").display().to_string();
    let mut random = fastrand::Rng::with_seed(7);
    let mut reported = Vec::new();
    for round in 0..KILLS {
        reported.extend(killed(&cluster, &file, round, &mut random).await);
    }
    let listed =
        CourierProcess::start(command(&["dlq", "list", "--json", "--file", &file], &[])).output_with_input("").await;
    listed.expect(0, &[]);
    let mut held = HashSet::new();
    for letter in receipts(&listed.out) {
        assert!(held.insert(letter["event_id"].as_str().unwrap().to_owned()), "twice: {letter}");
    }
    assert!(reported.len() as u64 >= KILLS * REPORTED, "{}", reported.len());
    let missing: Vec<_> = reported.iter().filter(|id| !held.contains(*id)).collect();
    assert!(missing.is_empty(), "{} of {} are missing: {missing:?}", missing.len(), reported.len());
    println!("{KILLS} kills: {} reported failures, {} dead letters in the file", reported.len(), held.len());
}

//! A replay keeps the order in which the records of a key arrived in the store of dead letters, on a real Kafka.
//!
//! Rules: The tests run only `courier`. A Java consumer reads the order.
use std::collections::BTreeMap;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use kafka_courier_tests::cluster::Cluster;
use kafka_courier_tests::courier::{Courier, FinishedRun};
use serde_json::{Value, json};

/// Returns a dead letter for `topic` with this number in its id and value.
fn letter(number: u64, topic: &str, key: &str) -> String {
    let line = json!({
        "id": format!("01a224d0-0000-7000-8000-{number:012x}"), "event": {"n": number}, "topic": topic,
        "failure_reason": "made for a test", "attempt_count": 1, "first_attempt": "2026-01-01T00:00:00Z",
        "last_attempt": "2026-01-01T00:00:00Z", "partition": 0, "key": key, "headers": [],
        "timestamp_ms": 1_767_225_600_000_i64, "error_code": null, "outcome": "not_written", "retriable": true,
        "event_id": format!("p{number}"), "event_type": "x.y", "correlation_id": null, "replay_count": 0,
    });
    format!("{line}\n")
}

/// `courier dlq` on the store that `options` name.
struct Store<'a> {
    cluster: &'a Cluster,
    options: Vec<String>,
}

impl Store<'_> {
    fn run(&self, words: &[&str], input: &str) -> Result<FinishedRun> {
        let store = self.options.iter().map(String::as_str).collect::<Vec<_>>();
        let courier = Courier::new(&[&["dlq"], words, &["--brokers", self.cluster.bootstrap()], &store].concat())?;
        let courier = courier.within(Duration::from_secs(300)).env("KAFKA_METADATA_TIMEOUT", "1500ms");
        courier.input_bytes(input.as_bytes())?.run()
    }

    fn import(&self, letters: &str) -> Result<()> {
        self.run(&["import"], letters)?.expect_code(0).map(drop)
    }

    fn replay(&self, words: &[&str], code: i32) -> Result<Value> {
        let run = self.run(&[&["replay", "--all", "--json"], words].concat(), "")?.expect_code(code)?;
        let report = run.stdout.lines().last().with_context(|| run.stderr.clone())?;
        println!("{report}");
        Ok(serde_json::from_str(report)?)
    }

    /// Waits until a dead letter's reason contains `part`. Fails after a minute, or when `is_running` returns false.
    fn await_reason(&self, part: &str, is_running: impl Fn() -> bool) -> Result<()> {
        let began = Instant::now();
        loop {
            let was_running = is_running();
            let listed = self.run(&["list", "--reason", part, "--limit", "1", "--json"], "")?;
            if listed.code == Some(0) && !listed.stdout.trim().is_empty() {
                return Ok(());
            }
            ensure!(was_running, "the replay ended, and no reason contains {part:?}: {}", listed.stderr);
            ensure!(began.elapsed() < Duration::from_secs(60), "no reason contains {part:?}: {}", listed.stderr);
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

/// Returns the numbers of each key's records, in the order of the log.
fn numbers(cluster: &Cluster, topic: &str) -> Result<BTreeMap<String, Vec<u64>>> {
    let mut found: BTreeMap<String, Vec<u64>> = BTreeMap::new();
    cluster.dump(topic, |record| {
        let value: Value = serde_json::from_str(record.value.as_deref().context("a record has no value")?)?;
        let key = record.key.as_deref().context("a record has no key")?.to_owned();
        found.entry(key).or_default().push(value["n"].as_u64().context("a record has no number")?);
        Ok(())
    })?;
    Ok(found)
}

/// Checks that the topic has `count` records, without duplicates, and in order within each key.
fn check_order(cluster: &Cluster, topic: &str, count: u64) -> Result<()> {
    let found = numbers(cluster, topic)?;
    for (key, numbers) in &found {
        ensure!(numbers.is_sorted_by(|a, b| a < b), "the records of {key} are out of order: {numbers:?}");
    }
    let all: u64 = found.values().map(|numbers| numbers.len() as u64).sum();
    ensure!(all == count, "{all} of {count} records");
    Ok(())
}

#[test]
fn failed_limited_replay_keeps_topic_order() {
    fn run() -> Result<()> {
        let cluster = Cluster::start(1)?;
        cluster.create_topic("dead", 1, 1, &[])?;
        let store = Store { cluster: &cluster, options: ["--store-topic", "dead"].map(str::to_owned).to_vec() };
        store.import(&(0..6).map(|number| letter(number, "late", "k")).collect::<String>())?;
        let report = store.replay(&["--limit", "2"], 1)?;
        ensure!(report["selected"] == 2 && report["delivered"] == 0, "{report}");
        cluster.create_topic("late", 1, 1, &[])?;
        let report = store.replay(&[], 0)?;
        ensure!(report["delivered"] == 6, "{report}");
        check_order(&cluster, "late", 6)
    }
    run().unwrap();
}

#[test]
fn topic_created_during_replay_keeps_order() {
    fn run() -> Result<()> {
        let cluster = Cluster::start(1)?;
        let folder = tempfile::tempdir()?;
        let file = folder.path().join("letters").display().to_string();
        let store = Store { cluster: &cluster, options: vec!["--file".to_owned(), file] };
        store.import(&(0..60_000).map(|n| letter(n, "big1", &format!("k{}", n % 5))).collect::<String>())?;
        std::thread::scope(|scope| {
            let replaying = scope.spawn(|| store.run(&["replay", "--all", "--json"], ""));
            // The replay has returned the first dead letters to the store, and continues with the others.
            store.await_reason("topic big1", || !replaying.is_finished())?;
            cluster.create_topic("big1", 1, 1, &[])?;
            let run = replaying.join().map_err(|_| anyhow::anyhow!("the replay failed"))??;
            println!("{}", run.stdout.trim());
            anyhow::Ok(())
        })?;
        let began = Instant::now();
        store.replay(&[], 0)?;
        println!("60,000 dead letters of five keys in {:.1} s", began.elapsed().as_secs_f64());
        check_order(&cluster, "big1", 60_000)
    }
    run().unwrap();
}

#[test]
fn raised_partitions_keep_topic_order() {
    fn run() -> Result<()> {
        let cluster = Cluster::start(1)?;
        cluster.create_topic("dead", 1, 1, &[])?;
        cluster.create_topic("t", 3, 1, &[])?;
        let store = Store { cluster: &cluster, options: ["--store-topic", "dead"].map(str::to_owned).to_vec() };
        let letters = |numbers: std::ops::Range<u64>| {
            numbers.map(|n| letter(n, "t", &format!("k{}", n % 10))).collect::<String>()
        };
        store.import(&letters(0..100))?;
        let server = ["--bootstrap-server", cluster.bootstrap(), "--alter", "--topic", "dead", "--partitions", "4"];
        cluster.java("org.apache.kafka.tools.TopicCommand", &server, Stdio::null())?;
        store.import(&letters(100..200))?;
        for limit in ["30", "30", "200"] {
            store.replay(&["--limit", limit], 0)?;
        }
        check_order(&cluster, "t", 200)
    }
    run().unwrap();
}

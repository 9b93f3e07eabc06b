//! `courier publish --spool`: kills, restarts, changed files, pipes, and brokers that are away.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use kafka_courier::KafkaProducer;
use kafka_courier_test_broker::TestCluster;
use serde_json::Value;

use crate::support::{CommandOutput, CourierProcess, ORDER, command, ids, receipts, wait_for_records};

pub(crate) const NO_BROKER: &str = "127.0.0.1:1";

/// A folder with a spool and input files.
pub(crate) struct Spooled {
    pub(crate) folder: tempfile::TempDir,
    pub(crate) dir: String,
}

impl Spooled {
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let dir = folder.path().join("spool").display().to_string();
        Self { folder, dir }
    }

    /// Writes a file of events with these numbers as ids, spread over twenty keys.
    pub(crate) fn file(&self, name: &str, numbers: std::ops::Range<u64>) -> String {
        self.file_of(name, &numbers.map(login).collect::<String>())
    }

    pub(crate) fn file_of(&self, name: &str, text: &str) -> String {
        let path: PathBuf = self.folder.path().join(name);
        fs::write(&path, text).unwrap();
        path.display().to_string()
    }

    pub(crate) fn start(&self, brokers: &str, arguments: &[&str]) -> CourierProcess {
        self.start_with(brokers, arguments, ("KAFKA_CLIENT_ID", "courier"))
    }

    pub(crate) fn start_with(&self, brokers: &str, arguments: &[&str], setting: (&str, &str)) -> CourierProcess {
        let arguments = [&["publish", "--brokers", brokers, "--spool", &self.dir], arguments].concat();
        CourierProcess::start(command(&arguments, &[("KAFKA_METADATA_TIMEOUT", "2s"), setting]))
    }

    pub(crate) async fn publish(&self, cluster: &TestCluster, arguments: &[&str]) -> CommandOutput {
        self.start(&cluster.bootstrap(), arguments).output().await
    }

    async fn stats(&self) -> Value {
        let output = CourierProcess::start(command(&["spool", "stats", &self.dir, "--json"], &[])).output().await;
        output.expect(0, &[]);
        receipts(&output.out).remove(0)
    }
}

pub(crate) fn login(number: u64) -> String {
    let user = number % 20;
    format!("{{\"id\":\"{number}\",\"type\":\"user.logged_in\",\"data\":{{\"user_id\":\"u-{user}\"}}}}\n")
}

async fn cluster() -> TestCluster {
    TestCluster::builder().topic("user-events", 4).start().await.unwrap()
}

/// Asserts that the topic has each number once, and the numbers of a partition in their order.
fn assert_once(cluster: &TestCluster, numbers: impl Iterator<Item = u64>) {
    let mut last: BTreeMap<i32, u64> = BTreeMap::new();
    let mut found = Vec::new();
    let records = cluster.records("user-events");
    for (id, record) in ids(&records).into_iter().zip(&records) {
        let number: u64 = id.parse().unwrap();
        let before = last.insert(record.partition, number);
        assert!(before < Some(number), "{number} follows {before:?} in partition {}", record.partition);
        found.push(number);
    }
    found.sort_unstable();
    assert_eq!(found, numbers.collect::<Vec<_>>());
}

#[tokio::test]
async fn killed_run_continues_once() {
    let (cluster, spooled) = (cluster().await, Spooled::new());
    let mut text = String::new();
    for number in 1..=20_000 {
        text.push_str(&if number % 1000 == 500 { format!("no event {number}\n") } else { login(number) });
    }
    let file = spooled.file_of("events", &text);
    let (mut continued, mut kills, mut random) = (0, 0, fastrand::Rng::with_seed(7));
    // A busy machine can kill each run before the run has stored anything. Later runs get more time.
    while kills < 12 || continued == 0 && kills < 100 {
        let run = spooled.start(&cluster.bootstrap(), &[&file]);
        let time = if kills % 4 == 3 { random.u64(..40) } else { random.u64(50..400) * (1 + kills / 12) };
        tokio::time::sleep(Duration::from_millis(time)).await;
        run.signal("KILL");
        continued += usize::from(run.output().await.err.contains("continues at line"));
        kills += 1;
    }
    let output = spooled.publish(&cluster, &[&file, "--wait"]).await;
    assert!(matches!(output.code, Some(0 | 65)), "{output:?}");
    assert!(continued > 0, "no run continued");
    assert_once(&cluster, (1..=20_000).filter(|number| number % 1000 != 500));
    spooled.publish(&cluster, &[&file]).await.expect(0, &["all of its 20,000 items are stored or delivered already"]);
}

#[tokio::test]
async fn finished_file_needs_again() {
    let (cluster, spooled) = (cluster().await, Spooled::new());
    let file = spooled.file("events", 1..31);
    spooled.publish(&cluster, &[&file]).await.expect(0, &["30 read, 30 stored", "30 delivered, none left"]);
    let output = spooled.publish(&cluster, &[&file, "--json"]).await;
    output.expect(0, &["all of its 30 items are stored or delivered already: --again publishes them again"]);
    let line = &receipts(&output.out)[0];
    assert_eq!((&line["read"], &line["left"], &line["try_again"]), (&0.into(), &0.into(), &Value::Null));
    assert_once(&cluster, 1..31);
    // A file that grows continues behind its former end.
    spooled.file("events", 1..41);
    spooled
        .publish(&cluster, &[&file, "--again"])
        .await
        .expect(0, &["continues at line 31, byte", "10 read, 10 stored"]);
    assert_once(&cluster, 1..41);
    spooled.publish(&cluster, &[&file, "--again"]).await.expect(0, &["40 read, 40 stored"]);
    wait_for_records(&cluster, "user-events", 80).await;
}

#[tokio::test]
async fn again_waits_for_undelivered_events() {
    let (cluster, spooled) = (cluster().await, Spooled::new());
    spooled.publish(&cluster, &[&spooled.file("first", 1..3)]).await.expect(0, &[]);
    let file = spooled.file("events", 3..31);
    spooled.start(NO_BROKER, &[&file, "--grace", "1"]).output().await.expect(75, &["28 stored"]);
    let again = spooled.start(NO_BROKER, &[&file, "--grace", "1", "--again"]).output().await;
    again.expect(75, &["The spool still has 28 events of earlier runs", "repeat the command afterwards"]);
    spooled.publish(&cluster, &[&file, "--again"]).await.expect(0, &["28 delivered, none left"]);
    assert_once(&cluster, 1..31);
    spooled.publish(&cluster, &[&file, "--again"]).await.expect(0, &["28 read, 28 stored"]);
}

#[tokio::test]
async fn receipts_in_the_spool_are_refused() {
    let (cluster, spooled) = (cluster().await, Spooled::new());
    let file = spooled.file("events", 1..3);
    spooled.publish(&cluster, &[&file]).await.expect(0, &[]);
    let segment = fs::read_dir(&spooled.dir).unwrap().map(|entry| entry.unwrap().path());
    let segment = segment.max().unwrap().display().to_string();
    let output = spooled.publish(&cluster, &[&file, "--again", "--receipts", &segment]).await;
    output.expect(64, &["the file of receipts ", " is in the folder of the spool"]);
}

#[tokio::test]
async fn next_run_adds_receipts() {
    let (cluster, spooled) = (cluster().await, Spooled::new());
    let kept = spooled.file_of("receipts", "a part of a line");
    for end in [11, 31] {
        let file = spooled.file("events", 1..end);
        spooled.publish(&cluster, &[&file, "--receipts", &kept]).await.expect(0, &[]);
    }
    let text = fs::read_to_string(&kept).unwrap();
    let (first, rest) = text.split_once('\n').unwrap();
    assert_eq!(first, "a part of a line");
    let numbers = receipts(rest).iter().map(|line| line["id"].as_str().unwrap().parse().unwrap()).collect::<Vec<u64>>();
    assert_eq!(numbers, (1..31).collect::<Vec<_>>());
}

#[tokio::test]
async fn renamed_file_is_known() {
    let (cluster, spooled) = (cluster().await, Spooled::new());
    let file = spooled.file("events", 1..31);
    spooled.publish(&cluster, &[&file]).await.expect(0, &[]);
    let renamed = format!("{file}.1");
    fs::rename(&file, &renamed).unwrap();
    spooled.publish(&cluster, &[&renamed]).await.expect(0, &["all of its 30 items (as "]);
    assert_once(&cluster, 1..31);
}

#[tokio::test]
async fn changed_file_is_refused() {
    let (cluster, spooled) = (cluster().await, Spooled::new());
    let file = spooled.file("events", 1..31);
    spooled.publish(&cluster, &[&file]).await.expect(0, &[]);
    spooled.file("events", 1..21);
    spooled.publish(&cluster, &[&file]).await.expect(65, &["shorter than before: 20 of 30 items", "with --again"]);
    let other = fs::read_to_string(&file).unwrap().replace("u-7", "u-8");
    spooled.file_of("events", &format!("{other}{}", (21..31).map(login).collect::<String>()));
    spooled.publish(&cluster, &[&file]).await.expect(65, &["events has changed", "some of its first 30 items"]);
    assert_once(&cluster, 1..31);
    spooled.file("events", 31..41);
    spooled.publish(&cluster, &[&file, "--again"]).await.expect(0, &["10 read, 10 stored"]);
    assert_once(&cluster, 1..41);
}

#[tokio::test]
async fn files_have_separate_positions() {
    let (cluster, spooled) = (cluster().await, Spooled::new());
    let (one, other) = (spooled.file("one", 1..31), spooled.file("other", 31..61));
    let array = (61..66).map(|number| login(number).trim_end().to_owned()).collect::<Vec<_>>().join(",");
    let array = spooled.file_of("array", &format!("[{array}]"));
    for file in [&one, &other, &array, &one, &array] {
        spooled.publish(&cluster, &[file]).await.expect(0, &[]);
    }
    assert_once(&cluster, 1..66);
    let inputs = spooled.stats().await["inputs"].clone();
    let items: Vec<_> = inputs.as_array().unwrap().iter().map(|input| input["items"].as_u64().unwrap()).collect();
    assert_eq!(items, [30, 30, 5]);
    assert!(inputs[0]["name"].as_str().unwrap().ends_with("/one"), "{inputs}");
}

#[tokio::test]
async fn events_wait_while_brokers_are_away() {
    let (cluster, spooled) = (cluster().await, Spooled::new());
    let (first, second) = (spooled.file("first", 1..31), spooled.file("second", 31..61));
    spooled.publish(&cluster, &[&first]).await.expect(0, &[]);
    let output = spooled.start(NO_BROKER, &[&second, "--grace", "1", "--json"]).output().await;
    output.expect(75, &["events are stored in", "30 read, 30 stored", "0 delivered, 30 left in"]);
    let line = &receipts(&output.out)[0];
    assert_eq!((&line["left"], &line["try_again"], &line["exit"]), (&30.into(), &"events_left".into(), &75.into()));
    let piped = spooled.start(NO_BROKER, &["--grace", "1"]).output_with_input(&login(61)).await;
    piped.expect(75, &["1 read, 1 stored", "31 left in"]);
    let output = spooled.publish(&cluster, &[&second, "--wait"]).await;
    output.expect(0, &["all of its 30 items", "31 delivered, none left"]);
    assert_once(&cluster, 1..62);
}

#[tokio::test]
async fn unknown_topics_leave_the_file() {
    let (cluster, spooled) = (cluster().await, Spooled::new());
    let file = spooled.file("events", 1..31);
    let output = spooled.start(NO_BROKER, &[&file, "--grace", "1", "--json"]).output().await;
    output.expect(75, &["the input was not published to its end: run the command again"]);
    assert_eq!(receipts(&output.out)[0]["try_again"], "input_not_read");
    spooled.publish(&cluster, &[&file]).await.expect(0, &["30 read, 30 stored"]);
    assert_once(&cluster, 1..31);
}

#[tokio::test]
async fn local_failures_are_reported_once() {
    let (cluster, spooled) = (cluster().await, Spooled::new());
    let file = spooled.file_of("events", &format!("{}no event\n{ORDER}\n{}", login(1), login(2)));
    let letters = spooled.folder.path().join("letters.redb").display().to_string();
    let arguments = [&*file, "--dlq-file", &letters];
    spooled.publish(&cluster, &arguments).await.expect(1, &["line 2: ", "line 3: topic ", "2 delivered"]);
    let output = spooled.publish(&cluster, &arguments).await;
    output.expect(0, &["all of its 4 items are stored or delivered already"]);
    assert!(!output.err.contains("line 2"), "{}", output.err);
    let list = CourierProcess::start(command(&["dlq", "list", "--file", &letters, "--json"], &[])).output().await;
    assert_eq!(receipts(&list.out).len(), 1, "{list:?}");
    assert_once(&cluster, 1..3);
}

#[tokio::test]
async fn held_spool_asks_for_another_try() {
    let (cluster, spooled) = (cluster().await, Spooled::new());
    let file = spooled.file("events", 1..3);
    let producer =
        KafkaProducer::builder().brokers(cluster.bootstrap()).spool_dir(spooled.dir.clone()).build().unwrap();
    let output = spooled.publish(&cluster, &[&file, "--json"]).await;
    output.expect(75, &[&format!("process {} has this spool: try again later", std::process::id())]);
    assert_eq!(receipts(&output.out)[0]["try_again"], "held");
    producer.close(Duration::ZERO).await;
    // The producer in this process still has the file of dead letters.
    let letters = spooled.folder.path().join("letters.redb").display().to_string();
    spooled.publish(&cluster, &[&file, "--dlq-file", &letters]).await.expect(0, &["2 delivered, none left"]);
    let unspooled = CourierProcess::publish(&cluster, &["--wait"], &[]).output_with_input("").await;
    unspooled.expect(64, &["--wait needs a spool"]);
}

#[tokio::test]
async fn signal_keeps_the_position() {
    let (cluster, spooled) = (cluster().await, Spooled::new());
    let file = spooled.file("events", 1..20_001);
    let run = spooled.start(&cluster.bootstrap(), &[&file]);
    wait_for_records(&cluster, "user-events", 100).await;
    run.signal("INT");
    let first = run.output().await;
    assert!(matches!(first.code, Some(0 | 130)), "{first:?}");
    spooled.publish(&cluster, &[&file, "--wait"]).await.expect(0, &[]);
    assert_once(&cluster, 1..20_001);
}

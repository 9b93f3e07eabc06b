//! `courier spool`, on the spool of a producer in the test's process.

use std::fs;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use kafka_courier::{KafkaProducer, ProducerRecord};
use kafka_courier_test_broker::{ApiKey, Fault, Rule, TestCluster};
use serde_json::{Value, json};

use crate::support::{CommandOutput, CourierProcess, LONG, command, receipts, wait_for_records, wait_until};

/// A folder with a spool.
struct SpoolFolder {
    folder: tempfile::TempDir,
    dir: String,
}

impl SpoolFolder {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let dir = folder.path().join("spool").display().to_string();
        Self { folder, dir }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn producer(&self, cluster: &TestCluster) -> KafkaProducer {
        let builder = KafkaProducer::builder().brokers(cluster.bootstrap()).spool_dir(self.dir.clone());
        builder.spool_any_filesystem(true).flush_timeout(Duration::from_millis(1)).build().unwrap()
    }

    /// Stores three events for each topic, and closes the producer. The brokers answer no Produce request meanwhile. If
    /// `appends` is set, they append the records of the first one.
    async fn with_events(cluster: &TestCluster, topics: &[&str], appends: bool) -> Self {
        let spool = Self::new();
        let producer = spool.producer(cluster);
        producer.health_check_topics(topics, LONG).await.unwrap();
        let fault = if appends { Fault::ApplyThenDisconnect } else { Fault::Disconnect };
        cluster.inject(Rule::for_api(ApiKey::Produce).always().then(fault));
        for topic in topics {
            store(&producer, topic, 3).await;
        }
        if appends {
            wait_for_records(cluster, topics[0], 1).await;
        } else {
            wait_until(cluster, |cluster| cluster.requests(ApiKey::Produce) > 0).await;
        }
        producer.close(Duration::ZERO).await;
        spool
    }

    /// Runs a command on the spool.
    async fn run(&self, name: &str, arguments: &[&str]) -> CommandOutput {
        let arguments = [&["spool", name, &self.dir], arguments].concat();
        CourierProcess::start(command(&arguments, &[])).output().await
    }

    async fn drain(&self, cluster: &TestCluster, arguments: &[&str]) -> CommandOutput {
        let brokers = cluster.bootstrap();
        self.run("drain", &[&["--brokers", &brokers], arguments].concat()).await
    }

    async fn stats(&self) -> Value {
        let output = self.run("stats", &["--json"]).await;
        output.expect(0, &[]);
        serde_json::from_str(&output.out).unwrap()
    }

    /// Returns the path of the newest segment.
    fn newest_segment(&self) -> PathBuf {
        segments(Path::new(&self.dir)).pop().unwrap()
    }
}

fn segments(dir: &Path) -> Vec<PathBuf> {
    let files = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    let is_segment = |path: &PathBuf| path.file_name().unwrap().to_str().unwrap().starts_with("journal-");
    let mut segments: Vec<_> = files.filter(is_segment).collect();
    segments.sort();
    segments
}

async fn store(producer: &KafkaProducer, topic: &str, count: usize) {
    for index in 0..count {
        let (key, value) = (format!("key-{index}"), format!(r#"{{"event":{index}}}"#));
        let (key, value) = (Some(key.as_bytes()), Some(value.as_bytes()));
        let record = ProducerRecord { topic, key, value, ..ProducerRecord::default() };
        producer.send(&record).await.unwrap().stored().await.unwrap();
    }
}

/// Returns the name, length and time of change of the files in a folder. The dropped producer may still close its file of dead
/// letters.
fn listing(dir: &str) -> Vec<(PathBuf, u64, std::time::SystemTime)> {
    let entry = |entry: std::io::Result<fs::DirEntry>| {
        let entry = entry.unwrap();
        let metadata = entry.metadata().unwrap();
        (entry.path(), metadata.len(), metadata.modified().unwrap())
    };
    let mut files: Vec<_> = fs::read_dir(dir).unwrap().map(entry).collect();
    files.retain(|(path, ..)| !path.display().to_string().contains("dead-letters"));
    files.sort();
    files
}

async fn cluster(topics: &[&str]) -> TestCluster {
    let mut cluster = TestCluster::builder();
    for topic in topics {
        cluster = cluster.topic(topic, 1);
    }
    cluster.start().await.unwrap()
}

#[tokio::test]
async fn reading_commands_change_no_file() {
    let cluster = cluster(&["orders", "users"]).await;
    let spool = SpoolFolder::with_events(&cluster, &["orders", "users"], false).await;
    let before = listing(&spool.dir);
    fs::set_permissions(&spool.dir, fs::Permissions::from_mode(0o500)).unwrap();
    for name in ["stats", "list", "check", "export"] {
        spool.run(name, &[]).await.expect(0, &[]);
    }
    assert_eq!(listing(&spool.dir), before);
    fs::set_permissions(&spool.dir, fs::Permissions::from_mode(0o700)).unwrap();
}

#[tokio::test]
async fn stats_count_by_partition() {
    let cluster = cluster(&["orders", "users"]).await;
    let spool = SpoolFolder::with_events(&cluster, &["orders", "users"], false).await;
    let stats = spool.stats().await;
    assert_eq!((&stats["events"], &stats["held"], &stats["pid"]), (&json!(6), &json!(false), &Value::Null));
    assert_eq!((&stats["lost"], &stats["damaged_files"], &stats["dir"]), (&json!(0), &json!(0), &json!(spool.dir)));
    let partitions = stats["partitions"].as_array().unwrap();
    assert_eq!(partitions.len(), 2);
    assert_eq!((&partitions[1]["topic"], &partitions[1]["partition"]), (&json!("users"), &json!(0)));
    assert_eq!(partitions[1]["events"], 3);
    assert!(stats["oldest"].is_string() && stats["bytes"].as_u64() > Some(100) && stats["segments"].as_u64() > Some(0));
    let text = spool.run("stats", &[]).await.out;
    assert!(text.contains("6 events, ") && text.contains("TOPIC ") && text.contains("orders "), "{text}");
    drain_all(&spool, &cluster, 6).await;
    assert_eq!(spool.stats().await["partitions"], json!([]));
}

async fn drain_all(spool: &SpoolFolder, cluster: &TestCluster, count: u64) {
    cluster.clear_faults();
    spool.drain(cluster, &[]).await.expect(0, &[&format!("{count} events delivered, none left in ")]);
}

#[tokio::test]
async fn list_shows_selected_events() {
    let cluster = cluster(&["orders", "users"]).await;
    let spool = SpoolFolder::with_events(&cluster, &["orders", "users"], false).await;
    let lines = receipts(&spool.run("list", &["--json", "--topic", "users", "--limit", "2"]).await.out);
    let shown: Vec<_> = lines.iter().map(|line| (&line["topic"], &line["number"], &line["key"])).collect();
    let (topic, keys) = (json!("users"), [json!("key-0"), json!("key-1")]);
    assert_eq!(shown, [(&topic, &json!(0), &keys[0]), (&topic, &json!(1), &keys[1])]);
    // 5 bytes of key, 11 of value.
    assert_eq!((&lines[0]["size"], &lines[0]["partition"]), (&json!(16), &json!(0)));
    let table = spool.run("list", &[]).await.out;
    assert_eq!(table.lines().count(), 7, "{table}");
    assert!(table.starts_with("TOPIC ") && table.contains("key-2"), "{table}");
    spool.run("list", &["--topic", "none"]).await.expect(0, &["no events"]);
}

#[tokio::test]
async fn maybe_sent_events_are_marked() {
    let cluster = cluster(&["orders"]).await;
    let spool = SpoolFolder::with_events(&cluster, &["orders"], true).await;
    let lines = receipts(&spool.run("list", &["--json"]).await.out);
    assert_eq!(lines.len(), 3);
    assert!(lines.iter().all(|line| line["may_be_sent"] == true), "{lines:?}");
    let letters = receipts(&spool.run("export", &[]).await.out);
    let stamps: Vec<_> = letters.iter().map(|letter| (&letter["outcome"], &letter["sequence"])).collect();
    let unknown = json!("unknown");
    assert_eq!(stamps, [(&unknown, &json!(0)), (&unknown, &json!(1)), (&unknown, &json!(2))]);
    let known = cluster.batches("orders")[0].producer_id;
    assert_eq!((&letters[0]["producer_id"], &letters[0]["producer_epoch"]), (&json!(known), &json!(0)));
    assert!(letters[0]["topic_id"].is_string() && letters[0]["partition"] == 0, "{letters:?}");
}

#[tokio::test]
async fn exported_events_can_be_replayed() {
    let cluster = cluster(&["orders"]).await;
    let spool = SpoolFolder::new();
    // The cluster gives no producer id, so no event is sent.
    let producer = spool.producer(&cluster);
    producer.health_check_topics(&["orders"], LONG).await.unwrap();
    cluster.inject(Rule::for_api(ApiKey::InitProducerId).always().then(Fault::Disconnect));
    store(&producer, "orders", 3).await;
    producer.close(Duration::ZERO).await;
    let (file, letters) = (spool.path("events.ndjson"), spool.path("letters").display().to_string());
    let file = file.to_str().unwrap();
    spool.run("export", &[file]).await.expect(0, &["3 events written to", "still in the spool"]);
    let lines = receipts(&fs::read_to_string(file).unwrap());
    assert!(
        lines.iter().all(|line| line["outcome"] == "not_written" && line.get("producer_id").is_none()),
        "{lines:?}"
    );
    cluster.clear_faults();
    let dlq = async |arguments: &[&str]| {
        let brokers = cluster.bootstrap();
        let arguments = [&["dlq"], arguments, &["--file", &letters, "--brokers", &brokers]].concat();
        CourierProcess::start(command(&arguments, &[])).output().await
    };
    dlq(&["import", file]).await.expect(0, &["3 dead letters"]);
    dlq(&["replay", "--all"]).await.expect(0, &["3 delivered"]);
    let mut values: Vec<_> = cluster.records("orders").iter().map(|record| record.value.clone().unwrap()).collect();
    // Events of different keys have no order.
    values.sort();
    assert_eq!(values, [r#"{"event":0}"#, r#"{"event":1}"#, r#"{"event":2}"#].map(|value| value.as_bytes().to_vec()));
}

/// The spool is that of the settings, or the folder that has the file of dead letters.
#[tokio::test]
async fn replay_fences_no_spooled_id() {
    for beside in [false, true] {
        let cluster = cluster(&["orders"]).await;
        let spool = SpoolFolder::with_events(&cluster, &["orders"], false).await;
        let letters = if beside { Path::new(&spool.dir).join("letters") } else { spool.path("letters") };
        let (lines, letters) = (spool.path("lines.ndjson"), letters.display().to_string());
        spool.run("export", &[lines.to_str().unwrap()]).await.expect(0, &[]);
        let mut exported = fs::read_to_string(&lines).unwrap();
        assert!(exported.contains(r#""outcome":"unknown""#), "{exported}");
        // A dead letter of another key that can serve as a fence.
        let mut certain: Value = serde_json::from_str(exported.lines().next().unwrap()).unwrap();
        for (name, value) in
            [("id", "0190163d-8694-739b-aea5-966c26f8ad91"), ("outcome", "not_written"), ("key", "other")]
        {
            certain[name] = json!(value);
        }
        exported.push_str(&format!("{certain}\n"));
        fs::write(&lines, exported).unwrap();
        cluster.clear_faults();
        let dlq = async |arguments: &[&str]| {
            let brokers = cluster.bootstrap();
            let arguments = [&["dlq"], arguments, &["--file", &letters, "--brokers", &brokers]].concat();
            let settings = [("KAFKA_SPOOL_DIR", spool.dir.as_str())];
            let settings = if beside { &[][..] } else { &settings[..] };
            CourierProcess::start(command(&arguments, settings)).output().await
        };
        dlq(&["import", lines.to_str().unwrap()]).await.expect(0, &["4 dead letters"]);
        let replay = ["replay", "--all", "--verify", "--fence-imported"];
        let undelivered = dlq(&replay).await;
        undelivered
            .expect(1, &["1 delivered", "3 neither found in the log nor proved absent", "run courier spool drain"]);
        assert_eq!(cluster.record_count("orders"), 1, "no event of the spool is sent");
        drain_all(&spool, &cluster, 3).await;
        dlq(&replay).await.expect(0, &["3 found in the log and removed"]);
        assert_eq!(cluster.record_count("orders"), 4);
    }
}

#[tokio::test]
async fn export_into_the_spool_is_refused() {
    let cluster = cluster(&["orders"]).await;
    let spool = SpoolFolder::with_events(&cluster, &["orders"], false).await;
    let inside = Path::new(&spool.dir).join("lock").display().to_string();
    spool.run("export", &[&inside]).await.expect(64, &["is in the folder of the spool"]);
}

#[tokio::test]
async fn check_names_damage() {
    let cluster = cluster(&["orders"]).await;
    let spool = SpoolFolder::with_events(&cluster, &["orders"], false).await;
    spool.run("check", &[]).await.expect(0, &["3 events in 1 segment can be read: no damage"]);
    // The first frame behind the header and the two checkpoints of the opening.
    let segment = fs::OpenOptions::new().write(true).open(spool.newest_segment()).unwrap();
    let bytes = fs::read(spool.newest_segment()).unwrap();
    let value = bytes.windows(5).position(|window| window == b"key-0").unwrap();
    segment.write_all_at(b"x", value as u64).unwrap();
    let output = spool.run("check", &[]).await;
    output.expect(1, &["2 events in 1 segment can be read: 2 damaged parts"]);
    assert!(output.out.contains("can't be read, between the frames before in journal-"), "{}", output.out);
    assert!(output.out.contains(r#"topic "orders", partition 0: 1 stored records are lost"#), "{}", output.out);
    assert_eq!(spool.stats().await["lost"], 1);
    cluster.clear_faults();
    let output = spool.drain(&cluster, &["--json"]).await;
    output.expect(1, &[]);
    let summary: Value = serde_json::from_str(&output.out).unwrap();
    assert_eq!((&summary["delivered"], &summary["lost"], &summary["left"]), (&json!(2), &json!(1), &json!(0)));
}

#[tokio::test]
async fn folder_without_spool_is_named() {
    let spool = SpoolFolder::new();
    let brokers = ["--brokers", "127.0.0.1:1"];
    for name in ["stats", "list", "check", "export"] {
        spool.run(name, &[]).await.expect(65, &["no spool: name the folder of spool_dir"]);
    }
    spool.run("drain", &brokers).await.expect(65, &["no spool: name the folder of spool_dir"]);
    assert!(!Path::new(&spool.dir).exists(), "no command creates the folder");
    let unnamed = CourierProcess::start(command(&["spool", "stats"], &[])).output().await;
    unnamed.expect(64, &["no spool is named"]);
    let variable =
        CourierProcess::start(command(&["spool", "stats"], &[("KAFKA_SPOOL_DIR", &spool.dir)])).output().await;
    variable.expect(65, &[&spool.dir]);
}

#[tokio::test]
async fn held_spool_is_only_read() {
    let cluster = cluster(&["orders"]).await;
    let spool = SpoolFolder::new();
    let producer = spool.producer(&cluster);
    producer.health_check_topics(&["orders"], LONG).await.unwrap();
    cluster.inject(Rule::for_api(ApiKey::Produce).always().then(Fault::Disconnect));
    store(&producer, "orders", 3).await;
    let stats = spool.stats().await;
    assert_eq!((&stats["events"], &stats["pid"]), (&json!(3), &json!(std::process::id())));
    spool.run("list", &[]).await.expect(0, &[]);
    spool.run("check", &[]).await.expect(0, &["3 events"]);
    let pid = format!("process {} has this spool", std::process::id());
    spool.run("export", &[]).await.expect(75, &[&pid]);
    spool.drain(&cluster, &["--timeout", "0"]).await.expect(75, &[&pid]);
    producer.close(Duration::ZERO).await;
    // The closed producer still has its dead letters.
    spool.drain(&cluster, &[]).await.expect(75, &["dead-letters.redb are held by process"]);
    drop(producer);
    drain_all(&spool, &cluster, 3).await;
}

#[tokio::test]
async fn drain_waits_for_delivering_process() {
    let cluster = cluster(&["orders"]).await;
    let spool = SpoolFolder::new();
    let producer = spool.producer(&cluster);
    producer.health_check_topics(&["orders"], LONG).await.unwrap();
    cluster.inject(Rule::for_api(ApiKey::Produce).always().then(Fault::Disconnect));
    store(&producer, "orders", 3).await;
    let mut drain = CourierProcess::start(command(&["spool", "drain", &spool.dir], &[]));
    drain.wait_for_line("delivers its 3 events: waiting until that is done").await;
    cluster.clear_faults();
    drain.output().await.expect(0, &[&format!("process {} delivered 3 events", std::process::id())]);
    let stats = spool.stats().await;
    assert_eq!(stats["events"], json!(0));
    producer.close(LONG).await;
}

#[tokio::test]
async fn drain_takes_released_spool() {
    let cluster = cluster(&["orders"]).await;
    let spool = SpoolFolder::new();
    let producer = spool.producer(&cluster);
    producer.health_check_topics(&["orders"], LONG).await.unwrap();
    cluster.inject(Rule::for_api(ApiKey::Produce).always().then(Fault::Disconnect));
    store(&producer, "orders", 3).await;
    let brokers = cluster.bootstrap();
    let mut drain = CourierProcess::start(command(&["spool", "drain", &spool.dir, "--brokers", &brokers], &[]));
    drain.wait_for_line("waiting until that is done").await;
    cluster.clear_faults();
    cluster.inject(Rule::for_api(ApiKey::Produce).times(1).then(Fault::Disconnect));
    producer.close(Duration::ZERO).await;
    drop(producer);
    drain.output().await.expect(0, &["none left in "]);
}

#[tokio::test]
async fn drain_delivers_each_event_once() {
    let cluster = cluster(&["orders"]).await;
    let spool = SpoolFolder::with_events(&cluster, &["orders"], true).await;
    cluster.clear_faults();
    let output = spool.drain(&cluster, &["--json"]).await;
    output.expect(0, &[]);
    let summary: Value = serde_json::from_str(&output.out).unwrap();
    assert_eq!((&summary["delivered"], &summary["failed"], &summary["left"]), (&json!(3), &json!(0), &json!(0)));
    assert_eq!(cluster.records("orders").len(), 3);
    spool.drain(&cluster, &[]).await.expect(0, &["0 events delivered, none left"]);
}

#[tokio::test]
async fn drain_without_brokers_leaves_events() {
    let cluster = cluster(&["orders"]).await;
    let spool = SpoolFolder::with_events(&cluster, &["orders"], false).await;
    let unreachable = ["--brokers", "127.0.0.1:1", "--timeout", "1"];
    spool.run("drain", &unreachable).await.expect(75, &["0 events delivered, 3 left in ", "drain again later"]);
    drain_all(&spool, &cluster, 3).await;
    assert_eq!(cluster.records("orders").len(), 3);
}

#[tokio::test]
async fn interrupted_drain_loses_nothing() {
    let cluster = cluster(&["orders"]).await;
    let spool = SpoolFolder::with_events(&cluster, &["orders"], false).await;
    let settings = [("KAFKA_METADATA_TIMEOUT", "500ms")];
    let arguments = ["spool", "drain", &spool.dir, "--brokers", "127.0.0.1:1"];
    let mut drain = CourierProcess::start(command(&arguments, &settings));
    drain.wait_for_line("the events wait in the spool").await;
    drain.signal("INT");
    drain.output().await.expect(130, &["3 left in "]);
    drain_all(&spool, &cluster, 3).await;
}

#[tokio::test]
async fn rejected_events_become_dead_letters() {
    let cluster = cluster(&["orders"]).await;
    let spool = SpoolFolder::with_events(&cluster, &["orders"], false).await;
    cluster.clear_faults();
    cluster.reject_records(|_| Some("no".to_owned()));
    let output = spool.drain(&cluster, &[]).await;
    output.expect(1, &["0 events delivered, 3 failed and kept as dead letters", "none left"]);
    let letters = Path::new(&spool.dir).join("dead-letters.redb").display().to_string();
    let list = CourierProcess::start(command(&["dlq", "list", "--json", "--file", &letters], &[])).output().await;
    assert_eq!(receipts(&list.out).len(), 3, "{}", list.err);
}

#[tokio::test]
async fn copied_spool_is_adopted() {
    let cluster = cluster(&["orders"]).await;
    let original = SpoolFolder::with_events(&cluster, &["orders"], false).await;
    let copy = SpoolFolder::new();
    fs::create_dir(&copy.dir).unwrap();
    for file in fs::read_dir(&original.dir).unwrap() {
        let path = file.unwrap().path();
        fs::copy(&path, Path::new(&copy.dir).join(path.file_name().unwrap())).unwrap();
    }
    cluster.clear_faults();
    copy.drain(&cluster, &[]).await.expect(78, &["was copied or moved", "courier spool adopt"]);
    copy.run("adopt", &[]).await.expect(0, &["is adopted: the next producer with it delivers 3 events"]);
    drain_all(&copy, &cluster, 3).await;
    SpoolFolder::new().run("adopt", &[]).await.expect(65, &["no spool"]);
}

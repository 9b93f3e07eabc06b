//! `courier dlq`, with dead letters of `courier publish`.

use std::fs;
use std::path::PathBuf;

use crate::support::{
    self, CommandOutput, CourierProcess, LOGIN, ORDER, cluster, command, ids, receipts, wait_for_file,
};
use kafka_courier_test_broker::{ApiKey, Fault, Rule, TestCluster, TopicSpec};
use serde_json::Value;

/// Events for missing topics fail soon.
const SHORT_TIMEOUT: &[(&str, &str)] = &[("KAFKA_METADATA_TIMEOUT", "500ms")];

/// An address without a broker.
const NO_BROKER: &str = "127.0.0.1:1";

/// A folder with a dead-letter file.
struct Folder {
    folder: tempfile::TempDir,
    file: String,
}

impl Folder {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("letters").display().to_string();
        Self { folder, file }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Runs `courier dlq` with these arguments on the file.
    async fn dlq(&self, arguments: &[&str]) -> CommandOutput {
        self.dlq_with(arguments, "").await
    }

    async fn dlq_with(&self, arguments: &[&str], input: &str) -> CommandOutput {
        let arguments = [&["dlq"], arguments, &["--file", &self.file]].concat();
        CourierProcess::start(command(&arguments, SHORT_TIMEOUT)).output_with_input(input).await
    }

    async fn letters(&self) -> Vec<Value> {
        let output = self.dlq(&["list", "--json"]).await;
        output.expect(0, &[]);
        receipts(&output.out)
    }

    /// Publishes two events that are rejected, one that is delivered, and one for a missing topic.
    async fn with_letters(cluster: &TestCluster) -> Self {
        let folder = Self::new();
        let publish = |input: &'static str| {
            let courier = CourierProcess::publish(cluster, &["--dlq-file", &folder.file], SHORT_TIMEOUT);
            async move { courier.output_with_input(input).await }
        };
        cluster.reject_records(|_| Some("no".to_owned()));
        let first = [LOGIN, "\n", LOGIN].concat();
        let output = publish(first.leak()).await;
        cluster.accept_records();
        output.expect(
            1,
            &[
                "2 dead letters were kept in",
                "courier dlq list --file",
                "they fail again until the cause is fixed",
                "courier dlq replay --all --file",
                "courier dlq purge --file",
            ],
        );
        let second = [LOGIN, "\n", ORDER].concat();
        publish(second.leak()).await.expect(
            1,
            // The earlier dead letters may be in the log, so the advice is to verify.
            &["1 dead letter was kept in", ", which holds 3: ", "shows it", "courier dlq replay --all --verify --file"],
        );
        folder
    }
}

fn fields<'a>(letters: &'a [Value], name: &str) -> Vec<&'a str> {
    letters.iter().map(|letter| letter[name].as_str().unwrap_or("-")).collect()
}

#[tokio::test]
async fn list_show_and_stats_agree() {
    let cluster = cluster().await;
    let folder = Folder::with_letters(&cluster).await;
    let letters = folder.letters().await;
    assert_eq!(fields(&letters, "event_id"), ["login", "login", "order"]);
    assert_eq!(fields(&letters, "topic"), ["user-events", "user-events", "default-events"]);
    assert_eq!(fields(&letters, "outcome"), ["not_written"; 3]);
    assert_eq!((&letters[0]["attempt_count"], &letters[2]["attempt_count"]), (&1.into(), &0.into()));
    assert_eq!(letters[0]["error_code"], "INVALID_RECORD");

    let table = folder.dlq(&["list", "--for-topic", "default-events"]).await;
    table.expect(0, &[]);
    let lines: Vec<&str> = table.out.lines().collect();
    assert!(lines.len() == 2 && lines[0].starts_with("ID") && lines[1].contains("not_written"), "{}", table.out);

    let id = letters[1]["id"].as_str().unwrap();
    let shown = folder.dlq(&["show", id]).await;
    shown.expect(0, &[]);
    assert!(shown.out.lines().count() > 10, "{}", shown.out);
    assert_eq!(serde_json::from_str::<Value>(&shown.out).unwrap(), letters[1]);
    let shortened = &id[..8];
    folder.dlq(&["show", shortened]).await.expect(64, &[shortened, "a whole UUID of 36 characters"]);

    let stats = folder.dlq(&["stats", "--json"]).await;
    stats.expect(0, &[]);
    let stats: Value = serde_json::from_str(&stats.out).unwrap();
    assert_eq!((&stats["letters"], &stats["by_topic"]["user-events"]), (&3.into(), &2.into()));
    assert_eq!(stats["by_outcome"]["not_written"], 3);
    let text = folder.dlq(&["stats"]).await.out;
    assert!(text.contains("3 dead letters") && text.contains("by topic"), "{text}");
}

#[tokio::test]
async fn options_select_dead_letters() {
    let cluster = cluster().await;
    let folder = Folder::with_letters(&cluster).await;
    let letters = folder.letters().await;
    let id = letters[1]["id"].as_str().unwrap();
    for (arguments, count) in [
        (&["--id", id][..], 1),
        (&["--event-type", "user.logged_in"], 2),
        (&["--event-type", "user.logged_in", "--limit", "1"], 1),
        (&["--error-code", "INVALID_RECORD"], 2),
        (&["--error-code", "invalid_record"], 2),
        (&["--since", "2024-01-15"], 3),
        (&["--key", "u-1"], 2),
        (&["--reason", "NOT KNOWN"], 0),
        (&["--outcome", "unknown"], 0),
        (&["--since", "15m"], 3),
        (&["--until", "15m"], 0),
        (&["--since", "2024-01-15T10:00:00Z", "--for-topic", "user-events", "--for-topic", "x"], 2),
    ] {
        let output = folder.dlq(&[&["list", "--json"], arguments].concat()).await;
        output.expect(0, &[]);
        assert_eq!(output.out.lines().count(), count, "{arguments:?}: {}", output.out);
    }
    folder.dlq(&["list", "--error-code", "BAD_RECORD"]).await.expect(64, &["INVALID_RECORD"]);
    folder.dlq(&["list", "--since", "yesterday"]).await.expect(64, &["an age such as 15m"]);
}

#[tokio::test]
async fn replay_removes_delivered_dead_letters() {
    let cluster = cluster().await;
    let folder = Folder::with_letters(&cluster).await;
    let brokers = cluster.bootstrap();
    folder.dlq(&["replay", "--brokers", &brokers]).await.expect(64, &["nothing is selected"]);
    let dry = folder.dlq(&["replay", "--brokers", &brokers, "--all", "--dry-run"]).await;
    dry.expect(0, &["3 dead letters selected, 3 would be sent", "2 to user-events"]);
    let dry = folder.dlq(&["replay", "--brokers", NO_BROKER, "--all", "--dry-run", "--json"]).await;
    dry.expect(0, &[]);
    assert_eq!(serde_json::from_str::<Value>(&dry.out).unwrap()["would_be_sent"], 3);
    assert_eq!(cluster.record_count("user-events"), 1);

    let output = folder.dlq(&["replay", "--brokers", &brokers, "--all", "--json"]).await;
    output.expect(1, &[]);
    let report: Value = serde_json::from_str(&output.out).unwrap();
    let counts = ["selected", "delivered", "failed"].map(|name| report[name].as_u64().unwrap());
    assert_eq!(counts, [3, 2, 1], "{report}");
    assert_eq!(ids(&cluster.records("user-events")), ["login"; 3]);
    assert_eq!(fields(&folder.letters().await, "event_id"), ["order"]);

    cluster.create_topic(&TopicSpec::new("default-events", 1)).unwrap();
    let output = folder.dlq(&["replay", "--brokers", &brokers, "--for-topic", "default-events"]).await;
    output.expect(0, &["1 dead letter selected, 1 delivered"]);
    assert_eq!(ids(&cluster.records("default-events")), ["order"]);
    assert!(folder.letters().await.is_empty());
}

#[tokio::test]
async fn unknown_outcomes_need_verify() {
    let cluster = cluster().await;
    let folder = Folder::new();
    // The record is written, and no attempt gets an answer.
    cluster.inject(Rule::for_api(ApiKey::Produce).times(1).then(Fault::ApplyThenDisconnect));
    cluster.inject(Rule::for_api(ApiKey::Produce).always().then(Fault::Swallow));
    let settings = [("KAFKA_DELIVERY_TIMEOUT", "2s"), ("KAFKA_REQUEST_TIMEOUT", "1s")];
    let courier = CourierProcess::publish(&cluster, &["--dlq-file", &folder.file], &settings);
    courier.output_with_input(LOGIN).await.expect(1, &["1 failed and possibly written"]);
    cluster.clear_faults();
    assert_eq!(fields(&folder.letters().await, "outcome"), ["unknown"]);

    let brokers = cluster.bootstrap();
    folder.dlq(&["replay", "--brokers", &brokers, "--all"]).await.expect(1, &["1 left out", "--verify"]);
    folder.dlq(&["replay", "--brokers", &brokers, "--all", "--force"]).await.expect(64, &["--verify"]);
    let verified = folder.dlq(&["replay", "--brokers", &brokers, "--all", "--verify"]).await;
    verified.expect(0, &["1 dead letter selected, 1 found in the log and removed"]);
    assert_eq!((cluster.record_count("user-events"), folder.letters().await.len()), (1, 0));
}

#[tokio::test]
async fn import_restores_an_export() {
    let cluster = cluster().await;
    let folder = Folder::with_letters(&cluster).await;
    let exported = folder.dlq(&["export"]).await;
    exported.expect(0, &[]);
    assert_eq!(exported.out.lines().count(), 3);
    let other = Folder::new();
    other.dlq_with(&["import"], &exported.out).await.expect(0, &["3 dead letters imported"]);
    other.dlq_with(&["import"], &exported.out).await.expect(0, &["0 dead letters imported", "3 already stored"]);
    let file = other.path("exported");
    other.dlq(&["export", file.to_str().unwrap()]).await.expect(0, &["3 dead letters written"]);
    assert_eq!(fs::read_to_string(&file).unwrap(), exported.out);
    let none = other.dlq(&["export", "--for-topic", "none", file.to_str().unwrap()]).await;
    none.expect(0, &["is unchanged"]);
    assert_eq!(fs::read_to_string(&file).unwrap(), exported.out);
    other.dlq(&["export", "--limit", "1", file.to_str().unwrap()]).await.expect(0, &["1 dead letter written"]);
    assert_eq!(fs::read_to_string(&file).unwrap().lines().count(), 1);
    let names = fs::read_dir(other.folder.path()).unwrap().map(|entry| entry.unwrap().file_name());
    assert!(names.into_iter().all(|name| !name.to_string_lossy().ends_with(".part")));
    for own in ["", ".lock", ".publishers"] {
        let refused = other.dlq(&["export", &format!("{}{own}", other.file)]).await;
        refused.expect(64, &["the dead letters", "are the same file"]);
    }
    assert_eq!(other.dlq(&["list", "--json"]).await.out, exported.out);
}

#[tokio::test]
async fn invalid_line_ends_import() {
    let cluster = cluster().await;
    let folder = Folder::with_letters(&cluster).await;
    let exported = folder.dlq(&["export"]).await.out;
    let other = Folder::new();
    let input = exported.replacen('\n', "\n{\"id\":7}\n", 1);
    let texts = ["standard input, line 2, column 7: ", "1 dead letter imported into", "--skip-invalid"];
    other.dlq_with(&["import"], &input).await.expect(65, &texts);
    assert_eq!(other.letters().await.len(), 1);
    let texts = ["2 dead letters imported", "1 already stored", "1 invalid, skipped"];
    other.dlq_with(&["import", "--skip-invalid"], &input).await.expect(65, &texts);
    assert_eq!(other.letters().await.len(), 3);
}

#[tokio::test]
async fn purge_needs_selection_and_yes() {
    let cluster = cluster().await;
    let folder = Folder::with_letters(&cluster).await;
    folder.dlq(&["purge", "--yes"]).await.expect(64, &["nothing is selected"]);
    folder.dlq(&["purge", "--all"]).await.expect(64, &["--yes"]);
    folder.dlq(&["purge", "--key", "u-1", "--limit", "1", "--yes"]).await.expect(0, &["1 dead letter removed"]);
    assert_eq!(fields(&folder.letters().await, "event_id"), ["login", "order"]);
    folder.dlq(&["purge", "--all", "--yes"]).await.expect(0, &["2 dead letters removed"]);
    folder.dlq(&["list"]).await.expect(0, &["no dead letters"]);
}

#[tokio::test]
async fn publishers_share_the_file() {
    let cluster = cluster().await;
    let folder = Folder::with_letters(&cluster).await;
    let mut first = CourierProcess::publish(&cluster, &["--dlq-file", &folder.file], SHORT_TIMEOUT);
    first.write(&format!("{LOGIN}\n")).await;
    support::wait_for_records(&cluster, "user-events", 2).await;
    assert_eq!(folder.letters().await.len(), 3);
    let second = CourierProcess::publish(&cluster, &["--dlq-file", &folder.file], SHORT_TIMEOUT);
    second.output_with_input(ORDER).await.expect(1, &["1 dead letter was kept in"]);
    assert_eq!(folder.letters().await.len(), 4);
    let brokers = cluster.bootstrap();
    let replayed = folder.dlq(&["replay", "--brokers", &brokers, "--for-topic", "user-events"]).await;
    replayed.expect(0, &["2 dead letters selected, 2 delivered"]);
    first.end_input();
    first.output().await.expect(0, &["1 read, 1 delivered"]);
    assert_eq!(fields(&folder.letters().await, "event_id"), ["order", "order"]);
}

#[tokio::test]
async fn topic_store_lists_and_replays() {
    let cluster = TestCluster::builder().topic("user-events", 1).topic("dead", 2).start().await.unwrap();
    let folder = Folder::new();
    cluster.reject_records(|record| {
        let is_event = record.header("dlq.id").is_none();
        is_event.then(|| "no".to_owned())
    });
    let settings = [("KAFKA_DLQ_TOPIC", "dead")];
    let courier = CourierProcess::publish(&cluster, &["--dlq-file", &folder.file], &settings);
    let output = courier.output_with_input(LOGIN).await;
    output.expect(1, &["1 dead letter was kept in dead: ", "--store-topic dead"]);
    assert!(!output.err.contains("--verify"), "no --verify, as with a file: {}", output.err);
    cluster.accept_records();
    let brokers = cluster.bootstrap();
    let dlq = async |words: &[&str]| {
        let words = [&["dlq"], words, &["--store-topic", "dead", "--brokers", &brokers]].concat();
        CourierProcess::start(command(&words, &[])).output_with_input("").await
    };
    let listed = dlq(&["list", "--json"]).await;
    listed.expect(0, &[]);
    assert_eq!(fields(&receipts(&listed.out), "event_id"), ["login"]);
    dlq(&["replay", "--all"]).await.expect(0, &["1 dead letter selected, 1 delivered"]);
    assert_eq!(ids(&cluster.records("user-events")), ["login"]);
    dlq(&["list"]).await.expect(0, &["no dead letters"]);
    let without = command(&["dlq", "list", "--store-topic", "dead", "--brokers", NO_BROKER], SHORT_TIMEOUT);
    CourierProcess::start(without)
        .output_with_input("")
        .await
        .expect(69, &["no broker could be reached", ": start the broker, or set brokers"]);
}

#[tokio::test]
async fn unusable_file_has_exit_code() {
    let folder = Folder::new();
    folder.dlq(&["list"]).await.expect(65, &["no dead letters: ", "does not exist"]);
    fs::write(&folder.file, "something else, and more of it than a header takes".repeat(100)).unwrap();
    folder.dlq(&["list"]).await.expect(65, &["is not a file of dead letters"]);
    let cluster = cluster().await;
    let named = CourierProcess::publish(&cluster, &["--dlq-file", &folder.file], SHORT_TIMEOUT);
    named.output_with_input(ORDER).await.expect(73, &["is not a file of dead letters"]);
    let missing = ["dlq", "replay", "--all", "--file", &folder.path("none").display().to_string()].map(str::to_owned);
    let missing: Vec<&str> = missing.iter().map(String::as_str).collect();
    CourierProcess::start(command(&missing, SHORT_TIMEOUT)).output_with_input("").await.expect(65, &[]);
}

#[tokio::test]
async fn dead_letters_in_memory_are_printed() {
    let cluster = cluster().await;
    let impossible = [("XDG_STATE_HOME", "/dev/null/none"), SHORT_TIMEOUT[0]];
    let output = CourierProcess::publish(&cluster, &[], &impossible).output_with_input(ORDER).await;
    output.expect(1, &["warning: dead letters are kept in memory only", "1 dead letter was in memory only"]);
    let whole: Vec<&str> = output.err.lines().filter(|line| line.starts_with('{')).collect();
    let folder = Folder::new();
    folder.dlq_with(&["import"], &whole.join("\n")).await.expect(0, &["1 dead letter imported"]);
    let forgotten = CourierProcess::publish(&cluster, &["--no-dlq-file"], SHORT_TIMEOUT).output_with_input(ORDER).await;
    forgotten.expect(1, &["1 dead letter was in memory only (--no-dlq-file)"]);
    assert!(!forgotten.err.contains('{'), "{}", forgotten.err);
}

#[tokio::test]
async fn default_file_is_in_state_folder() {
    let cluster = cluster().await;
    let home = tempfile::tempdir().unwrap();
    let settings = [("HOME", home.path().to_str().unwrap()), SHORT_TIMEOUT[0]];
    let output = CourierProcess::publish(&cluster, &[], &settings).output_with_input(ORDER).await;
    output.expect(1, &["`courier dlq list` shows it"]);
    assert!(home.path().join(".local/state/kafka-courier/dead-letters.redb").exists());
    let listed = CourierProcess::start(command(&["dlq", "list", "--json"], &settings)).output_with_input("").await;
    listed.expect(0, &[]);
    assert_eq!(fields(&receipts(&listed.out), "event_id"), ["order"]);
}

#[tokio::test]
async fn signal_ends_a_waiting_import() {
    let cluster = cluster().await;
    let folder = Folder::with_letters(&cluster).await;
    let exported = folder.dlq(&["export"]).await.out;
    let other = Folder::new();
    let mut import = CourierProcess::start(command(&["dlq", "import", "--file", &other.file], &[]));
    let two: String = exported.lines().take(2).map(|line| format!("{line}\n")).collect();
    import.write(&two).await;
    wait_for_file(std::path::Path::new(&other.file)).await;
    other.dlq(&["stats"]).await.expect(0, &[]);
    import.signal("INT");
    import.output().await.expect(130, &["stopped by a signal", "2 dead letters imported"]);
    assert_eq!(other.letters().await.len(), 2);
}

#[tokio::test]
async fn signal_ends_replay_between_groups() {
    let cluster = cluster().await;
    let folder = Folder::with_letters(&cluster).await;
    let line = folder.dlq(&["export", "--limit", "1"]).await.out;
    let id = serde_json::from_str::<Value>(&line).unwrap()["id"].as_str().unwrap().to_owned();
    folder.dlq(&["purge", "--all", "--yes"]).await.expect(0, &[]);
    let many: String = (0..100).map(|n| line.replace(&id, &format!("{}{n:04}", &id[..32]))).collect();
    folder.dlq_with(&["import"], &many).await.expect(0, &["100 dead letters imported"]);
    let before = cluster.record_count("user-events");
    let brokers = cluster.bootstrap();
    let words = ["dlq", "replay", "--all", "--rate", "10", "--brokers", &brokers, "--file", &folder.file];
    let mut replay = CourierProcess::start(command(&words, &[]));
    support::wait_for_records(&cluster, "user-events", before + 1).await;
    replay.signal("TERM");
    replay.wait_for_line("stopping once").await;
    let output = replay.output().await;
    output.expect(143, &["stopped by a signal: the remaining dead letters are unchanged"]);
    let left = folder.letters().await;
    let sent = cluster.record_count("user-events") - before;
    assert!((1..100).contains(&sent) && left.len() as u64 + sent == 100, "{sent} {}", left.len());
    assert!(left.iter().all(|letter| letter["replay_count"] == 0 && letter["outcome"] == "not_written"));
}

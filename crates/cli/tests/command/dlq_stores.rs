//! Stores of dead letters: unsuitable topics, vanished and read-only files, repeated imports, replays to another topic.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use crate::support::{CommandOutput, CourierProcess, LOGIN, cluster, command, ids, receipts};
use kafka_courier_test_broker::{ApiKey, ErrorCode, TestCluster, TopicSpec};
use serde_json::Value;

/// Events for missing topics fail soon.
const SHORT_TIMEOUT: &[(&str, &str)] = &[("KAFKA_METADATA_TIMEOUT", "500ms")];
const STORE_TOPIC: &str = "--store-topic";

/// One broker with the topic of [`LOGIN`], and a topic for dead letters with these settings.
async fn with_dead(settings: &[(&str, &str)]) -> TestCluster {
    let dead = settings.iter().fold(TopicSpec::new("dead", 2), |topic, (name, value)| topic.config(name, value));
    TestCluster::builder().topic("user-events", 1).topic_spec(dead).start().await.unwrap()
}

/// Rejects all records except dead letters.
fn reject_events(cluster: &TestCluster) {
    cluster.reject_records(|record| record.header("dlq.id").is_none().then(|| "no".to_owned()));
}

async fn dlq(words: &[&str], input: &str) -> CommandOutput {
    CourierProcess::start(command(&[&["dlq"], words].concat(), SHORT_TIMEOUT)).output_with_input(input).await
}

/// Runs `courier dlq` on the topic `dead`.
async fn in_topic(cluster: &TestCluster, words: &[&str], input: &str) -> CommandOutput {
    let brokers = cluster.bootstrap();
    dlq(&[words, &[STORE_TOPIC, "dead", "--brokers", &brokers]].concat(), input).await
}

/// Returns the line of a dead letter, and its JSON.
async fn one_letter(cluster: &TestCluster) -> (String, Value) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("letters").display().to_string();
    reject_events(cluster);
    CourierProcess::publish(cluster, &["--dlq-file", &file], &[]).output_with_input(LOGIN).await.expect(1, &[]);
    cluster.accept_records();
    let line = dlq(&["export", "--file", &file], "").await.out;
    let letter = serde_json::from_str(&line).unwrap();
    (line, letter)
}

/// Returns path, content and modification time of each file in a folder.
fn content(folder: &Path) -> Vec<(PathBuf, Vec<u8>, SystemTime)> {
    let paths = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut content: Vec<_> = paths
        .map(|path| (path.clone(), fs::read(&path).unwrap(), path.metadata().unwrap().modified().unwrap()))
        .collect();
    content.sort();
    content
}

#[tokio::test]
async fn compacted_topics_are_refused() {
    for policy in ["compact", "compact,delete"] {
        let cluster = with_dead(&[("cleanup.policy", policy)]).await;
        let (line, _) = one_letter(&cluster).await;
        reject_events(&cluster);
        let refused = CourierProcess::publish(&cluster, &["--no-dlq-file"], &[("KAFKA_DLQ_TOPIC", "dead")]);
        let texts = ["\"dead\"", &format!("cleanup.policy={policy}"), "set cleanup.policy=delete"];
        refused.output_with_input(LOGIN).await.expect(78, &texts);
        in_topic(&cluster, &["import"], &line).await.expect(78, &texts);
        in_topic(&cluster, &["replay", "--all"], "").await.expect(78, &texts);
        in_topic(&cluster, &["purge", "--all", "--yes"], "").await.expect(78, &texts);
        assert_eq!((cluster.record_count("dead"), cluster.record_count("user-events")), (0, 0));
        // Existing dead letters can still be read.
        in_topic(&cluster, &["list"], "").await.expect(0, &["warning: ", "no dead letters"]);
        cluster.set_topic_config("dead", "cleanup.policy", "delete").unwrap();
        in_topic(&cluster, &["import"], &line).await.expect(0, &["1 dead letter imported"]);
    }
}

#[tokio::test]
async fn short_retention_is_a_warning() {
    let cluster = with_dead(&[("retention.ms", "3600000")]).await;
    let listed = |age: &'static str| {
        let brokers = cluster.bootstrap();
        let words = ["dlq", "list", STORE_TOPIC, "dead", "--brokers", &brokers].map(str::to_owned);
        async move {
            let words: Vec<&str> = words.iter().map(String::as_str).collect();
            CourierProcess::start(command(&words, &[("KAFKA_DLQ_MAX_AGE", age)])).output_with_input("").await
        }
    };
    listed("0").await.expect(0, &["warning: ", "retention.ms=3600000", "dlq_max_age sets no limit"]);
    listed("2h").await.expect(0, &["warning: ", "dlq_max_age=7200000ms"]);
    let fine = listed("1h").await;
    assert!(!fine.err.contains("warning"), "{}", fine.err);
}

#[tokio::test]
async fn an_unknown_policy_is_a_warning() {
    let cluster = with_dead(&[]).await;
    let (line, _) = one_letter(&cluster).await;
    cluster.fail_next(ApiKey::DescribeConfigs, 1, ErrorCode::TopicAuthorizationFailed);
    let texts = ["warning: ", "TOPIC_AUTHORIZATION_FAILED", "grant DescribeConfigs", "1 dead letter imported"];
    in_topic(&cluster, &["import"], &line).await.expect(0, &texts);
}

#[tokio::test]
async fn vanished_folder_prints_dead_letters() {
    let cluster = cluster().await;
    cluster.reject_records(|_| Some("no".to_owned()));
    for is_moved in [true, false] {
        let parent = tempfile::tempdir().unwrap();
        let folder = parent.path().join("state");
        let file = folder.join("letters").display().to_string();
        let mut courier = CourierProcess::publish(&cluster, &["--dlq-file", &file, "--receipts", "-"], &[]);
        courier.write(&format!("{LOGIN}\n")).await;
        courier.line().await; // the dead letter is stored
        match is_moved {
            true => fs::rename(&folder, parent.path().join("moved")).unwrap(),
            false => fs::remove_dir_all(&folder).unwrap(),
        }
        let output = courier.output_with_input(&format!("{LOGIN}\n")).await;
        output.expect(
            1,
            &["1 dead letter was in memory only and printed below in full", "kept in a store that can't be read now"],
        );
        assert!(!output.err.contains("dlq list"), "{}", output.err);
        let printed: Vec<Value> = output.err.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
        assert_eq!((printed.len(), &printed[0]["event_id"]), (1, &"login".into()), "{}", output.err);
    }
}

#[tokio::test]
async fn removed_file_gets_no_advice() {
    let cluster = cluster().await;
    cluster.reject_records(|_| Some("no".to_owned()));
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("letters");
    let named = file.display().to_string();
    let mut courier = CourierProcess::publish(&cluster, &["--dlq-file", &named, "--receipts", "-"], &[]);
    courier.write(&format!("{LOGIN}\n")).await;
    courier.line().await;
    fs::remove_file(&file).unwrap();
    courier.end_input();
    let output = courier.output().await;
    output.expect(1, &["1 dead letter was kept in a store that can't be read now", "was removed or replaced"]);
    assert!(!output.err.contains("dlq replay"), "{}", output.err);
}

#[tokio::test]
async fn topic_import_is_repeatable() {
    let cluster = with_dead(&[]).await;
    let (line, letter) = one_letter(&cluster).await;
    let listed = async || receipts(&in_topic(&cluster, &["list", "--json"], "").await.out);
    in_topic(&cluster, &["import"], &line).await.expect(0, &["1 dead letter imported"]);
    in_topic(&cluster, &["import"], &line).await.expect(0, &["0 dead letters imported", "1 already stored"]);
    assert_eq!((cluster.record_count("dead"), listed().await), (1, vec![letter.clone()]));

    // The state after a failed replay: an older export must not replace it.
    let mut newer = letter.clone();
    (newer["replay_count"], newer["outcome"]) = (3.into(), "unknown".into());
    let newer_line = format!("{newer}\n");
    in_topic(&cluster, &["import"], &newer_line).await.expect(0, &["1 updated to a newer state"]);
    in_topic(&cluster, &["import"], &line).await.expect(0, &["0 dead letters imported", "1 already stored"]);
    assert_eq!((cluster.record_count("dead"), listed().await), (2, vec![newer]));
}

#[tokio::test]
async fn edited_letter_needs_replace() {
    let cluster = with_dead(&[]).await;
    let (line, letter) = one_letter(&cluster).await;
    let (id, folder) = (letter["id"].as_str().unwrap(), tempfile::tempdir().unwrap());
    let file = folder.path().join("letters").display().to_string();
    let mut edited = letter.clone();
    edited["topic"] = "elsewhere".into();
    edited["partition"] = Value::Null;
    let edited_line = format!("{edited}\n");
    let brokers = cluster.bootstrap();
    for store in [&["--file", &file][..], &[STORE_TOPIC, "dead", "--brokers", &brokers]] {
        let store = async |words: &[&str], input: &str| dlq(&[words, store].concat(), input).await;
        let held = async || receipts(&store(&["list", "--json"], "").await.out);
        store(&["import"], &line).await.expect(0, &["1 dead letter imported"]);
        store(&["import"], &edited_line).await.expect(1, &["1 edited and not imported", "--replace", id]);
        assert_eq!(held().await, std::slice::from_ref(&letter));
        store(&["import", "--replace"], &edited_line).await.expect(0, &["0 dead letters imported", "1 replaced"]);
        assert_eq!(held().await[0]["topic"], "elsewhere");
        store(&["import", "--replace"], &edited_line).await.expect(0, &["1 already stored"]);
    }
}

#[tokio::test]
async fn reading_letters_writes_nothing() {
    let cluster = cluster().await;
    let (line, letter) = one_letter(&cluster).await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("letters").display().to_string();
    dlq(&["import", "--file", &file], &line).await.expect(0, &[]);
    let before = content(folder.path());
    let id = letter["id"].as_str().unwrap();
    for words in
        [&["list"][..], &["list", "--json"], &["stats"], &["show", id], &["export"], &["replay", "--all", "--dry-run"]]
    {
        dlq(&[words, &["--file", &file]].concat(), "").await.expect(0, &[]);
        assert_eq!(content(folder.path()), before, "{words:?}");
    }
}

#[tokio::test]
async fn replay_sends_to_another_topic() {
    let cluster = with_dead(&[]).await;
    cluster.create_topic(&TopicSpec::new("right", 3)).unwrap();
    let (line, _) = one_letter(&cluster).await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("letters").display().to_string();
    let brokers = cluster.bootstrap();
    for store in [&["--file", &file][..], &[STORE_TOPIC, "dead"]] {
        let store = [store, &["--brokers", &brokers]].concat();
        let store = async |words: &[&str], input: &str| dlq(&[words, &store].concat(), input).await;
        store(&["import"], &line).await.expect(0, &[]);
        let dry = store(&["replay", "--all", "--to-topic", "right", "--dry-run"], "").await;
        dry.expect(0, &["1 would be sent", "1 to right"]);
        // A dead letter that fails there keeps its own topic.
        let missing = store(&["replay", "--all", "--to-topic", "missing"], "").await;
        missing.expect(1, &["1 failed again", "missing"]);
        let held = receipts(&store(&["list", "--json"], "").await.out);
        assert_eq!(held[0]["topic"], "user-events");
        store(&["replay", "--all", "--to-topic", "right"], "").await.expect(0, &["1 delivered"]);
        store(&["list"], "").await.expect(0, &["no dead letters"]);
    }
    assert_eq!(ids(&cluster.records("right")), ["login", "login"]);
    assert_eq!(cluster.record_count("user-events"), 0);
    let refused = in_topic(&cluster, &["replay", "--all", "--to-topic", "dead"], "").await;
    refused.expect(64, &["is the topic that holds the dead letters"]);
}

#[tokio::test]
async fn dlq_topic_is_no_destination() {
    let cluster = with_dead(&[]).await;
    let publish =
        CourierProcess::publish(&cluster, &["--topic", "dead", "--no-dlq-file"], &[("KAFKA_DLQ_TOPIC", "dead")]);
    publish.output_with_input(LOGIN).await.expect(78, &["--topic", "dlq_topic", "\"dead\""]);
    let (line, _) = one_letter(&cluster).await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("letters").display().to_string();
    dlq(&["import", "--file", &file], &line).await.expect(0, &[]);
    let brokers = cluster.bootstrap();
    let replay = ["replay", "--all", "--to-topic", "dead", "--set", "dlq_topic=dead", "--file", &file];
    let replay = dlq(&[&replay[..], &["--brokers", &brokers]].concat(), "").await;
    replay.expect(78, &["--to-topic", "dlq_topic", "\"dead\""]);
    assert_eq!(cluster.record_count("dead"), 0);
}

#[tokio::test]
async fn former_flag_names_its_successors() {
    for command in [&["list"][..], &["replay", "--all"], &["import"]] {
        let former = dlq(&[command, &["--topic", "orders"]].concat(), "").await;
        former.expect(64, &["--store-topic", "--to-topic"]);
    }
}

#[tokio::test]
async fn both_commands_take_both_spellings() {
    let cluster = cluster().await;
    cluster.reject_records(|_| Some("no".to_owned()));
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("letters").display().to_string();
    for spelling in ["--file", "--dlq-file"] {
        CourierProcess::publish(&cluster, &[spelling, &file], &[])
            .output_with_input(LOGIN)
            .await
            .expect(1, &["was kept in"]);
    }
    for spelling in ["--file", "--dlq-file"] {
        assert_eq!(dlq(&["list", "--json", spelling, &file], "").await.out.lines().count(), 2);
    }
}

#[tokio::test]
async fn topic_records_have_connect_headers() {
    let cluster = with_dead(&[]).await;
    reject_events(&cluster);
    let settings = [("KAFKA_DLQ_TOPIC", "dead")];
    let publish = CourierProcess::publish(&cluster, &["--no-dlq-file"], &settings);
    publish.output_with_input(LOGIN).await.expect(1, &["1 dead letter was kept in dead: ", "--store-topic dead"]);
    let records = cluster.records("dead");
    assert_eq!(records[0].header("__connect.errors.stage"), Some(&b"KAFKA_PRODUCE"[..]));
}

#[tokio::test]
async fn reason_names_the_configured_limit() {
    let user = TopicSpec::new("user-events", 1).config("max.message.bytes", "120");
    let cluster = TestCluster::builder().topic_spec(user).start().await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("letters").display().to_string();
    // The producer requests the limit at the first event of the topic. The broker rejects events that are sent before the
    // answer.
    let mut courier = CourierProcess::publish(&cluster, &["--dlq-file", &file, "--receipts", "-"], &[]);
    let mut reason = String::new();
    while !reason.contains("max.message.bytes") {
        courier.write(&format!("{LOGIN}\n")).await;
        reason = courier.line().await;
    }
    assert!(reason.contains("120") && !reason.contains("128"), "{reason}");
    courier.end_input();
    courier.output().await.expect(1, &[]);
}

#[tokio::test]
async fn pipes_are_no_dead_letter_files() {
    use std::os::unix::fs::FileTypeExt;
    let cluster = cluster().await;
    let (line, _) = one_letter(&cluster).await;
    let folder = tempfile::tempdir().unwrap();
    let pipe = folder.path().join("pipe");
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let file = pipe.display().to_string();
    let texts = ["is a named pipe", "name a regular file"];
    CourierProcess::publish(&cluster, &["--dlq-file", &file], &[]).output_with_input(LOGIN).await.expect(73, &texts);
    CourierProcess::publish(&cluster, &[], &[("KAFKA_DLQ_FILE", &file)])
        .output_with_input(LOGIN)
        .await
        .expect(73, &texts);
    dlq(&["import", "--file", &file], &line).await.expect(73, &texts);
    dlq(&["list", "--file", &file], "").await.expect(65, &texts);
    dlq(&["purge", "--all", "--yes", "--file", &file], "").await.expect(65, &texts);
    assert!(fs::metadata(&pipe).unwrap().file_type().is_fifo());
    assert_eq!((fs::read_dir(folder.path()).unwrap().count(), cluster.record_count("user-events")), (1, 0));
}

#[tokio::test]
async fn import_follows_a_dangling_link() {
    let cluster = cluster().await;
    let (line, _) = one_letter(&cluster).await;
    let folder = tempfile::tempdir().unwrap();
    let (link, target) = (folder.path().join("link"), folder.path().join("target"));
    std::os::unix::fs::symlink(&target, &link).unwrap();
    let file = link.display().to_string();
    dlq(&["import", "--file", &file], &line).await.expect(0, &["1 dead letter imported"]);
    assert!(link.is_symlink() && target.is_file() && folder.path().join("target.lock").exists());
    assert_eq!(dlq(&["list", "--json", "--file", &file], "").await.out.lines().count(), 1);
}

#[tokio::test]
async fn failed_replay_sets_error_code() {
    let cluster = cluster().await;
    let (line, _) = one_letter(&cluster).await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("letters").display().to_string();
    dlq(&["import", "--file", &file], &line).await.expect(0, &[]);
    let brokers = cluster.bootstrap();
    let replay = dlq(&["replay", "--all", "--to-topic", "missing", "--file", &file, "--brokers", &brokers], "").await;
    replay.expect(1, &["1 failed again"]);
    let listed = ["list", "--json", "--error-code", "UNKNOWN_TOPIC_OR_PARTITION", "--file", &file];
    let listed = receipts(&dlq(&listed, "").await.out);
    assert_eq!((listed.len(), &listed[0]["retriable"]), (1, &true.into()));
}

#[tokio::test]
async fn emptied_file_is_reported_empty() {
    let cluster = cluster().await;
    cluster.reject_records(|_| Some("no".to_owned()));
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("letters").display().to_string();
    let mut courier = CourierProcess::publish(&cluster, &["--dlq-file", &file, "--receipts", "-"], &[]);
    courier.write(&format!("{LOGIN}\n")).await;
    courier.line().await; // the dead letter is stored
    dlq(&["purge", "--all", "--yes", "--file", &file], "").await.expect(0, &[]);
    courier.end_input();
    let output = courier.output().await;
    output.expect(1, &["1 dead letter was kept in", "the file holds no dead letters now"]);
    assert!(!output.err.contains("dlq replay"), "{}", output.err);
}

#[tokio::test]
async fn missing_letter_topic_has_a_remedy() {
    let cluster = cluster().await;
    let (line, _) = one_letter(&cluster).await;
    let texts = ["topic \"dead\" does not exist on the cluster", "create it", "--store-topic"];
    for words in [&["list"][..], &["stats"], &["import"], &["replay", "--all"]] {
        in_topic(&cluster, words, &line).await.expect(78, &texts);
    }
}

#[tokio::test]
async fn compacted_topic_is_reported_once() {
    let cluster = with_dead(&[("cleanup.policy", "compact")]).await;
    for words in ["list", "stats"] {
        let output = in_topic(&cluster, &[words], "").await;
        assert_eq!(output.err.matches("cleanup.policy=compact").count(), 1, "{}", output.err);
    }
}

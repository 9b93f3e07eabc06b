//! Ctrl-C and SIGTERM: what was read is delivered within the grace period, and the rest is told.
#![cfg(unix)]
#![allow(clippy::unwrap_used)] // helpers of tests may, as tests do
mod support;

use kafka_courier_test_broker::{ApiKey, Fault, Gate, Rule, TestCluster};
use support::{Courier, LOGIN, ORDER, arrived, cluster, ids, receipts, until};
#[cfg(target_os = "linux")]
use support::{command_in, until_exists};

/// Waits for a topic, and for a batch to be filled, as long as any test lasts.
const PATIENT: &[(&str, &str)] = &[("KAFKA_METADATA_TIMEOUT", "10m"), ("KAFKA_DELIVERY_TIMEOUT", "10m")];
/// Nothing is sent before the input has ended.
const GATHERING: &[(&str, &str)] = &[("KAFKA_FLUSH_TIMEOUT", "5m"), ("KAFKA_DELIVERY_TIMEOUT", "10m")];

/// A courier whose input has ended, and whose one event waits for an answer that never comes.
async fn waiting_for_an_answer(arguments: &[&str]) -> (TestCluster, Courier) {
    let cluster = cluster().await;
    cluster.inject(Rule::on(ApiKey::Produce).always().then(Fault::Swallow));
    let mut courier = Courier::publish(&cluster, arguments, GATHERING);
    courier.write(LOGIN).await;
    courier.end_input();
    until(&cluster, |cluster| cluster.requests(ApiKey::Produce) > 0).await;
    (cluster, courier)
}

/// A courier that has read an event that is delivered and two for a topic that is not there.
async fn waiting_for_a_topic(arguments: &[&str]) -> (TestCluster, Courier) {
    waiting_for_a_topic_with(arguments, PATIENT).await
}

async fn waiting_for_a_topic_with(arguments: &[&str], settings: &[(&str, &str)]) -> (TestCluster, Courier) {
    let cluster = cluster().await;
    let mut courier = Courier::publish(&cluster, arguments, settings);
    // One write below the size that pipes pass on whole: when the first is there all were read.
    courier.write(&format!("{LOGIN}\n{ORDER}\n{ORDER}\n{{\"type\":")).await;
    arrived(&cluster, "user-events", 1).await;
    (cluster, courier)
}

#[tokio::test]
async fn a_signal_after_the_input_has_ended_starts_the_grace_period() {
    let (_cluster, courier) = waiting_for_an_answer(&["--grace", "0"]).await;
    courier.signal("TERM");
    courier.ended().await.expect(1, &["interrupted", "1 read, 0 delivered", "1 failed and perhaps written"]);
}

#[tokio::test]
async fn a_second_signal_ends_it_with_a_summary_and_all_receipts() {
    for (signal, code) in [("INT", 130), ("TERM", 143)] {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("receipts");
        let arguments = ["--grace", "600", "--receipts", file.to_str().unwrap()];
        let (_cluster, mut courier) = waiting_for_an_answer(&arguments).await;
        courier.signal("TERM");
        courier.until_said("interrupted").await;
        courier.signal(signal);
        courier.ended().await.expect(code, &["1 read, 0 delivered", "1 failed and perhaps written"]);
        let receipts = receipts(&std::fs::read_to_string(file).unwrap());
        assert_eq!(
            (receipts.len(), &receipts[0]["id"], &receipts[0]["outcome"]),
            (1, &"login".into(), &"unknown".into())
        );
    }
}

#[tokio::test]
async fn what_was_read_is_published_within_the_grace_period() {
    let (cluster, mut courier) = waiting_for_a_topic(&["--grace", "600"]).await;
    courier.signal("TERM");
    courier.until_said("interrupted").await;
    cluster.create_topic(&kafka_courier_test_broker::TopicSpec::new("default-events", 1)).unwrap();
    let ended = courier.ended().await;
    // All that was read is delivered, and yet the input has more: its end was not reached.
    ended.expect(143, &["3 read, 3 delivered", "stopped after line 3"]);
    assert!(!ended.err.contains("not published"), "{}", ended.err);
    assert_eq!(ids(&cluster.records("default-events")), ["order", "order"]);
}

#[tokio::test]
async fn what_was_read_and_could_not_be_published_is_told_one_by_one() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("receipts");
    let (_cluster, courier) = waiting_for_a_topic(&["--grace", "0", "--receipts", file.to_str().unwrap()]).await;
    courier.signal("INT");
    courier.ended().await.expect(
        130,
        &[
            "3 read, 1 delivered",
            "2 read and not published",
            "stopped after line 3, at byte ",
            "before the end of the input; what was not published from line 2 on are dead letters too: send those again, \
             then go on behind line 3",
        ],
    );
    let receipts = receipts(&std::fs::read_to_string(file).unwrap());
    let told: Vec<_> = receipts.iter().map(|r| [&r["place"], &r["topic"], &r["outcome"]].map(|v| v.as_str())).collect();
    assert_eq!(
        told,
        [
            [Some("line 1"), Some("user-events"), None],
            [Some("line 2"), Some("default-events"), Some("not_written")],
            [Some("line 3"), Some("default-events"), Some("not_written")],
        ]
    );
}

#[tokio::test]
async fn where_not_all_that_was_left_is_kept_nobody_is_told_to_go_on_behind_it() {
    let nowhere_but_memory = [("XDG_STATE_HOME", "/dev/null/none"), ("KAFKA_DLQ_BUFFER", "1")];
    let settings = [PATIENT, &nowhere_but_memory].concat();
    let (_cluster, courier) = waiting_for_a_topic_with(&["--grace", "0"], &settings).await;
    courier.signal("INT");
    let ended = courier.ended().await;
    ended.expect(
        130,
        &[
            "from line 2 on, and not all of it is a dead letter: go on there",
            "1 dead letter was dropped from memory to make room (dlq_buffer), each in an error line",
            "1 dead letter was in memory only, and here whole",
        ],
    );
    assert!(!ended.err.contains("go on behind"), "{}", ended.err);
}

#[tokio::test]
async fn a_second_signal_while_the_rest_is_published_tells_the_rest_too() {
    let (_cluster, mut courier) = waiting_for_a_topic(&["--grace", "600"]).await;
    courier.signal("TERM");
    courier.until_said("interrupted").await;
    courier.signal("TERM");
    courier.ended().await.expect(143, &["stopped after line 3", "2 read and not published"]);
}

#[tokio::test]
async fn no_grace_period_is_too_long() {
    let cluster = cluster().await;
    let mut courier = Courier::publish(&cluster, &["--grace", "18446744073709551615"], &[]);
    courier.write(&format!("{LOGIN}\n")).await;
    arrived(&cluster, "user-events", 1).await;
    courier.signal("TERM");
    courier.ended().await.expect(143, &["1 read, 1 delivered", "stopped after line 1"]);
}

#[tokio::test]
async fn a_signal_before_a_broker_is_reached_ends_it_with_a_word() {
    let cluster = cluster().await;
    cluster.blackhole(1);
    let courier = Courier::publish(&cluster, &[], PATIENT);
    until(&cluster, |cluster| cluster.requests(ApiKey::ApiVersions) + cluster.requests(ApiKey::Metadata) > 0).await;
    courier.signal("TERM");
    courier.ended().await.expect(143, &["stopped before anything was read"]);
}

#[tokio::test]
async fn a_signal_before_the_end_fails() {
    for (signal, code) in [("INT", 130), ("TERM", 143)] {
        let cluster = cluster().await;
        let mut courier = Courier::publish(&cluster, &[], &[]);
        courier.write(&format!("{LOGIN}\n")).await;
        arrived(&cluster, "user-events", 1).await;
        courier.signal(signal);
        let read = LOGIN.len() + 1;
        let stopped = format!("stopped after line 1, at byte {read}, before the end of the input");
        courier.ended().await.expect(code, &["1 read, 1 delivered", &stopped]);
    }
}

#[tokio::test]
async fn a_signal_after_the_end_succeeds() {
    let cluster = cluster().await;
    let gate = Gate::new();
    cluster.inject(Rule::on(ApiKey::Produce).always().then(Fault::ApplyThenHold(gate.clone())));
    let mut courier = Courier::publish(&cluster, &["--grace", "600"], GATHERING);
    courier.write(LOGIN).await;
    courier.end_input();
    until(&cluster, |cluster| cluster.requests(ApiKey::Produce) > 0).await;
    courier.signal("TERM");
    courier.until_said("interrupted").await;
    gate.open();
    courier.ended().await.expect(0, &["1 read, 1 delivered"]);
}

/// A runner may have been started by nohup, which its children inherit: they begin with the signal's own effect.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_hangup_counts_as_sigterm() {
    let cluster = cluster().await;
    let brokers = cluster.bootstrap();
    let mut courier = Courier::start(command_in("env", &["--default-signal=HUP"], &["publish", "--brokers", &brokers]));
    courier.write(&format!("{LOGIN}\n")).await;
    arrived(&cluster, "user-events", 1).await;
    courier.signal("HUP");
    courier.ended().await.expect(143, &["interrupted", "1 read, 1 delivered", "stopped after line 1"]);
    let folder = tempfile::tempdir().unwrap();
    let letters = folder.path().join("letters");
    let import = ["dlq", "import", "--file", letters.to_str().unwrap()];
    let courier = Courier::start(command_in("env", &["--default-signal=HUP"], &import));
    until_exists(&letters).await;
    courier.signal("HUP");
    courier.ended().await.expect(143, &["stopped by a signal"]);
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn an_ignored_hangup_stays_ignored() {
    let cluster = cluster().await;
    let brokers = cluster.bootstrap();
    let mut courier = Courier::start(command_in("env", &["--ignore-signal=HUP"], &["publish", "--brokers", &brokers]));
    courier.write(&format!("{LOGIN}\n")).await;
    arrived(&cluster, "user-events", 1).await;
    courier.signal("HUP");
    courier.ended_with(&format!("{LOGIN}\n")).await.expect(0, &["2 read, 2 delivered"]);
}

#[tokio::test]
async fn dead_letters_keep_the_inputs_order() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("letters");
    let cluster = cluster().await;
    cluster.inject(Rule::on(ApiKey::Produce).always().then(Fault::Swallow));
    let arguments = ["--grace", "0", "--dlq-file", file.to_str().unwrap()];
    let mut courier = Courier::publish(&cluster, &arguments, &[("KAFKA_DELIVERY_TIMEOUT", "10m")]);
    // What is beyond a pipe's 64 KiB has been read once the write is done: more events than are handed over before the first
    // verdict (64 KiB too, which counts 100 bytes beside each event's JSON).
    let event = |number: u32| format!("{{\"id\":\"{number}\",\"type\":\"user.logged_in\",\"data\":{{}}}}\n");
    courier.write(&(0..2500).map(event).collect::<String>()).await;
    until(&cluster, |cluster| cluster.requests(ApiKey::Produce) > 0).await;
    courier.signal("TERM");
    let ended = courier.ended().await;
    ended.expect(143, &["0 delivered", "read and not published"]);
    let store = kafka_courier::dlq::FileStore::open(&file).unwrap();
    let all = kafka_courier::dlq::Selection::all();
    let letters = kafka_courier::dlq::letters(&store, &all);
    let ids: Vec<String> = letters.map(|held| held.unwrap().letter.event_id.unwrap()).collect();
    let read: Vec<String> = (0..ids.len() as u32).map(|number| number.to_string()).collect();
    assert_eq!(ids, read, "those that were handed over come first");
}

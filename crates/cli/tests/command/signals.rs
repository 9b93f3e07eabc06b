//! Signals: events that were read are delivered within the grace period, and the rest is reported.

use crate::support::{CourierProcess, LOGIN, ORDER, cluster, ids, receipts, wait_for_records, wait_until};
#[cfg(target_os = "linux")]
use crate::support::{command_in, wait_for_file};
use kafka_courier_test_broker::{ApiKey, Fault, Gate, Rule, TestCluster};

/// Waits for topics longer than any test.
const LONG_TIMEOUTS: &[(&str, &str)] = &[("KAFKA_METADATA_TIMEOUT", "10m"), ("KAFKA_DELIVERY_TIMEOUT", "10m")];
/// Sends no batch before the end of the input.
const NO_FLUSH: &[(&str, &str)] = &[("KAFKA_FLUSH_TIMEOUT", "5m"), ("KAFKA_DELIVERY_TIMEOUT", "10m")];

/// Starts a command whose input has ended and whose only event never gets an answer.
async fn waiting_for_an_answer(arguments: &[&str]) -> (TestCluster, CourierProcess) {
    let cluster = cluster().await;
    cluster.inject(Rule::for_api(ApiKey::Produce).always().then(Fault::Swallow));
    let mut courier = CourierProcess::publish(&cluster, arguments, NO_FLUSH);
    courier.write(LOGIN).await;
    courier.end_input();
    wait_until(&cluster, |cluster| cluster.requests(ApiKey::Produce) > 0).await;
    (cluster, courier)
}

/// Starts a command that has read one event that is delivered, and two for a missing topic.
async fn waiting_for_a_topic(arguments: &[&str]) -> (TestCluster, CourierProcess) {
    waiting_for_a_topic_with(arguments, LONG_TIMEOUTS).await
}

async fn waiting_for_a_topic_with(arguments: &[&str], settings: &[(&str, &str)]) -> (TestCluster, CourierProcess) {
    let cluster = cluster().await;
    let mut courier = CourierProcess::publish(&cluster, arguments, settings);
    // A pipe passes a small write in one piece: if the first event arrives, the command has read all of them.
    courier.write(&format!("{LOGIN}\n{ORDER}\n{ORDER}\n{{\"type\":")).await;
    wait_for_records(&cluster, "user-events", 1).await;
    // The command has read the answer to that event before it requests the missing topic's metadata twice more.
    let requests = cluster.requests(ApiKey::Metadata);
    wait_until(&cluster, |cluster| cluster.requests(ApiKey::Metadata) >= requests + 2).await;
    (cluster, courier)
}

#[tokio::test]
async fn signal_after_input_starts_grace() {
    let (_cluster, courier) = waiting_for_an_answer(&["--grace", "0"]).await;
    courier.signal("TERM");
    courier.output().await.expect(1, &["interrupted", "1 read, 0 delivered", "1 failed and possibly written"]);
}

#[tokio::test]
async fn second_signal_prints_summary() {
    for (signal, code) in [("INT", 130), ("TERM", 143)] {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("receipts");
        let arguments = ["--grace", "600", "--receipts", file.to_str().unwrap()];
        let (_cluster, mut courier) = waiting_for_an_answer(&arguments).await;
        courier.signal("TERM");
        courier.wait_for_line("interrupted").await;
        courier.signal(signal);
        courier.output().await.expect(code, &["1 read, 0 delivered", "1 failed and possibly written"]);
        let receipts = receipts(&std::fs::read_to_string(file).unwrap());
        assert_eq!(
            (receipts.len(), &receipts[0]["id"], &receipts[0]["outcome"]),
            (1, &"login".into(), &"unknown".into())
        );
    }
}

#[tokio::test]
async fn grace_period_publishes_read_events() {
    let (cluster, mut courier) = waiting_for_a_topic(&["--grace", "600"]).await;
    courier.signal("TERM");
    courier.wait_for_line("interrupted").await;
    cluster.create_topic(&kafka_courier_test_broker::TopicSpec::new("default-events", 1)).unwrap();
    let output = courier.output().await;
    // All events that were read are delivered, but the input has not ended.
    output.expect(143, &["3 read, 3 delivered", "stopped after line 3"]);
    assert!(!output.err.contains("not published"), "{}", output.err);
    assert_eq!(ids(&cluster.records("default-events")), ["order", "order"]);
}

#[tokio::test]
async fn unpublished_events_have_receipts() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("receipts");
    let (_cluster, courier) = waiting_for_a_topic(&["--grace", "0", "--receipts", file.to_str().unwrap()]).await;
    courier.signal("INT");
    courier.output().await.expect(
        130,
        &[
            "3 read, 1 delivered",
            "2 read and not published",
            "stopped after line 3, at byte ",
            "before the end of the input: unpublished events from line 2 on are dead letters, so replay them and continue \
             after line 3",
        ],
    );
    let receipts = receipts(&std::fs::read_to_string(file).unwrap());
    let fields: Vec<_> =
        receipts.iter().map(|r| [&r["place"], &r["topic"], &r["outcome"]].map(|v| v.as_str())).collect();
    assert_eq!(
        fields,
        [
            [Some("line 1"), Some("user-events"), None],
            [Some("line 2"), Some("default-events"), Some("not_written")],
            [Some("line 3"), Some("default-events"), Some("not_written")],
        ]
    );
}

#[tokio::test]
async fn lost_dead_letters_change_the_advice() {
    let only_memory = [("XDG_STATE_HOME", "/dev/null/none"), ("KAFKA_DLQ_BUFFER", "1")];
    let settings = [LONG_TIMEOUTS, &only_memory].concat();
    let (_cluster, courier) = waiting_for_a_topic_with(&["--grace", "0"], &settings).await;
    courier.signal("INT");
    let output = courier.output().await;
    output.expect(
        130,
        &[
            "no event from line 2 on was published, and not all of them are dead letters: continue at line 2",
            "1 dead letter was dropped from memory to make room (dlq_buffer) and logged in full at level error",
            "1 dead letter was in memory only and printed below in full",
        ],
    );
    assert!(!output.err.contains("continue after"), "{}", output.err);
}

#[tokio::test]
async fn second_signal_reports_unpublished_events() {
    let (_cluster, mut courier) = waiting_for_a_topic(&["--grace", "600"]).await;
    courier.signal("TERM");
    courier.wait_for_line("interrupted").await;
    courier.signal("TERM");
    courier.output().await.expect(143, &["stopped after line 3", "2 read and not published"]);
}

#[tokio::test]
async fn no_grace_period_is_too_long() {
    let cluster = cluster().await;
    let mut courier = CourierProcess::publish(&cluster, &["--grace", "18446744073709551615"], &[]);
    courier.write(&format!("{LOGIN}\n")).await;
    wait_for_records(&cluster, "user-events", 1).await;
    courier.signal("TERM");
    courier.output().await.expect(143, &["1 read, 1 delivered", "stopped after line 1"]);
}

#[tokio::test]
async fn signal_ends_an_unconnected_command() {
    let cluster = cluster().await;
    cluster.blackhole(1);
    let courier = CourierProcess::publish(&cluster, &[], LONG_TIMEOUTS);
    wait_until(&cluster, |cluster| cluster.requests(ApiKey::ApiVersions) + cluster.requests(ApiKey::Metadata) > 0)
        .await;
    courier.signal("TERM");
    courier.output().await.expect(143, &["stopped by a signal before anything was read"]);
}

#[tokio::test]
async fn a_signal_before_the_end_fails() {
    for (signal, code) in [("INT", 130), ("TERM", 143)] {
        let cluster = cluster().await;
        let mut courier = CourierProcess::publish(&cluster, &[], &[]);
        courier.write(&format!("{LOGIN}\n")).await;
        wait_for_records(&cluster, "user-events", 1).await;
        courier.signal(signal);
        let read = LOGIN.len() + 1;
        let stopped = format!("stopped after line 1, at byte {read}, before the end of the input");
        courier.output().await.expect(code, &["1 read, 1 delivered", &stopped]);
    }
}

#[tokio::test]
async fn a_signal_after_the_end_succeeds() {
    let cluster = cluster().await;
    let gate = Gate::new();
    cluster.inject(Rule::for_api(ApiKey::Produce).always().then(Fault::ApplyThenHold(gate.clone())));
    let mut courier = CourierProcess::publish(&cluster, &["--grace", "600"], NO_FLUSH);
    courier.write(LOGIN).await;
    courier.end_input();
    wait_until(&cluster, |cluster| cluster.requests(ApiKey::Produce) > 0).await;
    courier.signal("TERM");
    courier.wait_for_line("interrupted").await;
    gate.open();
    courier.output().await.expect(0, &["1 read, 1 delivered"]);
}

/// The test runner may run under nohup, whose children inherit the ignored SIGHUP. `env` restores the default action.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_hangup_counts_as_sigterm() {
    let cluster = cluster().await;
    let brokers = cluster.bootstrap();
    let mut courier =
        CourierProcess::start(command_in("env", &["--default-signal=HUP"], &["publish", "--brokers", &brokers]));
    courier.write(&format!("{LOGIN}\n")).await;
    wait_for_records(&cluster, "user-events", 1).await;
    courier.signal("HUP");
    courier.output().await.expect(143, &["interrupted", "1 read, 1 delivered", "stopped after line 1"]);
    let folder = tempfile::tempdir().unwrap();
    let letters = folder.path().join("letters");
    let import = ["dlq", "import", "--file", letters.to_str().unwrap()];
    let courier = CourierProcess::start(command_in("env", &["--default-signal=HUP"], &import));
    wait_for_file(&letters).await;
    courier.signal("HUP");
    courier.output().await.expect(143, &["stopped by a signal"]);
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn an_ignored_hangup_stays_ignored() {
    let cluster = cluster().await;
    let brokers = cluster.bootstrap();
    let mut courier =
        CourierProcess::start(command_in("env", &["--ignore-signal=HUP"], &["publish", "--brokers", &brokers]));
    courier.write(&format!("{LOGIN}\n")).await;
    wait_for_records(&cluster, "user-events", 1).await;
    courier.signal("HUP");
    courier.output_with_input(&format!("{LOGIN}\n")).await.expect(0, &["2 read, 2 delivered"]);
}

#[tokio::test]
async fn dead_letters_keep_the_inputs_order() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("letters");
    let cluster = cluster().await;
    cluster.inject(Rule::for_api(ApiKey::Produce).always().then(Fault::Swallow));
    let arguments = ["--grace", "0", "--dlq-file", file.to_str().unwrap()];
    let mut courier = CourierProcess::publish(&cluster, &arguments, &[("KAFKA_DELIVERY_TIMEOUT", "10m")]);
    // A completed write means that the command has read everything beyond a pipe's 64 KiB. That is more than the initial
    // window before the first verdict (also 64 KiB, with 100 bytes in addition to each event's JSON).
    let event = |number: u32| format!("{{\"id\":\"{number}\",\"type\":\"user.logged_in\",\"data\":{{}}}}\n");
    courier.write(&(0..2500).map(event).collect::<String>()).await;
    wait_until(&cluster, |cluster| cluster.requests(ApiKey::Produce) > 0).await;
    courier.signal("TERM");
    let output = courier.output().await;
    output.expect(143, &["0 delivered", "read and not published"]);
    let store = kafka_courier::dlq::FileStore::open(&file).unwrap();
    let all = kafka_courier::dlq::Selection::all();
    let letters = kafka_courier::dlq::letters(&store, &all);
    let ids: Vec<String> = letters.map(|held| held.unwrap().letter.event_id.unwrap()).collect();
    let read: Vec<String> = (0..ids.len() as u32).map(|number| number.to_string()).collect();
    assert_eq!(ids, read, "dead letters of published events are first");
}

/// A file of settings may be a named pipe, which waits for its other side.
#[cfg(unix)]
#[tokio::test]
async fn signal_ends_the_reading_of_files() {
    for option in ["--config", "KAFKA_SSL_CA_LOCATION"] {
        let folder = tempfile::tempdir().unwrap();
        let pipe = folder.path().join("pipe");
        assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        let path = pipe.to_str().unwrap();
        let cluster = cluster().await;
        let courier = match option {
            "--config" => CourierProcess::publish(&cluster, &["--config", path], &[]),
            variable => CourierProcess::publish(&cluster, &[], &[("KAFKA_SECURITY_PROTOCOL", "SSL"), (variable, path)]),
        };
        // The pipe opens for writing once the command has opened it for reading.
        let writer = tokio::task::spawn_blocking(move || std::fs::File::options().write(true).open(pipe));
        let _writer = writer.await.unwrap().unwrap();
        courier.signal("TERM");
        courier.output().await.expect(143, &["stopped by a signal before anything was read"]);
    }
}

//! Receipts: a line for each item, in the input's order, and never at the cost of the input or of a verdict.
#![allow(clippy::unwrap_used)] // helpers of tests may, as tests do
mod support;

use std::fs;
use std::process::Stdio;

use support::{Courier, LOGIN, ORDER, cluster, code_after, command, ids, receipts};

/// Topics that are not there are given up at once, or nearly.
const IMPATIENT: &[(&str, &str)] = &[("KAFKA_METADATA_TIMEOUT", "1s")];

#[cfg(target_os = "linux")]
#[tokio::test]
async fn receipts_that_cannot_be_written_end_the_reading_and_what_was_accepted_is_delivered() {
    let cluster = cluster().await;
    let mut courier = Courier::publish(&cluster, &["--receipts", "/dev/full"], &[]);
    courier.write(&format!("{LOGIN}\n")).await; // and the input stays open
    courier.ended().await.expect(74, &["1 read, 1 delivered", "/dev/full", "stopped after line 1"]);
    assert_eq!(ids(&cluster.records("user-events")), ["login"]);
}

#[tokio::test]
async fn receipts_into_the_input_are_refused_and_the_input_stays() {
    let folder = tempfile::tempdir().unwrap();
    let (file, link) = (folder.path().join("events"), folder.path().join("link"));
    fs::write(&file, LOGIN).unwrap();
    fs::hard_link(&file, &link).unwrap();
    let (file, link) = (file.to_str().unwrap(), link.to_str().unwrap());
    for (path, from) in [(file, file), (link, file), (link, "-")] {
        let mut command = command(&["publish", "--receipts", path, from], &[("KAFKA_BROKERS", "localhost:1")]);
        command.stdin(fs::File::open(file).unwrap());
        Courier::start(command).ended().await.expect(64, &["--receipts", "are the same file"]);
        assert_eq!(fs::read_to_string(file).unwrap(), LOGIN);
    }
}

#[tokio::test]
async fn old_receipts_stay_if_no_broker_is_reached() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("receipts");
    fs::write(&file, "of yesterday").unwrap();
    let arguments = ["publish", "--brokers", "127.0.0.1:1", "--receipts", file.to_str().unwrap()];
    let courier = Courier::start(command(&arguments, IMPATIENT));
    courier.ended_with("").await.expect(69, &[]);
    assert_eq!(fs::read_to_string(file).unwrap(), "of yesterday");
}

#[tokio::test]
async fn receipts_come_while_the_input_is_idle() {
    let cluster = cluster().await;
    let mut courier = Courier::publish(&cluster, &["--receipts", "-"], &[]);
    courier.write(&format!("{LOGIN}\n")).await;
    let receipt = receipts(&courier.line().await).remove(0);
    assert_eq!((&receipt["id"], &receipt["offset"]), (&"login".into(), &0.into()));
    let ended = courier.ended_with(&format!("{LOGIN}\n")).await;
    ended.expect(0, &["2 read, 2 delivered"]);
    assert_eq!(receipts(&ended.out)[0]["offset"], 1);
}

#[tokio::test]
async fn receipts_stand_in_the_inputs_order_with_place_and_topic_whatever_failed() {
    let cluster = cluster().await;
    let courier = Courier::publish(&cluster, &["--receipts", "-"], IMPATIENT);
    let ended = courier.ended_with(&format!("{LOGIN}\ngarbage\n{ORDER}\n\n{LOGIN}\n")).await;
    ended.expect(1, &["line 2: ", "line 3: "]);
    let receipts = receipts(&ended.out);
    let told: Vec<_> = receipts.iter().map(|r| [&r["place"], &r["topic"], &r["outcome"]].map(|v| v.as_str())).collect();
    assert_eq!(
        told,
        [
            [Some("line 1"), Some("user-events"), None],
            [Some("line 2"), None, None],
            [Some("line 3"), Some("default-events"), Some("not_written")],
            [Some("line 5"), Some("user-events"), None],
        ]
    );
}

#[tokio::test]
async fn a_reader_of_receipts_that_goes_away_is_an_error_and_no_loss() {
    let cluster = cluster().await;
    let brokers = cluster.bootstrap();
    let mut command = command(&["publish", "--brokers", &brokers, "--receipts", "-"], &[]);
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    command.stdout(Stdio::from(writer));
    assert_eq!(code_after(command, &format!("{LOGIN}\n"), true).await, Some(74));
    assert_eq!(ids(&cluster.records("user-events")), ["login"]);
}

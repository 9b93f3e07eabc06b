//! Receipts: a line for each item in input order. A failure to write receipts damages neither input nor verdicts.

use std::fs;
use std::process::Stdio;

use tokio::io::AsyncWriteExt;

use crate::support::{CourierProcess, LOGIN, ORDER, cluster, code_after, command, ids, receipts};

/// Events for missing topics fail soon.
const SHORT_TIMEOUT: &[(&str, &str)] = &[("KAFKA_METADATA_TIMEOUT", "1s")];

#[cfg(target_os = "linux")]
#[tokio::test]
async fn failed_receipts_end_reading() {
    let cluster = cluster().await;
    let mut courier = CourierProcess::publish(&cluster, &["--receipts", "/dev/full"], &[]);
    courier.write(&format!("{LOGIN}\n")).await; // the input stays open
    courier.output().await.expect(74, &["1 read, 1 delivered", "/dev/full", "stopped after line 1"]);
    assert_eq!(ids(&cluster.records("user-events")), ["login"]);
}

#[tokio::test]
async fn receipts_never_overwrite_the_input() {
    let folder = tempfile::tempdir().unwrap();
    let (file, link) = (folder.path().join("events"), folder.path().join("link"));
    fs::write(&file, LOGIN).unwrap();
    fs::hard_link(&file, &link).unwrap();
    let (file, link) = (file.to_str().unwrap(), link.to_str().unwrap());
    for (path, from) in [(file, file), (link, file), (link, "-")] {
        let mut command = command(&["publish", "--receipts", path, from], &[("KAFKA_BROKERS", "localhost:1")]);
        command.stdin(fs::File::open(file).unwrap());
        CourierProcess::start(command).output().await.expect(64, &["--receipts", "are the same file"]);
        assert_eq!(fs::read_to_string(file).unwrap(), LOGIN);
    }
}

#[tokio::test]
async fn unreachable_cluster_keeps_old_receipts() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("receipts");
    fs::write(&file, "of yesterday").unwrap();
    let arguments = ["publish", "--brokers", "127.0.0.1:1", "--receipts", file.to_str().unwrap()];
    let courier = CourierProcess::start(command(&arguments, SHORT_TIMEOUT));
    courier.output_with_input("").await.expect(69, &[]);
    assert_eq!(fs::read_to_string(file).unwrap(), "of yesterday");
}

#[tokio::test]
async fn idle_input_delays_no_receipt() {
    let cluster = cluster().await;
    let mut courier = CourierProcess::publish(&cluster, &["--receipts", "-"], &[]);
    courier.write(&format!("{LOGIN}\n")).await;
    let receipt = receipts(&courier.line().await).remove(0);
    assert_eq!((&receipt["id"], &receipt["offset"]), (&"login".into(), &0.into()));
    let output = courier.output_with_input(&format!("{LOGIN}\n")).await;
    output.expect(0, &["2 read, 2 delivered"]);
    assert_eq!(receipts(&output.out)[0]["offset"], 1);
}

#[tokio::test]
async fn receipts_have_input_order() {
    let cluster = cluster().await;
    let courier = CourierProcess::publish(&cluster, &["--receipts", "-"], SHORT_TIMEOUT);
    let output = courier.output_with_input(&format!("{LOGIN}\ngarbage\n{ORDER}\n\n{LOGIN}\n")).await;
    output.expect(1, &["line 2: ", "line 3: "]);
    let receipts = receipts(&output.out);
    let fields: Vec<_> =
        receipts.iter().map(|r| [&r["place"], &r["topic"], &r["outcome"]].map(|v| v.as_str())).collect();
    assert_eq!(
        fields,
        [
            [Some("line 1"), Some("user-events"), None],
            [Some("line 2"), None, None],
            [Some("line 3"), Some("default-events"), Some("not_written")],
            [Some("line 5"), Some("user-events"), None],
        ]
    );
}

#[tokio::test]
async fn folder_for_receipts_has_remedy() {
    let (cluster, folder) = (cluster().await, tempfile::tempdir().unwrap());
    let path = folder.path().to_str().unwrap();
    let courier = CourierProcess::publish(&cluster, &["--receipts", path], &[]);
    courier.output_with_input("").await.expect(73, &["--receipts: cannot create", path, "name a file, or - for"]);
}

#[tokio::test]
async fn closed_receipts_pipe_is_named() {
    let cluster = cluster().await;
    let mut courier = CourierProcess::publish(&cluster, &["--receipts", "-"], &[]);
    let (mut input, output) = courier.pipes();
    drop(output);
    input.write_all(format!("{LOGIN}\n").as_bytes()).await.unwrap();
    drop(input);
    courier.output().await.expect(74, &["receipts to standard output: Broken pipe"]);
}

#[tokio::test]
async fn closed_receipts_pipe_loses_no_event() {
    let cluster = cluster().await;
    let brokers = cluster.bootstrap();
    let mut command = command(&["publish", "--brokers", &brokers, "--receipts", "-"], &[]);
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    command.stdout(Stdio::from(writer));
    assert_eq!(code_after(command, &format!("{LOGIN}\n"), true).await, Some(74));
    assert_eq!(ids(&cluster.records("user-events")), ["login"]);
}

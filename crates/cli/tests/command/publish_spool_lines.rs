//! `courier publish --spool`: lines that several files share, lines that become dead letters, and folders that are refused.

use std::process::Command;

use kafka_courier_test_broker::TestCluster;

use crate::publish_spool::{NO_BROKER, Spooled, login};
use crate::support::{CourierProcess, ORDER, cluster, command, ids, receipts, wait_for_records};

/// An order, whose topic the cluster lacks.
fn order(id: &str) -> String {
    format!("{{\"id\":\"{id}\",\"type\":\"order.placed\"}}\n")
}

/// Returns the event ids of the dead letters in a file.
async fn letters(file: &str) -> Vec<String> {
    let list = CourierProcess::start(command(&["dlq", "list", "--file", file, "--json"], &[])).output().await;
    let mut ids: Vec<_> =
        receipts(&list.out).iter().map(|letter| letter["event_id"].as_str().unwrap().to_owned()).collect();
    ids.sort_unstable();
    ids
}

fn letter_file(spooled: &Spooled) -> String {
    spooled.folder.path().join("letters.redb").display().to_string()
}

#[tokio::test]
async fn shared_lines_are_published_again() {
    let (cluster, spooled) = (cluster().await, Spooled::new());
    let short = spooled.file("short", 1..3);
    spooled.publish(&cluster, &[&short]).await.expect(0, &["2 read, 2 stored"]);
    let long = spooled.file("long", 1..31);
    spooled.publish(&cluster, &[&long]).await.expect(0, &["30 read, 30 stored"]);
    let copy = spooled.file("copy", 1..31);
    spooled.publish(&cluster, &[&copy]).await.expect(0, &["30 read, 30 stored"]);
    for file in [&short, &long, &copy] {
        spooled.publish(&cluster, &[file]).await.expect(0, &["are stored or delivered already"]);
    }
    wait_for_records(&cluster, "user-events", 62).await;
    assert_eq!(cluster.records("user-events").len(), 62);
}

#[tokio::test]
async fn line_without_durable_letter_repeats() {
    let (cluster, spooled) = (cluster().await, Spooled::new());
    let file = spooled.file_of("events", &format!("{}{}{}", login(1), order("a"), order("b")));
    let store = letter_file(&spooled);
    let arguments = [&*file, "--dlq-file", &store];
    let run = spooled.start_with(&cluster.bootstrap(), &arguments, ("KAFKA_DLQ_MAX_LETTERS", "1"));
    run.output().await.expect(1, &["in memory only and printed below in full"]);
    spooled.publish(&cluster, &arguments).await.expect(1, &["continues at line "]);
    assert_eq!(letters(&store).await, ["a", "b"]);
    spooled.publish(&cluster, &arguments).await.expect(0, &["all of its 3 items"]);
    assert_eq!(ids(&cluster.records("user-events")), ["1"]);
}

#[tokio::test]
async fn equal_lines_have_separate_letters() {
    let (cluster, spooled) = (cluster().await, Spooled::new());
    let store = letter_file(&spooled);
    for (name, number) in [("one", 1), ("other", 2)] {
        let file = spooled.file_of(name, &format!("{}{ORDER}\n", login(number)));
        spooled.publish(&cluster, &[&file, "--dlq-file", &store]).await.expect(1, &["line 2: topic "]);
        spooled.publish(&cluster, &[&file, "--dlq-file", &store, "--again"]).await.expect(1, &["line 2: topic "]);
    }
    // The first file of another spool with the same dead letters.
    let second = Spooled::new();
    let file = second.file_of("one", &format!("{}{ORDER}\n", login(1)));
    second.publish(&cluster, &[&file, "--dlq-file", &store]).await.expect(1, &["line 2: topic "]);
    assert_eq!(letters(&store).await, ["order"; 5]);
}

#[tokio::test]
async fn advice_names_the_folders_file() {
    let (cluster, spooled) = (cluster().await, Spooled::new());
    let file = spooled.file_of("events", &order("a"));
    let store = format!("{}/dead-letters.redb", spooled.dir);
    let advice = format!("`courier dlq list --file {store}` shows it");
    spooled.publish(&cluster, &[&file]).await.expect(1, &[&advice]);
    assert_eq!(letters(&store).await, ["a"]);
}

#[tokio::test]
async fn further_topics_wait_for_brokers() {
    let cluster = TestCluster::builder().topic("user-events", 1).topic("default-events", 1).start().await.unwrap();
    let spooled = Spooled::new();
    // The events of the first topic take all the memory for events that wait for their topics.
    let users: String = (1..=20_000).map(login).collect();
    let file = spooled.file_of("events", &format!("{users}{}{}", order("a"), order("b")));
    let output = spooled.start(NO_BROKER, &[&file, "--grace", "5"]).output().await;
    output.expect(75, &["the input was not published to its end: run the command again"]);
    assert!(!output.err.contains("line 20001"), "{}", output.err);
    spooled.publish(&cluster, &[&file, "--wait"]).await.expect(0, &["20,002 read, 20,002 stored"]);
    assert_eq!(ids(&cluster.records("default-events")), ["a", "b"]);
}

#[tokio::test]
async fn copied_folder_is_a_wrong_setting() {
    let (cluster, spooled) = (cluster().await, Spooled::new());
    let (first, second) = (spooled.file("first", 1..3), spooled.file("second", 3..5));
    spooled.publish(&cluster, &[&first]).await.expect(0, &[]);
    spooled.start(NO_BROKER, &[&second, "--grace", "1"]).output().await.expect(75, &["2 left in"]);
    let copy = format!("{}-copy", spooled.dir);
    assert!(Command::new("cp").args(["-r", &spooled.dir, &copy]).status().unwrap().success());
    let spooled = Spooled { dir: copy, ..spooled };
    spooled.publish(&cluster, &[&second]).await.expect(78, &["courier spool adopt"]);
}

//! Dead-letter topics on a real Kafka: `courier` refuses a topic whose settings would lose dead letters.
//!
//! Rule: The tests run only `courier`, like its users.
use std::process::Stdio;

use anyhow::{Result, ensure};
use kafka_courier_tests::cluster::Cluster;
use kafka_courier_tests::courier::Courier;

const EVENTS: u64 = 150;
/// Fewer keys than events, so that each key has several events.
const KEYS: u64 = 6;

/// Returns events that are too large for their topic.
fn input() -> String {
    let event = |number: u64| {
        let user = number % KEYS;
        let padding = "x".repeat(300);
        format!(r#"{{"id":"e{number}","type":"user.logged_in","data":{{"user_id":"u{user}","padding":"{padding}"}}}}"#)
            + "\n"
    };
    (0..EVENTS).map(event).collect()
}

fn courier(cluster: &Cluster, words: &[&str]) -> Result<Courier> {
    Courier::new(&[words, &["--brokers", cluster.bootstrap()]].concat())
}

fn dlq(cluster: &Cluster, topic: &str, words: &[&str]) -> Result<Courier> {
    courier(cluster, &[&["dlq"], words, &["--store-topic", topic]].concat())
}

/// Returns the number of records that a Java consumer reads.
fn records(cluster: &Cluster, topic: &str) -> Result<u64> {
    cluster.dump(topic, |_| Ok(()))
}

fn set_policy(cluster: &Cluster, topic: &str, setting: &str) -> Result<()> {
    let server = ["--bootstrap-server", cluster.bootstrap(), "--alter", "--entity-type", "topics", "--entity-name"];
    let altered = [&server[..], &[topic, "--add-config", setting]].concat();
    cluster.java("kafka.admin.ConfigCommand", &altered, Stdio::null())?;
    Ok(())
}

/// Returns one dead letter for each event, one a line.
fn letters(cluster: &Cluster) -> Result<String> {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("letters").display().to_string();
    let publish = courier(cluster, &["publish", "--dlq-file", &file])?;
    publish.input_bytes(input().as_bytes())?.run()?.expect_code(1)?;
    let exported = Courier::new(&["dlq", "export", "--file", &file])?.run()?.expect_code(0)?;
    ensure!(exported.stdout.lines().count() as u64 == EVENTS, "{}", exported.stdout);
    Ok(exported.stdout)
}

#[test]
fn compacted_topics_are_refused() {
    fn run() -> Result<()> {
        let cluster = Cluster::start(1)?;
        cluster.create_topic("user-events", 1, 1, &[("max.message.bytes", "200")])?;
        let letters = letters(&cluster)?;
        for (topic, policy) in [("compacted", "compact"), ("both", "compact,delete")] {
            cluster.create_topic(topic, 1, 1, &[("cleanup.policy", policy)])?;
            let expected = [format!("cleanup.policy={policy}"), "set cleanup.policy=delete".to_owned()];
            let expected: Vec<&str> = expected.iter().map(String::as_str).collect();
            let publish = courier(&cluster, &["publish", "--no-dlq-file"])?.env("KAFKA_DLQ_TOPIC", topic);
            publish.input_bytes(input().as_bytes())?.run()?.expect_code(78)?.expect_stderr(&expected)?;
            let import = dlq(&cluster, topic, &["import"])?.input_bytes(letters.as_bytes())?;
            import.run()?.expect_code(78)?.expect_stderr(&expected)?;
            ensure!(records(&cluster, topic)? == 0, "{topic} has records");
            dlq(&cluster, topic, &["list"])?.run()?.expect_code(0)?.expect_stderr(&expected)?;

            set_policy(&cluster, topic, "cleanup.policy=delete")?;
            let import = dlq(&cluster, topic, &["import"])?.input_bytes(letters.as_bytes())?;
            // The warning names Kafka's default retention of seven days.
            let expected = ["150 dead letters imported", "warning: ", "retention.ms=604800000"];
            import.run()?.expect_code(0)?.expect_stderr(&expected)?;
            let again = dlq(&cluster, topic, &["import"])?.input_bytes(letters.as_bytes())?;
            again.run()?.expect_code(0)?.expect_stderr(&["0 dead letters imported", "150 already stored"])?;
            ensure!(records(&cluster, topic)? == EVENTS, "dead letters were written twice");
            set_policy(&cluster, topic, "retention.ms=-1")?;
            let quiet = dlq(&cluster, topic, &["list", "--json"])?.run()?.expect_code(0)?;
            ensure!(!quiet.stderr.contains("warning"), "{}", quiet.stderr);
            ensure!(quiet.stdout.lines().count() as u64 == EVENTS, "{}", quiet.stdout);
        }
        Ok(())
    }
    run().unwrap();
}

#[test]
fn letters_are_sent_to_another_topic() {
    fn run() -> Result<()> {
        let cluster = Cluster::start(1)?;
        cluster.create_topic("user-events", 1, 1, &[("max.message.bytes", "200")])?;
        cluster.create_topic("dead", 2, 1, &[("retention.ms", "-1")])?;
        cluster.create_topic("right", 3, 1, &[])?;
        let letters = letters(&cluster)?;
        let import = dlq(&cluster, "dead", &["import"])?.input_bytes(letters.as_bytes())?;
        import.run()?.expect_code(0)?.expect_stderr(&["150 dead letters imported"])?;
        cluster.dump("dead", |record| {
            ensure!(record.header("__connect.errors.stage") == Some("KAFKA_PRODUCE"), "{record:?}");
            Ok(())
        })?;
        let replay = dlq(&cluster, "dead", &["replay", "--all", "--to-topic", "right"])?;
        replay.run()?.expect_code(0)?.expect_stderr(&["150 delivered"])?;
        ensure!((records(&cluster, "right")?, records(&cluster, "user-events")?) == (EVENTS, 0));
        dlq(&cluster, "dead", &["list"])?.run()?.expect_code(0)?.expect_stderr(&["no dead letters"])?;
        Ok(())
    }
    run().unwrap();
}

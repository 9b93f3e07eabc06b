//! The harness itself, against Kafka's own producers: what the other tests rely on must be able to see.
use std::fs::File;
use std::io::{Seek, Write};
use std::process::Stdio;

use anyhow::Result;
use kafka_courier_tests::batches::{Limits, check_idempotent};
use kafka_courier_tests::cluster::Cluster;

const LIMITS: Limits = Limits { records: 100_000, bytes: 1_048_588 };

fn file_of(text: &str) -> Result<File> {
    let mut file = tempfile::tempfile()?;
    file.write_all(text.as_bytes())?;
    file.rewind()?;
    Ok(file)
}

/// Records written by Kafka's performance tool, 100 bytes each.
fn perf(cluster: &Cluster, topic: &str, count: &str, settings: &[&str]) -> Result<String> {
    let bootstrap = format!("bootstrap.servers={}", cluster.bootstrap());
    let mut words = vec!["--topic", topic, "--num-records", count, "--record-size", "100", "--throughput", "-1"];
    words.extend_from_slice(&["--producer-props", &bootstrap]);
    words.extend_from_slice(settings);
    cluster.java("org.apache.kafka.tools.ProducerPerformance", &words, Stdio::null())
}

#[test]
fn a_record_of_kafkas_console_producer_is_read_back_with_all_its_parts() {
    let cluster = Cluster::start(1).unwrap();
    cluster.create_topic("t", 6, 1, &[("retention.ms", "-1")]).unwrap();
    let input = file_of("a:1,b:ä\tkey\tva\"lue\nc:3\tother\t\n").unwrap();
    let words = ["--bootstrap-server", cluster.bootstrap(), "--topic", "t"];
    let properties = ["parse.key=true", "parse.headers=true"].map(|p| ["--property", p]).concat();
    let words = [&words[..], &properties].concat();
    cluster.java("org.apache.kafka.tools.ConsoleProducer", &words, input.into()).unwrap();

    let mut seen = Vec::new();
    let count = cluster
        .dump("t", |record| {
            assert_eq!(record.java_partition, Some(record.partition), "{record:?}");
            assert_eq!(record.offset, 0);
            let headers = ["a", "b", "c"].map(|name| record.header(name).map(String::from));
            seen.push((record.key.as_deref().map(String::from), record.value.as_deref().map(String::from), headers));
            Ok(())
        })
        .unwrap();
    seen.sort();
    let text = |text: &str| Some(text.to_owned());
    let first = (text("key"), text("va\"lue"), [text("1"), text("ä"), None]);
    let second = (text("other"), text(""), [None, None, text("3")]);
    assert_eq!((count, seen), (2, vec![first, second]));
}

#[test]
fn batches_of_the_java_producer_are_idempotent_only_where_they_are() {
    let cluster = Cluster::start(1).unwrap();
    for topic in ["good", "plain", "uncompressed", "two"] {
        cluster.create_topic(topic, 2, 1, &[]).unwrap();
    }
    perf(&cluster, "good", "20000", &["compression.type=snappy", "linger.ms=10"]).unwrap();
    perf(&cluster, "plain", "100", &["compression.type=snappy", "enable.idempotence=false"]).unwrap();
    perf(&cluster, "uncompressed", "100", &[]).unwrap();
    perf(&cluster, "two", "100", &["compression.type=snappy"]).unwrap();
    perf(&cluster, "two", "100", &["compression.type=snappy"]).unwrap();

    let good = cluster.batches(&["good"]).unwrap();
    let shape = check_idempotent(&good, LIMITS).unwrap();
    assert_eq!(shape.records, 20_000);
    let error = |topic: &str, limits| {
        let batches = cluster.batches(&[topic]).unwrap();
        format!("{:#}", check_idempotent(&batches, limits).unwrap_err())
    };
    assert!(error("plain", LIMITS).contains("not idempotent"));
    assert!(error("uncompressed", LIMITS).contains("not snappy"));
    assert!(error("two", LIMITS).contains("another producer id"));
    assert!(error("good", Limits { records: shape.most_records - 1, ..LIMITS }).contains("records"));
    assert!(error("good", Limits { bytes: shape.most_bytes - 1, ..LIMITS }).contains("bytes"));

    let gap: Vec<_> = good.iter().filter(|batch| batch.base_offset > 0).cloned().collect();
    assert!(check_idempotent(&gap, LIMITS).is_err());
}

#[test]
fn a_partition_has_another_leader_after_its_leader_was_killed() {
    let cluster = Cluster::start(3).unwrap();
    cluster.create_topic("t", 1, 3, &[]).unwrap();
    let first = cluster.leader("t", 0).unwrap();
    cluster.kill(first).unwrap();
    // acks=all returns once the next leader took over.
    perf(&cluster, "t", "1000", &["compression.type=snappy"]).unwrap();
    assert_ne!(cluster.leader("t", 0).unwrap(), first);
    cluster.restart(first).unwrap();
    let mut count = 0;
    cluster
        .dump("t", |_| {
            count += 1;
            Ok(())
        })
        .unwrap();
    assert_eq!(count, 1000);
    assert!(cluster.kill(9).is_err());
}

#[test]
fn a_topic_that_is_not_there_is_an_error_and_not_an_empty_topic() {
    let cluster = Cluster::start(1).unwrap();
    assert!(cluster.dump("absent", |_| Ok(())).is_err());
    assert!(cluster.batches(&["absent"]).is_err());
}

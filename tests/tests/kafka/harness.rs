//! Tests of the harness itself against Kafka's own producers: the checks of the other tests must detect faults.
use std::fs::File;
use std::io::{Seek, Write};
use std::process::Stdio;

use anyhow::Result;
use kafka_courier_tests::batches::{BatchLimits, check_idempotent};
use kafka_courier_tests::cluster::Cluster;

const LIMITS: BatchLimits = BatchLimits { records: 100_000, bytes: 1_048_588 };

fn temporary_file(text: &str) -> Result<File> {
    let mut file = tempfile::tempfile()?;
    file.write_all(text.as_bytes())?;
    file.rewind()?;
    Ok(file)
}

/// Writes records of 100 bytes with Kafka's performance tool.
fn write_with_kafka(cluster: &Cluster, topic: &str, count: &str, settings: &[&str]) -> Result<String> {
    let bootstrap = format!("bootstrap.servers={}", cluster.bootstrap());
    let mut words = vec!["--topic", topic, "--num-records", count, "--record-size", "100", "--throughput", "-1"];
    words.extend_from_slice(&["--producer-props", &bootstrap]);
    words.extend_from_slice(settings);
    cluster.java("org.apache.kafka.tools.ProducerPerformance", &words, Stdio::null())
}

#[test]
fn console_producer_records_are_read_back() {
    let cluster = Cluster::start(1).unwrap();
    cluster.create_topic("t", 6, 1, &[("retention.ms", "-1")]).unwrap();
    let input = temporary_file("a:1,b:ä\tkey\tva\"lue\nc:3\tother\t\n").unwrap();
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
fn idempotence_check_finds_faulty_batches() {
    let cluster = Cluster::start(1).unwrap();
    for topic in ["good", "plain", "uncompressed", "two"] {
        cluster.create_topic(topic, 2, 1, &[]).unwrap();
    }
    write_with_kafka(&cluster, "good", "20000", &["compression.type=snappy", "linger.ms=10"]).unwrap();
    write_with_kafka(&cluster, "plain", "100", &["compression.type=snappy", "enable.idempotence=false"]).unwrap();
    write_with_kafka(&cluster, "uncompressed", "100", &[]).unwrap();
    write_with_kafka(&cluster, "two", "100", &["compression.type=snappy"]).unwrap();
    write_with_kafka(&cluster, "two", "100", &["compression.type=snappy"]).unwrap();

    let good = cluster.batches(&["good"]).unwrap();
    let statistics = check_idempotent(&good, LIMITS).unwrap();
    assert_eq!(statistics.records, 20_000);
    let error = |topic: &str, limits| {
        let batches = cluster.batches(&[topic]).unwrap();
        format!("{:#}", check_idempotent(&batches, limits).unwrap_err())
    };
    assert!(error("plain", LIMITS).contains("not idempotent"));
    assert!(error("uncompressed", LIMITS).contains("not snappy"));
    assert!(error("two", LIMITS).contains("producer id and epoch differ"));
    assert!(error("good", BatchLimits { records: statistics.most_records - 1, ..LIMITS }).contains("records"));
    assert!(error("good", BatchLimits { bytes: statistics.most_bytes - 1, ..LIMITS }).contains("bytes"));

    let gap: Vec<_> = good.iter().filter(|batch| batch.base_offset > 0).cloned().collect();
    assert!(check_idempotent(&gap, LIMITS).is_err());
}

#[test]
fn killed_leader_is_replaced() {
    let cluster = Cluster::start(3).unwrap();
    cluster.create_topic("t", 1, 3, &[]).unwrap();
    let first = cluster.leader("t", 0).unwrap();
    cluster.kill(first).unwrap();
    // A write with acks=all succeeds only under the next leader.
    write_with_kafka(&cluster, "t", "1000", &["compression.type=snappy"]).unwrap();
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
fn missing_topic_is_an_error() {
    let cluster = Cluster::start(1).unwrap();
    assert!(cluster.dump("absent", |_| Ok(())).is_err());
    assert!(cluster.batches(&["absent"]).is_err());
}

//! Brokers that send malformed answers. The producer closes the connection, keeps its memory bounded, and delivers once
//! the answers are valid again.
//!
//! The test measures the memory of its process, so it runs in a separate process.

use std::time::Duration;

use crate::support::{LONG, Producer, PublishedRecords, config, process};
use kafka_courier::{SaslMechanism, SecurityProtocol};
use kafka_courier_test_broker::{ApiKey, Fault, Rule, TestCluster};

/// Malformed frames: lengths of 2 GiB, -1 and 0, a frame without a whole correlation id, a wrong correlation id, and
/// half an answer.
const FRAMES: [&[u8]; 6] = [
    &[0x7f, 0xff, 0xff, 0xff, 0, 0, 0, 1],
    &[0xff, 0xff, 0xff, 0xff],
    &[0, 0, 0, 0],
    &[0, 0, 0, 2, 0, 0],
    &[0, 0, 0, 4, 0x7f, 0xff, 0xff, 0xff],
    &[0, 0, 1, 0, 0, 0, 0, 1, 2, 3],
];

/// Malformed bodies: no bytes, and arrays of 2^31 elements in both formats, after bytes that may be the tags of a
/// header, an error or a throttle time.
const BODIES: [&[u8]; 7] = [
    &[],
    &[0x7f, 0xff, 0xff, 0xff],
    &[0, 0xff, 0xff, 0xff, 0xff, 0x0f],
    &[0, 0, 0x7f, 0xff, 0xff, 0xff],
    &[0, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0x0f],
    &[0, 0, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0x0f],
    &[0xff; 64],
];

/// Returns a Metadata answer (version 13) in which the topic has one partition, number 999,999.
fn metadata_with_distant_partition() -> Fault {
    let head = [0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 2, 0, 0, 2, b't'];
    let partition = [2, 0, 0, 0, 0x0f, 0x42, 0x3f, 0, 0, 0, 1, 0, 0, 0, 1, 1, 1, 1, 0];
    let tail = [0x80, 0, 0, 0, 0, 0, 0, 0];
    Fault::ApplyThenAnswer([&head[..], &[0; 17], &partition, &tail].concat())
}

/// Malformed answers to PLAIN and SCRAM: huge lengths in both formats, and no bytes.
const SASL_BODIES: [&[u8]; 6] = [
    &[],
    &[0, 0, 0x7f, 0xff, 0xff, 0xff],
    &[0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0x0f],
    &[0, 0, 0, 0x7f, 0xff],
    &[0, 0, 58, 0xff, 0xff, 0xff, 0xff, 0x0f],
    &[0xff; 64],
];

/// Returns the peak virtual memory of this process in bytes.
fn peak_virtual_bytes() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmPeak:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<usize>().unwrap() << 10
}

fn sasl_faults() -> impl Iterator<Item = Fault> {
    let frames = FRAMES.map(|bytes| Fault::ApplyThenSend(bytes.to_vec())).into_iter();
    frames.chain(SASL_BODIES.map(|body| Fault::ApplyThenAnswer(body.to_vec())))
}

#[tokio::test]
async fn malformed_answers_lose_no_records() {
    if !process::is_separate(concat!(module_path!(), "::malformed_answers_lose_no_records")) {
        return;
    }
    let faults = FRAMES.map(|bytes| Fault::ApplyThenSend(bytes.to_vec())).into_iter();
    let faults = faults.chain(BODIES.map(|body| Fault::ApplyThenAnswer(body.to_vec())));
    let before = peak_virtual_bytes();
    let apis = [ApiKey::ApiVersions, ApiKey::Metadata, ApiKey::InitProducerId, ApiKey::Produce];
    let faults = faults.map(|fault| (fault, &apis[..])).chain([(metadata_with_distant_partition(), &apis[1..2])]);
    for (fault, apis) in faults {
        for api in apis.iter().copied() {
            let cluster = TestCluster::builder().brokers(2).topic("t", 2).start().await.unwrap();
            let mut config = config(&cluster);
            config.request_timeout = Duration::from_millis(100);
            config.connect_timeout = Duration::from_millis(100);
            let producer = Producer::build(config).unwrap();
            cluster.inject(Rule::for_api(api).times(2).then(fault.clone()));
            let mut published = PublishedRecords::default();
            published.send_many(&producer, "t", 60, 5).await;
            published.assert_delivered(&cluster, "t").await;
            assert!(cluster.requests(api) > 2, "{fault:?} did not occur twice for {api:?}");
        }
    }
    for fault in sasl_faults() {
        for api in [ApiKey::SaslHandshake, ApiKey::SaslAuthenticate] {
            let cluster = TestCluster::builder().topic("t", 1).user("alice", "secret").start().await.unwrap();
            let mut config = config(&cluster);
            config.connect_timeout = Duration::from_millis(100);
            config.security_protocol = SecurityProtocol::SaslPlaintext;
            config.sasl_mechanism = Some(SaslMechanism::Plain);
            config.sasl_username = "alice".to_owned();
            config.sasl_password = Some("secret".into());
            cluster.inject(Rule::for_api(api).times(2).then(fault.clone()));
            let producer = Producer::build(config).unwrap();
            let first = producer.health_check(LONG).await.unwrap_err();
            assert!(!first.to_string().contains("secret"), "{first}");
            // The producer keeps a refusal for a while, and retries after a malformed answer.
            if !first.is_refusal() {
                let mut published = PublishedRecords::default();
                published.send_many(&producer, "t", 20, 3).await;
                published.assert_delivered(&cluster, "t").await;
            }
        }
    }
    let grown = peak_virtual_bytes() - before;
    assert!(grown < 256 << 20, "virtual memory grew by {} MiB", grown >> 20);
}

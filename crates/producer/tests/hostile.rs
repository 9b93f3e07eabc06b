//! Brokers that answer nonsense: the producer drops the connection, keeps its memory, and delivers once they have come to
//! their senses.
//!
//! One test alone in its process, for it looks at the process's memory.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used)] // helpers of tests may, as tests do
mod support;

use std::time::Duration;

use kafka_courier::{SaslMechanism, SecurityProtocol};
use kafka_courier_test_broker::{ApiKey, Fault, Rule, TestCluster};
use support::{Books, LONG, Producer, config};

/// Lengths of 2 GiB and more, a negative one, none, a wrong correlation id, half an answer.
const FRAMES: [&[u8]; 6] = [
    &[0x7f, 0xff, 0xff, 0xff, 0, 0, 0, 1],
    &[0xff, 0xff, 0xff, 0xff],
    &[0, 0, 0, 0],
    &[0, 0, 0, 2, 0, 0],
    &[0, 0, 0, 4, 0x7f, 0xff, 0xff, 0xff],
    &[0, 0, 1, 0, 0, 0, 0, 1, 2, 3],
];

/// Nothing, and arrays of 2^31 elements in either format, behind what may be a header's tags, an error or a throttle time.
const BODIES: [&[u8]; 7] = [
    &[],
    &[0x7f, 0xff, 0xff, 0xff],
    &[0, 0xff, 0xff, 0xff, 0xff, 0x0f],
    &[0, 0, 0x7f, 0xff, 0xff, 0xff],
    &[0, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0x0f],
    &[0, 0, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0x0f],
    &[0xff; 64],
];

/// Metadata (13) of the topic, with one partition: the last of a million.
fn a_lone_partition_far_away() -> Fault {
    let head = [0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 2, 0, 0, 2, b't'];
    let partition = [2, 0, 0, 0, 0x0f, 0x42, 0x3f, 0, 0, 0, 1, 0, 0, 0, 1, 1, 1, 1, 0];
    let tail = [0x80, 0, 0, 0, 0, 0, 0, 0];
    Fault::ApplyThenAnswer([&head[..], &[0; 17], &partition, &tail].concat())
}

/// What SCRAM's and PLAIN's answers could be instead of what they should: huge lengths, in either format, and none.
const SASL_BODIES: [&[u8]; 6] = [
    &[],
    &[0, 0, 0x7f, 0xff, 0xff, 0xff],
    &[0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0x0f],
    &[0, 0, 0, 0x7f, 0xff],
    &[0, 0, 58, 0xff, 0xff, 0xff, 0xff, 0x0f],
    &[0xff; 64],
];

/// The most memory that this process ever had reserved, bytes.
fn reserved() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmPeak:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<usize>().unwrap() << 10
}

fn sasl_faults() -> impl Iterator<Item = Fault> {
    let frames = FRAMES.map(|bytes| Fault::ApplyThenSend(bytes.to_vec())).into_iter();
    frames.chain(SASL_BODIES.map(|body| Fault::ApplyThenAnswer(body.to_vec())))
}

#[tokio::test]
async fn nonsense_from_brokers_costs_neither_records_nor_memory() {
    let faults = FRAMES.map(|bytes| Fault::ApplyThenSend(bytes.to_vec())).into_iter();
    let faults = faults.chain(BODIES.map(|body| Fault::ApplyThenAnswer(body.to_vec())));
    let before = reserved();
    let apis = [ApiKey::ApiVersions, ApiKey::Metadata, ApiKey::InitProducerId, ApiKey::Produce];
    let faults = faults.map(|fault| (fault, &apis[..])).chain([(a_lone_partition_far_away(), &apis[1..2])]);
    for (fault, apis) in faults {
        for api in apis.iter().copied() {
            let cluster = TestCluster::builder().brokers(2).topic("t", 2).start().await.unwrap();
            let mut config = config(&cluster);
            config.request_timeout = Duration::from_millis(100);
            config.connect_timeout = Duration::from_millis(100);
            let producer = Producer::build(config).unwrap();
            cluster.inject(Rule::for_api(api).times(2).then(fault.clone()));
            let mut books = Books::default();
            books.send_many(&producer, "t", 60, 5).await;
            books.all_delivered(&cluster, "t").await;
            assert!(cluster.requests(api) > 2, "{api:?} did not meet {fault:?} twice");
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
            // A refusal is final for a while; nonsense is not.
            if !first.is_refusal() {
                let mut books = Books::default();
                books.send_many(&producer, "t", 20, 3).await;
                books.all_delivered(&cluster, "t").await;
            }
        }
    }
    let grown = reserved() - before;
    assert!(grown < 256 << 20, "{} MiB more were reserved", grown >> 20);
}

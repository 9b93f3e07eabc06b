//! Brokers whose answers never end: the connection is dropped, and memory stays bounded.
//!
//! One test alone in its process, for it looks at the process's memory.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used)] // helpers of tests may, as tests do

mod support;

use std::time::Duration;

use kafka_courier::KafkaConfig;
use support::Producer;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;

/// What is sent over and over: answers to nothing, of 4 bytes and of a MiB; zeros; and, once before them, a length of 2 GiB
/// or of 90 MiB, which may be an answer's.
fn pieces() -> [(&'static [u8], Vec<u8>); 5] {
    let mut large = vec![0, 0x10, 0, 0, 0x7f, 0, 0, 0];
    large.resize(4 + (1 << 20), 7);
    [
        (&[], [0, 0, 0, 4, 0x7f, 0, 0, 0].repeat(1000)),
        (&[], large),
        (&[], vec![0; 1 << 16]),
        (&[0x7f, 0xff, 0xff, 0xff, 0, 0, 0, 0], vec![0; 1 << 16]),
        (&[5, 0xa0, 0, 0, 0, 0, 0, 0], vec![1; 1 << 16]),
    ]
}

/// The most memory that this process ever used, bytes.
fn most_used() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<usize>().unwrap() << 10
}

#[tokio::test]
async fn answers_without_end_cost_bounded_memory_and_give_an_error() {
    let before = most_used();
    for (first, piece) in pieces() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let piece = piece.clone();
                tokio::spawn(async move {
                    let mut sent = stream.write_all(first).await;
                    while sent.is_ok() {
                        sent = stream.write_all(&piece).await;
                    }
                });
            }
        });
        let mut config = KafkaConfig::default();
        config.brokers = vec![address.to_string().parse().unwrap()];
        config.request_timeout = Duration::from_millis(300);
        config.connect_timeout = Duration::from_millis(300);
        let producer = Producer::build(config).unwrap();
        let error = producer.health_check(Duration::from_secs(2)).await.unwrap_err();
        assert!(!error.is_refusal(), "{error}");
        producer.close(Duration::from_secs(1)).await;
    }
    let grown = most_used() - before;
    assert!(grown < 256 << 20, "{} MiB more were used", grown >> 20);
}

//! Brokers whose answers never end. The producer closes the connection, and memory stays bounded.
//!
//! The test measures the memory of its process, so it runs in a separate process.

use std::time::Duration;

use crate::support::{Producer, process};
use kafka_courier::KafkaConfig;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;

/// Returns endless answers, as bytes that are sent once and bytes that are repeated.
///
/// The repeated bytes are answers without a request, of 4 bytes and of 1 MiB, or plain filler. A length of 2 GiB or
/// 90 MiB may precede the filler. 90 MiB is a valid length of an answer.
fn answers() -> [(&'static [u8], Vec<u8>); 5] {
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

/// Returns the peak resident memory of this process in bytes.
fn peak_resident_bytes() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<usize>().unwrap() << 10
}

#[tokio::test]
async fn endless_answers_cost_bounded_memory() {
    if !process::is_separate(concat!(module_path!(), "::endless_answers_cost_bounded_memory")) {
        return;
    }
    let before = peak_resident_bytes();
    for (first, piece) in answers() {
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
    let grown = peak_resident_bytes() - before;
    assert!(grown < 256 << 20, "memory grew by {} MiB", grown >> 20);
}

//! Three real brokers, replication 3, and production settings against the brokers' default limits.
//!
//! The test has its own file, because it measures memory like `kafka_million`.
use kafka_courier_tests::batches::BatchLimits;
use kafka_courier_tests::cluster::Cluster;
use kafka_courier_tests::publish::{MESSAGE_MAX_BYTES, PublishJob, create_topics};

#[test]
fn production_settings_deliver_exactly_once() {
    let cluster = Cluster::start(3).unwrap();
    create_topics(&cluster, 6, 3).unwrap();
    // A broker refuses a batch of 10 MiB. courier must apply the topic's limit instead.
    let settings = [("KAFKA_FLUSH_MESSAGES", "1000"), ("KAFKA_FLUSH_BYTES", "10485760"), ("KAFKA_RETRY_MAX", "5")];
    let limits = BatchLimits { records: 1000, bytes: MESSAGE_MAX_BYTES };
    let job = PublishJob { events: 200_000, seed: 1, settings: &settings, limits };
    let done = job.publish_and_check(&cluster).unwrap();
    let peak = done.run.peak_rss;
    assert!(peak < 64_000_000, "peak memory {peak} bytes");
}

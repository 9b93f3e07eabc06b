//! Three real brokers, replication 3, and production's settings against the brokers' default limits.
use kafka_courier_tests::batches::Limits;
use kafka_courier_tests::cluster::Cluster;
use kafka_courier_tests::publish::{Job, MESSAGE_MAX_BYTES, create_topics};

#[test]
fn production_settings_deliver_each_event_once_in_order_to_three_replicas() {
    let cluster = Cluster::start(3).unwrap();
    create_topics(&cluster, 6, 3).unwrap();
    // 10 MiB is more than a broker takes in a batch: courier must keep to what the topic takes.
    let settings = [("KAFKA_FLUSH_MESSAGES", "1000"), ("KAFKA_FLUSH_BYTES", "10485760"), ("KAFKA_RETRY_MAX", "5")];
    let limits = Limits { records: 1000, bytes: MESSAGE_MAX_BYTES };
    let job = Job { events: 200_000, seed: 1, settings: &settings, limits };
    let done = job.publish_and_check(&cluster).unwrap();
    let peak = done.run.peak_rss;
    assert!(peak < 64_000_000, "peak memory {peak} bytes");
}

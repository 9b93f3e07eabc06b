//! Batch sizes in a real broker's log follow the settings.
use kafka_courier_tests::batches::BatchLimits;
use kafka_courier_tests::cluster::Cluster;
use kafka_courier_tests::publish::{MESSAGE_MAX_BYTES, PublishJob, create_topics};

#[test]
fn batches_end_at_topic_limit() {
    let cluster = Cluster::start(1).unwrap();
    create_topics(&cluster, 1, 1).unwrap();
    let settings = [("KAFKA_FLUSH_MESSAGES", "100000"), ("KAFKA_FLUSH_TIMEOUT", "5s")];
    let limits = BatchLimits { records: 100_000, bytes: MESSAGE_MAX_BYTES };
    let job = PublishJob { events: 200_000, seed: 2, settings: &settings, limits };
    let statistics = job.publish_and_check(&cluster).unwrap().statistics;
    assert!(statistics.most_records > 1000, "the topic's limit did not end the batches: {statistics}");
}

#[test]
fn batches_end_at_flush_bytes() {
    let cluster = Cluster::start(1).unwrap();
    create_topics(&cluster, 2, 1).unwrap();
    let settings = [("KAFKA_FLUSH_MESSAGES", "100000"), ("KAFKA_FLUSH_BYTES", "20000")];
    let limits = BatchLimits { records: 100_000, bytes: 20_000 };
    let job = PublishJob { events: 50_000, seed: 3, settings: &settings, limits };
    let statistics = job.publish_and_check(&cluster).unwrap().statistics;
    assert!(statistics.most_records > 10, "the batches have too few records: {statistics}");
}

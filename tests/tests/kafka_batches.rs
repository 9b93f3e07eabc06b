//! Batches of the sizes that the settings ask for, in a real broker's log.
use kafka_courier_tests::batches::Limits;
use kafka_courier_tests::cluster::Cluster;
use kafka_courier_tests::publish::{Job, MESSAGE_MAX_BYTES, create_topics};

#[test]
fn batches_end_at_the_bytes_that_a_topic_takes_where_the_count_allows_more() {
    let cluster = Cluster::start(1).unwrap();
    create_topics(&cluster, 1, 1).unwrap();
    let settings = [("KAFKA_FLUSH_MESSAGES", "100000"), ("KAFKA_FLUSH_TIMEOUT", "5s")];
    let limits = Limits { records: 100_000, bytes: MESSAGE_MAX_BYTES };
    let job = Job { events: 200_000, seed: 2, settings: &settings, limits };
    let shape = job.publish_and_check(&cluster).unwrap().shape;
    assert!(shape.most_records > 1000, "the count of 100,000 was not the limit that counted: {shape}");
}

#[test]
fn batches_end_at_flush_bytes() {
    let cluster = Cluster::start(1).unwrap();
    create_topics(&cluster, 2, 1).unwrap();
    let settings = [("KAFKA_FLUSH_MESSAGES", "100000"), ("KAFKA_FLUSH_BYTES", "20000")];
    let limits = Limits { records: 100_000, bytes: 20_000 };
    let job = Job { events: 50_000, seed: 3, settings: &settings, limits };
    let shape = job.publish_and_check(&cluster).unwrap().shape;
    assert!(shape.most_records > 10, "batches of a few records are no batches: {shape}");
}

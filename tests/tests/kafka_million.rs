//! The main job on one real broker: a million events.
//!
//! Alone in its file: the peak of memory is counted from the test's own, which must be small when it starts.
use kafka_courier_tests::batches::Limits;
use kafka_courier_tests::cluster::Cluster;
use kafka_courier_tests::publish::{Job, MESSAGE_MAX_BYTES, create_topics};

#[test]
fn a_million_events_arrive_each_once_in_order_within_64_mb() {
    let cluster = Cluster::start(1).unwrap();
    create_topics(&cluster, 6, 1).unwrap();
    let limits = Limits { records: 100, bytes: MESSAGE_MAX_BYTES };
    let job = Job { events: 1_000_000, seed: 1, settings: &[], limits };
    let done = job.publish_and_check(&cluster).unwrap();
    let peak = done.run.peak_rss;
    assert!(peak < 64_000_000, "peak memory {peak} bytes");
    let wall = done.run.wall;
    assert!(wall.as_secs() < 60, "it took {wall:?}");
    let full = done.shape.in_full;
    assert!(full > done.shape.records / 2, "few batches are full under load: {}", done.shape);
}

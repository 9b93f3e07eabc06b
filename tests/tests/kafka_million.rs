//! The main job on one real broker: a million events.
//!
//! The test has its own file, because the measured peak includes the memory of the test process. That memory must be
//! small when `courier` starts.
use kafka_courier_tests::batches::BatchLimits;
use kafka_courier_tests::cluster::Cluster;
use kafka_courier_tests::publish::{MESSAGE_MAX_BYTES, PublishJob, create_topics};

#[test]
fn million_events_arrive_within_64_mb() {
    let cluster = Cluster::start(1).unwrap();
    create_topics(&cluster, 6, 1).unwrap();
    let limits = BatchLimits { records: 100, bytes: MESSAGE_MAX_BYTES };
    let job = PublishJob { events: 1_000_000, seed: 1, settings: &[], limits };
    let done = job.publish_and_check(&cluster).unwrap();
    let peak = done.run.peak_rss;
    assert!(peak < 64_000_000, "peak memory {peak} bytes");
    let wall = done.run.wall;
    assert!(wall.as_secs() < 60, "it took {wall:?}");
    let full = done.statistics.records_in_full_batches;
    assert!(full > done.statistics.records / 2, "few batches are full under load: {}", done.statistics);
}

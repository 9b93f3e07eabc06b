//! What the simulation found, each as its own short story.

use kafka_courier_idempotent_sender::core::Config;

use super::{quiet, waits};
use crate::cluster::{MS, SECOND};
use crate::faults::Fault;
use crate::history::Told;
use crate::plan::{BatchPlan, Rules};

#[test]
fn a_connection_that_falls_silent_after_being_idle_is_cut_at_the_request_timeout() {
    let mut world = quiet(Config::default(), Rules::default());
    world.prime(0);
    world.pass(5 * SECOND);
    world.lose_answers(0, SECOND);
    world.publish(0, 1);
    world.pass(12 * SECOND);
    world.assert_delivered(2..4);
    world.judge();
}

#[test]
fn two_partitions_that_use_up_their_ids_at_once_both_get_another() {
    let mut world = quiet(Config { first_epoch: i16::MAX, ..Config::default() }, Rules::default());
    for partition in [0, 3] {
        world.partitions[partition].refused = Some(29);
        world.publish(partition, 1);
    }
    world.settle_all();
    world.judge();
}

#[test]
fn a_leader_that_denies_it_is_doubted_even_if_the_cluster_names_another_with_an_older_epoch() {
    let mut world = quiet(Config::default(), Rules { by_id: false, ..Rules::default() });
    world.prime(0);
    for to in [1, 2, 1] {
        world.strike(Fault::Elect { partition: 0, to });
        world.pass(SECOND);
        world.publish(0, 1);
        world.pass(SECOND);
    }
    // As a cluster without topic ids has it after a topic was made anew: epochs begin again.
    world.change(0, |truth| (truth.leader, truth.epoch) = (Some(0), 0));
    world.pass(SECOND);
    world.publish(0, 1);
    world.settle_all();
    world.assert_delivered(0..10);
}

#[test]
fn a_partition_without_a_leader_asks_for_metadata_with_backoff() {
    let mut world = quiet(Config::default(), Rules::default());
    world.change(0, |truth| (truth.leader, truth.epoch) = (None, 2));
    world.pass(SECOND);
    world.publish(0, 1);
    let before = world.metadata_asked;
    world.pass(20 * SECOND);
    let asked = world.metadata_asked - before;
    assert!(asked <= 45, "{asked} times in 20 s, though waits grow to between 0.5 s and 1 s");
    world.elect(0, 0);
    world.settle_all();
    world.judge();
}

#[test]
fn an_acceptance_by_a_leader_that_did_not_know_the_id_proves_nothing_of_what_came_before() {
    let mut world = quiet(Config::default(), Rules { reads_on: 0, ..Rules::default() });
    world.prime(3);
    world.strike(Fault::Slow { broker: 0, time: 5 * MS, by: 400 * MS });
    let mut records = BatchPlan::of(0, 4).records;
    records[0].padding = 200;
    world.submit(&BatchPlan { records, ..BatchPlan::of(0, 4) }).unwrap();
    world.pass(3 * MS);
    world.cut_connections(0);
    // The first record is too large for the leader now, which has never heard of us; the others are not.
    world.strike(Fault::LimitSegment { partition: 0, bytes: 200, time: 5 * SECOND });
    world.settle_all();
    world.assert_delivered(3..6);
    world.assert_unknown(2..3);
    assert_eq!(world.history.records[2].corrected, None);
    world.judge();
}

#[test]
fn the_innocent_of_a_batch_that_run_out_of_time_are_not_told_its_guilt() {
    let mut world = quiet(waits(5), Rules::default());
    world.partitions[0].compacted = true;
    world.strike(Fault::Throttle { broker: 0, time: 20 * SECOND });
    let mut records = BatchPlan::of(0, 3).records;
    records[1].has_key = false;
    world.submit(&BatchPlan { records, ..BatchPlan::of(0, 3) }).unwrap();
    world.publish(0, 1);
    world.settle_all();
    assert_eq!(world.told(1), Some(Told::NotWritten(Some(87))));
    for record in [0, 2, 3, 4] {
        assert_eq!(world.told(record), Some(Told::NotWritten(None)), "record {record}");
    }
    world.judge();
}

#[test]
fn what_a_look_finds_on_a_leader_that_dies_before_its_replicas_have_it_is_sent_again() {
    let mut world = quiet(Config::default(), Rules { replica_lag_max: 1000 * SECOND, ..Rules::default() });
    world.prime(0);
    world.strike(Fault::SlowReplication { partition: 0, by: 14 * SECOND, time: SECOND });
    world.submit(&BatchPlan::of(0, 8)).unwrap();
    world.pass(50 * MS);
    world.cut_connections(0);
    // The halves of the whole that was appended are refused out of order, and the leader says that it has them.
    world.strike(Fault::LimitMessage { partition: 0, bytes: 220, time: 2 * SECOND });
    world.pass(2 * SECOND);
    assert!(world.sender.counters().looks > 0 && world.sender.counters().splits > 0);
    assert_eq!(world.sender.unsettled(), 8, "nobody but the leader has them yet");
    world.strike(Fault::Kill { broker: 0, down: 60 * SECOND });
    world.settle_all();
    world.assert_delivered(2..10);
    world.judge();
}

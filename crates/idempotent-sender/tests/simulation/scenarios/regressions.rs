//! Scenarios of faults that random schedules have found.

use kafka_courier_idempotent_sender::core::Config;

use super::{ready_world, with_delivery_timeout};
use crate::cluster::{MS, SECOND};
use crate::faults::Fault;
use crate::history::RecordVerdict;
use crate::plan::{BatchPlan, Rules};

#[test]
fn silent_idle_connection_is_cut() {
    let mut world = ready_world(Config::default(), Rules::default());
    world.prime(0);
    world.advance_time(5 * SECOND);
    world.lose_answers(0, SECOND);
    world.publish(0, 1);
    world.advance_time(12 * SECOND);
    world.assert_delivered(2..4);
    world.heal_and_check();
}

#[test]
fn two_partitions_replace_exhausted_ids() {
    let mut world = ready_world(Config { first_epoch: i16::MAX, ..Config::default() }, Rules::default());
    for partition in [0, 3] {
        world.partitions[partition].refused = Some(29);
        world.publish(partition, 1);
    }
    world.settle_all();
    world.heal_and_check();
}

#[test]
fn denying_leader_is_doubted() {
    let mut world = ready_world(Config::default(), Rules { by_id: false, ..Rules::default() });
    world.prime(0);
    for to in [1, 2, 1] {
        world.inject(Fault::Elect { partition: 0, to });
        world.advance_time(SECOND);
        world.publish(0, 1);
        world.advance_time(SECOND);
    }
    // The epochs begin again, as after the recreation of a topic in a cluster without topic ids.
    world.change(0, |truth| (truth.leader, truth.epoch) = (Some(0), 0));
    world.advance_time(SECOND);
    world.publish(0, 1);
    world.settle_all();
    world.assert_delivered(0..10);
}

#[test]
fn leaderless_partition_refreshes_with_backoff() {
    let mut world = ready_world(Config::default(), Rules::default());
    world.change(0, |truth| (truth.leader, truth.epoch) = (None, 2));
    world.advance_time(SECOND);
    world.publish(0, 1);
    let before = world.metadata_requests;
    world.advance_time(20 * SECOND);
    let asked = world.metadata_requests - before;
    assert!(asked <= 45, "{asked} requests in 20 s, although the backoff grows to 0.5 s to 1 s");
    world.elect(0, 0);
    world.settle_all();
    world.heal_and_check();
}

#[test]
fn acceptance_without_id_proves_nothing() {
    let mut world = ready_world(Config::default(), Rules { late_arrival_percent: 0, ..Rules::default() });
    world.prime(3);
    world.inject(Fault::Slow { broker: 0, time: 5 * MS, by: 400 * MS });
    let mut records = BatchPlan::of(0, 4).records;
    records[0].padding = 200;
    world.submit(&BatchPlan { records, ..BatchPlan::of(0, 4) }).unwrap();
    world.advance_time(3 * MS);
    world.cut_connections(0);
    // The first record is too large for the leader from now on, and the leader does not know the producer id.
    world.inject(Fault::LimitSegment { partition: 0, bytes: 200, time: 5 * SECOND });
    world.settle_all();
    world.assert_delivered(3..6);
    world.assert_unknown(2..3);
    assert_eq!(world.history.records[2].corrected, None);
    world.heal_and_check();
}

#[test]
fn rejection_code_stays_with_rejected_record() {
    let mut world = ready_world(with_delivery_timeout(5), Rules::default());
    world.partitions[0].compacted = true;
    world.inject(Fault::Throttle { broker: 0, time: 20 * SECOND });
    let mut records = BatchPlan::of(0, 3).records;
    records[1].has_key = false;
    world.submit(&BatchPlan { records, ..BatchPlan::of(0, 3) }).unwrap();
    world.publish(0, 1);
    world.settle_all();
    assert_eq!(world.verdict(1), Some(RecordVerdict::NotWritten(Some(87))));
    for record in [0, 2, 3, 4] {
        assert_eq!(world.verdict(record), Some(RecordVerdict::NotWritten(None)), "record {record}");
    }
    world.heal_and_check();
}

#[test]
fn unreplicated_finds_are_sent_again() {
    let mut world = ready_world(Config::default(), Rules { replica_lag_max: 1000 * SECOND, ..Rules::default() });
    world.prime(0);
    world.inject(Fault::SlowReplication { partition: 0, by: 14 * SECOND, time: SECOND });
    world.submit(&BatchPlan::of(0, 8)).unwrap();
    world.advance_time(50 * MS);
    world.cut_connections(0);
    // The whole batch was appended. The leader refuses its halves as out of order, and a look finds them.
    world.inject(Fault::LimitMessage { partition: 0, bytes: 220, time: 2 * SECOND });
    world.advance_time(2 * SECOND);
    assert!(world.sender.counters().state_lookups > 0 && world.sender.counters().splits > 0);
    assert_eq!(world.sender.unsettled(), 8, "only the leader has the records yet");
    world.inject(Fault::Kill { broker: 0, down: 60 * SECOND });
    world.settle_all();
    world.assert_delivered(2..10);
    world.heal_and_check();
}

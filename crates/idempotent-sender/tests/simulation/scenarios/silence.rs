//! Scenarios of lost answers, late requests and slow brokers.

use kafka_courier_idempotent_sender::core::Config;

use super::{late_requests_arrive, no_retries, ready_world};
use crate::cluster::{MS, SECOND};
use crate::faults::Fault;
use crate::plan::{BatchPlan, RecordPlan, Rules};

/// The only broker pauses for longer than `delivery_timeout`, and appends the requests after that.
#[test]
fn long_pause_leaves_records_unknown() {
    let mut world = ready_world(Config::default(), Rules { session_timeout: 1000 * SECOND, ..late_requests_arrive() });
    world.prime(0);
    world.inject(Fault::Pause { broker: 0, time: 80 * SECOND });
    world.publish(0, 8);
    world.advance_time(40 * SECOND);
    assert_eq!(world.sender.unsettled(), 0, "all records have failed after delivery_timeout");
    world.assert_unknown(2..12);
    assert_eq!(world.leader_log(0).len(), 2, "only the first batch is in the log");
    world.heal_and_check();
    assert!(
        world.leader_log(0).len() > 4,
        "the requests that were sent before the failures are in the log, besides the last probe"
    );
}

/// Five answers are lost, and the new leader remembers only one batch of the producer.
#[test]
fn one_look_proves_five_batches() {
    let mut world = ready_world(Config::default(), Rules::default());
    world.prime(0);
    world.lose_answers(0, SECOND);
    world.publish(0, 5);
    world.advance_time(SECOND);
    world.inject(Fault::CleanRestart { broker: 1, down: 100 * MS });
    world.advance_time(4 * SECOND);
    world.inject(Fault::Elect { partition: 0, to: 1 });
    world.settle_all();
    assert_eq!(world.sender.counters().state_lookups, 1, "one look and one retry of the last batch prove all five");
    world.assert_delivered(2..12);
    world.heal_and_check();
}

/// The leader forgets the idle producer id, and a burst follows.
#[test]
fn expired_id_keeps_burst_order() {
    for lost in [false, true] {
        let mut world = ready_world(Config::default(), Rules { id_expiration_ms: Some(120_000), ..Rules::default() });
        world.prime(0);
        world.advance_time(200 * SECOND);
        world.disturb_next_answer(0, lost);
        world.publish(0, 5);
        world.settle_all();
        world.assert_delivered(0..12);
        world.heal_and_check();
    }
}

/// The leader forgets the producer id because of old records, and a burst follows.
#[test]
fn old_records_keep_burst_order() {
    for lost in [false, true] {
        let mut world = ready_world(Config::default(), Rules { id_expiration_ms: Some(120_000), ..Rules::default() });
        world.prime(0);
        world.submit(&BatchPlan { age_ms: 400_000, ..BatchPlan::of(0, 2) }).unwrap();
        world.advance_time(4 * SECOND);
        let id = world.history.newest_id_of(0);
        assert!(world.partitions[0].replicas[0].producers.get(id).is_none(), "the leader has forgotten the id");
        world.disturb_next_answer(0, lost);
        world.publish(0, 5);
        world.settle_all();
        world.assert_delivered(0..14);
        assert_eq!(world.leader_log(0), (0..14).collect::<Vec<_>>());
        world.heal_and_check();
    }
}

/// Runs a batch of eight records that is split because of this code. The whole batch's first attempt is open, and
/// arrives after `arrives`. `behind` more batches follow.
fn split_after_an_open_attempt(arrives: u64, code: i16, behind: usize) -> crate::world::World {
    let mut world = ready_world(Config::default(), late_requests_arrive());
    world.prime(0);
    world.inject(Fault::Slow { broker: 0, time: MS, by: 2 * arrives });
    world.submit(&BatchPlan::of(0, 8)).unwrap();
    world.publish(0, behind);
    world.advance_time(5 * MS);
    world.cut_connections(0);
    world.inject(match code {
        10 => Fault::LimitMessage { partition: 0, bytes: 220, time: SECOND },
        _ => Fault::LimitSegment { partition: 0, bytes: 220, time: SECOND },
    });
    world.advance_time(200 * MS);
    world.lose_answers(0, 50 * MS);
    world.settle_all();
    world.assert_delivered(0..10 + 2 * behind);
    world
}

#[test]
fn split_without_successor_is_written_once() {
    for arrives in (1..60).map(|n| n * 40 * MS) {
        let mut world = split_after_an_open_attempt(arrives, 10, 0);
        assert_eq!(world.leader_log(0), (0..10).collect::<Vec<_>>(), "no later acceptance corrects a wrong verdict");
        world.heal_and_check();
    }
}

#[test]
fn split_open_batch_is_written_once() {
    for (arrives, code) in (1..60).flat_map(|n| [(n * 40 * MS, 10), (n * 40 * MS, 18)]) {
        split_after_an_open_attempt(arrives, code, 1).heal_and_check();
    }
}

#[test]
fn later_acceptance_corrects_unknown_batch() {
    let mut world = ready_world(no_retries(), Rules::default());
    world.prime(0);
    world.lose_answers(0, SECOND);
    world.publish(0, 3);
    world.settle_all();
    world.assert_unknown(2..4);
    world.assert_delivered(4..8);
    assert_eq!(world.history.records[2].corrected, Some(None));
    world.heal_and_check();
}

#[test]
fn gap_is_not_stamped_over() {
    let mut world = ready_world(no_retries(), Rules { late_arrival_percent: 0, ..Rules::default() });
    world.prime(0);
    world.inject(Fault::StallRequests { broker: 0, time: 500 * MS });
    world.publish(0, 3);
    world.advance_time(100 * MS);
    world.cut_connections(0);
    world.advance_time(20 * MS);
    world.publish(0, 2);
    world.settle_all();
    world.assert_unknown(2..4);
    world.assert_delivered(8..12);
    world.heal_and_check();
}

#[test]
fn failure_spares_other_partitions_stamps() {
    let mut world = ready_world(no_retries(), late_requests_arrive());
    world.prime(0);
    world.prime(3);
    world.partitions[0].refused = Some(29);
    world.publish(3, 4);
    world.publish(0, 4);
    world.advance_time(MS);
    world.cut_connections(0);
    world.settle_all();
    world.publish(0, 1);
    world.settle_all();
    assert!(world.history.epochs_of(0).len() > 1, "a failed batch raises the epoch of its partition");
    assert_eq!(world.history.epochs_of(3).into_iter().collect::<Vec<_>>(), [0], "other partitions keep their epoch");
    assert_eq!(world.history.stamps_of(3), 10, "each record keeps its first stamp");
    world.heal_and_check();
}

#[test]
fn slow_replicas_cost_no_retry() {
    let mut world = ready_world(Config::default(), Rules::default());
    world.prime(0);
    world.inject(Fault::SlowReplication { partition: 0, by: 6 * SECOND, time: 60 * SECOND });
    for _ in 0..5 {
        world.publish(0, 1);
        world.advance_time(500 * MS);
    }
    world.settle_all();
    world.assert_delivered(2..12);
    assert_eq!(world.sender.counters().batch_retries, 0);
    world.heal_and_check();
}

#[test]
fn throttled_connection_is_awaited() {
    let mut world = ready_world(Config::default(), Rules::default());
    world.prime(0);
    world.inject(Fault::Throttle { broker: 0, time: 15 * SECOND });
    world.publish(0, 8);
    world.settle_all();
    world.assert_delivered(2..18);
    assert_eq!(world.sender.counters().batch_retries, 0);
    world.heal_and_check();
}

#[test]
fn oversized_request_spares_other_batches() {
    let mut world = ready_world(Config::default(), Rules { request_max_bytes: 1000, ..Rules::default() });
    world.prime(0);
    world.prime(3);
    let records = vec![RecordPlan { has_key: true, padding: 1500 }];
    world.submit(&BatchPlan { records, ..BatchPlan::of(0, 1) }).unwrap();
    world.publish(3, 2);
    world.settle_all();
    world.assert_unknown(4..5);
    world.assert_delivered(5..9);
    world.heal_and_check();
}

/// The sender closes an idle connection before its broker does, and no batch is lost on the way.
#[test]
fn sender_closes_idle_connections_first() {
    // The waits begin well before the broker's limit, end well after it, and are dense close to it.
    let waits = (500..700).step_by(10).map(|s| s * SECOND).chain((595_000..605_000).step_by(20).map(|ms| ms * MS));
    for wait in waits {
        let mut world = ready_world(Config::default(), Rules::default());
        world.prime(0);
        world.advance_time(wait);
        world.publish(0, 3);
        world.advance_time(SECOND);
        world.assert_delivered(2..8);
        let retries = world.sender.counters().batch_retries;
        assert_eq!((retries, world.history.idle_closed), (0, 0), "after {} ms", wait / MS);
    }
}

/// The broker closes idle connections earlier than the sender expects.
#[test]
fn early_idle_close_loses_nothing() {
    for wait in (18_990..20_060).map(|ms| ms * MS) {
        let mut world = ready_world(Config::default(), Rules { idle_max: 19 * SECOND, ..late_requests_arrive() });
        world.prime(0);
        world.advance_time(wait);
        world.publish(0, 3);
        world.settle_all();
        world.assert_delivered(2..8);
        assert_eq!(world.leader_log(0), (0..8).collect::<Vec<_>>());
    }
}

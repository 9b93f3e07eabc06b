//! Answers that do not come, requests that come late, and brokers that are slow.

use kafka_courier_idempotent_sender::core::Config;

use super::{impatient, quiet, reads_on};
use crate::cluster::{MS, SECOND};
use crate::faults::Fault;
use crate::plan::{BatchPlan, RecordPlan, Rules};

#[test]
fn scenario_01_a_sole_broker_paused_past_the_give_up_writes_nothing_that_was_called_not_written() {
    let mut world = quiet(Config::default(), Rules { session_timeout: 1000 * SECOND, ..reads_on() });
    world.prime(0);
    world.strike(Fault::Pause { broker: 0, time: 80 * SECOND });
    world.publish(0, 8);
    world.pass(40 * SECOND);
    assert_eq!(world.sender.unsettled(), 0, "all is given up after delivery_timeout");
    world.assert_unknown(2..12);
    assert_eq!(world.log_of(0).len(), 2, "nothing but the first batch");
    world.judge();
    assert!(world.log_of(0).len() > 4, "what was sent before the give-up has landed, besides the last probe");
}

#[test]
fn scenario_02_five_lost_answers_and_a_leader_that_remembers_one_batch_end_delivered() {
    let mut world = quiet(Config::default(), Rules::default());
    world.prime(0);
    world.lose_answers(0, SECOND);
    world.publish(0, 5);
    world.pass(SECOND);
    world.strike(Fault::CleanRestart { broker: 1, down: 100 * MS });
    world.pass(4 * SECOND);
    world.strike(Fault::Elect { partition: 0, to: 1 });
    world.settle_all();
    assert_eq!(world.sender.counters().looks, 1, "one look, and the last batch sent again, prove all five");
    world.assert_delivered(2..12);
    world.judge();
}

#[test]
fn scenario_04_a_leader_that_forgets_the_id_while_nothing_is_sent_keeps_the_order_of_the_next_burst() {
    for lost in [false, true] {
        let mut world = quiet(Config::default(), Rules { id_expiration_ms: Some(120_000), ..Rules::default() });
        world.prime(0);
        world.pass(200 * SECOND);
        world.disturb(0, lost);
        world.publish(0, 5);
        world.settle_all();
        world.assert_delivered(0..12);
        world.judge();
    }
}

#[test]
fn scenario_04_a_leader_that_forgets_the_id_because_of_old_records_keeps_the_order_of_the_next_burst() {
    for lost in [false, true] {
        let mut world = quiet(Config::default(), Rules { id_expiration_ms: Some(120_000), ..Rules::default() });
        world.prime(0);
        world.submit(&BatchPlan { age_ms: 400_000, ..BatchPlan::of(0, 2) }).unwrap();
        world.pass(4 * SECOND);
        let id = world.history.newest_id_of(0);
        assert!(world.partitions[0].replicas[0].producers.get(id).is_none(), "the leader has forgotten the id");
        world.disturb(0, lost);
        world.publish(0, 5);
        world.settle_all();
        world.assert_delivered(0..14);
        assert_eq!(world.log_of(0), (0..14).collect::<Vec<_>>());
        world.judge();
    }
}

/// A batch of eight records whose first attempt arrives late, when it was split after an open attempt with this code, and
/// with so many batches behind it.
fn split_after_an_open_attempt(arrives: u64, code: i16, behind: usize) -> crate::world::World {
    let mut world = quiet(Config::default(), reads_on());
    world.prime(0);
    world.strike(Fault::Slow { broker: 0, time: MS, by: 2 * arrives });
    world.submit(&BatchPlan::of(0, 8)).unwrap();
    world.publish(0, behind);
    world.pass(5 * MS);
    world.cut_connections(0);
    world.strike(match code {
        10 => Fault::LimitMessage { partition: 0, bytes: 220, time: SECOND },
        _ => Fault::LimitSegment { partition: 0, bytes: 220, time: SECOND },
    });
    world.pass(200 * MS);
    world.lose_answers(0, 50 * MS);
    world.settle_all();
    world.assert_delivered(0..10 + 2 * behind);
    world
}

#[test]
fn scenario_07_a_batch_split_without_a_successor_is_written_once_whenever_the_whole_lands() {
    for arrives in (1..60).map(|n| n * 40 * MS) {
        let mut world = split_after_an_open_attempt(arrives, 10, 0);
        assert_eq!(world.log_of(0), (0..10).collect::<Vec<_>>(), "no acceptance behind it corrects a wrong verdict");
        world.judge();
    }
}

#[test]
fn scenario_07_a_batch_split_after_an_open_attempt_is_written_once_whenever_the_whole_lands() {
    for (arrives, code) in (1..60).flat_map(|n| [(n * 40 * MS, 10), (n * 40 * MS, 18)]) {
        split_after_an_open_attempt(arrives, code, 1).judge();
    }
}

#[test]
fn scenario_09_an_acceptance_behind_an_unknown_batch_corrects_its_letter() {
    let mut world = quiet(impatient(), Rules::default());
    world.prime(0);
    world.lose_answers(0, SECOND);
    world.publish(0, 3);
    world.settle_all();
    world.assert_unknown(2..4);
    world.assert_delivered(4..8);
    assert_eq!(world.history.records[2].corrected, Some(None));
    world.judge();
}

#[test]
fn scenario_09_a_gap_behind_an_unknown_batch_is_not_stamped_over() {
    let mut world = quiet(impatient(), Rules { reads_on: 0, ..Rules::default() });
    world.prime(0);
    world.strike(Fault::StallRequests { broker: 0, time: 500 * MS });
    world.publish(0, 3);
    world.pass(100 * MS);
    world.cut_connections(0);
    world.pass(20 * MS);
    world.publish(0, 2);
    world.settle_all();
    world.assert_unknown(2..4);
    world.assert_delivered(8..12);
    world.judge();
}

#[test]
fn scenario_10_giving_up_on_one_partition_leaves_the_stamps_of_another_alone() {
    let mut world = quiet(impatient(), reads_on());
    world.prime(0);
    world.prime(3);
    world.partitions[0].refused = Some(29);
    world.publish(3, 4);
    world.publish(0, 4);
    world.pass(MS);
    world.cut_connections(0);
    world.settle_all();
    world.publish(0, 1);
    world.settle_all();
    assert!(world.history.epochs_of(0).len() > 1, "the epoch was raised where a batch was given up");
    assert_eq!(world.history.epochs_of(3).into_iter().collect::<Vec<_>>(), [0], "and nowhere else");
    assert_eq!(world.history.stamps_of(3), 10, "each record has the stamp that it had at first");
    world.judge();
}

#[test]
fn scenario_14_slow_in_sync_replicas_are_no_lost_answers() {
    let mut world = quiet(Config::default(), Rules::default());
    world.prime(0);
    world.strike(Fault::SlowReplication { partition: 0, by: 6 * SECOND, time: 60 * SECOND });
    for _ in 0..5 {
        world.publish(0, 1);
        world.pass(500 * MS);
    }
    world.settle_all();
    world.assert_delivered(2..12);
    assert_eq!(world.sender.counters().batch_retries, 0);
    world.judge();
}

#[test]
fn scenario_14_a_throttled_connection_is_waited_for() {
    let mut world = quiet(Config::default(), Rules::default());
    world.prime(0);
    world.strike(Fault::Throttle { broker: 0, time: 15 * SECOND });
    world.publish(0, 8);
    world.settle_all();
    world.assert_delivered(2..18);
    assert_eq!(world.sender.counters().batch_retries, 0);
    world.judge();
}

#[test]
fn scenario_14_a_request_over_the_brokers_limit_does_not_condemn_its_neighbours() {
    let mut world = quiet(Config::default(), Rules { request_max_bytes: 1000, ..Rules::default() });
    world.prime(0);
    world.prime(3);
    let records = vec![RecordPlan { has_key: true, padding: 1500 }];
    world.submit(&BatchPlan { records, ..BatchPlan::of(0, 1) }).unwrap();
    world.publish(3, 2);
    world.settle_all();
    world.assert_unknown(4..5);
    world.assert_delivered(5..9);
    world.judge();
}

#[test]
fn scenario_14_no_batch_meets_a_connection_that_its_broker_closes_for_idleness() {
    // From well before the broker's limit to well past it, and close around it.
    let waits = (500..700).step_by(10).map(|s| s * SECOND).chain((595_000..605_000).step_by(20).map(|ms| ms * MS));
    for wait in waits {
        let mut world = quiet(Config::default(), Rules::default());
        world.prime(0);
        world.pass(wait);
        world.publish(0, 3);
        world.pass(SECOND);
        world.assert_delivered(2..8);
        let retries = world.sender.counters().batch_retries;
        assert_eq!((retries, world.history.idle_closed), (0, 0), "after {} ms", wait / MS);
    }
}

#[test]
fn scenario_14_a_connection_that_a_broker_closes_sooner_than_expected_costs_nothing_but_a_resend() {
    for wait in (18_990..20_060).map(|ms| ms * MS) {
        let mut world = quiet(Config::default(), Rules { idle_max: 19 * SECOND, ..reads_on() });
        world.prime(0);
        world.pass(wait);
        world.publish(0, 3);
        world.settle_all();
        world.assert_delivered(2..8);
        assert_eq!(world.log_of(0), (0..8).collect::<Vec<_>>());
    }
}

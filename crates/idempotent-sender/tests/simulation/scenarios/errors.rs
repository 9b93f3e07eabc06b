//! Scenarios of leaders that answer with errors before or after the append.

use kafka_courier_idempotent_sender::core::Config;

use super::{late_requests_arrive, no_retries, ready_world, with_delivery_timeout};
use crate::cluster::{Forced, MS, SECOND};
use crate::faults::Fault;
use crate::history::RecordVerdict;
use crate::plan::{BatchPlan, RecordPlan, Rules};

#[test]
fn first_refusal_keeps_order() {
    for code in [6, 19] {
        let mut world = ready_world(Config::default(), Rules::default());
        world.partitions[0].forced.push_back(Forced { code, appended: None });
        world.publish(0, 5);
        world.settle_all();
        world.assert_delivered(0..10);
        world.heal_and_check();
    }
}

#[test]
fn forced_errors_match_the_log() {
    for code in [6, 3, 7, 20, 56, -1] {
        for appended in [None, Some(true), Some(false)] {
            let mut world = ready_world(Config { retry_max: 0, ..with_delivery_timeout(3) }, Rules::default());
            world.prime(0);
            world.partitions[0].forced.extend(std::iter::repeat_n(Forced { code, appended }, 100));
            world.publish(0, 4);
            world.settle_all();
            if appended == Some(true) {
                let first = world.verdict(2);
                assert!(!matches!(first, Some(RecordVerdict::NotWritten(_))), "{code}, at its offset: {first:?}");
            }
            world.heal_and_check();
        }
    }
}

#[test]
fn retry_max_bounds_write_errors() {
    for retry_max in 0..5 {
        for errors in 0..6 {
            let mut world = ready_world(Config { retry_max, ..Config::default() }, Rules::default());
            world.prime(0);
            let forced = Forced { code: 2, appended: None };
            world.partitions[0].forced.extend(std::iter::repeat_n(forced, errors));
            world.publish(0, 1);
            world.settle_all();
            match errors > retry_max as usize {
                true => {
                    assert_eq!(world.verdict(2), Some(RecordVerdict::NotWritten(Some(2))), "{errors} of {retry_max}")
                }
                false => world.assert_delivered(2..4),
            }
        }
    }
}

#[test]
fn only_rejected_record_fails() {
    let mut world = ready_world(Config::default(), late_requests_arrive());
    world.prime(0);
    world.partitions[0].compacted = true;
    let mut records = BatchPlan::of(0, 4).records;
    records[1] = RecordPlan { has_key: false, padding: 3 };
    world.publish(0, 1);
    world.submit(&BatchPlan { records, ..BatchPlan::of(0, 4) }).unwrap();
    world.publish(0, 3);
    let waits = |world: &crate::world::World| world.verdict(5).is_none();
    assert!(world.run_while(world.now + SECOND, waits).unwrap(), "the rejected record has its verdict");
    world.cut_connections(0);
    world.settle_all();
    assert_eq!(world.verdict(5), Some(RecordVerdict::NotWritten(Some(87))));
    world.assert_delivered(2..5);
    world.assert_delivered(6..14);
    world.heal_and_check();
}

#[test]
fn later_refusal_proves_no_absence() {
    for code in [10, 19, 29, 32] {
        let mut world = ready_world(with_delivery_timeout(15), Rules::default());
        world.prime(0);
        world.lose_answers(0, 100 * MS);
        world.publish(0, 1);
        world.advance_time(100 * MS);
        world.inject(match code {
            10 => Fault::LimitMessage { partition: 0, bytes: 70, time: 60 * SECOND },
            _ => Fault::Refuse { partition: 0, code, time: 60 * SECOND },
        });
        world.publish(0, 1);
        world.settle_all();
        for record in 2..4 {
            assert!(
                !matches!(world.verdict(record), Some(RecordVerdict::NotWritten(_))),
                "{code}: {:?}",
                world.verdict(record)
            );
        }
        world.heal_and_check();
    }
}

#[test]
fn sequences_wrap_inside_a_batch() {
    let config = Config { first_sequence: i32::MAX - 6, ..Config::default() };
    let mut world = ready_world(config, late_requests_arrive());
    world.prime(0);
    world.inject(Fault::LimitMessage { partition: 0, bytes: 150, time: 2 * SECOND });
    world.publish(0, 1);
    world.submit(&BatchPlan::of(0, 6)).unwrap();
    world.publish(0, 5);
    world.advance_time(3 * MS);
    world.cut_connections(0);
    world.settle_all();
    assert!(world.sender.counters().sequence_wraps > 0 && world.sender.counters().splits > 0);
    world.assert_delivered(0..20);
    world.heal_and_check();
}

#[test]
fn exhausted_epochs_spare_other_partitions() {
    let mut world = ready_world(Config { first_epoch: i16::MAX, ..no_retries() }, late_requests_arrive());
    world.prime(0);
    world.prime(3);
    world.partitions[0].refused = Some(29);
    world.publish(3, 4);
    world.publish(0, 4);
    world.advance_time(2 * MS);
    world.cut_connections(0);
    world.settle_all();
    assert!(world.sender.counters().ids_exhausted > 0);
    world.heal_and_check();
}

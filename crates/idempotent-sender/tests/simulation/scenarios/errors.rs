//! Errors that leaders answer, before the append and after it.

use kafka_courier_idempotent_sender::core::Config;

use super::{impatient, quiet, reads_on, waits};
use crate::cluster::{Forced, MS, SECOND};
use crate::faults::Fault;
use crate::history::Told;
use crate::plan::{BatchPlan, RecordPlan, Rules};

#[test]
fn scenario_03_a_refusal_of_the_first_batch_of_a_new_id_keeps_the_order() {
    for code in [6, 19] {
        let mut world = quiet(Config::default(), Rules::default());
        world.partitions[0].forced.push_back(Forced { code, appended: None });
        world.publish(0, 5);
        world.settle_all();
        world.assert_delivered(0..10);
        world.judge();
    }
}

#[test]
fn scenario_05_verdicts_after_each_error_before_and_after_the_append_are_true_to_the_log() {
    for code in [6, 3, 7, 20, 56, -1] {
        for appended in [None, Some(true), Some(false)] {
            let mut world = quiet(Config { retry_max: 0, ..waits(3) }, Rules::default());
            world.prime(0);
            world.partitions[0].forced.extend(std::iter::repeat_n(Forced { code, appended }, 100));
            world.publish(0, 4);
            world.settle_all();
            if appended == Some(true) {
                let first = world.told(2);
                assert!(!matches!(first, Some(Told::NotWritten(_))), "{code}, at its offset: {first:?}");
            }
            world.judge();
        }
    }
}

#[test]
fn a_batch_survives_as_many_errors_of_the_write_as_retry_max_says_and_no_more() {
    for retry_max in 0..5 {
        for errors in 0..6 {
            let mut world = quiet(Config { retry_max, ..Config::default() }, Rules::default());
            world.prime(0);
            let forced = Forced { code: 2, appended: None };
            world.partitions[0].forced.extend(std::iter::repeat_n(forced, errors));
            world.publish(0, 1);
            world.settle_all();
            match errors > retry_max as usize {
                true => assert_eq!(world.told(2), Some(Told::NotWritten(Some(2))), "{errors} of {retry_max}"),
                false => world.assert_delivered(2..4),
            }
        }
    }
}

#[test]
fn scenario_06_the_guilty_record_alone_fails_and_the_rest_follows_once_and_in_order() {
    let mut world = quiet(Config::default(), reads_on());
    world.prime(0);
    world.partitions[0].compacted = true;
    let mut records = BatchPlan::of(0, 4).records;
    records[1] = RecordPlan { has_key: false, padding: 3 };
    world.publish(0, 1);
    world.submit(&BatchPlan { records, ..BatchPlan::of(0, 4) }).unwrap();
    world.publish(0, 3);
    let goes_on = |world: &crate::world::World| world.told(5).is_none();
    assert!(world.run_while(world.now + SECOND, goes_on).unwrap(), "the guilty record has its verdict");
    world.cut_connections(0);
    world.settle_all();
    assert_eq!(world.told(5), Some(Told::NotWritten(Some(87))));
    world.assert_delivered(2..5);
    world.assert_delivered(6..14);
    world.judge();
}

#[test]
fn scenario_08_a_written_batch_that_is_refused_later_is_never_called_not_written() {
    for code in [10, 19, 29, 32] {
        let mut world = quiet(waits(15), Rules::default());
        world.prime(0);
        world.lose_answers(0, 100 * MS);
        world.publish(0, 1);
        world.pass(100 * MS);
        world.strike(match code {
            10 => Fault::LimitMessage { partition: 0, bytes: 70, time: 60 * SECOND },
            _ => Fault::Refuse { partition: 0, code, time: 60 * SECOND },
        });
        world.publish(0, 1);
        world.settle_all();
        for record in 2..4 {
            assert!(!matches!(world.told(record), Some(Told::NotWritten(_))), "{code}: {:?}", world.told(record));
        }
        world.judge();
    }
}

#[test]
fn scenario_11_sequences_wrap_inside_a_batch_with_retries_a_split_and_a_full_window() {
    let config = Config { first_sequence: i32::MAX - 6, ..Config::default() };
    let mut world = quiet(config, reads_on());
    world.prime(0);
    world.strike(Fault::LimitMessage { partition: 0, bytes: 150, time: 2 * SECOND });
    world.publish(0, 1);
    world.submit(&BatchPlan::of(0, 6)).unwrap();
    world.publish(0, 5);
    world.pass(3 * MS);
    world.cut_connections(0);
    world.settle_all();
    assert!(world.sender.counters().sequence_wraps > 0 && world.sender.counters().splits > 0);
    world.assert_delivered(0..20);
    world.judge();
}

#[test]
fn scenario_11_the_last_epoch_of_one_partition_does_not_touch_the_others() {
    let mut world = quiet(Config { first_epoch: i16::MAX, ..impatient() }, reads_on());
    world.prime(0);
    world.prime(3);
    world.partitions[0].refused = Some(29);
    world.publish(3, 4);
    world.publish(0, 4);
    world.pass(2 * MS);
    world.cut_connections(0);
    world.settle_all();
    assert!(world.sender.counters().ids_exhausted > 0);
    world.judge();
}

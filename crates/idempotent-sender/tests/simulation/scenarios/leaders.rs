//! Leaders that move, and topics that are made anew.

use kafka_courier_idempotent_sender::core::Config;

use super::{quiet, reads_on};
use crate::cluster::{MS, SECOND};
use crate::faults::Fault;
use crate::history::Told;
use crate::log::SequenceRules;
use crate::plan::{BatchPlan, Rules};

#[test]
fn scenario_12_a_leader_that_moves_away_and_back_with_open_batches_on_both_keeps_all() {
    let mut older_hints = 0;
    for (slow, paused) in (0..20).flat_map(|n| [(n * 30 * MS, false), (n * 30 * MS, true)]) {
        let mut world = quiet(Config::default(), reads_on());
        world.prime(0);
        world.strike(Fault::Slow { broker: 0, time: 5 * SECOND, by: slow });
        world.publish(0, 5);
        world.pass(10 * MS);
        world.strike(Fault::Elect { partition: 0, to: 1 });
        if paused {
            world.strike(Fault::Pause { broker: 0, time: 3 * SECOND });
        }
        world.strike(Fault::LateNews { broker: 2, by: 400 * MS });
        world.pass(400 * MS);
        world.publish(0, 3);
        world.pass(10 * MS);
        world.strike(Fault::Elect { partition: 0, to: 0 });
        world.settle_all();
        world.assert_delivered(0..18);
        older_hints += world.history.older_hints;
        world.judge();
    }
    assert!(older_hints > 0, "some late answer hinted at a leader with an older epoch than the one known");
}

#[test]
fn scenario_12_a_former_leaders_late_success_of_a_batch_that_was_split_since_tells_where_each_half_is() {
    let mut told = 0;
    for seed in 0..20 {
        let mut world = quiet(Config::default(), reads_on());
        world.rng = crate::rng::Rng::new(seed);
        world.prime(0);
        world.prime(2);
        world.submit(&BatchPlan::of(0, 8)).unwrap();
        world.pass(0);
        world.strike(Fault::Slow { broker: 0, time: SECOND, by: 2 * SECOND });
        world.pass(30 * MS);
        world.strike(Fault::Elect { partition: 0, to: 1 });
        world.strike(Fault::LimitMessage { partition: 0, bytes: 220, time: 5 * SECOND });
        world.pass(60 * MS);
        // Whoever loses a connection asks who leads.
        world.cut_connections(2);
        world.settle_all();
        world.assert_delivered(4..12);
        let split = world.sender.counters().splits > 0;
        told += u32::from(split && (4..12).all(|record| matches!(world.told(record), Some(Told::Delivered(Some(_))))));
        world.judge();
    }
    assert!(told > 0, "in none the success came after the split");
}

/// An election that is not clean: what only the others had is lost, and the id is forgotten.
#[test]
fn scenario_04_an_unclean_leader_that_never_heard_of_the_id_keeps_the_order_of_the_next_burst() {
    for lost in [false, true] {
        let mut world = quiet(Config::default(), Rules { replica_lag_max: SECOND, ..Rules::default() });
        world.strike(Fault::Kill { broker: 1, down: 20 * SECOND });
        world.pass(12 * SECOND);
        (0..3).for_each(|_| world.prime(0));
        world.pass(10 * SECOND);
        // The replica is back, and has not fetched anything yet.
        world.partitions[0].replicas[1] = crate::cluster::Replica { incarnation: 1, ..Default::default() };
        world.change(0, |truth| truth.isr &= !(1 << 1));
        world.strike(Fault::ElectUncleanly { partition: 0, to: 1 });
        (0..3).for_each(|broker| world.learn_news(broker, 0));
        if lost {
            world.lose_answers(1, 100 * MS);
        }
        world.publish(0, 5);
        world.settle_all();
        world.assert_delivered(6..16);
        assert_eq!(world.log_of(0), (6..16).collect::<Vec<_>>(), "the first six are lost, the others in order");
        world.judge();
    }
}

#[test]
fn scenario_13_a_topic_made_anew_with_fewer_partitions_and_grown_again_is_written_by_its_count() {
    for by_id in [false, true] {
        let mut world = quiet(Config::default(), Rules { by_id, ..reads_on() });
        world.prime(2);
        world.strike(Fault::DeleteTopic { topic: 0 });
        world.pass(100 * MS);
        world.publish(2, 3);
        world.pass(200 * MS);
        world.strike(Fault::CreateTopic { topic: 0, partitions: 1 });
        world.settle_all();
        let told: Vec<_> = (2..8).map(|record| world.told(record)).collect();
        assert!(told.contains(&Some(Told::NotWritten(Some(3)))), "{told:?}");
        world.publish(2, 2);
        world.settle_all();
        world.assert_delivered(8..12);
        assert_eq!(world.log_of(0), (8..12).collect::<Vec<_>>(), "the only partition has them");
        world.strike(Fault::GrowTopic { topic: 0 });
        world.pass(400 * SECOND);
        world.publish(1, 2);
        world.settle_all();
        assert_eq!(world.log_of(1), (12..16).collect::<Vec<_>>());
        world.judge();
    }
}

/// A topic that is made anew while batches are published, for both rules of the first sequence: the last three are delivered.
fn made_anew(by_id: bool, slow: bool) {
    for first_must_be_zero in [false, true] {
        let sequence = SequenceRules { first_must_be_zero, old_codes: false };
        let mut world = quiet(Config::default(), Rules { by_id, sequence, ..reads_on() });
        world.prime(0);
        if slow {
            world.strike(Fault::Slow { broker: 0, time: SECOND, by: 200 * MS });
            world.publish(0, 5);
        }
        world.strike(Fault::DeleteTopic { topic: 0 });
        world.pass(300 * MS);
        world.strike(Fault::CreateTopic { topic: 0, partitions: 3 });
        world.publish(0, 3);
        world.settle_all();
        let first = world.history.records.len();
        world.publish(0, 3);
        world.settle_all();
        world.assert_delivered(first..first + 6);
        world.judge();
    }
}

#[test]
fn scenario_13_a_topic_made_anew_by_id_gives_every_record_a_true_verdict() {
    made_anew(true, true);
}

#[test]
fn scenario_13_a_topic_made_anew_by_name_is_written_to_again() {
    made_anew(false, false);
}

#[test]
fn a_kill_of_each_leader_and_a_rolling_restart_dead_letter_nothing_by_default() {
    for seed in 0..40 {
        let mut world = quiet(Config { seed, ..Config::default() }, Rules::default());
        world.rng = crate::rng::Rng::new(seed);
        for round in 0..6 {
            let broker = round % 3;
            let (publish, partition) = (world.rng.range(1..6) as usize, world.rng.index(6));
            (0..6).for_each(|p| world.publish(p, 2));
            world.publish(partition, publish);
            let at = world.rng.range(0..20 * MS);
            world.pass(at);
            let down = world.rng.range(1..12) * SECOND;
            world.strike(match round {
                0..3 => Fault::Kill { broker, down },
                _ => Fault::CleanRestart { broker, down },
            });
            (0..6).for_each(|p| world.publish(p, 2));
            world.pass(down + 8 * SECOND);
        }
        world.settle_all();
        let failed = world.history.records.iter().position(|r| !matches!(r.verdict, Some(Told::Delivered(_))));
        assert_eq!(failed.map(|record| (record, world.told(record))), None, "seed {seed}");
        world.judge();
    }
}

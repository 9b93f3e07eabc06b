//! Scenarios of moving leaders and recreated topics.

use kafka_courier_idempotent_sender::core::Config;

use super::{late_requests_arrive, ready_world};
use crate::cluster::{MS, SECOND};
use crate::faults::Fault;
use crate::history::RecordVerdict;
use crate::log::SequenceRules;
use crate::plan::{BatchPlan, Rules};

/// The leader moves while batches are open on both brokers.
#[test]
fn leader_moves_away_and_back() {
    let mut older_hints = 0;
    for (slow, paused) in (0..20).flat_map(|n| [(n * 30 * MS, false), (n * 30 * MS, true)]) {
        let mut world = ready_world(Config::default(), late_requests_arrive());
        world.prime(0);
        world.inject(Fault::Slow { broker: 0, time: 5 * SECOND, by: slow });
        world.publish(0, 5);
        world.advance_time(10 * MS);
        world.inject(Fault::Elect { partition: 0, to: 1 });
        if paused {
            world.inject(Fault::Pause { broker: 0, time: 3 * SECOND });
        }
        world.inject(Fault::LateUpdates { broker: 2, by: 400 * MS });
        world.advance_time(400 * MS);
        world.publish(0, 3);
        world.advance_time(10 * MS);
        world.inject(Fault::Elect { partition: 0, to: 0 });
        world.settle_all();
        world.assert_delivered(0..18);
        older_hints += world.history.older_hints;
        world.heal_and_check();
    }
    assert!(older_hints > 0, "no late answer named a leader with an older epoch");
}

/// A former leader reports the success of a batch that was split meanwhile. Each half gets its own offset.
#[test]
fn late_success_places_split_halves() {
    let mut placed = 0;
    for seed in 0..20 {
        let mut world = ready_world(Config::default(), late_requests_arrive());
        world.rng = crate::rng::Rng::new(seed);
        world.prime(0);
        world.prime(2);
        world.submit(&BatchPlan::of(0, 8)).unwrap();
        world.advance_time(0);
        world.inject(Fault::Slow { broker: 0, time: SECOND, by: 2 * SECOND });
        world.advance_time(30 * MS);
        world.inject(Fault::Elect { partition: 0, to: 1 });
        world.inject(Fault::LimitMessage { partition: 0, bytes: 220, time: 5 * SECOND });
        world.advance_time(60 * MS);
        // The loss of a connection makes the sender refresh its metadata.
        world.cut_connections(2);
        world.settle_all();
        world.assert_delivered(4..12);
        let split = world.sender.counters().splits > 0;
        placed += u32::from(
            split && (4..12).all(|record| matches!(world.verdict(record), Some(RecordVerdict::Delivered(Some(_))))),
        );
        world.heal_and_check();
    }
    assert!(placed > 0, "no success arrived after the split");
}

/// An unclean election loses the records that only the other replicas have. The new leader does not know the id.
#[test]
fn unclean_leader_keeps_burst_order() {
    for lost in [false, true] {
        let mut world = ready_world(Config::default(), Rules { replica_lag_max: SECOND, ..Rules::default() });
        world.inject(Fault::Kill { broker: 1, down: 20 * SECOND });
        world.advance_time(12 * SECOND);
        (0..3).for_each(|_| world.prime(0));
        world.advance_time(10 * SECOND);
        // The replica is back and has not fetched yet.
        world.partitions[0].replicas[1] = crate::cluster::Replica { incarnation: 1, ..Default::default() };
        world.change(0, |truth| truth.isr &= !(1 << 1));
        world.inject(Fault::ElectUncleanly { partition: 0, to: 1 });
        (0..3).for_each(|broker| world.apply_update(broker, 0));
        if lost {
            world.lose_answers(1, 100 * MS);
        }
        world.publish(0, 5);
        world.settle_all();
        world.assert_delivered(6..16);
        assert_eq!(world.leader_log(0), (6..16).collect::<Vec<_>>(), "the first six are lost, the others in order");
        world.heal_and_check();
    }
}

#[test]
fn recreated_topic_follows_partition_count() {
    for by_id in [false, true] {
        let mut world = ready_world(Config::default(), Rules { by_id, ..late_requests_arrive() });
        world.prime(2);
        world.inject(Fault::DeleteTopic { topic: 0 });
        world.advance_time(100 * MS);
        world.publish(2, 3);
        world.advance_time(200 * MS);
        world.inject(Fault::CreateTopic { topic: 0, partitions: 1 });
        world.settle_all();
        let verdicts: Vec<_> = (2..8).map(|record| world.verdict(record)).collect();
        assert!(verdicts.contains(&Some(RecordVerdict::NotWritten(Some(3)))), "{verdicts:?}");
        world.publish(2, 2);
        world.settle_all();
        world.assert_delivered(8..12);
        assert_eq!(world.leader_log(0), (8..12).collect::<Vec<_>>(), "the only partition has the records");
        world.inject(Fault::GrowTopic { topic: 0 });
        world.advance_time(400 * SECOND);
        world.publish(1, 2);
        world.settle_all();
        assert_eq!(world.leader_log(1), (12..16).collect::<Vec<_>>());
        world.heal_and_check();
    }
}

/// Recreates a topic while batches are published, under both rules of the first sequence. The last three batches are
/// delivered.
fn recreate_topic_under_load(by_id: bool, slow: bool) {
    for first_must_be_zero in [false, true] {
        let sequence = SequenceRules { first_must_be_zero, old_codes: false };
        let mut world = ready_world(Config::default(), Rules { by_id, sequence, ..late_requests_arrive() });
        world.prime(0);
        if slow {
            world.inject(Fault::Slow { broker: 0, time: SECOND, by: 200 * MS });
            world.publish(0, 5);
        }
        world.inject(Fault::DeleteTopic { topic: 0 });
        world.advance_time(300 * MS);
        world.inject(Fault::CreateTopic { topic: 0, partitions: 3 });
        world.publish(0, 3);
        world.settle_all();
        let first = world.history.records.len();
        world.publish(0, 3);
        world.settle_all();
        world.assert_delivered(first..first + 6);
        world.heal_and_check();
    }
}

#[test]
fn recreation_by_id_delivers_records() {
    recreate_topic_under_load(true, true);
}

#[test]
fn recreation_by_name_delivers_records() {
    recreate_topic_under_load(false, false);
}

/// Kills of each broker and a rolling restart fail no record under default settings.
#[test]
fn restarts_dead_letter_nothing() {
    for seed in 0..40 {
        let mut world = ready_world(Config { seed, ..Config::default() }, Rules::default());
        world.rng = crate::rng::Rng::new(seed);
        for round in 0..6 {
            let broker = round % 3;
            let (publish, partition) = (world.rng.range(1..6) as usize, world.rng.index(6));
            (0..6).for_each(|p| world.publish(p, 2));
            world.publish(partition, publish);
            let at = world.rng.range(0..20 * MS);
            world.advance_time(at);
            let down = world.rng.range(1..12) * SECOND;
            world.inject(match round {
                0..3 => Fault::Kill { broker, down },
                _ => Fault::CleanRestart { broker, down },
            });
            (0..6).for_each(|p| world.publish(p, 2));
            world.advance_time(down + 8 * SECOND);
        }
        world.settle_all();
        let failed = world.history.records.iter().position(|r| !matches!(r.verdict, Some(RecordVerdict::Delivered(_))));
        assert_eq!(failed.map(|record| (record, world.verdict(record))), None, "seed {seed}");
        world.heal_and_check();
    }
}

//! Scenarios of refused credentials, ending sessions, and fenced producer ids.

use std::time::Duration;

use kafka_courier_client::ErrorCode;
use kafka_courier_idempotent_sender::core::{Action, Config};

use super::ready_world;
use crate::cluster::{MS, SECOND};
use crate::faults::Fault;
use crate::history::RecordVerdict;
use crate::plan::{BatchPlan, RecordPlan, Rules};

/// Refused credentials fail the waiting records immediately. Later records are delivered once the broker accepts the
/// credentials again.
#[test]
fn refused_credentials_fail_waiting_records() {
    let mut world = ready_world(Config::default(), Rules::default());
    // All brokers still accept the credentials while the sender requests its producer id.
    world.sender.want_producer_id();
    world.advance_time(100 * MS);
    world.inject(Fault::RefuseCredentials { broker: 0, time: 3 * SECOND });
    world.publish(0, 3);
    world.publish(1, 1);
    world.advance_time(100 * MS);
    for record in 0..6 {
        assert_eq!(world.verdict(record), Some(RecordVerdict::NotWritten(Some(58))), "record {record}");
    }
    world.assert_delivered(6..8);
    world.publish(0, 1);
    world.advance_time(100 * MS);
    assert_eq!(world.verdict(8), Some(RecordVerdict::NotWritten(Some(58))), "during the backoff");
    world.advance_time(6 * SECOND);
    world.publish(0, 1);
    world.settle_all();
    world.assert_delivered(10..12);
    world.heal_and_check();
}

#[test]
fn refused_credentials_prove_no_absence() {
    for late_arrival_percent in [0, 100] {
        for wait in 0..20 {
            let mut world = ready_world(Config::default(), Rules { late_arrival_percent, ..Rules::default() });
            world.prime(0);
            world.publish(0, 5);
            world.advance_time(wait * MS / 4);
            world.inject(Fault::RefuseCredentials { broker: 0, time: 2 * SECOND });
            world.cut_connections(0);
            world.advance_time(500 * MS);
            world.publish(0, 2);
            world.advance_time(8 * SECOND);
            world.publish(0, 2);
            world.settle_all();
            world.heal_and_check();
        }
    }
}

#[test]
fn refused_metadata_fails_unknown_topics() {
    let mut world = ready_world(Config::default(), Rules::default());
    world.prime(0);
    // Partition 1 has no leader, and the sender does not know the topic "new".
    world.change(1, |truth| (truth.leader, truth.epoch) = (None, truth.epoch + 1));
    (0..3).for_each(|broker| world.apply_update(broker, 1));
    let now = world.instant();
    let cluster = world.metadata_of(0);
    world.deliver_metadata(cluster);
    world.sender.want_topic(now, "new");
    world.publish(1, 2);
    assert_eq!(world.sender.unsettled(), 4, "the records wait for a leader");
    world.refuse_metadata();
    let actions: Vec<_> = std::iter::from_fn(|| world.sender.poll(now)).collect();
    let failed: Vec<_> = actions.iter().filter_map(failed_topic).collect();
    assert_eq!(failed, [(2, Some(ErrorCode::SASL_AUTHENTICATION_FAILED))], "only the unknown topic fails");
    for action in actions.into_iter().filter(|action| failed_topic(action).is_none()) {
        world.perform(action).unwrap();
    }
    for record in 2..6 {
        assert_eq!(world.verdict(record), Some(RecordVerdict::NotWritten(Some(58))), "record {record} has no leader");
    }
    let asked = world.metadata_requests;
    world.publish(0, 1);
    world.settle_all();
    world.assert_delivered(0..2);
    world.assert_delivered(6..8);
    world.advance_time(60 * SECOND);
    assert_eq!(world.metadata_requests, asked, "no record needs metadata: no broker is asked again");
}

#[test]
fn sessions_are_replaced_under_load() {
    for session in [2, 5] {
        let rules = Rules { session: Some(session * SECOND), ..Rules::default() };
        let config = Config { delivery_timeout: Duration::from_secs(30), ..Config::default() };
        let mut world = ready_world(config, rules);
        for _ in 0..400 {
            (0..6).for_each(|partition| world.publish(partition, 1));
            world.advance_time(50 * MS);
        }
        world.settle_all();
        world.assert_delivered(0..4800);
        assert_eq!(world.sender.counters().batch_retries, 0, "a session of {session} s");
        assert_eq!(world.history.sessions_outlived, 0, "a session of {session} s");
        world.heal_and_check();
    }
}

fn failed_topic(action: &Action<usize>) -> Option<(u32, Option<ErrorCode>)> {
    match action {
        Action::TopicFailed { topic, reason } => Some((topic.0, reason.code())),
        _ => None,
    }
}

#[test]
fn refusal_blocks_further_connections() {
    let config = Config { connections_per_broker: 4, ..Config::default() };
    let mut world = ready_world(config, Rules::default());
    world.prime(0);
    world.inject(Fault::RefuseCredentials { broker: 0, time: 30 * SECOND });
    world.inject(Fault::Slow { broker: 0, time: 30 * SECOND, by: 40 * MS });
    // The load keeps one connection busy all the time. The model reports a connection attempt without backoff.
    for _ in 0..200 {
        let records = vec![RecordPlan { has_key: true, padding: u16::MAX }; 10];
        world.submit(&BatchPlan { records, ..BatchPlan::of(0, 10) }).unwrap();
        world.publish(3, 1);
        world.advance_time(50 * MS);
    }
    assert!(world.brokers[0].credentials_refused_at.is_some(), "the broker has refused a connection");
    world.settle_all();
    world.heal_and_check();
}

#[test]
fn fenced_id_is_replaced_in_order() {
    let mut world = ready_world(Config::default(), Rules::default());
    world.prime(0);
    let former = world.history.newest_id_of(0);
    world.inject(Fault::FenceId { partition: 0 });
    world.publish(0, 5);
    world.settle_all();
    world.assert_delivered(0..12);
    assert_eq!(world.leader_log(0), (0..12).collect::<Vec<_>>());
    assert!(world.history.newest_id_of(0) > former, "the sender uses another id");
    assert_eq!(world.sender.counters().fenced_ids_left, 1);
    world.heal_and_check();
}

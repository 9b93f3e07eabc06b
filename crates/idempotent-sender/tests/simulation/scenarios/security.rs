//! Brokers that do not take us, and sessions that end.

use std::time::Duration;

use kafka_courier_idempotent_sender::core::{Action, Config, ErrorCode};

use super::quiet;
use crate::cluster::{MS, SECOND};
use crate::faults::Fault;
use crate::history::Told;
use crate::plan::{BatchPlan, RecordPlan, Rules};

#[test]
fn refused_credentials_fail_what_waits_at_once_and_what_comes_later_is_delivered_when_they_are_taken_again() {
    let mut world = quiet(Config::default(), Rules::default());
    // Whichever broker is asked for the producer id takes us still.
    world.sender.want_producer_id();
    world.pass(100 * MS);
    world.strike(Fault::Distrust { broker: 0, time: 3 * SECOND });
    world.publish(0, 3);
    world.publish(1, 1);
    world.pass(100 * MS);
    for record in 0..6 {
        assert_eq!(world.told(record), Some(Told::NotWritten(Some(58))), "record {record}");
    }
    world.assert_delivered(6..8);
    world.publish(0, 1);
    world.pass(100 * MS);
    assert_eq!(world.told(8), Some(Told::NotWritten(Some(58))), "while the broker is left alone");
    world.pass(6 * SECOND);
    world.publish(0, 1);
    world.settle_all();
    world.assert_delivered(10..12);
    world.judge();
}

#[test]
fn refused_credentials_after_a_lost_connection_never_call_a_written_record_not_written() {
    for reads_on in [0, 100] {
        for wait in 0..20 {
            let mut world = quiet(Config::default(), Rules { reads_on, ..Rules::default() });
            world.prime(0);
            world.publish(0, 5);
            world.pass(wait * MS / 4);
            world.strike(Fault::Distrust { broker: 0, time: 2 * SECOND });
            world.cut_connections(0);
            world.pass(500 * MS);
            world.publish(0, 2);
            world.pass(8 * SECOND);
            world.publish(0, 2);
            world.settle_all();
            world.judge();
        }
    }
}

#[test]
fn refused_metadata_fails_what_needs_to_know_more_and_nothing_else() {
    let mut world = quiet(Config::default(), Rules::default());
    world.prime(0);
    // Partition 1 has no leader that anybody could name, and nobody has told of the topic "new".
    world.change(1, |truth| (truth.leader, truth.epoch) = (None, truth.epoch + 1));
    (0..3).for_each(|broker| world.learn_news(broker, 1));
    let now = world.instant();
    let cluster = world.metadata_of(0);
    world.tell_metadata(cluster);
    world.sender.want_topic(now, "new");
    world.publish(1, 2);
    assert_eq!(world.sender.unsettled(), 4, "they wait for a leader");
    world.metadata_refused();
    let actions: Vec<_> = std::iter::from_fn(|| world.sender.poll(now)).collect();
    let failed: Vec<_> = actions.iter().filter_map(failed_topic).collect();
    assert_eq!(failed, [(2, Some(ErrorCode::SASL_AUTHENTICATION_FAILED))], "the topic that nobody has told of");
    for action in actions.into_iter().filter(|action| failed_topic(action).is_none()) {
        world.act(action).unwrap();
    }
    for record in 2..6 {
        assert_eq!(world.told(record), Some(Told::NotWritten(Some(58))), "record {record}: it has no leader");
    }
    let asked = world.metadata_asked;
    world.publish(0, 1);
    world.settle_all();
    world.assert_delivered(0..2);
    world.assert_delivered(6..8);
    world.pass(60 * SECOND);
    assert_eq!(world.metadata_asked, asked, "nobody wants to know more: nobody is asked again");
}

#[test]
fn under_load_connections_are_replaced_before_their_sessions_end_and_no_batch_is_sent_twice() {
    for session in [2, 5] {
        let rules = Rules { session: Some(session * SECOND), ..Rules::default() };
        let config = Config { delivery_timeout: Duration::from_secs(30), ..Config::default() };
        let mut world = quiet(config, rules);
        for _ in 0..400 {
            (0..6).for_each(|partition| world.publish(partition, 1));
            world.pass(50 * MS);
        }
        world.settle_all();
        world.assert_delivered(0..4800);
        assert_eq!(world.sender.counters().batch_retries, 0, "a session of {session} s");
        assert_eq!(world.history.sessions_outlived, 0, "a session of {session} s");
        world.judge();
    }
}

fn failed_topic(action: &Action<usize>) -> Option<(u32, Option<ErrorCode>)> {
    match action {
        Action::TopicFailed { topic, reason } => Some((topic.0, reason.code())),
        _ => None,
    }
}

#[test]
fn a_broker_that_refused_a_second_connection_is_left_alone_whatever_the_first_answers() {
    let config = Config { connections_per_broker: 4, ..Config::default() };
    let mut world = quiet(config, Rules::default());
    world.prime(0);
    world.strike(Fault::Distrust { broker: 0, time: 30 * SECOND });
    world.strike(Fault::Slow { broker: 0, time: 30 * SECOND, by: 40 * MS });
    // So much at once that one connection is busy, again and again: the model tells who dials too soon.
    for _ in 0..200 {
        let records = vec![RecordPlan { has_key: true, padding: u16::MAX }; 10];
        world.submit(&BatchPlan { records, ..BatchPlan::of(0, 10) }).unwrap();
        world.publish(3, 1);
        world.pass(50 * MS);
    }
    assert!(world.brokers[0].distrusted_at.is_some(), "it was dialled, and has refused us");
    world.settle_all();
    world.judge();
}

#[test]
fn an_id_that_somebody_else_has_fenced_is_left_and_everything_goes_on_in_order() {
    let mut world = quiet(Config::default(), Rules::default());
    world.prime(0);
    let former = world.history.newest_id_of(0);
    world.strike(Fault::FenceId { partition: 0 });
    world.publish(0, 5);
    world.settle_all();
    world.assert_delivered(0..12);
    assert_eq!(world.log_of(0), (0..12).collect::<Vec<_>>());
    assert!(world.history.newest_id_of(0) > former, "under another id");
    assert_eq!(world.sender.counters().fenced_ids_left, 1);
    world.judge();
}

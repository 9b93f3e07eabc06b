//! Brokers that do not take us, and sessions that end.

use std::time::Duration;

use kafka_courier_idempotent_sender::core::{Config, ErrorCode, Reason};

use super::quiet;
use crate::cluster::{MS, SECOND};
use crate::faults::Fault;
use crate::history::Told;
use crate::plan::Rules;

#[test]
fn refused_credentials_fail_what_waits_at_once_and_what_comes_later_is_delivered_when_they_are_taken_again() {
    let mut world = quiet(Config::default(), Rules::default());
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
fn refused_metadata_fails_topics_that_are_not_known_and_nothing_else() {
    let mut world = quiet(Config::default(), Rules::default());
    world.prime(0);
    let asked = world.metadata_asked;
    let reason = Reason::Broker { code: ErrorCode(58), message: None };
    let now = world.instant();
    world.sender.on_metadata_refused(now, &reason);
    world.publish(0, 1);
    world.settle_all();
    world.assert_delivered(0..4);
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

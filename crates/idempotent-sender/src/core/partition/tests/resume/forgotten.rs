//! Leaders that may have forgotten: deleted records, clocks that jump or stop, and times that a broker refuses.

use super::*;

#[test]
fn deleted_records_show_no_absence() {
    for (search_from, log_start, is_sent) in
        [(None, 0, true), (None, 1, false), (Some(40), 40, true), (Some(40), 41, false)]
    {
        let mut bench = PartitionBench::new(Config::default());
        let (is_acknowledged, follows_unknown) = (false, false);
        let inherited =
            InheritedStamp { stamp: inherited(0), search_from, is_acknowledged, follows_unknown, leader_epoch: None };
        bench.submit_stored(0, 1, Some(StoredBatch { first: 0, topic: 0, life: 1, inherited: Some(inherited) }));
        bench.ask(StateLookupAnswer::NotKnown { log_start });
        bench.finish_search(&SearchAnswer::Unreadable);
        assert_eq!(bench.send_later().is_some(), is_sent, "{search_from:?} {log_start}");
    }
}

#[test]
fn deleted_records_need_right_to_read() {
    for (log_start, is_sent) in [(Some(0), true), (Some(1), false), (None, false)] {
        let mut bench = PartitionBench::new(Config::default());
        bench.inherit(&[1], 0, false);
        bench.ask(StateLookupAnswer::Unreadable { log_start });
        assert_eq!(bench.send_later().is_some(), is_sent, "{log_start:?}");
        assert_eq!(bench.outcomes().is_empty(), is_sent, "{log_start:?}");
    }
}

#[test]
fn suspension_forces_a_lookup() {
    let mut bench = PartitionBench::new(Config::default());
    bench.wall_clock = Some(1);
    bench.submit_new(0, 1);
    bench.send();
    bench.persist();
    let sent = bench.send().unwrap();
    bench.wall_clock = Some(24 * 60 * 60 * 1000);
    bench.lose(sent);
    bench.now += Duration::from_secs(1);
    bench.ask(NOT_KNOWN);
    assert!(bench.wanted().is_some(), "the leader may have forgotten the producer id");
}

#[test]
fn clock_jump_forces_a_lookup() {
    let mut bench = PartitionBench::new(Config::default());
    bench.wall_clock = Some(2);
    bench.submit_new(0, 1);
    bench.send();
    bench.persist();
    let sent = bench.send().unwrap();
    bench.decide(|partition, _| partition.on_clock_jump());
    bench.lose(sent);
    bench.now += Duration::from_secs(1);
    bench.ask(NOT_KNOWN);
    assert!(bench.wanted().is_some(), "the machine may have been suspended, and its clock set back");
}

#[test]
fn search_decides_nothing_in_flight() {
    let mut bench = PartitionBench::new(Config::default());
    bench.wall_clock = Some(2);
    (0..3).for_each(|ordinal| bench.submit_new(ordinal, 1));
    bench.send();
    bench.persist();
    let first = bench.send().unwrap();
    bench.accept(first, 40);
    let [second, third] = bench.send_all()[..] else { panic!() };
    bench.decide(|partition, _| partition.on_clock_jump());
    bench.lose(second);
    bench.now += Duration::from_secs(1);
    bench.ask(StateLookupAnswer::Producer { epoch: 0, last_sequence: 2, age: Duration::ZERO });
    bench.finish_search(&logged(1, 1, 41));
    bench.now += Duration::from_secs(1);
    assert!(bench.send().is_none());
    assert_eq!(bench.verdicts().len(), 2, "the third is in flight");
    bench.accept(third, 42);
    assert_eq!(bench.verdicts(), [(2, delivered(42))]);
}

#[test]
fn clock_jump_ends_pipelining() {
    let mut bench = PartitionBench::new(Config::default());
    (0..4).for_each(|ordinal| bench.submit_new(ordinal, 1));
    bench.send();
    bench.persist();
    let first = bench.send().unwrap();
    bench.accept(first, 40);
    bench.decide(|partition, _| partition.on_clock_jump());
    assert_eq!(bench.send_all().len(), 1, "the leader may have forgotten the producer id");
}

#[test]
fn wall_clock_shows_old_records() {
    let day = 24 * 60 * 60 * 1000;
    // The record has the timestamp 1. A machine that was suspended has another wall clock, and the same `now`.
    for (wall_clock, is_old) in [(1, false), (day, true), (0, true)] {
        let mut bench = PartitionBench::new(Config::default());
        bench.wall_clock = Some(wall_clock);
        bench.inherit(&[1], 0, false);
        bench.ask(NOT_KNOWN);
        bench.finish_search(&SearchAnswer::Unreadable);
        assert_eq!(bench.send_later().is_none(), is_old, "a leader forgets old records: {wall_clock}");
    }
}

#[test]
fn refused_times_hold_stored_batches() {
    for named in [vec![], vec![1], vec![0, 1]] {
        let mut bench = PartitionBench::new(Config::default());
        bench.submit_stored(0, 2, Some(StoredBatch { first: 0, topic: 0, life: 1, inherited: None }));
        bench.send();
        bench.persist();
        let (request, _) = bench.send().unwrap();
        let record_errors = named.iter().map(|index| (*index, Some("too old".into()))).collect();
        let answer = PartAnswer { code: ErrorCode::INVALID_TIMESTAMP.0, record_errors, ..PartAnswer::default() };
        bench.decide(|partition, cx| partition.on_answer(request, &answer, cx));
        let waits = bench.out.actions.iter().any(|action| matches!(action, Action::Waits { .. }));
        assert!(waits, "the wait is reported: {named:?}");
        assert!(bench.verdicts().is_empty(), "no stored event fails because of time: {named:?}");
        assert_eq!(bench.send_later(), Some(own(0, 0)));
    }
}

//! Batches of a durable log: those of an earlier process, and those that wait for durable stamps.

use super::lookup::logged;
use super::*;
use crate::core::effects::LookupTarget;
use crate::core::lookup::{LogSearchTarget, SearchAnswer};
use crate::core::types::{InheritedStamp, StampMove};

mod forgotten;
mod leader_epoch;
mod partial;

/// Returns a stamp of the earlier process. The producer id of this process is 7.
fn inherited(base_sequence: i32) -> Stamp {
    Stamp { producer_id: 3, epoch: 2, base_sequence }
}

fn own(epoch: i16, base_sequence: i32) -> Stamp {
    Stamp { producer_id: 7, epoch, base_sequence }
}

/// Returns a state of a leader that knows the earlier process.
fn state(epoch: i32, last_sequence: i32) -> StateLookupAnswer {
    StateLookupAnswer::Producer { epoch, last_sequence, age: Duration::ZERO }
}

impl PartitionBench {
    /// Submits batches of an earlier process with these numbers of records. The first one has the sequence number `first`.
    fn inherit(&mut self, records: &[usize], first: i32, is_acknowledged: bool) {
        let mut index = 0;
        for (ordinal, count) in (0..).zip(records) {
            let stamp = inherited(first).advance(index);
            let follows_unknown = self.follows_unknown;
            let inherited =
                Some(InheritedStamp { stamp, search_from: None, is_acknowledged, follows_unknown, leader_epoch: None });
            self.submit_stored(
                ordinal,
                *count,
                Some(StoredBatch { first: index.into(), topic: 0, life: 1, inherited }),
            );
            index += *count as u32;
        }
    }

    /// Submits a batch of one record that has no stamp yet.
    fn submit_new(&mut self, ordinal: u64, life: u64) {
        self.submit_stored(ordinal, 1, Some(StoredBatch { first: ordinal, topic: 0, life, inherited: None }));
    }

    /// Asks the leader, which must be what the partition waits for, and answers.
    fn ask(&mut self, answer: StateLookupAnswer) {
        assert!(self.send().is_none(), "the leader is asked first");
        self.answer_state(answer);
    }

    /// The leader knows nothing of the earlier process, and its log has nothing of it.
    fn ask_without_log(&mut self) {
        self.ask(NOT_KNOWN);
        self.finish_search(&SearchAnswer::Read(vec![]));
    }

    fn answer_state(&mut self, answer: StateLookupAnswer) {
        let look = self.partition.retry.pending_lookup().unwrap();
        self.decide(|partition, cx| partition.on_state_lookup(look, answer, cx));
    }

    /// Returns the target of the last lookup, if it is a log search.
    fn wanted(&mut self) -> Option<LogSearchTarget> {
        match self.out.lookups.pop().map(|request| request.target) {
            Some(LookupTarget::Log(wanted)) => Some(wanted),
            Some(LookupTarget::Producer(_)) | None => None,
        }
    }

    /// Sends after the backoff. Returns the stamp.
    fn send_later(&mut self) -> Option<Stamp> {
        self.now += Duration::from_secs(1);
        self.send().map(|(_, stamp)| stamp)
    }

    /// Makes the requested stamps durable and returns the request, without its id.
    fn persist(&mut self) -> Option<(u64, Stamp)> {
        let position = self.out.actions.iter().position(|action| matches!(action, Action::Persist(_)))?;
        let Some(Action::Persist(StampMove { id, from, stamp, .. })) = self.out.actions.remove(position) else {
            return None;
        };
        self.partition.on_persisted(id);
        Some((from, stamp))
    }
}

const WRITTEN: Verdict = Verdict::Delivered { base_offset: None, log_append_time: None };

#[test]
fn stamps_are_durable_before_sending() {
    let mut bench = PartitionBench::new(Config::default());
    bench.submit_new(0, 1);
    assert!(bench.send().is_none() && bench.send().is_none());
    assert_eq!((bench.persist(), bench.persist()), (Some((0, own(0, 0))), None), "requested once");
    assert_eq!(bench.send_later(), Some(own(0, 0)));
}

#[test]
fn raised_epoch_is_persisted() {
    let mut bench = PartitionBench::new(Config::default());
    (0..2).for_each(|ordinal| bench.submit_new(ordinal, 1));
    bench.send();
    bench.persist();
    let rejected = bench.send().unwrap();
    bench.fail(rejected, ErrorCode::INVALID_RECORD, -1);
    assert!(bench.send_later().is_none());
    assert_eq!(bench.persist(), Some((1, own(1, 0))));
    assert_eq!(bench.send_later(), Some(own(1, 0)));
}

#[test]
fn next_life_is_persisted() {
    let mut bench = PartitionBench::new(Config::default());
    (0..2).for_each(|ordinal| bench.submit_new(ordinal, ordinal));
    bench.send();
    bench.persist();
    let first = bench.send().unwrap();
    bench.accept(first, 40);
    assert!(bench.send().is_none(), "a later process would not know that the run goes on");
    assert_eq!(bench.persist(), Some((1, own(0, 1))));
    assert_eq!(bench.send_later(), Some(own(0, 1)));
}

#[test]
fn next_topic_number_is_persisted() {
    let mut bench = PartitionBench::new(Config::default());
    for topic in 0..2 {
        let stored = StoredBatch { first: 0, topic, life: 1, inherited: None };
        bench.submit_stored(topic.into(), 1, Some(stored));
    }
    bench.send();
    assert_eq!(bench.persist(), Some((0, own(0, 0))));
    let first = bench.send().unwrap();
    bench.accept(first, 40);
    assert!(bench.send().is_none(), "the log has no stamps under the other number");
    assert_eq!(bench.persist(), Some((0, own(0, 1))));
    assert_eq!(bench.send_later(), Some(own(0, 1)));
}

#[test]
fn each_leader_is_asked_again() {
    for (leader, epoch) in [(2, 6), (1, 6)] {
        let mut bench = PartitionBench::new(Config::default());
        bench.inherit(&[2, 3], 0, false);
        bench.ask_without_log();
        bench.decide(|partition, _| partition.adopt_leader(Some(BrokerId(leader)), Some(epoch)));
        bench.ask_without_log();
        assert_eq!(bench.send_later(), Some(inherited(0)));
    }
}

#[test]
fn state_decides_about_absent_batch() {
    for (first, answer, keeps_stamp) in [
        (4, state(2, 3), true),
        (4, state(2, 1), false),
        (0, state(1, 9), true),
        (4, state(1, 9), false),
        (0, NOT_KNOWN, true),
        (4, NOT_KNOWN, true),
        (4, UNREADABLE, true),
    ] {
        let mut bench = PartitionBench::new(Config::default());
        bench.inherit(&[2], first, false);
        match answer {
            NOT_KNOWN => bench.ask_without_log(),
            answer => bench.ask(answer),
        }
        let expected = keeps_stamp.then_some(inherited(first));
        assert_eq!(bench.send_later(), expected, "{first} {answer:?}");
        let persisted = (!keeps_stamp).then_some((0, own(0, 0)));
        assert_eq!(bench.persist(), persisted, "{first} {answer:?}");
    }
}

/// The leader may have a short `producer.id.expiration.ms`.
#[test]
fn unacknowledged_run_is_searched() {
    let mut bench = PartitionBench::new(Config::default());
    bench.inherit(&[2], 0, false);
    bench.ask(NOT_KNOWN);
    bench.finish_search(&logged(0, 2, 40));
    assert_eq!(bench.verdicts(), [(0, delivered(40))]);
    let mut bench = PartitionBench::new(Config::default());
    bench.inherit(&[2], 0, false);
    bench.ask(NOT_KNOWN);
    bench.finish_search(&SearchAnswer::Unreadable);
    assert_eq!(bench.send_later(), Some(inherited(0)));
}

#[test]
fn covered_batches_need_an_acceptance() {
    let mut bench = PartitionBench::new(Config::default());
    bench.inherit(&[2, 3], 0, false);
    bench.ask(state(2, 4));
    assert_eq!(bench.verdicts(), [], "the replicas may not have them");
    let last = bench.send().unwrap();
    assert_eq!(last.1, inherited(2), "only the last one is sent again");
    bench.accept(last, 50);
    assert_eq!(bench.verdicts(), [(0, WRITTEN), (1, delivered(50))]);
}

#[test]
fn partly_covered_batch_is_split() {
    let mut bench = PartitionBench::new(Config::default());
    bench.inherit(&[5], 0, false);
    bench.ask(state(2, 2));
    let rest = bench.send().unwrap();
    assert_eq!(rest.1, inherited(3));
    bench.accept(rest, 43);
    assert_eq!(bench.verdicts(), [(0, WRITTEN), (0, delivered(43))]);
}

#[test]
fn partly_logged_batch_is_split() {
    let mut bench = PartitionBench::new(Config::default());
    bench.inherit(&[5], 0, true);
    bench.ask(NOT_KNOWN);
    bench.finish_search(&logged(0, 3, 40));
    assert_eq!(bench.verdicts(), [(0, delivered(40))]);
    assert_eq!(bench.send_later(), Some(inherited(3)));
}

#[test]
fn forgotten_run_needs_whole_log() {
    let mut bench = PartitionBench::new(Config::default());
    bench.inherit(&[5], 0, true);
    bench.ask(NOT_KNOWN);
    let wanted = bench.wanted().unwrap();
    assert!(wanted.whole_log, "the batch may be behind the high watermark");
    assert_eq!((wanted.producer_id, wanted.epoch, wanted.last_sequence), (3, 2, 4));
}

#[test]
fn forgotten_run_keeps_stamps_until_refused() {
    let mut bench = PartitionBench::new(Config::default());
    bench.inherit(&[2], 4, true);
    bench.ask(NOT_KNOWN);
    bench.finish_search(&SearchAnswer::Read(vec![]));
    let sent = bench.send().unwrap();
    assert_eq!(sent.1, inherited(4), "a request of the dead process can still arrive");
    bench.fail(sent, ErrorCode::OUT_OF_ORDER_SEQUENCE_NUMBER, -1);
    bench.answer_state(NOT_KNOWN);
    bench.finish_search(&SearchAnswer::Read(vec![]));
    assert!(bench.send_later().is_none());
    assert_eq!(bench.persist(), Some((0, own(0, 0))));
}

#[test]
fn old_records_need_the_log() {
    for answer in [state(2, 1), NOT_KNOWN] {
        let mut bench = PartitionBench::new(Config::default());
        bench.aged = true;
        bench.inherit(&[2], 0, false);
        bench.ask(answer);
        assert!(bench.wanted().is_some(), "{answer:?}");
    }
    let mut bench = PartitionBench::new(Config::default());
    bench.aged = true;
    bench.inherit(&[2], 0, false);
    bench.ask(UNREADABLE);
    assert_eq!(bench.outcomes(), [FailedOutcome::Unknown]);
}

#[test]
fn old_gap_needs_the_log() {
    let mut bench = PartitionBench::new(Config::default());
    bench.inherit(&[2], 4, false);
    let age = crate::core::ID_MEMORY;
    bench.ask(StateLookupAnswer::Producer { epoch: 2, last_sequence: 1, age });
    assert!(bench.wanted().unwrap().whole_log, "the leader may have forgotten the id in between");
    bench.finish_search(&logged(4, 2, 40));
    assert_eq!(bench.verdicts(), [(0, delivered(40))]);
}

#[test]
fn fenced_run_is_searched() {
    let mut bench = PartitionBench::new(Config::default());
    bench.inherit(&[2, 3], 0, false);
    bench.ask(state(9, 0));
    assert!(bench.wanted().unwrap().whole_log);
    bench.finish_search(&logged(0, 2, 40));
    assert_eq!(bench.verdicts(), [(0, delivered(40))]);
    assert!(bench.send_later().is_none());
    assert_eq!(bench.persist(), Some((2, own(0, 0))), "no stamp of the run can enter any more");
}

#[test]
fn unreadable_duplicate_counts_as_appended() {
    let repeat = |code: ErrorCode| {
        let mut bench = PartitionBench::new(Config::default());
        bench.inherit(&[1, 1], 0, false);
        bench.ask(UNREADABLE);
        let first = bench.send().unwrap();
        bench.fail(first, code, -1);
        bench.answer_state(UNREADABLE);
        bench
    };
    let mut bench = repeat(ErrorCode::OUT_OF_ORDER_SEQUENCE_NUMBER);
    let next = bench.send().unwrap();
    assert_eq!((next.1, bench.verdicts()), (inherited(1), vec![]));
    bench.accept(next, 40);
    assert_eq!(bench.verdicts(), [(0, WRITTEN), (1, delivered(40))]);
    for code in [ErrorCode::INVALID_PRODUCER_EPOCH, ErrorCode::UNKNOWN_PRODUCER_ID] {
        assert_eq!(repeat(code).outcomes(), [FailedOutcome::Unknown], "{code} says nothing about earlier attempts");
    }
}

#[test]
fn rejected_inherited_batch_is_unknown() {
    let mut bench = PartitionBench::new(Config::default());
    bench.inherit(&[2], 0, false);
    bench.ask_without_log();
    let sent = bench.send().unwrap();
    bench.fail(sent, ErrorCode::INVALID_RECORD, -1);
    bench.answer_state(NOT_KNOWN);
    assert_eq!(bench.outcomes(), [FailedOutcome::Unknown], "a request of the dead process can still arrive");
}

#[test]
fn gap_behind_unknown_proves_nothing() {
    let mut bench = PartitionBench::new(Config::default());
    bench.inherit(&[1; 7], 0, false);
    bench.ask_without_log();
    let sent = bench.send().unwrap();
    bench.fail(sent, ErrorCode::INVALID_RECORD, -1);
    bench.answer_state(NOT_KNOWN);
    // The dead process had up to five batches in flight, and a late request for the first makes room for the others.
    for _ in 0..4 {
        let sent = bench.send().unwrap();
        bench.fail(sent, ErrorCode::OUT_OF_ORDER_SEQUENCE_NUMBER, -1);
        bench.answer_state(NOT_KNOWN);
    }
    assert_eq!(bench.outcomes(), [FailedOutcome::Unknown; 5]);
    let sent = bench.send().unwrap();
    bench.fail(sent, ErrorCode::OUT_OF_ORDER_SEQUENCE_NUMBER, -1);
    bench.answer_state(NOT_KNOWN);
    assert!(bench.send_later().is_none());
    assert_eq!(bench.persist(), Some((5, own(0, 0))), "no process had the sixth batch in flight");
}

#[test]
fn gap_of_earlier_process_proves_nothing() {
    let mut bench = PartitionBench::new(Config::default());
    bench.follows_unknown = true;
    bench.inherit(&[1; 7], 4, false);
    for _ in 0..5 {
        bench.ask(state(2, 1));
    }
    assert_eq!(bench.outcomes(), [FailedOutcome::Unknown; 5]);
    bench.ask(state(2, 1));
    assert!(bench.send_later().is_none());
    assert_eq!(bench.persist(), Some((5, own(0, 0))), "no process had the sixth batch in flight");
}

#[test]
fn old_gap_leaves_no_trust() {
    let mut bench = PartitionBench::new(Config::default());
    bench.aged = true;
    bench.inherit(&[1], 0, false);
    bench.aged = false;
    let stamp = inherited(1);
    let inherited =
        InheritedStamp { stamp, search_from: None, is_acknowledged: false, follows_unknown: false, leader_epoch: None };
    bench.submit_stored(1, 1, Some(StoredBatch { first: 1, topic: 0, life: 1, inherited: Some(inherited) }));
    bench.ask(UNREADABLE);
    bench.ask(state(2, 0));
    assert!(!bench.partition.leader.knew(3, bench.now), "it may have forgotten the id when the batch arrives");
}

#[test]
fn wrapped_number_begins_no_run() {
    let mut bench = PartitionBench::new(Config::default());
    bench.aged = true;
    bench.inherit(&[1], 0, false);
    let behind = state(2, i32::MAX - 9);
    bench.ask(behind);
    bench.finish_search(&SearchAnswer::Read(vec![]));
    let sent = bench.send().unwrap();
    bench.fail(sent, ErrorCode::OUT_OF_ORDER_SEQUENCE_NUMBER, -1);
    bench.answer_state(behind);
    bench.finish_search(&SearchAnswer::Read(vec![]));
    assert!(bench.send_later().is_none(), "the leader refuses the number permanently");
    assert_eq!(bench.persist(), Some((0, own(0, 0))));
}

#[test]
fn gap_behind_unknown_is_no_duplicate() {
    let mut bench = PartitionBench::new(Config::default());
    bench.inherit(&[1, 1], 0, false);
    bench.ask(UNREADABLE);
    let sent = bench.send().unwrap();
    bench.fail(sent, ErrorCode::INVALID_RECORD, -1);
    bench.answer_state(UNREADABLE);
    let sent = bench.send().unwrap();
    bench.fail(sent, ErrorCode::OUT_OF_ORDER_SEQUENCE_NUMBER, -1);
    bench.answer_state(UNREADABLE);
    assert_eq!(bench.outcomes(), [FailedOutcome::Unknown; 2]);
}

#[test]
fn missing_id_fails_no_window() {
    let mut bench = PartitionBench::new(Config::default());
    bench.inherit(&[1], 0, false);
    bench.submit_new(1, 2);
    bench.decide(|partition, cx| partition.fail_queue(&Reason::NoLeader, cx));
    assert_eq!(bench.partition.window[0].history.reason, None, "the batch has a producer id");
    assert_eq!(bench.partition.queue[0].history.reason, Some(Reason::NoLeader));
}

#[test]
fn new_batches_wait_for_inherited() {
    let mut bench = PartitionBench::new(Config::default());
    bench.inherit(&[1, 1], 0, false);
    (2..4).for_each(|ordinal| bench.submit_new(ordinal, 2));
    bench.ask_without_log();
    let first = bench.send().unwrap();
    bench.accept(first, 40);
    let second = bench.send().unwrap();
    assert!(bench.send().is_none());
    assert_eq!(bench.persist(), None, "a new producer id fences nothing");
    bench.accept(second, 41);
    assert!(bench.send().is_none());
    assert_eq!(bench.persist(), Some((2, own(0, 0))));
    assert_eq!(bench.send_later(), Some(own(0, 0)));
    assert!(bench.send().is_none(), "the leader knows the other producer id only");
}

#[test]
fn unconfirmed_inherited_batch_is_repeated() {
    let mut bench = PartitionBench::new(Config::default());
    bench.inherit(&[2], 0, false);
    bench.submit_new(1, 2);
    bench.ask(state(2, 1));
    assert_eq!(bench.send_later(), Some(inherited(0)), "the new batch proves nothing about it");
}

#[test]
fn stored_batch_outlasts_outages() {
    let mut bench = PartitionBench::new(Config { retry_max: 0, ..Config::default() });
    bench.submit_new(0, 1);
    bench.send();
    bench.persist();
    for code in [ErrorCode::CORRUPT_MESSAGE, ErrorCode::TOPIC_AUTHORIZATION_FAILED] {
        bench.now += Duration::from_secs(1);
        let sent = bench.send().unwrap();
        bench.fail(sent, code, -1);
    }
    bench.now += Duration::from_secs(1);
    let lost = bench.send().unwrap();
    bench.lose(lost);
    bench.now += bench.config.delivery_timeout * 2;
    bench.decide(|partition, cx| {
        partition.expire(None, cx);
        partition.refuse(&Reason::NoLeader, cx);
        partition.fail_queue(&Reason::NoLeader, cx);
    });
    assert_eq!(bench.verdicts(), []);
    bench.decide(|partition, cx| partition.fail_all(&Reason::Closed, cx));
    assert_eq!(bench.verdicts(), [(0, Verdict::Stored)]);
}

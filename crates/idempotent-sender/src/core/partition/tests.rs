//! One partition alone, where a rule is easier seen than in a whole schedule.

use std::time::{Duration, Instant};

use kafka_courier_batcher::{Accumulator, BufferPool, Compression, Limits, Record};

use super::*;
use crate::core::backoff::Chance;
use crate::core::config::Config;
use crate::core::effects::Effects;
use crate::core::look::LookAnswer;
use crate::core::types::{FailedOutcome, PartAnswer, TopicId};

mod look;

/// A partition with what surrounds it.
struct Bench {
    partition: Partition<u32>,
    config: Config,
    chance: Chance,
    out: Effects<u32>,
    now: Instant,
    requests: u64,
    submitted: u64,
    /// Whether what is submitted is old by its own timestamps.
    aged: bool,
}

impl Bench {
    fn new(config: Config) -> Self {
        let mut partition = Partition::new(PartitionId { topic: TopicId(0), index: 0 });
        partition.adopt_leader(Some(BrokerId(1)), 5);
        let (chance, out, now) = (Chance::new(1), Effects::new(), Instant::now());
        Self { partition, config, chance, out, now, requests: 0, submitted: 0, aged: false }
    }

    fn decide<R>(&mut self, decide: impl FnOnce(&mut Partition<u32>, &mut Context<'_, u32>) -> R) -> R {
        let Self { partition, config, chance, out, now, .. } = self;
        decide(partition, &mut Context { now: *now, config, chance, out, producer_id: Some(7) })
    }

    fn submit(&mut self, ordinal: u64, records: usize) {
        let limits = Limits { max_records: u32::MAX, max_bytes: 1 << 20, linger: Duration::ZERO };
        let mut accumulator = Accumulator::new(limits, Compression::None);
        let pool = BufferPool::new(0);
        for _ in 0..records {
            let record = Record { key: None, value: Some(b"value"), headers: &[], timestamp: 1 };
            accumulator.push(self.now, &record, &mut |_| true, &pool, || ()).unwrap();
        }
        let batch = accumulator.seal().unwrap().encode(&pool).batch;
        let uid = self.out.uid();
        let partition = self.partition.id;
        let token = self.submitted as u32;
        self.submitted += 1;
        let submission = Submission { partition, token, ordinal, published_at: self.now, batch, aged: self.aged };
        self.partition.enqueue(submission, uid);
    }

    fn send(&mut self) -> Option<(RequestId, Stamp)> {
        self.requests += 1;
        let request = RequestId(self.requests);
        let outgoing = self.decide(|partition, cx| partition.next_outgoing(request, cx))?;
        Some((request, outgoing.batch.current_stamp().unwrap()))
    }

    fn answer(&mut self, (request, _): (RequestId, Stamp), code: i16, base_offset: i64) {
        let answer = PartAnswer { code, base_offset, log_append_time: -1, ..PartAnswer::default() };
        self.decide(|partition, cx| partition.on_answer(request, &answer, cx));
    }

    fn lose(&mut self, (request, _): (RequestId, Stamp)) {
        self.decide(|partition, cx| {
            let current = partition.on_lost(request, true, &"lost".into());
            partition.after_loss(current, cx);
        });
    }

    /// Sends until the partition has nothing to send.
    fn send_all(&mut self) -> Vec<(RequestId, Stamp)> {
        std::iter::from_fn(|| self.send()).collect()
    }

    fn verdicts(&mut self) -> Vec<(u32, Verdict)> {
        let settled = std::mem::take(&mut self.out.actions).into_iter();
        settled
            .filter_map(|action| match action {
                Action::Settle(settlement) => Some((settlement.token, settlement.verdict)),
                _ => None,
            })
            .collect()
    }
}

fn delivered(at: i64) -> Verdict {
    Verdict::Delivered { base_offset: Some(at), log_append_time: None }
}

#[test]
fn one_batch_is_in_flight_until_the_leader_knows_the_stamp_and_five_from_then_on() {
    let mut bench = Bench::new(Config::default());
    (0..8).for_each(|ordinal| bench.submit(ordinal, 2));
    let first = bench.send().unwrap();
    assert!(bench.send().is_none());
    bench.answer(first, 0, 100);
    let sent: Vec<i32> = std::iter::from_fn(|| bench.send()).map(|(_, stamp)| stamp.base_sequence).collect();
    assert_eq!(sent, [2, 4, 6, 8, 10]);
    assert_eq!(bench.verdicts(), [(0, delivered(100))]);
}

#[test]
fn a_minute_of_silence_ends_what_the_leader_is_known_to_know() {
    let mut bench = Bench::new(Config::default());
    (0..4).for_each(|ordinal| bench.submit(ordinal, 1));
    let first = bench.send().unwrap();
    bench.answer(first, 0, 0);
    bench.now += Duration::from_secs(60);
    assert!(bench.send().is_some());
    assert!(bench.send().is_none());
}

#[test]
fn batches_leave_in_the_order_of_their_ordinals_however_they_come_in() {
    let mut bench = Bench::new(Config::default());
    bench.submit(1, 3);
    assert!(bench.send().is_none(), "ordinal 0 has not come yet");
    bench.submit(0, 2);
    let first = bench.send().unwrap();
    bench.answer(first, 0, 0);
    assert_eq!(bench.verdicts(), [(1, delivered(0))], "the second that was handed in has ordinal 0");
    assert_eq!(bench.send().unwrap().1.base_sequence, 2);
}

#[test]
fn an_older_leader_epoch_is_not_believed_unless_the_known_leader_has_failed_us_four_times() {
    let mut bench = Bench::new(Config::default());
    assert!(!bench.partition.adopt_leader(Some(BrokerId(2)), 4));
    for _ in 0..3 {
        bench.partition.doubt_leader();
        assert!(!bench.partition.adopt_leader(Some(BrokerId(2)), 4));
    }
    bench.partition.doubt_leader();
    assert!(bench.partition.adopt_leader(Some(BrokerId(2)), 4));
    assert_eq!(bench.partition.leader, Some(BrokerId(2)));
}

#[test]
fn what_a_former_topics_leader_failed_us_with_is_not_held_against_the_new_ones() {
    let mut bench = Bench::new(Config::default());
    (0..3).for_each(|_| bench.partition.doubt_leader());
    let told = Some(([2; 16], Some(BrokerId(2)), 5));
    bench.decide(|partition, cx| {
        partition.on_new_topic(NewTopic { reason: Reason::Closed, gone: None, told });
        partition.turn(cx)
    });
    bench.partition.doubt_leader();
    assert!(!bench.partition.adopt_leader(Some(BrokerId(1)), 4));
}

#[test]
fn a_former_leaders_late_refusal_leaves_nothing_open() {
    let mut bench = Bench::new(Config::default());
    bench.submit(0, 1);
    let first = bench.send().unwrap();
    bench.decide(|partition, _| partition.adopt_leader(Some(BrokerId(2)), 6));
    assert!(bench.partition.window[0].may_be_written());
    let second = bench.send().unwrap();
    assert_eq!(second.1, first.1, "the same stamp");
    bench.answer(first, 6, -1);
    bench.answer(second, 29, -1);
    let verdicts = bench.verdicts();
    let [(0, Verdict::Failed(failure))] = &verdicts[..] else { panic!("{verdicts:?}") };
    assert_eq!(failure.outcome, FailedOutcome::NotWritten);
}

#[test]
fn a_former_leaders_late_success_settles_the_batch() {
    let mut bench = Bench::new(Config::default());
    bench.submit(0, 1);
    let first = bench.send().unwrap();
    bench.decide(|partition, _| partition.adopt_leader(Some(BrokerId(2)), 6));
    bench.answer(first, 0, 9);
    assert_eq!(bench.verdicts(), [(0, delivered(9))]);
}

#[test]
fn a_late_success_of_a_batch_that_was_split_since_settles_both_halves_where_they_are() {
    let mut bench = Bench::new(Config::default());
    bench.submit(0, 5);
    let whole = bench.send().unwrap();
    bench.decide(|partition, _| partition.adopt_leader(Some(BrokerId(2)), 6));
    let again = bench.send().unwrap();
    bench.answer(again, 10, -1);
    assert_eq!(bench.partition.window.len(), 2, "it is split");
    bench.answer(whole, 0, 40);
    let front = bench.verdicts();
    assert_eq!(front.len(), 2, "{front:?}");
    assert_eq!((&front[0].1, &front[1].1), (&delivered(40), &delivered(43)));
}

#[test]
fn a_late_refusal_of_a_batch_that_was_split_since_leaves_nothing_open() {
    let mut bench = Bench::new(Config::default());
    bench.submit(0, 2);
    let whole = bench.send().unwrap();
    bench.decide(|partition, _| partition.adopt_leader(Some(BrokerId(2)), 6));
    let again = bench.send().unwrap();
    bench.answer(again, 10, -1);
    assert!(bench.partition.window.iter().all(Flight::may_be_written));
    bench.answer(whole, 6, -1);
    assert!(!bench.partition.window.iter().any(Flight::may_be_written));
}

#[test]
fn a_late_success_of_what_was_given_up_in_halves_corrects_both_where_they_are() {
    let mut bench = Bench::new(Config::default());
    bench.submit(0, 4);
    let whole = bench.send().unwrap();
    bench.decide(|partition, _| partition.adopt_leader(Some(BrokerId(2)), 6));
    let again = bench.send().unwrap();
    bench.answer(again, 10, -1);
    bench.now += bench.config.delivery_timeout;
    bench.decide(|partition, cx| partition.expire(None, cx));
    assert_eq!(bench.verdicts().len(), 2);
    bench.answer(whole, 0, 40);
    let corrected: Vec<_> = std::mem::take(&mut bench.out.actions)
        .into_iter()
        .filter_map(|action| match action {
            Action::Correct { base_offset, .. } => base_offset,
            _ => None,
        })
        .collect();
    assert_eq!(corrected, [40, 42]);
}

#[test]
fn a_late_success_settles_what_a_look_has_found_meanwhile() {
    let mut bench = Bench::new(Config::default());
    (0..4).for_each(|ordinal| bench.submit(ordinal, 1));
    let first = bench.send().unwrap();
    bench.answer(first, 0, 0);
    let sent = bench.send_all();
    bench.decide(|partition, _| partition.adopt_leader(Some(BrokerId(2)), 6));
    let again = bench.send().unwrap();
    bench.answer(again, 45, -1);
    let look = bench.partition.looking.unwrap().look;
    let answer = LookAnswer::Producer { epoch: 0, last_sequence: 3, age: Duration::ZERO };
    bench.decide(|partition, cx| partition.on_looked(look, answer, cx));
    assert_eq!(bench.partition.unconfirmed.len(), 2, "all but the last, which is asked for again");
    bench.verdicts();
    bench.answer(sent[1], 0, 2);
    assert_eq!(
        bench.verdicts(),
        [(1, Verdict::Delivered { base_offset: None, log_append_time: None }), (2, delivered(2))]
    );
    assert!(bench.partition.unconfirmed.is_empty());
}

#[test]
fn a_late_answer_of_an_earlier_look_is_not_taken_for_a_later_looks() {
    let mut bench = Bench::new(Config::default());
    bench.submit(0, 1);
    let acknowledged = bench.send().unwrap();
    bench.answer(acknowledged, 0, 0);
    bench.submit(1, 1);
    bench.send().unwrap();
    let mut looks = Vec::new();
    for leader in [2, 3] {
        bench.decide(|partition, _| partition.adopt_leader(Some(BrokerId(leader)), 4 + leader));
        let again = bench.send().unwrap();
        bench.answer(again, 45, -1);
        looks.push(bench.partition.looking.unwrap().look);
    }
    bench.verdicts();
    bench.decide(|partition, cx| partition.on_looked(looks[0], LookAnswer::Nothing, cx));
    assert_eq!(bench.verdicts(), [], "what the former leader has says nothing of this one");
    assert_eq!(bench.partition.looking.map(|looking| looking.look), Some(looks[1]));
    let found = LookAnswer::Producer { epoch: 0, last_sequence: 1, age: Duration::ZERO };
    bench.decide(|partition, cx| partition.on_looked(looks[1], found, cx));
    assert_eq!(bench.partition.unconfirmed.len(), 1);
}

#[test]
fn a_refusal_that_became_certain_while_its_batch_was_looked_for_is_decided_afresh() {
    let mut bench = Bench::new(Config::default());
    bench.submit(0, 3);
    let first = bench.send().unwrap();
    bench.decide(|partition, _| partition.adopt_leader(Some(BrokerId(2)), 6));
    let again = bench.send().unwrap();
    bench.answer(again, 87, -1);
    let look = bench.partition.looking.unwrap().look;
    bench.answer(first, 6, -1);
    bench.decide(|partition, cx| partition.on_looked(look, LookAnswer::Nothing, cx));
    assert_eq!(bench.verdicts(), [], "the leader names the guilty again, and only they fail");
    bench.now += Duration::from_secs(1);
    assert_eq!(bench.send().unwrap().1, first.1);
}

#[test]
fn what_runs_out_of_time_is_not_told_a_refusal_that_did_not_decide_about_it() {
    let mut bench = Bench::new(Config::default());
    (0..4).for_each(|ordinal| bench.submit(ordinal, 2));
    let first = bench.send().unwrap();
    bench.answer(first, 0, 0);
    bench.verdicts();
    for (sent, code) in bench.send_all().into_iter().zip([19, 87, 10]) {
        bench.answer(sent, code, -1);
    }
    bench.now += bench.config.delivery_timeout;
    bench.decide(|partition, cx| partition.expire(None, cx));
    let verdicts = bench.verdicts();
    assert_eq!(verdicts.len(), 3);
    for (token, verdict) in verdicts {
        let Verdict::Failed(failure) = verdict else { panic!("{token} was delivered") };
        assert!(failure.timed_out && failure.reason.is_retriable(), "{token}: {}", failure.reason);
    }
}

#[test]
fn the_halves_of_a_batch_that_run_out_of_time_are_not_told_that_they_are_too_large() {
    let mut bench = Bench::new(Config::default());
    bench.submit(0, 2);
    let whole = bench.send().unwrap();
    bench.answer(whole, 10, -1);
    bench.now += bench.config.delivery_timeout;
    bench.decide(|partition, cx| partition.expire(None, cx));
    for (_, verdict) in bench.verdicts() {
        let Verdict::Failed(failure) = verdict else { panic!("{verdict:?}") };
        assert!(failure.timed_out && failure.reason.is_retriable(), "{}", failure.reason);
    }
}

#[test]
fn what_is_lost_on_a_former_leaders_connection_does_not_disturb_the_new_leaders_pipeline() {
    let mut bench = Bench::new(Config::default());
    (0..2).for_each(|ordinal| bench.submit(ordinal, 1));
    let first = bench.send().unwrap();
    bench.answer(first, 0, 0);
    let former = bench.send().unwrap();
    bench.decide(|partition, _| partition.adopt_leader(Some(BrokerId(2)), 6));
    let again = bench.send().unwrap();
    bench.answer(again, 0, 1);
    (2..5).for_each(|ordinal| bench.submit(ordinal, 1));
    assert_eq!(bench.send_all().len(), 3);
    bench.lose(former);
    bench.submit(5, 1);
    assert!(bench.send().is_some(), "five may be under way at the new leader as before");
}

#[test]
fn the_halves_of_a_batch_whose_place_is_known_lie_one_behind_the_other() {
    let mut bench = Bench::new(Config::default());
    bench.submit(0, 5);
    bench.send().unwrap();
    bench.partition.window[0].prove(Proof::At(40, None));
    let uids = [bench.out.uid(), bench.out.uid()];
    let [front, back] = bench.partition.window[0].split(uids).unwrap().unwrap();
    let behind = i64::from(front.records.len());
    assert_eq!((front.proof, back.proof), (Proof::At(40, None), Proof::At(40 + behind, None)));
    assert_eq!(front.charge + back.charge, bench.partition.window[0].charge);
}

#[test]
fn what_is_given_up_while_its_answer_is_awaited_says_that_no_answer_came() {
    let mut bench = Bench::new(Config::default());
    bench.submit(0, 1);
    bench.send().unwrap();
    bench.now += bench.config.delivery_timeout;
    bench.decide(|partition, cx| partition.expire(None, cx));
    let Verdict::Failed(failure) = &bench.verdicts()[0].1 else { panic!("it was not delivered") };
    assert_eq!(failure.outcome, FailedOutcome::Unknown);
    assert!(failure.reason.to_string().starts_with("no answer from the broker"), "{}", failure.reason);
}

#[test]
fn only_the_last_of_the_given_up_are_remembered() {
    let mut bench = Bench::new(Config { retry_max: 0, ..Config::default() });
    for ordinal in 0..GIVEN_UP_REMEMBERED as u64 + 40 {
        bench.submit(ordinal, 1);
        let sent = bench.send().unwrap();
        bench.lose(sent);
    }
    assert_eq!(bench.partition.given_up.len(), GIVEN_UP_REMEMBERED);
    assert_eq!(bench.verdicts().len(), GIVEN_UP_REMEMBERED + 40);
}

#[test]
fn a_leader_may_have_forgotten_the_id_once_old_records_are_sent() {
    let mut bench = Bench::new(Config::default());
    bench.submit(0, 1);
    let first = bench.send().unwrap();
    bench.answer(first, 0, 0);
    assert!(bench.partition.leader_knew(7, bench.now));
    bench.aged = true;
    bench.submit(1, 1);
    let old = bench.send().unwrap();
    assert!(!bench.partition.leader_knew(7, bench.now), "it may be appended, and the id forgotten at once");
    bench.answer(old, 0, 1);
    assert!(!bench.partition.leader_knew(7, bench.now));
    bench.aged = false;
    (2..6).for_each(|ordinal| bench.submit(ordinal, 1));
    let next = bench.send().unwrap();
    assert!(bench.send().is_none(), "one in flight again");
    bench.answer(next, 0, 2);
    assert!(bench.partition.leader_knew(7, bench.now));
}

#[test]
fn an_unknown_verdict_says_where_a_later_check_begins_to_look() {
    let mut bench = Bench::new(Config::default());
    bench.partition.place.topic_uuid = [9; 16];
    (0..2).for_each(|ordinal| bench.submit(ordinal, 3));
    let first = bench.send().unwrap();
    bench.answer(first, 0, 40);
    let (_, stamp) = bench.send().unwrap();
    bench.decide(|partition, cx| partition.give_up_all(&Reason::Closed, cx));
    let (_, verdict) = bench.verdicts().pop().unwrap();
    let Verdict::Failed(failure) = verdict else { panic!("{verdict:?}") };
    assert_eq!((failure.outcome, failure.stamp), (FailedOutcome::Unknown, Some(stamp)));
    assert_eq!((failure.search_from, failure.topic_uuid), (Some(43), [9; 16]));
}

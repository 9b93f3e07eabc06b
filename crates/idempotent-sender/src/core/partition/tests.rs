//! Rules of one partition that are easier to see without a whole schedule.

use std::time::{Duration, Instant};

use kafka_courier_batcher::{Accumulator, BufferPool, Compression, Limits, Record, Stamp};
use kafka_courier_client::{ErrorCode, PartAnswer, TopicId};

use super::unknown::UNKNOWN_BATCHES_MAX;
use super::*;
use crate::core::backoff::JitterRng;
use crate::core::config::Config;
use crate::core::effects::Effects;
use crate::core::failure::FailedOutcome;
use crate::core::ids::RequestId;
use crate::core::lookup::StateLookupAnswer;
use crate::core::types::StoredBatch;

mod doubt;
mod lookup;
mod resume;
mod timestamps;

/// A leader that does not know the producer id, and whose log has all of its records.
const NOT_KNOWN: StateLookupAnswer = StateLookupAnswer::NotKnown { log_start: 0 };

/// A leader whose state is unreadable, and whose log has all of its records.
const UNREADABLE: StateLookupAnswer = StateLookupAnswer::Unreadable { log_start: Some(0) };

/// A partition, and its inputs and effects.
struct PartitionBench {
    partition: PartitionSender<u32>,
    config: Config,
    jitter: JitterRng,
    out: Effects<u32>,
    now: Instant,
    requests: u64,
    submitted: u64,
    /// Whether submitted records are old by their timestamps.
    aged: bool,
    /// Whether a batch before inherited ones failed as unknown.
    follows_unknown: bool,
    wall_clock: Option<i64>,
}

impl PartitionBench {
    fn new(config: Config) -> Self {
        let mut partition = PartitionSender::new(PartitionId { topic: TopicId(0), index: 0 });
        partition.adopt_leader(Some(BrokerId(1)), Some(5));
        let (jitter, out, now) = (JitterRng::new(1), Effects::new(), Instant::now());
        Self {
            partition,
            config,
            jitter,
            out,
            now,
            requests: 0,
            submitted: 0,
            aged: false,
            follows_unknown: false,
            wall_clock: None,
        }
    }

    fn decide<R>(&mut self, decide: impl FnOnce(&mut PartitionSender<u32>, &mut Context<'_, u32>) -> R) -> R {
        let Self { partition, config, jitter, out, now, wall_clock, .. } = self;
        let (now, wall_clock) = (*now, *wall_clock);
        decide(partition, &mut Context { now, wall_clock, config, jitter, out, producer_id: Some(7) })
    }

    fn submit(&mut self, ordinal: u64, records: usize) {
        self.submit_stored(ordinal, records, None);
    }

    fn submit_stored(&mut self, ordinal: u64, records: usize, stored: Option<StoredBatch>) {
        let limits = Limits { max_records: u32::MAX, max_bytes: 1 << 20, linger: Duration::ZERO };
        let mut accumulator = Accumulator::new(limits, Compression::None);
        let pool = BufferPool::new(0);
        for _ in 0..records {
            let record = Record { key: None, value: Some(b"value"), headers: &[], timestamp: 1 };
            accumulator.push(self.now, &record, &mut |_| true, &pool, || ()).unwrap();
        }
        let batch = accumulator.seal().unwrap().encode(&pool).batch;
        let uid = self.out.new_uid();
        let partition = self.partition.id;
        let token = self.submitted as u32;
        self.submitted += 1;
        let (published_at, aged, stored) = (self.now, self.aged, stored.map(Box::new));
        let submission = Submission { partition, token, ordinal, published_at, batch, aged, stored };
        self.partition.enqueue(submission, uid);
    }

    /// Sends the next batch. A requested leader epoch becomes durable first.
    fn send(&mut self) -> Option<(RequestId, Stamp)> {
        let sent = self.send_now();
        if sent.is_none() && self.persist_leader().is_some() { self.send() } else { sent }
    }

    /// Makes the requested leader epoch durable, and returns the epoch.
    fn persist_leader(&mut self) -> Option<i32> {
        let is_leader = |action: &Action<u32>| matches!(action, Action::PersistLeader(_));
        let position = self.out.actions.iter().position(is_leader)?;
        let Some(Action::PersistLeader(leader)) = self.out.actions.remove(position) else { return None };
        self.partition.on_persisted(leader.id);
        Some(leader.leader_epoch)
    }

    fn send_now(&mut self) -> Option<(RequestId, Stamp)> {
        self.requests += 1;
        let request = RequestId(self.requests);
        let outgoing = self.decide(|partition, cx| partition.next_outgoing(request, cx))?;
        Some((request, outgoing.batch.current_stamp().unwrap()))
    }

    /// Answers a batch with an error, and with an offset unless `base_offset` is negative.
    fn fail(&mut self, (request, _): (RequestId, Stamp), ErrorCode(code): ErrorCode, base_offset: i64) {
        let base_offset = Some(base_offset).filter(|offset| *offset >= 0);
        let answer = PartAnswer { code, base_offset, ..PartAnswer::default() };
        self.decide(|partition, cx| partition.on_answer(request, &answer, cx));
    }

    /// Answers a batch with a success.
    fn accept(&mut self, (request, _): (RequestId, Stamp), base_offset: i64) {
        let answer = PartAnswer { code: 0, base_offset: Some(base_offset), ..PartAnswer::default() };
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
fn acceptance_allows_five_in_flight() {
    let mut bench = PartitionBench::new(Config::default());
    (0..8).for_each(|ordinal| bench.submit(ordinal, 2));
    let first = bench.send().unwrap();
    assert!(bench.send().is_none());
    bench.accept(first, 100);
    let sent: Vec<i32> = std::iter::from_fn(|| bench.send()).map(|(_, stamp)| stamp.base_sequence).collect();
    assert_eq!(sent, [2, 4, 6, 8, 10]);
    assert_eq!(bench.verdicts(), [(0, delivered(100))]);
}

#[test]
fn idle_minute_ends_pipelining() {
    let mut bench = PartitionBench::new(Config::default());
    (0..4).for_each(|ordinal| bench.submit(ordinal, 1));
    let first = bench.send().unwrap();
    bench.accept(first, 0);
    bench.now += Duration::from_secs(60);
    assert!(bench.send().is_some());
    assert!(bench.send().is_none());
}

#[test]
fn batches_leave_by_ordinal() {
    let mut bench = PartitionBench::new(Config::default());
    bench.submit(1, 3);
    assert!(bench.send().is_none(), "ordinal 0 is missing");
    bench.submit(0, 2);
    let first = bench.send().unwrap();
    bench.accept(first, 0);
    assert_eq!(bench.verdicts(), [(1, delivered(0))], "the second submission has ordinal 0");
    assert_eq!(bench.send().unwrap().1.base_sequence, 2);
}

#[test]
fn four_failures_allow_older_epoch() {
    let mut bench = PartitionBench::new(Config::default());
    assert!(!bench.partition.adopt_leader(Some(BrokerId(2)), Some(4)));
    for _ in 0..3 {
        bench.partition.doubt_leader();
        assert!(!bench.partition.adopt_leader(Some(BrokerId(2)), Some(4)));
    }
    bench.partition.doubt_leader();
    assert!(bench.partition.adopt_leader(Some(BrokerId(2)), Some(4)));
    assert_eq!(bench.partition.leader(), Some(BrokerId(2)));
}

#[test]
fn recreated_topic_clears_leader_failures() {
    let mut bench = PartitionBench::new(Config::default());
    (0..3).for_each(|_| bench.partition.doubt_leader());
    let latest = LatestMetadata { uuid: Some([2; 16]), leader: Some(BrokerId(2)), leader_epoch: Some(5) };
    let latest_metadata = Some(latest);
    bench.decide(|partition, cx| {
        partition.on_topic_recreated(RecreatedTopic { reason: Reason::Closed, removed: None, latest_metadata });
        partition.switch_topic(cx)
    });
    bench.partition.doubt_leader();
    assert!(!bench.partition.adopt_leader(Some(BrokerId(1)), Some(4)));
}

#[test]
fn late_refusal_closes_the_attempt() {
    let mut bench = PartitionBench::new(Config::default());
    bench.submit(0, 1);
    let first = bench.send().unwrap();
    bench.decide(|partition, _| partition.adopt_leader(Some(BrokerId(2)), Some(6)));
    assert!(bench.partition.window[0].may_be_written());
    let second = bench.send().unwrap();
    assert_eq!(second.1, first.1, "the same stamp");
    bench.fail(first, ErrorCode::NOT_LEADER_OR_FOLLOWER, -1);
    bench.fail(second, ErrorCode::TOPIC_AUTHORIZATION_FAILED, -1);
    let verdicts = bench.verdicts();
    let [(0, Verdict::Failed(failure))] = &verdicts[..] else { panic!("{verdicts:?}") };
    assert_eq!(failure.outcome, FailedOutcome::NotWritten);
}

#[test]
fn late_acceptance_settles_the_batch() {
    let mut bench = PartitionBench::new(Config::default());
    bench.submit(0, 1);
    let first = bench.send().unwrap();
    bench.decide(|partition, _| partition.adopt_leader(Some(BrokerId(2)), Some(6)));
    bench.accept(first, 9);
    assert_eq!(bench.verdicts(), [(0, delivered(9))]);
}

#[test]
fn late_acceptance_settles_both_halves() {
    let mut bench = PartitionBench::new(Config::default());
    bench.submit(0, 5);
    let whole = bench.send().unwrap();
    bench.decide(|partition, _| partition.adopt_leader(Some(BrokerId(2)), Some(6)));
    let again = bench.send().unwrap();
    bench.fail(again, ErrorCode::MESSAGE_TOO_LARGE, -1);
    assert_eq!(bench.partition.window.len(), 2, "two halves");
    bench.accept(whole, 40);
    let front = bench.verdicts();
    assert_eq!(front.len(), 2, "{front:?}");
    assert_eq!((&front[0].1, &front[1].1), (&delivered(40), &delivered(43)));
}

#[test]
fn late_refusal_closes_both_halves() {
    let mut bench = PartitionBench::new(Config::default());
    bench.submit(0, 2);
    let whole = bench.send().unwrap();
    bench.decide(|partition, _| partition.adopt_leader(Some(BrokerId(2)), Some(6)));
    let again = bench.send().unwrap();
    bench.fail(again, ErrorCode::MESSAGE_TOO_LARGE, -1);
    assert!(bench.partition.window.iter().all(Flight::may_be_written));
    bench.fail(whole, ErrorCode::NOT_LEADER_OR_FOLLOWER, -1);
    assert!(!bench.partition.window.iter().any(Flight::may_be_written));
}

#[test]
fn late_acceptance_corrects_failed_halves() {
    let mut bench = PartitionBench::new(Config::default());
    bench.submit(0, 4);
    let whole = bench.send().unwrap();
    bench.decide(|partition, _| partition.adopt_leader(Some(BrokerId(2)), Some(6)));
    let again = bench.send().unwrap();
    bench.fail(again, ErrorCode::MESSAGE_TOO_LARGE, -1);
    bench.now += bench.config.delivery_timeout;
    bench.decide(|partition, cx| partition.expire(None, cx));
    assert_eq!(bench.verdicts().len(), 2);
    bench.accept(whole, 40);
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
fn late_acceptance_settles_unconfirmed_batches() {
    let mut bench = PartitionBench::new(Config::default());
    (0..4).for_each(|ordinal| bench.submit(ordinal, 1));
    let first = bench.send().unwrap();
    bench.accept(first, 0);
    let sent = bench.send_all();
    bench.decide(|partition, _| partition.adopt_leader(Some(BrokerId(2)), Some(6)));
    let again = bench.send().unwrap();
    bench.fail(again, ErrorCode::OUT_OF_ORDER_SEQUENCE_NUMBER, -1);
    let look = bench.partition.retry.pending_lookup().unwrap();
    let answer = StateLookupAnswer::Producer { epoch: 0, last_sequence: 3, age: Duration::ZERO };
    bench.decide(|partition, cx| partition.on_state_lookup(look, answer, cx));
    assert_eq!(bench.partition.unconfirmed.len(), 2, "all batches but the last, which is sent again");
    bench.verdicts();
    bench.accept(sent[1], 2);
    assert_eq!(
        bench.verdicts(),
        [(1, Verdict::Delivered { base_offset: None, log_append_time: None }), (2, delivered(2))]
    );
    assert!(bench.partition.unconfirmed.is_empty());
}

#[test]
fn late_lookup_answer_is_ignored() {
    let mut bench = PartitionBench::new(Config::default());
    bench.submit(0, 1);
    let acknowledged = bench.send().unwrap();
    bench.accept(acknowledged, 0);
    bench.submit(1, 1);
    bench.send().unwrap();
    let mut lookups = Vec::new();
    for leader in [2, 3] {
        bench.decide(|partition, _| partition.adopt_leader(Some(BrokerId(leader)), Some(4 + leader)));
        let again = bench.send().unwrap();
        bench.fail(again, ErrorCode::OUT_OF_ORDER_SEQUENCE_NUMBER, -1);
        lookups.push(bench.partition.retry.pending_lookup().unwrap());
    }
    bench.verdicts();
    bench.decide(|partition, cx| partition.on_state_lookup(lookups[0], NOT_KNOWN, cx));
    assert_eq!(bench.verdicts(), [], "the state of the former leader says nothing about this one");
    assert_eq!(bench.partition.retry.pending_lookup(), Some(lookups[1]));
    let found = StateLookupAnswer::Producer { epoch: 0, last_sequence: 1, age: Duration::ZERO };
    bench.decide(|partition, cx| partition.on_state_lookup(lookups[1], found, cx));
    assert_eq!(bench.partition.unconfirmed.len(), 1);
}

#[test]
fn certain_refusal_repeats_the_batch() {
    let mut bench = PartitionBench::new(Config::default());
    bench.submit(0, 3);
    let first = bench.send().unwrap();
    bench.decide(|partition, _| partition.adopt_leader(Some(BrokerId(2)), Some(6)));
    let again = bench.send().unwrap();
    bench.fail(again, ErrorCode::INVALID_RECORD, -1);
    let look = bench.partition.retry.pending_lookup().unwrap();
    bench.fail(first, ErrorCode::NOT_LEADER_OR_FOLLOWER, -1);
    bench.decide(|partition, cx| partition.on_state_lookup(look, NOT_KNOWN, cx));
    assert_eq!(bench.verdicts(), [], "the leader names the rejected records again, and only they fail");
    bench.now += Duration::from_secs(1);
    assert_eq!(bench.send().unwrap().1, first.1);
}

#[test]
fn timeout_reason_ignores_undecided_refusals() {
    let mut bench = PartitionBench::new(Config::default());
    (0..4).for_each(|ordinal| bench.submit(ordinal, 2));
    let first = bench.send().unwrap();
    bench.accept(first, 0);
    bench.verdicts();
    for (sent, code) in bench.send_all().into_iter().zip([
        ErrorCode::NOT_ENOUGH_REPLICAS,
        ErrorCode::INVALID_RECORD,
        ErrorCode::MESSAGE_TOO_LARGE,
    ]) {
        bench.fail(sent, code, -1);
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
fn timed_out_halves_are_retriable() {
    let mut bench = PartitionBench::new(Config::default());
    bench.submit(0, 2);
    let whole = bench.send().unwrap();
    bench.fail(whole, ErrorCode::MESSAGE_TOO_LARGE, -1);
    bench.now += bench.config.delivery_timeout;
    bench.decide(|partition, cx| partition.expire(None, cx));
    for (_, verdict) in bench.verdicts() {
        let Verdict::Failed(failure) = verdict else { panic!("{verdict:?}") };
        assert!(failure.timed_out && failure.reason.is_retriable(), "{}", failure.reason);
    }
}

#[test]
fn former_leader_loss_keeps_pipelining() {
    let mut bench = PartitionBench::new(Config::default());
    (0..2).for_each(|ordinal| bench.submit(ordinal, 1));
    let first = bench.send().unwrap();
    bench.accept(first, 0);
    let former = bench.send().unwrap();
    bench.decide(|partition, _| partition.adopt_leader(Some(BrokerId(2)), Some(6)));
    let again = bench.send().unwrap();
    bench.accept(again, 1);
    (2..5).for_each(|ordinal| bench.submit(ordinal, 1));
    assert_eq!(bench.send_all().len(), 3);
    bench.lose(former);
    bench.submit(5, 1);
    assert!(bench.send().is_some(), "the new leader still allows five in flight");
}

#[test]
fn halves_have_consecutive_offsets() {
    let mut bench = PartitionBench::new(Config::default());
    bench.submit(0, 5);
    bench.send().unwrap();
    bench.partition.window[0].prove(Proof::At(Some(40), None));
    let uids = [bench.out.new_uid(), bench.out.new_uid()];
    let [front, back] = bench.partition.window[0].split(uids).unwrap().unwrap();
    let skipped = i64::from(front.records.len());
    assert_eq!((front.proof, back.proof), (Proof::At(Some(40), None), Proof::At(Some(40 + skipped), None)));
    assert_eq!(front.charge + back.charge, bench.partition.window[0].charge);
}

#[test]
fn unanswered_timeout_names_missing_answer() {
    let mut bench = PartitionBench::new(Config::default());
    bench.submit(0, 1);
    bench.send().unwrap();
    bench.now += bench.config.delivery_timeout;
    bench.decide(|partition, cx| partition.expire(None, cx));
    let Verdict::Failed(failure) = &bench.verdicts()[0].1 else { panic!("it was not delivered") };
    assert_eq!(failure.outcome, FailedOutcome::Unknown);
    assert!(failure.reason.to_string().starts_with("no answer from the broker"), "{}", failure.reason);
}

#[test]
fn unknown_batches_are_bounded() {
    let mut bench = PartitionBench::new(Config { retry_max: 0, ..Config::default() });
    for ordinal in 0..UNKNOWN_BATCHES_MAX as u64 + 40 {
        bench.submit(ordinal, 1);
        let sent = bench.send().unwrap();
        bench.lose(sent);
    }
    assert_eq!(bench.partition.unknown_batches.len(), UNKNOWN_BATCHES_MAX);
    assert_eq!(bench.verdicts().len(), UNKNOWN_BATCHES_MAX + 40);
}

#[test]
fn old_records_end_pipelining() {
    let mut bench = PartitionBench::new(Config::default());
    bench.submit(0, 1);
    let first = bench.send().unwrap();
    bench.accept(first, 0);
    assert!(bench.partition.leader.knew(7, bench.now));
    bench.aged = true;
    bench.submit(1, 1);
    let old = bench.send().unwrap();
    assert!(!bench.partition.leader.knew(7, bench.now), "it may be appended, and the id forgotten right after");
    bench.accept(old, 1);
    assert!(!bench.partition.leader.knew(7, bench.now));
    bench.aged = false;
    (2..6).for_each(|ordinal| bench.submit(ordinal, 1));
    let next = bench.send().unwrap();
    assert!(bench.send().is_none(), "only one in flight");
    bench.accept(next, 2);
    assert!(bench.partition.leader.knew(7, bench.now));
}

#[test]
fn unknown_verdict_has_search_offset() {
    let mut bench = PartitionBench::new(Config::default());
    bench.partition.on_topic_id(Some([9; 16]), bench.now);
    (0..2).for_each(|ordinal| bench.submit(ordinal, 3));
    let first = bench.send().unwrap();
    bench.accept(first, 40);
    let (_, stamp) = bench.send().unwrap();
    bench.decide(|partition, cx| partition.fail_all(&Reason::Closed, cx));
    let (_, verdict) = bench.verdicts().pop().unwrap();
    let Verdict::Failed(failure) = verdict else { panic!("{verdict:?}") };
    assert_eq!((failure.outcome, failure.stamp), (FailedOutcome::Unknown, Some(stamp)));
    assert_eq!((failure.search_from, failure.topic_uuid), (Some(43), Some([9; 16])));
}

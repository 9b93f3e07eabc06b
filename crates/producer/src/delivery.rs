//! What a publisher holds of an event that was accepted: a place in a batch, and the batch's verdicts.
//!
//! Rules:
//! - One shared state and one wake-up per batch; a [`Delivery`] is a reference to it and an index.
//! - Every record of a batch gets exactly one verdict, whatever becomes of the producer: when the last
//!   owner of a batch goes without giving one, the rest settles as failed.

use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, Waker};

use crate::error::DeliveryError;
use crate::ledger::Ledger;
use crate::sync::Mutex;
use crate::trace::{self, Origin};
use kafka_courier_dlq::{Letter, LetterId};
use kafka_courier_idempotent_sender::core::{FailedOutcome, Failure, PartitionId, Reason, RecordSet, Verdict};
use kafka_courier_idempotent_sender::driver::Command;
use tokio::sync::mpsc::WeakUnboundedSender;
use tracing::Span;

/// Where a delivered event is.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct RecordMetadata {
    /// The topic.
    pub topic: Arc<str>,
    /// The partition.
    pub partition: i32,
    /// The offset. `None` where it is proved that the record is in the log, but not where: all answers
    /// that would have told it were lost.
    pub offset: Option<i64>,
    /// The record's timestamp in milliseconds since 1970-01-01 UTC: the publisher's, or the broker's
    /// where the topic uses LogAppendTime.
    pub timestamp: i64,
}

/// A batch, as those who wait for its verdicts see it.
#[derive(Debug)]
pub(crate) struct BatchState {
    /// The batch's own copy of the name: whoever counts references to it shares the count with no other batch's threads.
    topic: Arc<str>,
    partition: i32,
    /// The batch's number among all of the producer's.
    pub(crate) number: u64,
    /// The verdict, where all records got the same at once: read without the lock.
    whole: OnceLock<Verdict>,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    /// How many records it has; known once it is sealed.
    total: Option<u32>,
    /// Records that the sender has decided on; those that failed are settled once their letters are kept.
    decided: u32,
    settled: u32,
    verdicts: Vec<(RecordSet, Verdict)>,
    /// The letters of records that were given up as unknown.
    letters: Vec<(u32, LetterId)>,
    /// Records that are dead letters sent again: the letters as they were before.
    replayed: Vec<(u32, Arc<Letter>)>,
    /// All that have no verdict of their own.
    rest: Option<Arc<Failure>>,
    wakers: Vec<Waker>,
    /// How the sender learns that somebody waits; there as long as the batch is open and nobody does.
    hurry: Option<Hurry>,
    /// The batch's `send` span, until its last verdict.
    span: Option<Span>,
}

/// Tells the sender of a batch that somebody waits for it. It does not keep the sender waiting for more to come.
#[derive(Debug)]
pub(crate) struct Hurry {
    pub(crate) commands: WeakUnboundedSender<Command<Token>>,
    pub(crate) partition: PartitionId,
    pub(crate) ordinal: u64,
}

impl Hurry {
    fn tell(self) {
        let Self { commands, partition, ordinal } = self;
        if let Some(commands) = commands.upgrade() {
            // If the sender is gone the batch settles with its owners' going.
            let _ = commands.send(Command::Expedite { partition, ordinal });
        }
    }
}

/// What the accumulator and the sender hold of a batch.
#[derive(Clone, Debug)]
pub(crate) struct Token(Arc<Owner>);

#[derive(Debug)]
struct Owner {
    state: Arc<BatchState>,
    ledger: Arc<Ledger>,
}

/// What ended with a verdict.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Ended {
    /// The sender has decided on every record of the batch.
    pub(crate) decided: bool,
    /// Every record of the batch was told its verdict.
    pub(crate) settled: bool,
}

/// What was still wanting when a batch lost its last owner.
struct Abandoned {
    undecided: bool,
    unsettled: bool,
}

impl Drop for Owner {
    fn drop(&mut self) {
        let abandoned = self.state.abandon();
        if abandoned.undecided {
            self.ledger.decide();
        }
        if abandoned.unsettled {
            self.ledger.strike(self.state.number);
        }
    }
}

impl Token {
    /// The token of a new batch, entered in the ledger.
    pub(crate) fn new(topic: &str, partition: i32, ledger: &Arc<Ledger>, origin: &Origin) -> Self {
        let span = Some(trace::send_span(topic, partition, origin)).filter(|span| !span.is_disabled());
        let (topic, number, inner) = (topic.into(), ledger.enter(), Mutex::new(Inner { span, ..Inner::default() }));
        let state = Arc::new(BatchState { topic, partition, number, whole: OnceLock::new(), inner });
        Self(Arc::new(Owner { state, ledger: ledger.clone() }))
    }

    pub(crate) fn state(&self) -> &Arc<BatchState> {
        &self.0.state
    }
}

impl BatchState {
    pub(crate) fn topic(&self) -> &Arc<str> {
        &self.topic
    }

    /// The batch holds the event of this `create` span.
    pub(crate) fn follows(&self, created: &Span) {
        if !created.is_disabled()
            && let Some(span) = &self.inner.lock().span
        {
            span.follows_from(created);
        }
    }

    /// Says how to tell the sender that somebody waits.
    pub(crate) fn opened(&self, hurry: Hurry) {
        self.inner.lock().hurry = Some(hurry);
    }

    /// Says how many records the batch has.
    pub(crate) fn sealed(&self, total: u32) {
        let mut inner = self.inner.lock();
        inner.total = Some(total);
        inner.hurry = None;
        if let Some(span) = &inner.span {
            span.record("messaging.batch.message_count", total);
        }
    }

    /// Notes that the sender has decided on some records, whose verdict is told later. Returns whether those were the
    /// last that it had to decide on.
    pub(crate) fn decide(&self, records: u32) -> bool {
        let mut inner = self.inner.lock();
        inner.decided += records;
        Some(inner.decided) == inner.total
    }

    /// Tells a verdict that was just decided, and wakes those who wait.
    pub(crate) fn settle(&self, records: RecordSet, verdict: Verdict) -> Ended {
        self.tell(records, verdict, true)
    }

    /// Tells a verdict that was noted by [`decide`](Self::decide) before.
    pub(crate) fn settle_decided(&self, records: RecordSet, verdict: Verdict) -> Ended {
        self.tell(records, verdict, false)
    }

    fn tell(&self, records: RecordSet, verdict: Verdict, decide: bool) -> Ended {
        let mut inner = self.inner.lock();
        if decide {
            inner.decided += records.len();
        }
        inner.settled += records.len();
        if let Some(span) = &inner.span {
            trace::note_verdict(span, &records, &verdict);
        }
        if Some(records.len()) == inner.total {
            let _ = self.whole.set(verdict.clone()); // the first that all of them got stays
        }
        inner.verdicts.push((records, verdict));
        let decided = decide && Some(inner.decided) == inner.total;
        let settled = Some(inner.settled) == inner.total;
        let ended = inner.span.take_if(|_| settled);
        let wakers = std::mem::take(&mut inner.wakers);
        drop(inner);
        drop(ended);
        wakers.into_iter().for_each(Waker::wake);
        Ended { decided, settled }
    }

    /// Notes that a record is a dead letter sent again.
    pub(crate) fn note_replay(&self, index: u32, letter: Arc<Letter>) {
        self.inner.lock().replayed.push((index, letter));
    }

    /// The records of the batch that are dead letters sent again, with the letters as they were before.
    pub(crate) fn replayed(&self) -> Vec<(u32, Arc<Letter>)> {
        self.inner.lock().replayed.clone()
    }

    /// Notes the dead letters of some records, for a later correction.
    pub(crate) fn keep_letters(&self, letters: impl IntoIterator<Item = (u32, LetterId)>) {
        self.inner.lock().letters.extend(letters);
    }

    /// The dead letters of these records; they are forgotten.
    pub(crate) fn take_letters(&self, records: &RecordSet) -> Vec<(u32, LetterId)> {
        let letters = &mut self.inner.lock().letters;
        letters.extract_if(.., |(index, _)| position(records, *index).is_some()).collect()
    }

    /// Nobody is left to give a verdict.
    fn abandon(&self) -> Abandoned {
        let mut inner = self.inner.lock();
        let undecided = Some(inner.decided) != inner.total;
        if Some(inner.settled) == inner.total {
            return Abandoned { undecided, unsettled: false };
        }
        inner.rest = Some(Arc::new(Failure::untried(FailedOutcome::Unknown, Reason::Closed)));
        let wakers = std::mem::take(&mut inner.wakers);
        let ended = inner.span.take();
        drop(inner);
        drop(ended);
        wakers.into_iter().for_each(Waker::wake);
        Abandoned { undecided, unsettled: true }
    }

    /// What became of a record, if that is known.
    fn result(&self, inner: &Inner, index: u32, timestamp: i64) -> Option<Result<RecordMetadata, DeliveryError>> {
        let found = inner.verdicts.iter().find_map(|(set, verdict)| position(set, index).map(|at| (at, verdict)));
        match found {
            Some((at, verdict)) => Some(self.told(verdict, index, at, timestamp)),
            None => inner.rest.as_ref().map(|failure| Err(self.error(failure, index))),
        }
    }

    /// A verdict as the record of this index sees it, which has that place among those that it is about.
    fn told(&self, verdict: &Verdict, index: u32, at: u32, timestamp: i64) -> Result<RecordMetadata, DeliveryError> {
        match verdict {
            Verdict::Delivered { base_offset, log_append_time } => Ok(RecordMetadata {
                topic: self.topic.clone(),
                partition: self.partition,
                offset: base_offset.map(|base| base + i64::from(at)),
                timestamp: log_append_time.unwrap_or(timestamp),
            }),
            Verdict::Failed(failure) => Err(self.error(failure, index)),
        }
    }

    fn error(&self, failure: &Arc<Failure>, index: u32) -> DeliveryError {
        DeliveryError::new(self.topic.clone(), self.partition, failure.clone(), index)
    }
}

/// A record's place within a set, if it belongs to it.
fn position(set: &RecordSet, index: u32) -> Option<u32> {
    match set {
        RecordSet::Range(range) => range.contains(&index).then(|| index - range.start),
        RecordSet::List(list) => list.binary_search(&index).ok().and_then(|at| u32::try_from(at).ok()),
    }
}

/// The verdict to come on one event that was accepted.
///
/// Await it for `Ok` (in the log of every in-sync replica) or the error with which it was given up. While somebody awaits
/// an event its batch does not sit out `flush_timeout`: it leaves as soon as nothing before it of its partition is on its
/// way (the option `expedite`).
/// Letting it go costs nothing and changes nothing: say so with [`detach`](Self::detach).
///
/// Cancel safety: dropping it, at any time, loses only the answer. It may be polled from any task, outlive
/// the producer, and be asked again after it was ready.
#[derive(Clone, Debug)]
#[must_use = "a delivery tells what became of the event; `.detach()` says that nobody wants to know"]
pub struct Delivery {
    state: Arc<BatchState>,
    index: u32,
    timestamp: i64,
}

impl Delivery {
    pub(crate) fn new(state: Arc<BatchState>, index: u32, timestamp: i64) -> Self {
        Self { state, index, timestamp }
    }

    /// Its event is the one of this `create` span.
    pub(crate) fn follows(&self, created: &Span) {
        self.state.follows(created);
    }

    /// Lets it go: the event is delivered, or given up, all the same.
    pub fn detach(self) {}

    /// The verdict, if it is there already.
    pub fn now(&self) -> Option<Result<RecordMetadata, DeliveryError>> {
        self.of_whole().or_else(|| self.under_lock())
    }

    /// The verdict, if the whole batch got it at once: its records are at the places of their indexes.
    fn of_whole(&self) -> Option<Result<RecordMetadata, DeliveryError>> {
        self.state.whole.get().map(|verdict| self.state.told(verdict, self.index, self.index, self.timestamp))
    }

    fn under_lock(&self) -> Option<Result<RecordMetadata, DeliveryError>> {
        self.state.result(&self.state.inner.lock(), self.index, self.timestamp)
    }

    /// The topic that the event goes to.
    pub fn topic(&self) -> &str {
        &self.state.topic
    }

    /// The partition that the event goes to.
    pub fn partition(&self) -> i32 {
        self.state.partition
    }
}

impl Future for Delivery {
    type Output = Result<RecordMetadata, DeliveryError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        if let Some(result) = self.of_whole() {
            return Poll::Ready(result);
        }
        let mut inner = self.state.inner.lock();
        if let Some(result) = self.state.result(&inner, self.index, self.timestamp) {
            return Poll::Ready(result);
        }
        // One task that awaits many of a batch registers once in a row.
        if !inner.wakers.last().is_some_and(|last| last.will_wake(cx.waker())) {
            inner.wakers.push(cx.waker().clone());
        }
        let hurry = inner.hurry.take();
        drop(inner);
        hurry.into_iter().for_each(Hurry::tell);
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn delivered(base_offset: i64) -> Verdict {
        Verdict::Delivered { base_offset: Some(base_offset), log_append_time: None }
    }

    fn batch(records: u32) -> (Token, Vec<Delivery>) {
        let token = Token::new("t", 3, &Arc::default(), &Origin::default());
        token.state().sealed(records);
        let deliveries = (0..records).map(|i| Delivery::new(token.state().clone(), i, 7)).collect();
        (token, deliveries)
    }

    #[test]
    fn each_record_of_a_batch_has_its_own_offset() {
        let (token, deliveries) = batch(3);
        assert!(token.state().settle(RecordSet::Range(0..3), delivered(40)).settled);
        let offsets: Vec<_> = deliveries.iter().map(|d| d.now().unwrap().unwrap().offset.unwrap()).collect();
        assert_eq!(offsets, [40, 41, 42]);
    }

    #[test]
    fn the_parts_of_a_batch_settle_apart() {
        let (token, deliveries) = batch(4);
        assert!(!token.state().settle(RecordSet::List(vec![0, 2, 3]), delivered(10)).settled);
        assert_eq!(deliveries[2].now().unwrap().unwrap().offset, Some(11));
        assert!(deliveries[1].now().is_none());
        assert!(token.state().settle(RecordSet::List(vec![1]), delivered(99)).settled);
    }

    #[test]
    fn what_is_decided_first_and_told_later_ends_twice() {
        let (token, _deliveries) = batch(3);
        let state = token.state();
        assert!(!state.decide(1));
        assert_eq!(state.settle(RecordSet::Range(1..3), delivered(5)), Ended { decided: true, settled: false });
        assert_eq!(state.settle_decided(RecordSet::Range(0..1), delivered(4)), Ended { decided: false, settled: true });
    }

    #[test]
    fn a_batch_that_nobody_owns_any_more_settles_as_unknown() {
        let (token, deliveries) = batch(2);
        let other = token.clone();
        drop(token);
        assert!(deliveries[0].now().is_none());
        drop(other);
        let error = deliveries[0].now().unwrap().unwrap_err();
        assert_eq!(error.outcome(), FailedOutcome::Unknown);
    }

    #[test]
    fn a_batch_that_nobody_owns_any_more_is_struck_out_of_the_ledger() {
        let ledger = Arc::new(Ledger::default());
        let token = Token::new("t", 0, &ledger, &Origin::default());
        assert!(!ledger.is_decided());
        drop(token);
        assert!(ledger.is_decided());
    }

    #[tokio::test]
    async fn everyone_who_waits_is_woken_once_the_verdict_is_there() {
        let (token, deliveries) = batch(2);
        let waiting: Vec<_> = deliveries.into_iter().map(|delivery| tokio::spawn(delivery)).collect();
        tokio::task::yield_now().await;
        token.state().settle(RecordSet::Range(0..2), delivered(0));
        for task in waiting {
            task.await.unwrap().unwrap();
        }
    }
}

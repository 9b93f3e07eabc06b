//! [`Delivery`], the future of one event's verdict, and the state of its batch.
//!
//! The rules of this module:
//!  - A batch has one shared state and one set of wakers. A [`Delivery`] is a reference to that state, and an index.
//!  - A batch of a producer with a spool is reported as stored once, before its verdict.
//!  - Every record of a batch gets exactly one verdict, whatever happens to the producer. The records without a
//!    verdict fail as unknown when the last owner of the batch is dropped.

mod stored;
mod token;

use std::any::Any;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, Waker};

use crate::error::DeliveryError;
use crate::ledger::BatchLedger;
use crate::spool::RequestKey;
use crate::sync::Mutex;
use crate::trace::{self, EventTrace};
use kafka_courier_client::{PartitionId, Reason};
use kafka_courier_idempotent_sender::core::{FailedOutcome, Failure, RecordSet, Verdict};
use kafka_courier_idempotent_sender::driver::DriverCommand;
use kafka_courier_spool::core::inputs::{InputNumber, ItemSet};
use tokio::sync::mpsc::WeakUnboundedSender;
use tracing::Span;

use stored::StoreState;
pub use stored::Stored;
pub(crate) use stored::{StoreRequest, StoredIdentity};

/// The place of a delivered event in the log.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct RecordMetadata {
    /// The topic.
    pub topic: Arc<str>,
    /// The partition.
    pub partition: i32,
    /// The offset. `None` if the record is certainly in the log at an unknown offset, because every answer with the
    /// offset was lost.
    pub offset: Option<i64>,
    /// The record's timestamp in milliseconds since 1970-01-01 UTC: the publisher's, or the broker's if the topic uses
    /// `LogAppendTime`.
    pub timestamp: i64,
}

/// A value that a [`FailureSink`](crate::FailureSink) attaches to a record. The engine does not read it.
pub type Tag = Arc<dyn Any + Send + Sync>;

/// The state of a batch, shared by its deliveries and its owners.
#[derive(Debug)]
pub(crate) struct BatchState {
    /// A copy of the name for this batch, so that threads of different batches do not contend for one reference count.
    topic: Arc<str>,
    partition: i32,
    /// The batch's number in the producer's ledger.
    pub(crate) number: u64,
    /// The verdict, if all records got the same one in one call. Read without the lock.
    common: OnceLock<Verdict>,
    inner: Mutex<BatchInner>,
}

#[derive(Debug, Default)]
struct BatchInner {
    /// The number of records, known once the batch is sealed.
    total: Option<u32>,
    /// Records that the sender has decided on. A failed record is settled by the failure sink.
    decided: u32,
    settled: u32,
    verdicts: Vec<(RecordSet, Verdict)>,
    /// The failure sink's notes on records that failed as unknown.
    notes: Vec<(u32, Tag)>,
    /// Tagged records.
    tags: Vec<(u32, Tag)>,
    /// The failure of all records that have no verdict.
    fallback: Option<Arc<Failure>>,
    wakers: Vec<Waker>,
    /// The request to expedite the batch. Present while the batch is open and no delivery was polled.
    expedite_request: Option<ExpediteRequest>,
    /// The batch's `send` span, until its last verdict.
    span: Option<Span>,
    store: StoreState,
    /// The tasks that wait until the batch is stored.
    store_wakers: Vec<Waker>,
    /// The items of the records, for each input.
    items: Vec<(InputNumber, ItemSet)>,
    /// The indexes of the records that are items.
    item_records: Vec<u32>,
    /// The keys of the records that have one.
    keys: Vec<(u32, RequestKey)>,
}

/// A request to the sender to expedite a batch. The request holds the command channel weakly, so that it does not keep
/// the sender running.
#[derive(Debug)]
pub(crate) struct ExpediteRequest {
    pub(crate) commands: WeakUnboundedSender<DriverCommand<Token>>,
    pub(crate) partition: PartitionId,
    pub(crate) ordinal: u64,
}

impl ExpediteRequest {
    fn send(self) {
        let Self { commands, partition, ordinal } = self;
        if let Some(commands) = commands.upgrade() {
            // If the sender is gone, dropping the batch's owners settles the batch.
            let _ = commands.send(DriverCommand::Expedite { partition, ordinal });
        }
    }
}

/// The handle of a batch's owners, the accumulator and the sender. The records without a verdict fail as unknown when
/// the last handle is dropped.
#[derive(Clone, Debug)]
pub struct Token(Arc<BatchOwner>);

#[derive(Debug)]
struct BatchOwner {
    state: Arc<BatchState>,
    ledger: Arc<BatchLedger>,
}

/// Whether a verdict was the last one of its batch.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct BatchProgress {
    /// The sender has decided on every record of the batch.
    pub(crate) decided: bool,
    /// Every record of the batch has its verdict.
    pub(crate) settled: bool,
}

/// The verdicts that a batch still lacked when it lost its last owner.
struct Abandoned {
    undecided: bool,
    unsettled: bool,
}

impl Drop for BatchOwner {
    fn drop(&mut self) {
        let abandoned = self.state.abandon();
        if abandoned.undecided {
            self.ledger.decide();
        }
        if abandoned.unsettled {
            self.ledger.remove(self.state.number);
        }
    }
}

impl BatchState {
    pub(crate) fn topic(&self) -> &Arc<str> {
        &self.topic
    }

    /// Links the batch's `send` span to the `create` span of an event in the batch.
    pub(crate) fn follows_from(&self, create_span: &Span) {
        if !create_span.is_disabled()
            && let Some(span) = &self.inner.lock().span
        {
            span.follows_from(create_span);
        }
    }

    /// Sets the request that the first polled delivery sends.
    pub(crate) fn set_expedite_request(&self, expedite_request: ExpediteRequest) {
        self.inner.lock().expedite_request = Some(expedite_request);
    }

    /// Notes that the producer has a spool, which is asked to store the batch once a task waits for that.
    pub(crate) fn set_store_request(&self, store_request: StoreRequest) {
        self.inner.lock().store = StoreState::Pending(Some(store_request));
    }

    /// Notes that the batch is stored, and wakes the tasks that wait for that.
    pub(crate) fn set_stored(&self, identity: StoredIdentity) {
        let mut inner = self.inner.lock();
        inner.store = StoreState::Stored(identity);
        let wakers = std::mem::take(&mut inner.store_wakers);
        drop(inner);
        wakers.into_iter().for_each(Waker::wake);
    }

    /// Returns the identity of the batch's records in the spool, if the spool has them.
    pub(crate) fn stored(&self) -> Option<StoredIdentity> {
        match &self.inner.lock().store {
            StoreState::Stored(identity) => Some(identity.clone()),
            _ => None,
        }
    }

    /// Sets the number of records, when the batch is sealed.
    pub(crate) fn set_record_count(&self, total: u32) {
        let mut inner = self.inner.lock();
        inner.total = Some(total);
        inner.expedite_request = None;
        if let Some(span) = &inner.span {
            span.record("messaging.batch.message_count", total);
        }
    }

    /// Counts records that the sender has decided on and that are settled later. Returns whether the sender has now
    /// decided on all records.
    pub(crate) fn decide(&self, records: u32) -> bool {
        let mut inner = self.inner.lock();
        inner.decided += records;
        Some(inner.decided) == inner.total
    }

    /// Gives records a verdict that was decided now, and wakes the waiting tasks.
    pub(crate) fn settle(&self, records: RecordSet, verdict: Verdict) -> BatchProgress {
        self.record_verdict(records, verdict, true)
    }

    /// Gives records a verdict that [`decide`](Self::decide) counted before.
    pub(crate) fn settle_decided(&self, records: RecordSet, verdict: Verdict) -> BatchProgress {
        self.record_verdict(records, verdict, false)
    }

    fn record_verdict(&self, records: RecordSet, verdict: Verdict, decide: bool) -> BatchProgress {
        let mut inner = self.inner.lock();
        if decide {
            inner.decided += records.len();
        }
        inner.settled += records.len();
        if let Some(span) = &inner.span {
            trace::note_verdict(span, &records, &verdict);
        }
        if Some(records.len()) == inner.total {
            let _ = self.common.set(verdict.clone()); // the first verdict of the whole batch stays
        }
        inner.verdicts.push((records, verdict));
        let decided = decide && Some(inner.decided) == inner.total;
        let settled = Some(inner.settled) == inner.total;
        let ended = inner.span.take_if(|_| settled);
        let wakers = std::mem::take(&mut inner.wakers);
        let store_wakers = std::mem::take(&mut inner.store_wakers);
        drop(inner);
        drop(ended);
        wakers.into_iter().chain(store_wakers).for_each(Waker::wake);
        BatchProgress { decided, settled }
    }

    /// Attaches a tag to a record.
    pub(crate) fn tag_record(&self, index: u32, tag: Tag) {
        self.inner.lock().tags.push((index, tag));
    }

    /// Returns the tagged records, with their tags.
    pub(crate) fn tags(&self) -> Vec<(u32, Tag)> {
        self.inner.lock().tags.clone()
    }

    /// Stores notes on some records.
    pub(crate) fn leave_notes(&self, notes: impl IntoIterator<Item = (u32, Tag)>) {
        self.inner.lock().notes.extend(notes);
    }

    /// Takes the notes on some records.
    pub(crate) fn take_notes(&self, records: &RecordSet) -> Vec<(u32, Tag)> {
        let notes = &mut self.inner.lock().notes;
        notes.extract_if(.., |(index, _)| position(records, *index).is_some()).collect()
    }

    /// Fails all records without a verdict, because no owner is left.
    fn abandon(&self) -> Abandoned {
        let mut inner = self.inner.lock();
        let undecided = Some(inner.decided) != inner.total;
        if Some(inner.settled) == inner.total {
            return Abandoned { undecided, unsettled: false };
        }
        inner.fallback = Some(Arc::new(Failure::untried(FailedOutcome::Unknown, Reason::Closed)));
        let wakers = std::mem::take(&mut inner.wakers);
        let store_wakers = std::mem::take(&mut inner.store_wakers);
        let ended = inner.span.take();
        drop(inner);
        drop(ended);
        wakers.into_iter().chain(store_wakers).for_each(Waker::wake);
        Abandoned { undecided, unsettled: true }
    }

    /// Returns the result of a record, if its verdict is known.
    fn result(&self, inner: &BatchInner, index: u32, timestamp: i64) -> Option<Result<RecordMetadata, DeliveryError>> {
        let found = inner.verdicts.iter().find_map(|(set, verdict)| position(set, index).map(|at| (at, verdict)));
        match found {
            Some((at, verdict)) => Some(self.result_from(verdict, index, at, timestamp)),
            None => inner.fallback.as_ref().map(|failure| Err(self.error(failure, index))),
        }
    }

    /// Returns the result of the record at `index` from a verdict, in whose record set the record has position `at`.
    fn result_from(
        &self,
        verdict: &Verdict,
        index: u32,
        at: u32,
        timestamp: i64,
    ) -> Result<RecordMetadata, DeliveryError> {
        match verdict {
            Verdict::Delivered { base_offset, log_append_time } => Ok(RecordMetadata {
                topic: self.topic.clone(),
                partition: self.partition,
                offset: base_offset.map(|base| base + i64::from(at)),
                timestamp: log_append_time.unwrap_or(timestamp),
            }),
            Verdict::Failed(failure) => Err(self.error(failure, index)),
            Verdict::Stored => Err(DeliveryError::still_stored(self.topic.clone(), self.partition)),
        }
    }

    fn error(&self, failure: &Arc<Failure>, index: u32) -> DeliveryError {
        DeliveryError::new(self.topic.clone(), self.partition, failure.clone(), index)
    }
}

/// Returns a record's position within a set, if the set contains the record.
fn position(set: &RecordSet, index: u32) -> Option<u32> {
    match set {
        RecordSet::Range(range) => range.contains(&index).then(|| index - range.start),
        RecordSet::List(list) => list.binary_search(&index).ok().and_then(|at| u32::try_from(at).ok()),
    }
}

/// The future of the verdict of one accepted event.
///
/// The result is `Ok` if the event is in the log of every in-sync replica, else the [`DeliveryError`]. A batch with an
/// awaited delivery leaves without waiting for `flush_timeout`, once no earlier batch of its partition is in flight
/// (the option `expedite`). A delivery that is not awaited costs nothing: [`detach`](Self::detach) it.
///
/// A delivery may be polled from any task, may outlive the producer, and returns the same result when polled again.
///
/// # Cancel safety
///
/// Dropping it loses only the verdict. The event is still delivered, or becomes a dead letter.
#[derive(Clone, Debug)]
#[must_use = "a delivery is the event's verdict: await it, or call `.detach()`"]
pub struct Delivery {
    state: Arc<BatchState>,
    index: u32,
    timestamp: i64,
}

impl Delivery {
    pub(crate) fn new(state: Arc<BatchState>, index: u32, timestamp: i64) -> Self {
        Self { state, index, timestamp }
    }

    /// Links the batch's `send` span to the event's `create` span, if there is one.
    #[inline]
    pub(crate) fn linked_to(self, event_trace: &EventTrace) -> Self {
        if let Some(span) = event_trace.span() {
            self.state.follows_from(span);
        }
        self
    }

    /// Detaches the delivery. The event is still delivered, or becomes a dead letter.
    pub fn detach(self) {}

    /// Returns the verdict, if it is known already.
    pub fn now(&self) -> Option<Result<RecordMetadata, DeliveryError>> {
        self.common_result().or_else(|| self.own_result())
    }

    /// Returns the result if the whole batch got one verdict. Each record's position is its index then.
    fn common_result(&self) -> Option<Result<RecordMetadata, DeliveryError>> {
        self.state.common.get().map(|verdict| self.state.result_from(verdict, self.index, self.index, self.timestamp))
    }

    fn own_result(&self) -> Option<Result<RecordMetadata, DeliveryError>> {
        self.state.result(&self.state.inner.lock(), self.index, self.timestamp)
    }

    /// Returns the topic of the event.
    pub fn topic(&self) -> &str {
        &self.state.topic
    }

    /// Returns the partition of the event.
    pub fn partition(&self) -> i32 {
        self.state.partition
    }
}

impl Future for Delivery {
    type Output = Result<RecordMetadata, DeliveryError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        if let Some(result) = self.common_result() {
            return Poll::Ready(result);
        }
        let mut inner = self.state.inner.lock();
        if let Some(result) = self.state.result(&inner, self.index, self.timestamp) {
            return Poll::Ready(result);
        }
        // A task that awaits several deliveries of a batch in a row registers one waker.
        if !inner.wakers.last().is_some_and(|last| last.will_wake(cx.waker())) {
            inner.wakers.push(cx.waker().clone());
        }
        let expedite_request = inner.expedite_request.take();
        drop(inner);
        expedite_request.into_iter().for_each(ExpediteRequest::send);
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trace::SpanOrigin;

    fn delivered(base_offset: i64) -> Verdict {
        Verdict::Delivered { base_offset: Some(base_offset), log_append_time: None }
    }

    fn batch(records: u32) -> (Token, Vec<Delivery>) {
        let token = Token::new("t", 3, &Arc::default(), &SpanOrigin::default());
        token.state().set_record_count(records);
        let deliveries = (0..records).map(|i| Delivery::new(token.state().clone(), i, 7)).collect();
        (token, deliveries)
    }

    #[test]
    fn records_have_consecutive_offsets() {
        let (token, deliveries) = batch(3);
        assert!(token.state().settle(RecordSet::Range(0..3), delivered(40)).settled);
        let offsets: Vec<_> = deliveries.iter().map(|d| d.now().unwrap().unwrap().offset.unwrap()).collect();
        assert_eq!(offsets, [40, 41, 42]);
    }

    #[test]
    fn split_parts_settle_separately() {
        let (token, deliveries) = batch(4);
        assert!(!token.state().settle(RecordSet::List(vec![0, 2, 3]), delivered(10)).settled);
        assert_eq!(deliveries[2].now().unwrap().unwrap().offset, Some(11));
        assert!(deliveries[1].now().is_none());
        assert!(token.state().settle(RecordSet::List(vec![1]), delivered(99)).settled);
    }

    #[test]
    fn decided_and_settled_are_separate() {
        let (token, _deliveries) = batch(3);
        let state = token.state();
        assert!(!state.decide(1));
        assert_eq!(state.settle(RecordSet::Range(1..3), delivered(5)), BatchProgress { decided: true, settled: false });
        assert_eq!(
            state.settle_decided(RecordSet::Range(0..1), delivered(4)),
            BatchProgress { decided: false, settled: true }
        );
    }

    #[test]
    fn abandoned_batch_fails_as_unknown() {
        let (token, deliveries) = batch(2);
        let other = token.clone();
        drop(token);
        assert!(deliveries[0].now().is_none());
        drop(other);
        let error = deliveries[0].now().unwrap().unwrap_err();
        assert_eq!(error.outcome(), FailedOutcome::Unknown);
    }

    #[test]
    fn abandoned_batch_leaves_the_ledger() {
        let ledger = Arc::new(BatchLedger::default());
        let token = Token::new("t", 0, &ledger, &SpanOrigin::default());
        assert!(!ledger.is_decided());
        drop(token);
        assert!(ledger.is_decided());
    }

    #[tokio::test]
    async fn verdict_wakes_every_waiter() {
        let (token, deliveries) = batch(2);
        let waiting: Vec<_> = deliveries.into_iter().map(|delivery| tokio::spawn(delivery)).collect();
        tokio::task::yield_now().await;
        token.state().settle(RecordSet::Range(0..2), delivered(0));
        for task in waiting {
            task.await.unwrap().unwrap();
        }
    }
}

//! [`MockProducer`], a producer for tests: it keeps published events, and fails or delays them on demand.
//!
//! The rules of this module:
//!  - The mock has no network and no background task, except the timer of a delayed verdict.
//!  - It returns the real [`Delivery`] and the real errors.
//!  - It encodes events as for Kafka, so that an event that can't be encoded fails in a test too.
//!  - Each topic has one partition, with offsets from 0.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use kafka_courier_client::Reason;
use kafka_courier_event_model::{Event, EventId, TopicMapping, TopicMappingError, validate_topic_name};
use kafka_courier_idempotent_sender::core::{FailedOutcome, Failure, Verdict};
use tokio::runtime::Handle;

use kafka_courier_producer::{
    Deliveries, Delivery, HealthError, ProducerRecord, Promise, Promises, PublishError, Stats,
};
use parking_lot::Mutex;

use crate::producer::CloseReport;
use crate::publisher::{Answer, EventPublisher};

/// How a [`MockProducer`] fails an event.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum MockFailure {
    /// The event is not accepted.
    Refuse(PublishError),
    /// The event is accepted, and fails with this outcome and reason.
    GiveUp(FailedOutcome, Reason),
}

/// An event that a [`MockProducer`] accepted.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct PublishedEvent {
    /// The event's id.
    pub id: EventId,
    /// The event's type.
    pub event_type: String,
    /// The event's topic.
    pub topic: Arc<str>,
    /// The event's key.
    pub key: Option<Vec<u8>>,
    /// The event's correlation id.
    pub correlation_id: Option<String>,
    /// The event's JSON, as in the record.
    pub json: String,
    /// The outcome, if the event fails.
    pub given_up: Option<FailedOutcome>,
}

/// A record that a [`MockProducer`] accepted by [`send`](EventPublisher::send) or
/// [`try_send`](EventPublisher::try_send).
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct SentRecord {
    /// The record's topic.
    pub topic: Arc<str>,
    /// The requested partition.
    pub partition: Option<i32>,
    /// The record's key.
    pub key: Option<Vec<u8>>,
    /// The record's value. `None` is a tombstone.
    pub value: Option<Vec<u8>>,
    /// The record's headers, in order.
    pub headers: Vec<(String, Option<Vec<u8>>)>,
    /// The given timestamp.
    pub timestamp: Option<i64>,
    /// The outcome, if the record fails.
    pub given_up: Option<FailedOutcome>,
}

/// An [`EventPublisher`] without Kafka, for an application's tests.
///
/// Clones share their state: a test keeps one clone and passes the other to the code under test.
///
/// # Examples
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use kafka_courier::events::{EventBuilder, UserLoggedIn};
/// use kafka_courier::{EventPublisher, FailedOutcome, MockFailure, MockProducer, Reason};
///
/// async fn log_in(publisher: &dyn EventPublisher) -> Result<(), kafka_courier::Error> {
///     let event = EventBuilder::new("auth", "1.0").user_logged_in(UserLoggedIn { user_id: "u-1".into(), ..Default::default() });
///     publisher.publish_and_wait(&event).await.map(drop)
/// }
///
/// let mock = MockProducer::new();
/// log_in(&mock).await?;
/// assert_eq!((&*mock.published()[0].topic, mock.published()[0].event_type.as_str()), ("user-events", "user.logged_in"));
///
/// mock.fail_next(MockFailure::GiveUp(FailedOutcome::NotWritten, Reason::NoLeader));
/// assert_eq!(log_in(&mock).await.unwrap_err().outcome(), FailedOutcome::NotWritten);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, Default)]
pub struct MockProducer {
    inner: Arc<MockInner>,
}

#[derive(Debug, Default)]
struct MockInner {
    mapping: TopicMapping,
    promises: Promises,
    state: Mutex<MockState>,
}

#[derive(Debug, Default)]
struct MockState {
    published: Vec<PublishedEvent>,
    sent: Vec<SentRecord>,
    offsets: HashMap<Arc<str>, i64>,
    next: VecDeque<MockFailure>,
    all: Option<MockFailure>,
    delay: Duration,
    unhealthy: Option<String>,
    stats: Stats,
}

impl MockProducer {
    /// Creates a mock that delivers every event immediately.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Fails the next event with `failure`. Several calls fail as many of the next events, in the order of the calls.
    pub fn fail_next(&self, failure: MockFailure) {
        self.inner.state.lock().next.push_back(failure);
    }

    /// Fails every event with `failure`, until [`recover`](Self::recover) is called.
    pub fn fail_all(&self, failure: MockFailure) {
        self.inner.state.lock().all = Some(failure);
    }

    /// Ends all failures, and makes health checks succeed.
    pub fn recover(&self) {
        let mut state = self.inner.state.lock();
        (state.all, state.unhealthy) = (None, None);
        state.next.clear();
    }

    /// Delays each later verdict by `delay` in tokio's time, so that a test with a paused clock need not wait. Outside
    /// a tokio runtime verdicts are immediate.
    pub fn set_delay(&self, delay: Duration) {
        self.inner.state.lock().delay = delay;
    }

    /// Makes health checks fail with the text `why`.
    pub fn set_unhealthy(&self, why: &str) {
        self.inner.state.lock().unhealthy = Some(why.to_owned());
    }

    /// Returns the accepted events, in order.
    #[must_use]
    pub fn published(&self) -> Vec<PublishedEvent> {
        self.inner.state.lock().published.clone()
    }

    /// Returns the accepted events, in order, and clears the list.
    #[must_use]
    pub fn take_published(&self) -> Vec<PublishedEvent> {
        std::mem::take(&mut self.inner.state.lock().published)
    }

    /// Returns the accepted records of `send` and `try_send`, in order.
    #[must_use]
    pub fn sent(&self) -> Vec<SentRecord> {
        self.inner.state.lock().sent.clone()
    }

    /// Returns the accepted records of `send` and `try_send`, in order, and clears the list.
    #[must_use]
    pub fn take_sent(&self) -> Vec<SentRecord> {
        std::mem::take(&mut self.inner.state.lock().sent)
    }

    fn accept(&self, event: &dyn Event) -> Result<Delivery, PublishError> {
        self.counted(self.accept_to(self.inner.mapping.topic_for(event.event_type()), event))
    }

    fn accept_named(&self, topic: &str, event: &dyn Event) -> Result<Delivery, PublishError> {
        let valid = validate_topic_name(topic).map_err(PublishError::from);
        self.counted(valid.and_then(|()| self.accept_to(topic.into(), event)))
    }

    /// Counts a refused event.
    fn counted(&self, accepted: Result<Delivery, PublishError>) -> Result<Delivery, PublishError> {
        accepted.inspect_err(|_| self.inner.state.lock().stats.refused += 1)
    }

    fn accept_to(&self, topic: Arc<str>, event: &dyn Event) -> Result<Delivery, PublishError> {
        let mut json = Vec::new();
        event.encode_into(&mut json)?;
        self.admit(&topic, |state, given_up| {
            state.published.push(PublishedEvent {
                id: event.id().clone(),
                event_type: event.event_type().to_owned(),
                topic: topic.clone(),
                key: event.key().map(std::borrow::Cow::into_owned),
                correlation_id: event.correlation_id().map(str::to_owned),
                json: String::from_utf8_lossy(&json).into_owned(),
                given_up,
            });
        })
    }

    fn accept_record(&self, record: &ProducerRecord<'_>) -> Result<Delivery, PublishError> {
        self.counted(self.take_record(record))
    }

    fn take_record(&self, record: &ProducerRecord<'_>) -> Result<Delivery, PublishError> {
        validate_topic_name(record.topic)?;
        let topic: Arc<str> = record.topic.into();
        let headers = record.headers.iter();
        let headers = headers.map(|header| (header.key.to_owned(), header.value.map(<[u8]>::to_vec))).collect();
        self.admit(&topic, |state, given_up| {
            state.sent.push(SentRecord {
                topic: topic.clone(),
                partition: record.partition,
                key: record.key.map(<[u8]>::to_vec),
                value: record.value.map(<[u8]>::to_vec),
                headers,
                timestamp: record.timestamp,
                given_up,
            });
        })
    }

    /// Accepts one event or record for `topic`, unless it must be refused, and stores it with `keep`.
    fn admit(
        &self,
        topic: &Arc<str>,
        keep: impl FnOnce(&mut MockState, Option<FailedOutcome>),
    ) -> Result<Delivery, PublishError> {
        let mut state = self.inner.state.lock();
        if state.stats.is_closed {
            return Err(PublishError::Closed);
        }
        let failure = match state.next.pop_front().or_else(|| state.all.clone()) {
            Some(MockFailure::Refuse(error)) => return Err(error),
            Some(MockFailure::GiveUp(outcome, reason)) => Some((outcome, reason)),
            None => None,
        };
        keep(&mut state, failure.as_ref().map(|(outcome, _)| *outcome));
        let verdict = match failure {
            Some((outcome, reason)) => failed_verdict(outcome, reason),
            None => state.delivered(topic),
        };
        state.stats.accepted += 1;
        state.stats.in_flight += 1;
        let delay = state.delay;
        drop(state);
        Ok(self.promise(topic.clone(), verdict, delay))
    }

    /// Returns the delivery of an event, and settles it with `verdict` after `delay`.
    fn promise(&self, topic: Arc<str>, verdict: Verdict, delay: Duration) -> Delivery {
        let (promise, delivery) = self.inner.promises.promise(&topic);
        let inner = self.inner.clone();
        match Handle::try_current() {
            Ok(runtime) if !delay.is_zero() => {
                drop(runtime.spawn(async move {
                    tokio::time::sleep(delay).await;
                    inner.settle(promise, verdict);
                }));
            }
            _ => inner.settle(promise, verdict),
        }
        delivery
    }
}

impl MockState {
    fn delivered(&mut self, topic: &Arc<str>) -> Verdict {
        let next = self.offsets.entry(topic.clone()).or_default();
        let offset = *next;
        *next += 1;
        Verdict::Delivered { base_offset: Some(offset), log_append_time: None }
    }
}

impl MockInner {
    fn settle(&self, promise: Promise, verdict: Verdict) {
        let mut state = self.state.lock();
        state.stats.in_flight -= 1;
        match verdict {
            Verdict::Delivered { .. } => state.stats.sent += 1,
            // A mock has no durable log.
            Verdict::Stored => {}
            Verdict::Failed(_) => {
                state.stats.failed += 1;
                state.stats.dead_letter_queue_size += 1;
            }
        }
        drop(state);
        promise.settle(verdict);
    }
}

fn failed_verdict(outcome: FailedOutcome, reason: Reason) -> Verdict {
    Verdict::Failed(Arc::new(Failure { attempts: 1, ..Failure::untried(outcome, reason) }))
}

impl EventPublisher for MockProducer {
    fn publish<'a>(&'a self, event: &'a dyn Event) -> Answer<'a, Result<Delivery, PublishError>> {
        Box::pin(async move { self.accept(event) })
    }

    fn try_publish(&self, event: &dyn Event) -> Result<Delivery, PublishError> {
        self.accept(event)
    }

    fn publish_to<'a>(&'a self, topic: &'a str, event: &'a dyn Event) -> Answer<'a, Result<Delivery, PublishError>> {
        Box::pin(async move { self.accept_named(topic, event) })
    }

    fn try_publish_to(&self, topic: &str, event: &dyn Event) -> Result<Delivery, PublishError> {
        self.accept_named(topic, event)
    }

    fn send<'a>(&'a self, record: &'a ProducerRecord<'a>) -> Answer<'a, Result<Delivery, PublishError>> {
        Box::pin(async move { self.accept_record(record) })
    }

    fn try_send(&self, record: &ProducerRecord<'_>) -> Result<Delivery, PublishError> {
        self.accept_record(record)
    }

    #[allow(clippy::async_yields_async, reason = "the caller wants the deliveries, not their verdicts")]
    fn publish_batch<'a>(&'a self, events: &'a [&'a dyn Event]) -> Answer<'a, Deliveries> {
        Box::pin(async move { Deliveries::new(events.iter().map(|event| self.accept(*event)).collect()) })
    }

    fn set_topic_mapping(&self, event_type: &str, topic: &str) -> Result<(), TopicMappingError> {
        self.inner.mapping.set_topic_mapping(event_type, topic)
    }

    fn topic_for(&self, event_type: &str) -> Arc<str> {
        self.inner.mapping.topic_for(event_type)
    }

    fn flush(&self, timeout: Duration) -> Answer<'_, bool> {
        Box::pin(async move { tokio::time::timeout(timeout, self.inner.promises.settled()).await.is_ok() })
    }

    fn health_check(&self, _timeout: Duration) -> Answer<'_, Result<(), HealthError>> {
        let unhealthy = self.inner.state.lock().unhealthy.clone();
        Box::pin(async move { unhealthy.map_or(Ok(()), |why| Err(HealthError::new(why))) })
    }

    fn stats(&self) -> Stats {
        self.inner.state.lock().stats.clone()
    }

    /// Closes the mock. Unlike a real producer it fails no event at the timeout.
    fn close(&self, timeout: Duration) -> Answer<'_, CloseReport> {
        self.inner.state.lock().stats.is_closed = true;
        Box::pin(async move {
            self.flush(timeout).await;
            let stats = self.stats();
            CloseReport {
                stored: 0,
                delivered: stats.sent,
                failed: stats.failed,
                dead_lettered: stats.dead_letter_queue_size,
                in_memory: stats.dead_letter_queue_size,
            }
        })
    }
}

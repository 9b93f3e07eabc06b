//! A producer for tests: it keeps what was published, fails on demand, and takes its time on demand.
//!
//! Rules: no network and no task of its own; what it returns are the real [`Delivery`] and the real errors; events are encoded
//! as for Kafka, so that one that has no JSON fails here too; each topic has one partition, with offsets from 0.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use kafka_courier_event_model::{Event, EventId, TopicMapping, TopicMappingError, validate_topic_name};
use kafka_courier_idempotent_sender::core::{FailedOutcome, Failure, Reason, RecordSet, Verdict};
use tokio::runtime::Handle;

use crate::deliveries::Deliveries;
use crate::delivery::{Delivery, Token};
use crate::error::PublishError;
use crate::health::HealthError;
use crate::ledger::Ledger;
use crate::producer::CloseReport;
use crate::publisher::{Answer, EventPublisher};
use crate::record::ProducerRecord;
use crate::shared::wall_clock_ms;
use crate::stats::Stats;
use crate::sync::Mutex;
use crate::trace::Origin;

/// How a [`MockProducer`] fails an event.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum MockFailure {
    /// It is not accepted.
    Refuse(PublishError),
    /// It is accepted and given up: certainly not in the log, or perhaps.
    GiveUp(FailedOutcome, Reason),
}

/// An event that a [`MockProducer`] accepted.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct PublishedEvent {
    /// Its id.
    pub id: EventId,
    /// Its type.
    pub event_type: String,
    /// The topic that it went to.
    pub topic: Arc<str>,
    /// Its key.
    pub key: Option<Vec<u8>>,
    /// Its correlation id.
    pub correlation_id: Option<String>,
    /// Its JSON, as in the record.
    pub json: String,
    /// Whether it is given up, and how.
    pub given_up: Option<FailedOutcome>,
}

/// A record that a [`MockProducer`] was sent as it is, and accepted.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct SentRecord {
    /// The topic that it went to.
    pub topic: Arc<str>,
    /// The partition that was asked for.
    pub partition: Option<i32>,
    /// Its key.
    pub key: Option<Vec<u8>>,
    /// Its value; none is a tombstone.
    pub value: Option<Vec<u8>>,
    /// Its headers, in order.
    pub headers: Vec<(String, Option<Vec<u8>>)>,
    /// The timestamp that it was given.
    pub timestamp: Option<i64>,
    /// Whether it is given up, and how.
    pub given_up: Option<FailedOutcome>,
}

/// An [`EventPublisher`] without Kafka, for an application's tests.
///
/// Cheap to clone: all clones are one. A test keeps one and hands the other over.
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
    inner: Arc<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    mapping: TopicMapping,
    ledger: Arc<Ledger>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
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
    /// One that delivers everything at once.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Fails the next event so; called several times, as many of the next, in this order.
    pub fn fail_next(&self, failure: MockFailure) {
        self.inner.state.lock().next.push_back(failure);
    }

    /// Fails every event so from now on, until [`recover`](Self::recover).
    pub fn fail_all(&self, failure: MockFailure) {
        self.inner.state.lock().all = Some(failure);
    }

    /// Fails nothing more, and is healthy.
    pub fn recover(&self) {
        let mut state = self.inner.state.lock();
        (state.all, state.unhealthy) = (None, None);
        state.next.clear();
    }

    /// Has verdicts come this much after their events from now on, in tokio's time: a test with a paused clock need not
    /// wait for it. Outside a tokio runtime they come at once.
    pub fn set_delay(&self, delay: Duration) {
        self.inner.state.lock().delay = delay;
    }

    /// Has health checks fail with this from now on.
    pub fn set_unhealthy(&self, why: &str) {
        self.inner.state.lock().unhealthy = Some(why.to_owned());
    }

    /// The events that were accepted so far, in order.
    #[must_use]
    pub fn published(&self) -> Vec<PublishedEvent> {
        self.inner.state.lock().published.clone()
    }

    /// The events that were accepted so far, and forgets them: for a test of several steps.
    #[must_use]
    pub fn take_published(&self) -> Vec<PublishedEvent> {
        std::mem::take(&mut self.inner.state.lock().published)
    }

    /// The records that were sent as they are and accepted so far, in order.
    #[must_use]
    pub fn sent(&self) -> Vec<SentRecord> {
        self.inner.state.lock().sent.clone()
    }

    /// The records that were sent as they are and accepted so far, and forgets them.
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

    /// Counts what was not accepted.
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

    /// Accepts one event or record to `topic`, unless it is to be refused, and has it kept.
    fn admit(
        &self,
        topic: &Arc<str>,
        keep: impl FnOnce(&mut State, Option<FailedOutcome>),
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
            Some((outcome, reason)) => given_up(outcome, reason),
            None => state.delivered(topic),
        };
        state.stats.accepted += 1;
        state.stats.in_flight += 1;
        let delay = state.delay;
        drop(state);
        Ok(self.promise(topic.clone(), verdict, delay))
    }

    /// The delivery of an event, with its verdict to come.
    fn promise(&self, topic: Arc<str>, verdict: Verdict, delay: Duration) -> Delivery {
        let token = Token::new(&topic, 0, &self.inner.ledger, &Origin::default());
        token.state().sealed(1);
        let delivery = Delivery::new(token.state().clone(), 0, wall_clock_ms());
        let inner = self.inner.clone();
        match Handle::try_current() {
            Ok(runtime) if !delay.is_zero() => {
                drop(runtime.spawn(async move {
                    tokio::time::sleep(delay).await;
                    inner.settle(&token, verdict);
                }));
            }
            _ => inner.settle(&token, verdict),
        }
        delivery
    }
}

impl State {
    fn delivered(&mut self, topic: &Arc<str>) -> Verdict {
        let next = self.offsets.entry(topic.clone()).or_default();
        let offset = *next;
        *next += 1;
        Verdict::Delivered { base_offset: Some(offset), log_append_time: None }
    }
}

impl Inner {
    fn settle(&self, token: &Token, verdict: Verdict) {
        let mut state = self.state.lock();
        state.stats.in_flight -= 1;
        match verdict {
            Verdict::Delivered { .. } => state.stats.sent += 1,
            Verdict::Failed(_) => {
                state.stats.failed += 1;
                state.stats.dead_letter_queue_size += 1;
            }
        }
        drop(state);
        let ended = token.state().settle(RecordSet::Range(0..1), verdict);
        if ended.decided {
            self.ledger.decide();
        }
        if ended.settled {
            self.ledger.strike(token.state().number);
        }
    }
}

fn given_up(outcome: FailedOutcome, reason: Reason) -> Verdict {
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

    #[allow(clippy::async_yields_async, reason = "the deliveries are what the caller asks for")]
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
        Box::pin(async move { tokio::time::timeout(timeout, self.inner.ledger.settled()).await.is_ok() })
    }

    fn health_check(&self, _timeout: Duration) -> Answer<'_, Result<(), HealthError>> {
        let unhealthy = self.inner.state.lock().unhealthy.clone();
        Box::pin(async move { unhealthy.map_or(Ok(()), |why| Err(HealthError::new(why))) })
    }

    fn stats(&self) -> Stats {
        self.inner.state.lock().stats.clone()
    }

    /// As a producer's, but that nothing is given up for want of time.
    fn close(&self, timeout: Duration) -> Answer<'_, CloseReport> {
        self.inner.state.lock().stats.is_closed = true;
        Box::pin(async move {
            self.flush(timeout).await;
            let stats = self.stats();
            CloseReport {
                delivered: stats.sent,
                failed: stats.failed,
                dead_lettered: stats.dead_letter_queue_size,
                in_memory: stats.dead_letter_queue_size,
            }
        })
    }
}

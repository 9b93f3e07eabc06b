//! Publishes the records of one request in their order, and collects their verdicts.
//!
//! Rules:
//! - After a record that may be accepted later, no further record of the request is tried: a retry would change their order.
//! - A record that is certainly not written returns to the client. Once the client no longer waits, its failure becomes a dead
//!   letter.
//! - A failure that was not answered becomes a dead letter once its client has left.
//! - A record that has failed for certain is never reported as possibly written, also if its time is over.

use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use futures_util::FutureExt;
use kafka_courier::{
    AwaitedDelivery, AwaitedError, Header, KafkaProducer, ProducerRecord, PublishError, RequestKey, Stored,
    StoredRequestEvent,
};
use tokio::time::timeout_at;

use crate::shapes::ack::{Ack, AckRules};
use crate::shapes::answer::EventResult;
use crate::shapes::failure::{Failure, failed, not_stored, refused};
use crate::shapes::principal::Principal;
use crate::shapes::problem::Problem;
use crate::shapes::record::OutRecord;
use crate::shapes::verdict::Verdict;

/// The bytes of a result beside its texts, in memory and in the answer.
const RESULT_BYTES: usize = 256;

/// Publishes the records of one request.
pub(super) struct Publisher<'a> {
    producer: &'a KafkaProducer,
    rules: &'a AckRules,
    client: Option<&'a Principal>,
    asked: Option<Ack>,
    events: Vec<PublishedEvent>,
    /// The bytes that the results of the events take in the answer, as an estimate.
    answer_bytes: usize,
    /// Whether an earlier record may be accepted later.
    pub(super) is_blocked: bool,
}

/// An event of a request, with its next step.
pub(super) struct PublishedEvent {
    id: Option<String>,
    topic: Arc<str>,
    step: Step,
    returned: ReturnedRecord,
}

/// A record that has returned to its client. A drop without an answer leaves it to the dead letters.
#[derive(Default)]
pub(super) struct ReturnedRecord(Option<AwaitedError>);

impl ReturnedRecord {
    /// Notes that the client has the answer.
    pub(super) fn answered(mut self) {
        self.0 = None;
    }
}

impl Drop for ReturnedRecord {
    fn drop(&mut self) {
        self.0.iter().for_each(|error| _ = error.leave_to_dead_letters());
    }
}

/// The next step of an event.
enum Step {
    Decided(Verdict),
    /// Waits for the spool.
    Storing(Stored, AwaitedDelivery),
    /// Waits for Kafka.
    Delivering(AwaitedDelivery),
}

impl<'a> Publisher<'a> {
    pub(super) fn new(
        producer: &'a KafkaProducer,
        rules: &'a AckRules,
        client: Option<&'a Principal>,
        asked: Option<Ack>,
    ) -> Self {
        Self { producer, rules, client, asked, events: Vec::new(), answer_bytes: 0, is_blocked: false }
    }

    /// Returns the number of events until now.
    pub(super) fn len(&self) -> usize {
        self.events.len()
    }

    /// Returns the bytes that the results take in the answer, as an estimate.
    pub(super) fn answer_bytes(&self) -> usize {
        self.answer_bytes
    }

    /// Notes an event that can't be published.
    pub(super) fn fail(&mut self, failure: Failure) {
        self.push(PublishedEvent::failed(failure));
    }

    /// Publishes a record. Waits for room until `until`. The spool stores the key of the request with the record.
    pub(super) async fn publish(&mut self, record: OutRecord, until: Instant, key: Option<&RequestKey>) {
        let event = self.attempt(record, until, key).await;
        self.push(event);
    }

    /// Publishes a record of an event that the caller keeps. Waits for room until `until`.
    pub(super) async fn attempt(
        &mut self,
        record: OutRecord,
        until: Instant,
        key: Option<&RequestKey>,
    ) -> PublishedEvent {
        let step = match self.is_blocked {
            true => {
                let why = "an earlier event of the request was not accepted: send the request's failed events again";
                Step::Decided(Verdict::Failed(Failure::new(Problem::NotTried, why)))
            }
            false => self.accept(&record, until, key).await.unwrap_or_else(|failure| {
                self.is_blocked = failure.problem.is_retriable();
                Step::Decided(Verdict::Failed(failure))
            }),
        };
        PublishedEvent { id: record.id, topic: record.topic, step, returned: ReturnedRecord::default() }
    }

    /// Takes over a record that an earlier process stored in the spool. It is not published again.
    pub(super) fn resume(&mut self, record: OutRecord, stored: &StoredRequestEvent) {
        let step = match (self.check(&record), stored.delivery()) {
            (Err(failure), _) => Step::Decided(Verdict::Failed(failure)),
            (Ok(Ack::Broker), Some(delivery)) => Step::Delivering(delivery),
            (Ok(_), _) => Step::Decided(Verdict::Stored { topic: record.topic.clone() }),
        };
        let returned = ReturnedRecord::default();
        self.push(PublishedEvent { id: record.id, topic: record.topic, step, returned });
    }

    fn push(&mut self, event: PublishedEvent) {
        self.answer_bytes += event.bytes();
        self.events.push(event);
    }

    /// Checks the rights of the client for a record's topic, and returns the acknowledgement.
    pub(super) fn check(&self, record: &OutRecord) -> Result<Ack, Failure> {
        self.client.map_or(Ok(()), |client| client.check_topic(&record.topic))?;
        self.rules.choose(&record.topic, self.asked, self.client.and_then(|client| client.floor))
    }

    async fn accept(&self, record: &OutRecord, until: Instant, key: Option<&RequestKey>) -> Result<Step, Failure> {
        let ack = self.check(record)?;
        let headers: Vec<Header<'_>> =
            record.headers.iter().map(|(key, value)| Header { key, value: Some(value) }).collect();
        let out = ProducerRecord {
            topic: &record.topic,
            partition: record.partition,
            key: record.key.as_deref(),
            value: record.value.as_deref(),
            headers: &headers,
            timestamp: record.timestamp,
        };
        if ack == Ack::Memory {
            in_time(until, self.producer.send_keyed(&out, key)).await?.detach();
            return Ok(Step::Decided(Verdict::Accepted { topic: record.topic.clone() }));
        }
        let delivery = in_time(until, self.producer.send_awaited_keyed(&out, key)).await?;
        Ok(match ack {
            Ack::Disk => Step::Storing(delivery.stored(), delivery),
            _ => Step::Delivering(delivery),
        })
    }

    /// Waits for the verdicts of all events until `until`. Once `client_left` is ready, failures become dead letters.
    pub(super) async fn finish(mut self, until: Instant, client_left: impl Future<Output = ()>) -> Vec<EventResult> {
        let mut client_left = pin!(client_left.fuse());
        // Each batch leaves as soon as one of its deliveries is polled.
        std::future::poll_fn(|cx| {
            self.events.iter_mut().for_each(|event| event.poll_verdict(cx));
            Poll::Ready(())
        })
        .await;
        for at in 0..self.events.len() {
            let decided = std::future::poll_fn(|cx| {
                if client_left.as_mut().poll(cx).is_ready() {
                    self.events.iter_mut().for_each(PublishedEvent::leave_to_dead_letters);
                }
                let Some(event) = self.events.get_mut(at) else { return Poll::Ready(()) };
                event.poll_verdict(cx);
                if matches!(event.step, Step::Decided(_)) { Poll::Ready(()) } else { Poll::Pending }
            });
            // A result that is late changes nothing: the step says which.
            let _ = timeout_at(until.into(), decided).await;
        }
        let mut results = Vec::with_capacity(self.events.len());
        results.extend(self.events.into_iter().map(|event| event.into_result(self.rules.has_spool)));
        results
    }
}

/// Waits until a record is accepted. A record that is not accepted in time certainly is not.
async fn in_time<T>(until: Instant, accepted: impl Future<Output = Result<T, PublishError>>) -> Result<T, Failure> {
    match timeout_at(until.into(), accepted).await {
        Ok(accepted) => accepted.map_err(|error| refused(&error)),
        Err(_) => {
            let why = "the event was not accepted in time: the topic or room for the event is not available";
            Err(Failure::new(Problem::KafkaUnavailable, why))
        }
    }
}

impl PublishedEvent {
    /// Creates an event that can't be published.
    pub(super) fn failed(failure: Failure) -> Self {
        let step = Step::Decided(Verdict::Failed(failure));
        Self { id: None, topic: "".into(), step, returned: ReturnedRecord::default() }
    }

    /// Returns the bytes of the event's result, as an estimate.
    pub(super) fn bytes(&self) -> usize {
        let detail = match &self.step {
            Step::Decided(Verdict::Failed(failure)) => failure.detail.len(),
            _ => 0,
        };
        RESULT_BYTES + self.id.as_ref().map_or(0, String::len) + self.topic.len() + detail
    }

    /// Returns whether the verdict is known.
    pub(super) fn is_decided(&self) -> bool {
        matches!(self.step, Step::Decided(_))
    }

    /// Returns the result of an event whose verdict is known, or whose time is over, for a client that waits for it.
    pub(super) fn into_result(self, has_spool: bool) -> EventResult {
        let (result, returned) = self.into_parts(has_spool);
        returned.answered();
        result
    }

    /// Returns the result as [`into_result`](Self::into_result) does, and the record that waits for the answer.
    pub(super) fn into_parts(self, has_spool: bool) -> (EventResult, ReturnedRecord) {
        let verdict = overdue(self.step, &self.topic, has_spool);
        (EventResult { id: self.id, verdict }, self.returned)
    }

    /// Leaves a failure to the dead letters, because its client has left.
    pub(super) fn leave_to_dead_letters(&mut self) {
        if let Some(mut error) = self.returned.0.take() {
            error.dead_letter = error.leave_to_dead_letters();
            if let Some(failure) = failed(&error) {
                self.step = Step::Decided(Verdict::Failed(failure));
            }
        }
        if let Step::Storing(_, delivery) | Step::Delivering(delivery) = &self.step {
            delivery.leave_to_dead_letters();
        }
    }

    /// Moves the event as far as it goes now.
    pub(super) fn poll_verdict(&mut self, cx: &mut Context<'_>) {
        if let Step::Storing(stored, _) = &mut self.step {
            match Pin::new(stored).poll(cx) {
                Poll::Pending => return,
                Poll::Ready(Ok(())) => {
                    self.step = Step::Decided(Verdict::Stored { topic: self.topic.clone() });
                    return;
                }
                // The delivery has the verdict, and the dead letter.
                Poll::Ready(Err(error)) => {
                    let failed = Step::Decided(Verdict::Failed(not_stored(&error)));
                    if let Step::Storing(_, delivery) = std::mem::replace(&mut self.step, failed) {
                        self.step = Step::Delivering(delivery);
                    }
                }
            }
        }
        if let Step::Delivering(delivery) = &mut self.step
            && let Poll::Ready(verdict) = Pin::new(delivery).poll(cx)
        {
            let stored = || Verdict::Stored { topic: self.topic.clone() };
            self.step = Step::Decided(match verdict {
                Ok(place) => Verdict::Written { topic: place.topic, partition: place.partition, offset: place.offset },
                Err(error) => {
                    let verdict = failed(&error).map_or_else(stored, Verdict::Failed);
                    self.returned = ReturnedRecord(Some(error).filter(|error| error.dead_letter.is_none()));
                    verdict
                }
            });
        }
    }
}

/// Returns the verdict of an event whose time is over.
fn overdue(step: Step, topic: &Arc<str>, has_spool: bool) -> Verdict {
    let delivery = match step {
        Step::Decided(verdict) => return verdict,
        Step::Storing(_, delivery) | Step::Delivering(delivery) => delivery,
    };
    if has_spool && delivery.stored().now_or_never().is_some_and(|stored| stored.is_ok()) {
        return Verdict::Stored { topic: topic.clone() };
    }
    match delivery.detach() {
        Ok(letter) => Verdict::Failed(Failure::no_verdict().with_letter(letter)),
        Err(decided) => {
            let (step, returned) = (Step::Delivering(decided), ReturnedRecord::default());
            let mut event = PublishedEvent { id: None, topic: topic.clone(), step, returned };
            event.poll_verdict(&mut Context::from_waker(Waker::noop()));
            event.returned.answered();
            match event.step {
                Step::Decided(verdict) => verdict,
                Step::Storing(_, delivery) | Step::Delivering(delivery) => {
                    delivery.return_to_caller();
                    Verdict::Failed(Failure::no_reason())
                }
            }
        }
    }
}

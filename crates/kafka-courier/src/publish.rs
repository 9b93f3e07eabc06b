//! Publishing one event or record, with and without waiting.
//!
//! The rules of this module:
//!  - An event that is not accepted returns an error. The producer keeps nothing of it.
//!  - `publish` waits only for an unknown topic (`metadata_timeout`) and for memory (`max_block`).
//!  - A record is accepted after the last await point. A dropped future has accepted nothing.

use std::cell::Cell;
use std::sync::Arc;
use std::time::Duration;

use kafka_courier_batcher::{Header, Record};
use kafka_courier_dlq::Letter;
use kafka_courier_event_model::{Event, EventId, TraceContext, validate_topic_name};

use crate::delivery::{Delivery, RecordMetadata};
use crate::error::{Error, PublishError};
use crate::headers;
use crate::intake::Refused;
use crate::metrics;
use crate::producer::KafkaProducer;
use crate::record::ProducerRecord;
use crate::shared::wall_clock_ms;
use crate::sync::Ordering;
use crate::topics::TopicEntry;
use crate::trace::{EventTrace, TRACEPARENT, TRACESTATE};

/// The largest scratch buffer in bytes that is kept for the next event.
const MAX_KEPT_SCRATCH: usize = 1 << 20;

thread_local! {
    /// A buffer for the JSON of the event that this thread publishes.
    static SCRATCH: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

impl KafkaProducer {
    /// Publishes an event to the topic of its type.
    ///
    /// Waits only while the topic is unknown (up to `metadata_timeout`) or memory is full (up to `max_block`). The
    /// returned [`Delivery`] is the future of the event's verdict.
    ///
    /// The producer requests an unavailable topic again after a second, and then waits for it for at most a second.
    /// Calls in between return the last error without waiting.
    ///
    /// # Errors
    ///
    /// A [`PublishError`] means that the event was not accepted. The producer keeps nothing of it.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped before it is ready, the event was not accepted.
    ///
    /// # Examples
    ///
    /// ```
    /// # use kafka_courier_test_broker::TestCluster;
    /// # use kafka_courier::KafkaProducer;
    /// # use kafka_courier::events::{EventBuilder, UserLoggedIn};
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let cluster = TestCluster::builder().topic("user-events", 6).start().await?;
    /// # let producer = KafkaProducer::builder().brokers(cluster.bootstrap()).build()?;
    /// # let builder = EventBuilder::new("auth-service", "1.0");
    /// let event = builder.user_logged_in(UserLoggedIn { user_id: "u-42".into(), ..Default::default() });
    /// let delivery = producer.publish(&event).await?; // accepted
    /// let written = delivery.await?; // in the log of every in-sync replica
    /// println!("partition {} offset {:?}", written.partition, written.offset);
    /// # Ok(())
    /// # }
    /// ```
    pub async fn publish(&self, event: &dyn Event) -> Result<Delivery, PublishError> {
        self.publish_mapped(event, self.inner.max_block).await
    }

    /// Publishes an event to `topic`, independent of its type.
    ///
    /// # Errors
    ///
    /// As [`publish`](Self::publish).
    ///
    /// # Cancel safety
    ///
    /// As [`publish`](Self::publish).
    pub async fn publish_to(&self, topic: &str, event: &dyn Event) -> Result<Delivery, PublishError> {
        match self.offer_once(topic, event) {
            Ok(delivery) => Ok(delivery),
            Err(refused_offer) => self
                .publish_after_wait(topic, event, refused_offer, self.inner.max_block)
                .await
                .map_err(|error| self.refused(error)),
        }
    }

    /// Publishes an event and waits for its verdict: [`publish`](Self::publish), then the [`Delivery`].
    ///
    /// # Errors
    ///
    /// [`Error::NotAccepted`] if the event was not accepted, [`Error::Failed`] if it was accepted and failed.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, the event may have been accepted. An accepted event is still delivered.
    pub async fn publish_and_wait(&self, event: &dyn Event) -> Result<RecordMetadata, Error> {
        Ok(self.publish(event).await?.await?)
    }

    /// Publishes an event to the topic of its type without waiting.
    ///
    /// # Errors
    ///
    /// As [`publish`](Self::publish), and:
    ///  - [`PublishError::BufferFull`] if there is no memory now.
    ///  - [`PublishError::TopicPending`] while the topic's partitions are unknown. The call requests them, and a later
    ///    call succeeds once they are known.
    pub fn try_publish(&self, event: &dyn Event) -> Result<Delivery, PublishError> {
        self.inner.mapping.with_topic(event.event_type(), |topic| self.try_publish_to(topic, event))
    }

    /// Publishes an event to `topic`, independent of its type, without waiting.
    ///
    /// # Errors
    ///
    /// As [`try_publish`](Self::try_publish).
    pub fn try_publish_to(&self, topic: &str, event: &dyn Event) -> Result<Delivery, PublishError> {
        let known = self.inner.intake.shared.topics.with(topic, |topic| self.try_event(topic, event));
        let accepted = known.unwrap_or_else(|| self.try_event(&*self.topic(topic)?, event));
        accepted.map_err(|error| self.refused(error))
    }

    fn try_event(&self, topic: &TopicEntry, event: &dyn Event) -> Result<Delivery, PublishError> {
        let event_trace = self.inner.tracer.trace_event(&topic.name, event);
        let offered = self.offer_without_waiting(topic, &|topic| self.offer_event(topic, event, &event_trace));
        offered.map(|delivery| event_trace.link(delivery))
    }

    /// Publishes a record as given: key, value, headers.
    ///
    /// # Errors
    ///
    /// The errors of [`publish`](Self::publish), and [`PublishError::Partition`] if the topic has no such partition.
    ///
    /// # Cancel safety
    ///
    /// As [`publish`](Self::publish).
    ///
    /// # Examples
    ///
    /// ```
    /// # use kafka_courier_test_broker::TestCluster;
    /// # use kafka_courier::{Header, KafkaProducer, ProducerRecord};
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let cluster = TestCluster::builder().topic("orders", 6).topic("user-events", 6).start().await?;
    /// # let producer = KafkaProducer::builder().brokers(cluster.bootstrap()).build()?;
    /// let headers = [Header { key: "tenant", value: Some(b"acme") }];
    /// let record = ProducerRecord {
    ///     topic: "orders",
    ///     key: Some(b"order-7"),
    ///     value: Some(b"{}"),
    ///     headers: &headers,
    ///     ..ProducerRecord::default()
    /// };
    /// let written = producer.send(&record).await?.await?;
    /// println!("{}-{} at {}", written.topic, written.partition, written.offset.unwrap_or(-1));
    /// # Ok(())
    /// # }
    /// ```
    pub async fn send(&self, record: &ProducerRecord<'_>) -> Result<Delivery, PublishError> {
        self.send_letter(record, None).await.map_err(|error| self.refused(error))
    }

    /// Counts an event that was not accepted, and returns its error.
    #[cold]
    pub(crate) fn refused(&self, error: PublishError) -> PublishError {
        self.inner.intake.shared.counts.refused.fetch_add(1, Ordering::Relaxed);
        metrics::count_refused(&error);
        error
    }

    /// Publishes a record. `letter` is the dead letter that the record replays, if any.
    pub(crate) async fn send_letter(
        &self,
        record: &ProducerRecord<'_>,
        letter: Option<&Arc<Letter>>,
    ) -> Result<Delivery, PublishError> {
        let event_trace = self.inner.tracer.trace_record(record.topic, record.headers, record.value.is_none());
        let headers = event_trace.headers(record.headers);
        let raw = to_batcher_record(record, &headers);
        let offer = |topic: &TopicEntry| self.inner.intake.offer_letter(topic, record.partition, &raw, letter);
        let mut offered = match self.inner.intake.shared.topics.with(record.topic, offer) {
            Some(Ok(delivery)) => return Ok(event_trace.link(delivery)),
            Some(Err(refused)) => Err(refused),
            None => Err(Refused::NoTopic),
        };
        let mut deadline = None;
        loop {
            match offered {
                Ok(delivery) => return Ok(event_trace.link(delivery)),
                Err(refused) => {
                    let topic = self.topic(record.topic)?;
                    self.wait_after_refusal(&topic, refused, self.inner.max_block, &mut deadline).await?;
                }
            }
            offered = offer(&*self.topic(record.topic)?);
        }
    }

    /// Waits until a topic's partitions are known, so that later events need not wait for them.
    ///
    /// # Errors
    ///
    /// [`PublishError::Topic`] if the topic is unavailable for `metadata_timeout`, as in [`publish`](Self::publish).
    /// [`PublishError::TopicName`] if the name is invalid. [`PublishError::Closed`] if the producer is closed.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future ends only the wait. The producer still learns the topic.
    pub async fn learn_topic(&self, topic: &str) -> Result<(), PublishError> {
        self.partition_count(topic).await.map(|_| ())
    }

    /// Returns the number of a topic's partitions. Waits for the topic as `publish` does.
    pub(crate) async fn partition_count(&self, topic: &str) -> Result<i32, PublishError> {
        loop {
            let topic = self.topic(topic)?;
            if let Some(partitions) = &topic.partitions {
                return Ok(partitions.count);
            }
            self.wait_for_topic(&topic).await?;
        }
    }

    /// Publishes a record as given, without waiting.
    ///
    /// # Errors
    ///
    /// The errors of [`try_publish`](Self::try_publish), and [`PublishError::Partition`] if the topic has no such
    /// partition.
    pub fn try_send(&self, record: &ProducerRecord<'_>) -> Result<Delivery, PublishError> {
        let known = self.inner.intake.shared.topics.with(record.topic, |topic| self.try_send_to(topic, record));
        let accepted = known.unwrap_or_else(|| self.try_send_to(&*self.topic(record.topic)?, record));
        accepted.map_err(|error| self.refused(error))
    }

    fn try_send_to(&self, topic: &TopicEntry, record: &ProducerRecord<'_>) -> Result<Delivery, PublishError> {
        let event_trace = self.inner.tracer.trace_record(&topic.name, record.headers, record.value.is_none());
        let headers = event_trace.headers(record.headers);
        let raw = to_batcher_record(record, &headers);
        let offered =
            self.offer_without_waiting(topic, &|topic| self.inner.intake.offer(topic, record.partition, &raw));
        offered.map(|delivery| event_trace.link(delivery))
    }

    async fn publish_mapped(&self, event: &dyn Event, max_block: Duration) -> Result<Delivery, PublishError> {
        let refused_offer = self.inner.mapping.with_topic(event.event_type(), |topic| {
            self.offer_once(topic, event).map_err(|refused_offer| (topic.clone(), refused_offer))
        });
        match refused_offer {
            Ok(delivery) => Ok(delivery),
            Err((topic, refused_offer)) => self
                .publish_after_wait(&topic, event, refused_offer, max_block)
                .await
                .map_err(|error| self.refused(error)),
        }
    }

    /// Offers an event once. Increments no reference count that threads share.
    pub(crate) fn offer_once(&self, topic: &str, event: &dyn Event) -> Result<Delivery, Box<RefusedOffer>> {
        let event_trace = self.inner.tracer.trace_event(topic, event);
        let offer = |topic: &TopicEntry| self.offer_event(topic, event, &event_trace);
        match self.inner.intake.shared.topics.with(topic, offer) {
            Some(Ok(delivery)) => Ok(event_trace.link(delivery)),
            Some(Err(refused)) => Err(Box::new(RefusedOffer { event_trace, refused })),
            None => Err(Box::new(RefusedOffer { event_trace, refused: Refused::NoTopic })),
        }
    }

    /// Waits until the cause of a refusal is gone, and offers the event again.
    pub(crate) async fn publish_after_wait(
        &self,
        topic: &str,
        event: &dyn Event,
        refused_offer: Box<RefusedOffer>,
        max_block: Duration,
    ) -> Result<Delivery, PublishError> {
        let RefusedOffer { event_trace, refused } = *refused_offer;
        let mut deadline = None;
        self.wait_after_refusal(&*self.topic(topic)?, refused, max_block, &mut deadline).await?;
        // A separate buffer: the thread's scratch buffer serves other events across an await point.
        let mut json = Vec::new();
        event.encode_into(&mut json)?;
        loop {
            let topic = self.topic(topic)?;
            match with_record(event, &json, event_trace.context(), |record| {
                self.inner.intake.offer(&topic, None, record)
            }) {
                Ok(delivery) => return Ok(event_trace.link(delivery)),
                Err(refused) => self.wait_after_refusal(&topic, refused, max_block, &mut deadline).await?,
            }
        }
    }

    /// Offers a record once, and returns an error instead of waiting. If the topic has become known since its lookup,
    /// the record is offered again.
    fn offer_without_waiting(
        &self,
        topic: &TopicEntry,
        offer: &impl Fn(&TopicEntry) -> Result<Delivery, Refused>,
    ) -> Result<Delivery, PublishError> {
        offer(topic).or_else(|refused| self.retry_without_waiting(topic, refused, offer))
    }

    /// Offers a refused record again, where no wait is needed.
    #[cold]
    fn retry_without_waiting(
        &self,
        topic: &TopicEntry,
        refused: Refused,
        offer: &impl Fn(&TopicEntry) -> Result<Delivery, Refused>,
    ) -> Result<Delivery, PublishError> {
        match refused {
            Refused::Error(error) => Err(error),
            Refused::NoTopic => {
                if self.inner.intake.shared.closed.load(Ordering::Relaxed) {
                    return Err(PublishError::Closed);
                }
                let now = self.topic(&topic.name)?;
                if now.partitions.is_some() && topic.partitions.is_none() {
                    return self.offer_without_waiting(&now, offer);
                }
                self.request_topic(&now)?;
                Err(PublishError::TopicPending { topic: now.name.clone() })
            }
            Refused::NoMemory { needed, share } => {
                self.inner.intake.seal_fullest(needed, share);
                offer(topic).map_err(|refused| match refused {
                    Refused::Error(error) => error,
                    _ => PublishError::BufferFull { needed, waited: Duration::ZERO },
                })
            }
        }
    }

    /// Returns the entry of a topic, a new one for a new name.
    pub(crate) fn topic(&self, name: &str) -> Result<Arc<TopicEntry>, PublishError> {
        let topics = &self.inner.intake.shared.topics;
        if let Some(topic) = topics.get(name) {
            return Ok(topic);
        }
        validate_topic_name(name)?;
        Ok(topics.get_or_add(name))
    }

    /// Encodes an event into this thread's scratch buffer and offers it.
    fn offer_event(
        &self,
        topic: &TopicEntry,
        event: &dyn Event,
        event_trace: &EventTrace,
    ) -> Result<Delivery, Refused> {
        let mut scratch = SCRATCH.take();
        scratch.clear();
        event.encode_into(&mut scratch).map_err(|error| Refused::Error(error.into()))?;
        let offered =
            with_record(event, &scratch, event_trace.context(), |record| self.inner.intake.offer(topic, None, record));
        if scratch.capacity() <= MAX_KEPT_SCRATCH {
            SCRATCH.set(scratch);
        }
        offered
    }
}

/// The trace and the refusal of an event that was offered once.
pub(crate) struct RefusedOffer {
    pub(crate) event_trace: EventTrace,
    pub(crate) refused: Refused,
}

fn to_batcher_record<'a>(record: &ProducerRecord<'a>, headers: &'a [Header<'a>]) -> Record<'a> {
    Record { key: record.key, value: record.value, headers, timestamp: record.timestamp.unwrap_or_else(wall_clock_ms) }
}

/// Calls `take` with the event's record. `context` is used if the event has no trace context.
pub(crate) fn with_record<R>(
    event: &dyn Event,
    json: &[u8],
    context: Option<&TraceContext>,
    take: impl FnOnce(&Record<'_>) -> R,
) -> R {
    let mut id = [0; EventId::UUID_LEN];
    let id = event.id().as_str(&mut id);
    let key = event.key();
    let mut headers = [Header { key: headers::EVENT_ID, value: Some(id.as_bytes()) }; 5];
    headers[1] = Header { key: headers::EVENT_TYPE, value: Some(event.event_type().as_bytes()) };
    let mut count = 2;
    let correlation = event.correlation_id().map(|id| (headers::CORRELATION_ID, id));
    let trace = event.trace().or(context);
    let parent = trace.map(|trace| (TRACEPARENT, trace.traceparent()));
    let state = trace.and_then(|trace| trace.tracestate()).map(|state| (TRACESTATE, state));
    for (key, value) in [correlation, parent, state].into_iter().flatten() {
        headers[count] = Header { key, value: Some(value.as_bytes()) };
        count += 1;
    }
    take(&Record { key: key.as_deref(), value: Some(json), headers: &headers[..count], timestamp: wall_clock_ms() })
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use kafka_courier_client::Reason;
    use kafka_courier_test_broker::TestCluster;

    use super::*;
    use crate::memory::MemoryShare;
    use crate::topics::TopicLookup;

    #[tokio::test]
    async fn offer_uses_fresh_topic_entry() {
        let cluster = TestCluster::builder().topic("t", 1).start().await.unwrap();
        let producer = KafkaProducer::builder().brokers(cluster.bootstrap()).build().unwrap();
        let before = producer.topic("t").unwrap();
        producer.learn_topic("t").await.unwrap();
        let record = ProducerRecord { topic: "t", value: Some(b"v"), ..ProducerRecord::default() };
        producer.try_send_to(&before, &record).unwrap().await.unwrap();
        // The partitions become known shortly before the lookup's state changes from `Failed` to `Ready`.
        let failed = TopicLookup::Failed(Reason::NoLeader, Instant::now());
        before.state.lookup.send_replace(failed);
        producer.try_send_to(&before, &record).unwrap().await.unwrap();
    }

    #[tokio::test]
    async fn second_refusal_is_the_error() {
        let producer = KafkaProducer::builder().build().unwrap();
        let topic = producer.topic("t").unwrap();
        let error_of = |second: fn() -> Refused| {
            let offers = Cell::new(0);
            let offer = |_: &TopicEntry| {
                offers.set(offers.get() + 1);
                Err(if offers.get() == 1 {
                    Refused::NoMemory { needed: 1, share: MemoryShare::Within }
                } else {
                    second()
                })
            };
            producer.offer_without_waiting(&topic, &offer).map(Delivery::detach).unwrap_err()
        };
        assert!(matches!(error_of(|| Refused::Error(PublishError::Closed)), PublishError::Closed));
        let full = error_of(|| Refused::NoMemory { needed: 1, share: MemoryShare::Within });
        assert!(matches!(full, PublishError::BufferFull { needed: 1, .. }), "{full}");
    }
}

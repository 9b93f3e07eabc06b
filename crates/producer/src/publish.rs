//! Publishing one event or record, with and without waiting.
//!
//! The rules of this module:
//!  - An event that is not accepted returns an error. The engine keeps nothing of it.
//!  - The waiting methods wait only for an unknown topic (`metadata_timeout`) and for memory (`max_block`).
//!  - A record is accepted after the last await point. A dropped future has accepted nothing.
//!  - Each method offers the record once, and leaves what follows a refusal to `offer`.

use std::cell::Cell;
use std::sync::Arc;
use std::time::Duration;

use kafka_courier_batcher::{Header, Record};
use kafka_courier_event_model::{Event, EventId, TraceContext, validate_topic_name};

use crate::delivery::{Delivery, RecordMetadata, Tag};
use crate::engine::Engine;
use crate::error::{Error, PublishError, StoreError};
use crate::headers;
use crate::intake::{Attached, Refused};
use crate::metrics;
use crate::record::ProducerRecord;
use crate::shared::wall_clock_ms;
use crate::spool::{InputItem, RequestKey};
use crate::sync::Ordering;
use crate::topics::TopicEntry;
use crate::trace::{EventTrace, TRACEPARENT, TRACESTATE};

/// The largest scratch buffer in bytes that is kept for the next event.
const MAX_KEPT_SCRATCH: usize = 1 << 20;

thread_local! {
    /// A buffer for the JSON of the event that this thread publishes.
    static SCRATCH: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

impl Engine {
    /// Publishes an event to the topic of its type. Waits only while the topic is unknown or memory is full.
    ///
    /// # Errors
    ///
    /// A [`PublishError`] means that the event was not accepted. The engine keeps nothing of it.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped before it is ready, the event was not accepted.
    #[inline]
    pub async fn publish(&self, event: &dyn Event) -> Result<Delivery, PublishError> {
        let first = self.mapping.with_topic(event.event_type(), |topic| {
            self.offer_once(topic, event).map_err(|refused_offer| (topic.clone(), refused_offer))
        });
        match first {
            Ok(delivery) => Ok(delivery),
            Err((topic, refused_offer)) => self.publish_refused(&topic, event, refused_offer).await,
        }
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
    #[inline]
    pub async fn publish_to(&self, topic: &str, event: &dyn Event) -> Result<Delivery, PublishError> {
        match self.offer_once(topic, event) {
            Ok(delivery) => Ok(delivery),
            Err(refused_offer) => self.publish_refused(topic, event, refused_offer).await,
        }
    }

    /// Publishes an event and waits for its verdict.
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

    /// Publishes an event, and waits until it is in the spool, on disk.
    ///
    /// # Errors
    ///
    /// [`Error::NotAccepted`] if the event was not accepted. [`Error::NotStored`] if the engine has no spool, and nothing
    /// was published then, or if the spool could not be written.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, the event may have been accepted. An accepted event is still stored and delivered.
    pub async fn publish_stored(&self, event: &dyn Event) -> Result<Delivery, Error> {
        if !self.has_spool() {
            return Err(StoreError::NoSpool.into());
        }
        let delivery = self.publish(event).await?;
        delivery.stored().await?;
        Ok(delivery)
    }

    /// Publishes an event to the topic of its type without waiting.
    ///
    /// # Errors
    ///
    /// As [`publish`](Self::publish), [`PublishError::BufferFull`] if there is no memory now, and
    /// [`PublishError::TopicPending`] while the topic's partitions are unknown.
    #[inline]
    pub fn try_publish(&self, event: &dyn Event) -> Result<Delivery, PublishError> {
        self.mapping.with_topic(event.event_type(), |topic| self.try_publish_to(topic, event))
    }

    /// Publishes an event to `topic`, independent of its type, without waiting.
    ///
    /// # Errors
    ///
    /// As [`try_publish`](Self::try_publish).
    #[inline]
    pub fn try_publish_to(&self, topic: &str, event: &dyn Event) -> Result<Delivery, PublishError> {
        self.try_publish_with(topic, event, None)
    }

    /// Publishes an event without waiting, with the item that the event comes from.
    #[inline]
    pub(crate) fn try_publish_with(
        &self,
        topic: &str,
        event: &dyn Event,
        item: Option<&InputItem>,
    ) -> Result<Delivery, PublishError> {
        let event_trace = self.tracer.trace_event(topic, event);
        let offer = |topic: &TopicEntry| self.offer_event(topic, event, &event_trace, item);
        let accepted = self.offer_first(topic, offer).or_else(|refused| self.offer_now(topic, refused, &offer));
        accepted.map(|delivery| delivery.linked_to(&event_trace)).map_err(|error| self.refused(error))
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
    #[inline]
    pub async fn send(&self, record: &ProducerRecord<'_>) -> Result<Delivery, PublishError> {
        self.send_tagged(record, None).await.map_err(|error| self.refused(error))
    }

    /// Publishes a record as [`send`](Self::send) does. The failure sink gets `tag` if the record fails.
    ///
    /// # Errors
    ///
    /// As [`send`](Self::send).
    ///
    /// # Cancel safety
    ///
    /// As [`publish`](Self::publish).
    pub async fn send_with_tag(&self, record: &ProducerRecord<'_>, tag: &Tag) -> Result<Delivery, PublishError> {
        self.send_tagged(record, Some(tag)).await.map_err(|error| self.refused(error))
    }

    /// Publishes a record of a request. The spool stores the key with the record, and the failure sink gets `tag` if the
    /// record fails.
    ///
    /// # Errors
    ///
    /// As [`send`](Self::send).
    ///
    /// # Cancel safety
    ///
    /// As [`publish`](Self::publish).
    pub async fn send_keyed(
        &self,
        record: &ProducerRecord<'_>,
        tag: Option<&Tag>,
        key: Option<&RequestKey>,
    ) -> Result<Delivery, PublishError> {
        let attached = Attached { tag, key, item: None };
        self.send_attached(record, attached).await.map_err(|error| self.refused(error))
    }

    /// Publishes a record as [`send`](Self::send) does, and does not count a refusal. The failure sink gets `tag` if the
    /// record fails.
    ///
    /// # Errors
    ///
    /// As [`send`](Self::send).
    ///
    /// # Cancel safety
    ///
    /// As [`publish`](Self::publish).
    #[inline]
    pub async fn send_tagged(&self, record: &ProducerRecord<'_>, tag: Option<&Tag>) -> Result<Delivery, PublishError> {
        self.send_attached(record, Attached { tag, ..Attached::default() }).await
    }

    #[inline]
    async fn send_attached(
        &self,
        record: &ProducerRecord<'_>,
        attached: Attached<'_>,
    ) -> Result<Delivery, PublishError> {
        let event_trace = self.tracer.trace_record(record.topic, record.headers, record.value.is_none());
        let headers = event_trace.headers(record.headers);
        let raw = to_batcher_record(record, &headers);
        let offer = |topic: &TopicEntry| self.intake.offer_with(topic, record.partition, &raw, attached);
        let accepted = match self.offer_first(record.topic, offer) {
            Ok(delivery) => Ok(delivery),
            Err(refused) => self.offer_until(record.topic, refused, self.max_block, offer).await,
        };
        accepted.map(|delivery| delivery.linked_to(&event_trace))
    }

    /// Publishes a record as given, without waiting.
    ///
    /// # Errors
    ///
    /// The errors of [`try_publish`](Self::try_publish), and [`PublishError::Partition`] if the topic has no such
    /// partition.
    #[inline]
    pub fn try_send(&self, record: &ProducerRecord<'_>) -> Result<Delivery, PublishError> {
        let event_trace = self.tracer.trace_record(record.topic, record.headers, record.value.is_none());
        let headers = event_trace.headers(record.headers);
        let raw = to_batcher_record(record, &headers);
        let offer = |topic: &TopicEntry| self.intake.offer(topic, record.partition, &raw);
        let accepted =
            self.offer_first(record.topic, offer).or_else(|refused| self.offer_now(record.topic, refused, &offer));
        accepted.map(|delivery| delivery.linked_to(&event_trace)).map_err(|error| self.refused(error))
    }

    /// Waits until a topic's partitions are known, and returns their number.
    ///
    /// # Errors
    ///
    /// [`PublishError::Topic`] if the topic is unavailable for `metadata_timeout`, as in [`publish`](Self::publish).
    /// [`PublishError::TopicName`] if the name is invalid. [`PublishError::Closed`] if the engine is closed.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future ends only the wait. The engine still learns the topic.
    pub async fn partition_count(&self, topic: &str) -> Result<i32, PublishError> {
        loop {
            let topic = self.topic(topic)?;
            if let Some(partitions) = &topic.partitions {
                return Ok(partitions.count);
            }
            self.wait_for_topic(&topic).await?;
        }
    }

    /// Counts an event that was not accepted, and returns its error.
    #[cold]
    pub(crate) fn refused(&self, error: PublishError) -> PublishError {
        self.intake.shared.counts.refused.fetch_add(1, Ordering::Relaxed);
        metrics::count_refused(&error);
        error
    }

    /// Offers an event once. Increments no reference count that threads share.
    pub(crate) fn offer_once(&self, topic: &str, event: &dyn Event) -> Result<Delivery, Box<RefusedOffer>> {
        let event_trace = self.tracer.trace_event(topic, event);
        match self.offer_first(topic, |topic| self.offer_event(topic, event, &event_trace, None)) {
            Ok(delivery) => Ok(delivery.linked_to(&event_trace)),
            Err(refused) => Err(Box::new(RefusedOffer { event_trace, refused })),
        }
    }

    /// Publishes an event that was refused once, and counts it if it is refused for good.
    async fn publish_refused(
        &self,
        topic: &str,
        event: &dyn Event,
        refused_offer: Box<RefusedOffer>,
    ) -> Result<Delivery, PublishError> {
        let published = self.publish_after_wait(topic, event, refused_offer, self.max_block).await;
        published.map_err(|error| self.refused(error))
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
        // A separate buffer: the thread's scratch buffer serves other events across an await point. It is filled after the
        // first wait, because waiting tasks must not hold memory while memory is short.
        let mut json = Vec::new();
        let offer = |topic: &TopicEntry| {
            if json.is_empty() {
                event.encode_into(&mut json).map_err(|error| Refused::Error(error.into()))?;
            }
            with_record(event, &json, event_trace.context(), |record| self.intake.offer(topic, None, record))
        };
        let delivery = self.offer_until(topic, refused, max_block, offer).await?;
        Ok(delivery.linked_to(&event_trace))
    }

    /// Returns the entry of a topic, a new one for a new name.
    pub(crate) fn topic(&self, name: &str) -> Result<Arc<TopicEntry>, PublishError> {
        let topics = &self.intake.shared.topics;
        if let Some(topic) = topics.get(name) {
            return Ok(topic);
        }
        validate_topic_name(name)?;
        Ok(topics.get_or_add(name))
    }

    /// Encodes an event into this thread's scratch buffer and offers it.
    pub(crate) fn offer_event(
        &self,
        topic: &TopicEntry,
        event: &dyn Event,
        event_trace: &EventTrace,
        item: Option<&InputItem>,
    ) -> Result<Delivery, Refused> {
        let mut scratch = SCRATCH.take();
        scratch.clear();
        event.encode_into(&mut scratch).map_err(|error| Refused::Error(error.into()))?;
        let attached = Attached { item, ..Attached::default() };
        let offer = |record: &Record<'_>| self.intake.offer_with(topic, None, record, attached);
        let offered = with_record(event, &scratch, event_trace.context(), offer);
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
pub fn with_record<R>(
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

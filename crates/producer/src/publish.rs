//! How events and records are handed over one by one: waiting, or at once.
//!
//! Rules: what was not accepted is an error, and nothing of it is kept; waiting is for an unknown topic (metadata_timeout)
//! and for memory (max_block) only; nothing is accepted before the last point at which the future may be dropped.

use std::cell::Cell;
use std::sync::Arc;
use std::time::{Duration, Instant};

use kafka_courier_batcher::{Header, Record};
use kafka_courier_dlq::Letter;
use kafka_courier_event_model::{Event, EventId, TraceContext, validate_topic_name};
use kafka_courier_idempotent_sender::driver::Command;

use crate::delivery::{Delivery, RecordMetadata};
use crate::error::{Error, PublishError};
use crate::headers;
use crate::intake::Refused;
use crate::memory::Asker;
use crate::metrics;
use crate::producer::{KafkaProducer, after};
use crate::record::ProducerRecord;
use crate::shared::wall_clock_ms;
use crate::sync::Ordering;
use crate::topics::{Standing, Topic};
use crate::trace::{Created, TRACEPARENT, TRACESTATE};

/// After so long a topic that could not be had is asked for again; who publishes to it before is told why at once.
const FAILED_TOPIC_PAUSE: Duration = Duration::from_secs(1);
/// So long is waited for it then, which is enough if the cluster answers, and does not hold up for long who publishes to
/// other topics too. The asking goes on behind.
const FAILED_TOPIC_PATIENCE: Duration = Duration::from_secs(1);

/// How long batches on their way may give no memory back before the open ones are sent too.
const SHORT_OF_MEMORY: Duration = Duration::from_millis(50);

/// A scratch buffer that has grown beyond this is not kept.
const SCRATCH_KEPT: usize = 1 << 20;

thread_local! {
    /// The JSON of the event that this thread is publishing.
    static SCRATCH: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

impl KafkaProducer {
    /// Publishes an event to its type's topic.
    ///
    /// Waits only while the topic is unknown (up to `metadata_timeout`) or memory is full (up to `max_block`). An error
    /// says that the event was not accepted; `Ok` is the [`Delivery`] that tells what became of it.
    ///
    /// A topic that could not be had is asked for again after a second, and then waited for at most a second: whoever
    /// publishes to it meanwhile gets the same error at once.
    ///
    /// Cancel safety: if this future is dropped before it is ready, the event was not accepted.
    pub async fn publish(&self, event: &dyn Event) -> Result<Delivery, PublishError> {
        self.publish_mapped(event, self.inner.max_block).await
    }

    /// Publishes an event to `topic`, whatever its type.
    ///
    /// Waits, fails and may be cancelled as [`publish`](Self::publish).
    pub async fn publish_to(&self, topic: &str, event: &dyn Event) -> Result<Delivery, PublishError> {
        match self.begin(topic, event) {
            Ok(delivery) => Ok(delivery),
            Err(begun) => {
                self.go_on(topic, event, begun, self.inner.max_block).await.map_err(|error| self.refused(error))
            }
        }
    }

    /// Publishes an event and waits for its verdict: [`publish`](Self::publish) and the awaited [`Delivery`] in one.
    ///
    /// Cancel safety: the event may have been accepted, and is then delivered all the same.
    pub async fn publish_and_wait(&self, event: &dyn Event) -> Result<RecordMetadata, Error> {
        Ok(self.publish(event).await?.await?)
    }

    /// Publishes an event to its type's topic if that takes no waiting at all.
    ///
    /// Beyond what [`publish`](Self::publish) fails with: [`PublishError::BufferFull`] at once, and
    /// [`PublishError::TopicPending`] while the topic's partitions are not known. It is asked for then, so that a later
    /// try finds it.
    pub fn try_publish(&self, event: &dyn Event) -> Result<Delivery, PublishError> {
        self.inner.mapping.with_topic(event.event_type(), |topic| self.try_publish_to(topic, event))
    }

    /// Publishes an event to `topic`, whatever its type, if that takes no waiting at all.
    ///
    /// Fails as [`try_publish`](Self::try_publish).
    pub fn try_publish_to(&self, topic: &str, event: &dyn Event) -> Result<Delivery, PublishError> {
        let known = self.inner.intake.shared.topics.with(topic, |topic| self.try_event(topic, event));
        let taken = known.unwrap_or_else(|| self.try_event(&*self.topic(topic)?, event));
        taken.map_err(|error| self.refused(error))
    }

    fn try_event(&self, topic: &Topic, event: &dyn Event) -> Result<Delivery, PublishError> {
        let created = self.inner.tracer.event(&topic.name, event);
        let offered = self.at_once(topic, &|topic| self.offer_event(topic, event, &created));
        offered.map(|delivery| created.delivered(delivery))
    }

    /// Publishes a record as it is: key, value, headers.
    ///
    /// Waits, fails and may be cancelled as [`publish`](Self::publish).
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
        self.send_as(record, None).await.map_err(|error| self.refused(error))
    }

    /// Counts what was not accepted.
    #[cold]
    pub(crate) fn refused(&self, error: PublishError) -> PublishError {
        self.inner.intake.shared.counts.refused.fetch_add(1, Ordering::Relaxed);
        metrics::refused(&error);
        error
    }

    /// As [`send`](Self::send); the record may be a dead letter's, which then knows its letter.
    pub(crate) async fn send_as(
        &self,
        record: &ProducerRecord<'_>,
        letter: Option<&Arc<Letter>>,
    ) -> Result<Delivery, PublishError> {
        let created = self.inner.tracer.record(record.topic, record.headers, record.value.is_none());
        let headers = created.headers(record.headers);
        let raw = raw(record, &headers);
        let offer = |topic: &Topic| self.inner.intake.offer_letter(topic, record.partition, &raw, letter);
        let mut offered = match self.inner.intake.shared.topics.with(record.topic, offer) {
            Some(Ok(delivery)) => return Ok(created.delivered(delivery)),
            Some(Err(refused)) => Err(refused),
            None => Err(Refused::NoTopic),
        };
        let mut deadline = None;
        loop {
            match offered {
                Ok(delivery) => return Ok(created.delivered(delivery)),
                Err(refused) => {
                    let topic = self.topic(record.topic)?;
                    self.wait(&topic, refused, self.inner.max_block, &mut deadline).await?;
                }
            }
            offered = offer(&*self.topic(record.topic)?);
        }
    }

    /// Waits until a topic's partitions are known, so that events can be published to it without waiting for it.
    ///
    /// # Errors
    ///
    /// [`PublishError::Topic`] if the topic is unknown to the cluster for `metadata_timeout`, as for
    /// [`publish`](Self::publish); [`PublishError::TopicName`] or [`PublishError::Closed`].
    ///
    /// # Cancel safety
    ///
    /// It only waits: the topic is learnt all the same.
    pub async fn learn_topic(&self, topic: &str) -> Result<(), PublishError> {
        self.partition_count(topic).await.map(|_| ())
    }

    /// How many partitions a topic has; waits for it as publishing does.
    pub(crate) async fn partition_count(&self, topic: &str) -> Result<i32, PublishError> {
        loop {
            let topic = self.topic(topic)?;
            if let Some(partitions) = &topic.partitions {
                return Ok(partitions.count);
            }
            self.wait_for_topic(&topic).await?;
        }
    }

    /// Publishes a record as it is, if that takes no waiting at all.
    ///
    /// Fails as [`try_publish`](Self::try_publish).
    pub fn try_send(&self, record: &ProducerRecord<'_>) -> Result<Delivery, PublishError> {
        let known = self.inner.intake.shared.topics.with(record.topic, |topic| self.try_send_to(topic, record));
        let taken = known.unwrap_or_else(|| self.try_send_to(&*self.topic(record.topic)?, record));
        taken.map_err(|error| self.refused(error))
    }

    fn try_send_to(&self, topic: &Topic, record: &ProducerRecord<'_>) -> Result<Delivery, PublishError> {
        let created = self.inner.tracer.record(&topic.name, record.headers, record.value.is_none());
        let headers = created.headers(record.headers);
        let raw = raw(record, &headers);
        let offered = self.at_once(topic, &|topic| self.inner.intake.offer(topic, record.partition, &raw));
        offered.map(|delivery| created.delivered(delivery))
    }

    async fn publish_mapped(&self, event: &dyn Event, max_block: Duration) -> Result<Delivery, PublishError> {
        let begun = self
            .inner
            .mapping
            .with_topic(event.event_type(), |topic| self.begin(topic, event).map_err(|begun| (topic.clone(), begun)));
        match begun {
            Ok(delivery) => Ok(delivery),
            Err((topic, begun)) => {
                self.go_on(&topic, event, begun, max_block).await.map_err(|error| self.refused(error))
            }
        }
    }

    /// Offers an event once; what it was refused for may be waited for. No reference to what threads share is counted.
    pub(crate) fn begin(&self, topic: &str, event: &dyn Event) -> Result<Delivery, Box<Begun>> {
        let created = self.inner.tracer.event(topic, event);
        let offer = |topic: &Topic| self.offer_event(topic, event, &created);
        match self.inner.intake.shared.topics.with(topic, offer) {
            Some(Ok(delivery)) => Ok(created.delivered(delivery)),
            Some(Err(refused)) => Err(Box::new(Begun { created, refused })),
            None => Err(Box::new(Begun { created, refused: Refused::NoTopic })),
        }
    }

    /// Waits for what an event was refused for, and offers it again.
    pub(crate) async fn go_on(
        &self,
        topic: &str,
        event: &dyn Event,
        begun: Box<Begun>,
        max_block: Duration,
    ) -> Result<Delivery, PublishError> {
        let Begun { created, refused } = *begun;
        let mut deadline = None;
        self.wait(&*self.topic(topic)?, refused, max_block, &mut deadline).await?;
        // Its own buffer: this thread's is others' while we wait.
        let mut json = Vec::new();
        event.encode_into(&mut json)?;
        loop {
            let topic = self.topic(topic)?;
            match with_record(event, &json, created.context(), |record| self.inner.intake.offer(&topic, None, record)) {
                Ok(delivery) => return Ok(created.delivered(delivery)),
                Err(refused) => self.wait(&topic, refused, max_block, &mut deadline).await?,
            }
        }
    }

    /// Offers once, and says what would have to be waited for as an error. Where the topic has become known since it was
    /// looked up, it is offered to what is known of it now.
    fn at_once(
        &self,
        topic: &Topic,
        offer: &impl Fn(&Topic) -> Result<Delivery, Refused>,
    ) -> Result<Delivery, PublishError> {
        offer(topic).or_else(|refused| self.at_once_again(topic, refused, offer))
    }

    /// What was refused may be taken after all, if that takes no waiting.
    #[cold]
    fn at_once_again(
        &self,
        topic: &Topic,
        refused: Refused,
        offer: &impl Fn(&Topic) -> Result<Delivery, Refused>,
    ) -> Result<Delivery, PublishError> {
        match refused {
            Refused::Error(error) => Err(error),
            Refused::NoTopic => {
                if self.inner.intake.shared.closed.load(Ordering::Relaxed) {
                    return Err(PublishError::Closed);
                }
                let now = self.topic(&topic.name)?;
                if now.partitions.is_some() && topic.partitions.is_none() {
                    return self.at_once(&now, offer);
                }
                self.ask_for(&now)?;
                Err(PublishError::TopicPending { topic: now.name.clone() })
            }
            Refused::NoMemory { needed, asker } => {
                self.inner.intake.relieve(needed, asker);
                offer(topic).map_err(|refused| match refused {
                    Refused::Error(error) => error,
                    _ => PublishError::BufferFull { needed, waited: Duration::ZERO },
                })
            }
        }
    }

    pub(crate) fn topic(&self, name: &str) -> Result<Arc<Topic>, PublishError> {
        let topics = &self.inner.intake.shared.topics;
        if let Some(topic) = topics.get(name) {
            return Ok(topic);
        }
        validate_topic_name(name)?;
        Ok(topics.get_or_add(name))
    }

    /// The fast way: encodes into this thread's scratch buffer and takes the record from there.
    fn offer_event(&self, topic: &Topic, event: &dyn Event, created: &Created) -> Result<Delivery, Refused> {
        let mut scratch = SCRATCH.take();
        scratch.clear();
        event.encode_into(&mut scratch).map_err(|error| Refused::Error(error.into()))?;
        let offered =
            with_record(event, &scratch, created.context(), |record| self.inner.intake.offer(topic, None, record));
        if scratch.capacity() <= SCRATCH_KEPT {
            SCRATCH.set(scratch);
        }
        offered
    }

    /// Waits for what a record was refused for. The first wait for memory sets the deadline.
    async fn wait(
        &self,
        topic: &Topic,
        refused: Refused,
        max_block: Duration,
        deadline: &mut Option<Instant>,
    ) -> Result<(), PublishError> {
        match refused {
            Refused::Error(error) => Err(error),
            Refused::NoTopic => self.wait_for_topic(topic).await,
            Refused::NoMemory { needed, asker } => {
                let deadline = *deadline.get_or_insert_with(|| after(max_block));
                if self.wait_for_memory(needed, asker, deadline).await {
                    return Ok(());
                }
                Err(PublishError::BufferFull { needed, waited: max_block })
            }
        }
    }

    /// Waits for memory until `deadline`; whether it is there. As long as batches on their way give some back
    /// the open ones go on filling, but for the fullest; if none do, the open ones are sent as they are.
    async fn wait_for_memory(&self, needed: usize, asker: Asker, deadline: Instant) -> bool {
        let intake = &self.inner.intake;
        let memory = &intake.shared.memory;
        let patience = || deadline.saturating_duration_since(Instant::now());
        intake.relieve(needed, asker);
        if memory.wait_for(needed, asker, patience().min(SHORT_OF_MEMORY)).await {
            return true;
        }
        intake.tell(Command::SealOpen);
        memory.wait_for(needed, asker, patience()).await
    }

    /// Has a topic asked for, unless it was; fails if it could not be had a moment ago. Otherwise, until when to wait
    /// for it, where that has an end of its own.
    pub(crate) fn ask_for(&self, topic: &Topic) -> Result<Option<Instant>, PublishError> {
        let (mut ask, mut refused, mut until) = (false, None, None);
        topic.lasting.standing.send_if_modified(|standing| match standing {
            Standing::Unasked => {
                ask = true;
                *standing = Standing::Asked;
                true
            }
            Standing::Failed(reason, at) if at.elapsed() >= FAILED_TOPIC_PAUSE => {
                ask = true;
                let now = Instant::now();
                until = Some(now + FAILED_TOPIC_PATIENCE);
                *standing = Standing::AskedAgain(reason.clone(), now);
                true
            }
            Standing::AskedAgain(_, at) if at.elapsed() < FAILED_TOPIC_PATIENCE => {
                until = Some(*at + FAILED_TOPIC_PATIENCE);
                false
            }
            Standing::Failed(reason, _) | Standing::AskedAgain(reason, _) => {
                refused = Some(reason.clone());
                false
            }
            Standing::Asked | Standing::Ready => false,
        });
        if ask {
            self.inner.intake.tell(Command::WantTopic(topic.name.clone()));
        }
        match refused {
            Some(reason) => Err(PublishError::Topic { topic: topic.name.clone(), reason }),
            None => Ok(until),
        }
    }

    async fn wait_for_topic(&self, topic: &Topic) -> Result<(), PublishError> {
        let mut standing = topic.lasting.standing.subscribe();
        let until = self.ask_for(topic)?;
        let mut finished = self.inner.finished.clone();
        let patience = async {
            match until {
                Some(until) => tokio::time::sleep_until(until.into()).await,
                None => std::future::pending().await,
            }
        };
        let settled = tokio::select! {
            seen = standing.wait_for(|now| matches!(now, Standing::Ready | Standing::Failed(..))) => seen.map(|s| s.clone()),
            () = patience => Ok(topic.lasting.standing.borrow().clone()),
            _ = finished.wait_for(|done| *done) => return Err(PublishError::Closed),
        };
        match settled {
            Ok(Standing::Failed(reason, _) | Standing::AskedAgain(reason, _)) => {
                Err(PublishError::Topic { topic: topic.name.clone(), reason })
            }
            Ok(_) => Ok(()),
            Err(_) => Err(PublishError::Closed),
        }
    }
}

/// An event that was offered once, and refused.
pub(crate) struct Begun {
    pub(crate) created: Created,
    pub(crate) refused: Refused,
}

fn raw<'a>(record: &ProducerRecord<'a>, headers: &'a [Header<'a>]) -> Record<'a> {
    Record { key: record.key, value: record.value, headers, timestamp: record.timestamp.unwrap_or_else(wall_clock_ms) }
}

/// Calls `take` with the event as a record; it carries the event's own context, else this one.
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
    use kafka_courier_idempotent_sender::core::Reason;
    use kafka_courier_test_broker::TestCluster;

    use super::*;

    #[tokio::test]
    async fn what_is_offered_to_a_topic_that_has_become_known_meanwhile_is_taken_at_once() {
        let cluster = TestCluster::builder().topic("t", 1).start().await.unwrap();
        let producer = KafkaProducer::builder().brokers(cluster.bootstrap()).build().unwrap();
        let before = producer.topic("t").unwrap();
        producer.learn_topic("t").await.unwrap();
        let record = ProducerRecord { topic: "t", value: Some(b"v"), ..ProducerRecord::default() };
        producer.try_send_to(&before, &record).unwrap().await.unwrap();
        // It becomes known a moment before it no longer counts as one that could not be had.
        let failed = Standing::Failed(Reason::NoLeader, Instant::now());
        before.lasting.standing.send_replace(failed);
        producer.try_send_to(&before, &record).unwrap().await.unwrap();
    }

    #[tokio::test]
    async fn what_stands_in_the_way_once_memory_was_made_is_told_instead_of_the_memory() {
        let producer = KafkaProducer::builder().build().unwrap();
        let topic = producer.topic("t").unwrap();
        let told = |second: fn() -> Refused| {
            let offers = Cell::new(0);
            let offer = |_: &Topic| {
                offers.set(offers.get() + 1);
                Err(if offers.get() == 1 { Refused::NoMemory { needed: 1, asker: Asker::Within } } else { second() })
            };
            producer.at_once(&topic, &offer).map(Delivery::detach).unwrap_err()
        };
        assert!(matches!(told(|| Refused::Error(PublishError::Closed)), PublishError::Closed));
        let full = told(|| Refused::NoMemory { needed: 1, asker: Asker::Within });
        assert!(matches!(full, PublishError::BufferFull { needed: 1, .. }), "{full}");
    }
}

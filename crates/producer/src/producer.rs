//! The handle that applications hold.
//!
//! Rules: cheap to clone; building it never waits for Kafka; an event is accepted or refused at once unless
//! its topic is still unknown or memory is full.

use std::cell::RefCell;
use std::sync::Arc;
use std::time::{Duration, Instant};

use kafka_courier_batcher::{BufferPool, Compression as Codec, Header, Limits, Record};
use kafka_courier_event_model::{Event, EventId, TopicMapping, TopicMappingError, validate_topic_name};
use kafka_courier_idempotent_sender::driver::{Command, DriverConfig, driver};
use tokio::sync::{oneshot, watch};

use crate::config::{Compression, ConfigErrors, KafkaConfig};
use crate::delivery::Delivery;
use crate::error::PublishError;
use crate::intake::{Intake, Refused};
use crate::memory::{Asker, Memory};
use crate::record::ProducerRecord;
use crate::shared::{Callbacks, Counts, Shared, wall_clock_ms};
use crate::sync::Ordering;
use crate::topics::{Standing, Topic, Topics};

/// The header that carries the event's id.
pub const HEADER_EVENT_ID: &str = "event_id";
/// The header that carries the event's type.
pub const HEADER_EVENT_TYPE: &str = "event_type";
/// The header that carries the correlation id, where the event has one.
pub const HEADER_CORRELATION_ID: &str = "correlation_id";

thread_local! {
    /// The JSON of the event that this thread is publishing.
    static SCRATCH: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// How often a topic that could not be had is asked for again; who publishes to it meanwhile is told at once, and
/// does not hold up its other events.
const FAILED_TOPIC_PAUSE: Duration = Duration::from_secs(5);

/// How long batches on their way may give no memory back before the open ones are sent too.
const SHORT_OF_MEMORY: Duration = Duration::from_millis(50);

/// A scratch buffer that has grown beyond this is not kept.
const SCRATCH_KEPT: usize = 1 << 20;

/// Publishes events to Kafka.
#[derive(Clone, Debug)]
pub struct KafkaProducer {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    intake: Intake,
    mapping: TopicMapping,
    max_block: Duration,
    finished: watch::Receiver<bool>,
}

/// What a producer has done so far.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Stats {
    /// Events acknowledged by every in-sync replica.
    pub sent: u64,
    /// Events given up.
    pub failed: u64,
    /// Events in batches that were sent again.
    pub retried: u64,
    /// Bytes of memory held for events without a verdict.
    pub buffered_bytes: usize,
    /// Whether it was closed.
    pub is_closed: bool,
}

/// What became of everything, when the producer was closed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct CloseReport {
    /// Events delivered in the producer's life.
    pub delivered: u64,
    /// Events given up in its life.
    pub failed: u64,
}

/// No answer from the cluster, or not in time.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{0}")]
pub struct HealthError(String);

impl KafkaProducer {
    /// Checks the configuration and starts the sender's task on the current tokio runtime. Never waits for
    /// Kafka. Errors: everything that is wrong with the configuration. Panics outside a tokio runtime.
    pub fn build(config: KafkaConfig) -> Result<Self, ConfigErrors> {
        config.validate()?;
        let mapping = TopicMapping::new();
        mapping.apply(&config.topic_mapping).map_err(|error| ConfigErrors(vec![error.to_string()]))?;
        let limits =
            Limits { max_records: config.flush_messages, max_bytes: config.flush_bytes, linger: config.flush_timeout };
        let codec = match config.compression {
            Compression::None => Codec::None,
            Compression::Snappy => Codec::Snappy,
        };
        let shared = Arc::new(Shared {
            topics: Topics::new(limits, codec),
            memory: Memory::new(config.buffer_memory),
            pool: BufferPool::new(config.buffer_memory / 4),
            ledger: Arc::default(),
            closed: false.into(),
            counts: Counts::default(),
            on_their_way: 0.into(),
        });
        let driver_config = DriverConfig {
            core: config.core(),
            bootstrap: config.brokers.iter().map(|broker| (broker.host.clone(), broker.port)).collect(),
            client_id: config.client_id.as_str().into(),
            connect_timeout: config.connect_timeout,
        };
        let (commands, task) = driver(driver_config, Callbacks(shared.clone()))
            .map_err(|problems| ConfigErrors(problems.iter().map(ToString::to_string).collect()))?;
        let (done, finished) = watch::channel(false);
        tokio::spawn(async move {
            task.run().await;
            done.send_replace(true);
        });
        let intake = Intake { shared, commands };
        Ok(Self { inner: Arc::new(Inner { intake, mapping, max_block: config.max_block, finished }) })
    }

    /// Publishes an event to its type's topic.
    ///
    /// Waits only while the topic is unknown or memory is full. An error says that the event was not accepted;
    /// `Ok` is the [`Delivery`] that tells what became of it.
    ///
    /// Cancel safety: if this future is dropped before it is ready, the event was not accepted.
    pub async fn publish(&self, event: &dyn Event) -> Result<Delivery, PublishError> {
        let topic = self.inner.mapping.topic_for(event.event_type());
        self.publish_to(&topic, event).await
    }

    /// Publishes an event to `topic`, whatever its type.
    pub async fn publish_to(&self, topic: &str, event: &dyn Event) -> Result<Delivery, PublishError> {
        let found = self.topic(topic)?;
        let refused = match self.offer_event(&found, event) {
            Ok(delivery) => return Ok(delivery),
            Err(Refused::Error(error)) => return Err(error),
            Err(refused) => refused,
        };
        let mut json = Vec::new();
        event.encode_into(&mut json)?;
        let mut refused = Some(refused);
        let deadline = after(self.inner.max_block);
        loop {
            if let Some(refused) = refused.take() {
                self.wait(&found, refused, deadline).await?;
            }
            match with_record(event, &json, |record| self.inner.intake.offer(&found, None, record)) {
                Ok(delivery) => return Ok(delivery),
                Err(Refused::Error(error)) => return Err(error),
                Err(again) => refused = Some(again),
            }
        }
    }

    /// Publishes a record as it is: key, value, headers.
    ///
    /// Waits, fails and may be cancelled as [`publish`](Self::publish).
    pub async fn send(&self, record: &ProducerRecord<'_>) -> Result<Delivery, PublishError> {
        let topic = self.topic(record.topic)?;
        let raw = Record {
            key: record.key,
            value: record.value,
            headers: record.headers,
            timestamp: record.timestamp.unwrap_or_else(wall_clock_ms),
        };
        let deadline = after(self.inner.max_block);
        loop {
            match self.inner.intake.offer(&topic, record.partition, &raw) {
                Ok(delivery) => return Ok(delivery),
                Err(Refused::Error(error)) => return Err(error),
                Err(refused) => self.wait(&topic, refused, deadline).await?,
            }
        }
    }

    /// Sends events of this type to `topic` from now on.
    pub fn set_topic_mapping(&self, event_type: &str, topic: &str) -> Result<(), TopicMappingError> {
        self.inner.mapping.set_topic_mapping(event_type, topic)
    }

    /// The topic that events of this type go to now.
    pub fn topic_for(&self, event_type: &str) -> Arc<str> {
        self.inner.mapping.topic_for(event_type)
    }

    /// Sends whatever is still being gathered, and waits until everything accepted before has its verdict.
    /// Returns whether it all had within `timeout`.
    ///
    /// Cancel safety: nothing is lost.
    pub async fn flush(&self, timeout: Duration) -> bool {
        self.inner.intake.tell(Command::SealOpen);
        tokio::time::timeout(timeout, self.inner.intake.shared.ledger.settled()).await.is_ok()
    }

    /// Proves a round trip to the cluster.
    pub async fn health_check(&self, timeout: Duration) -> Result<(), HealthError> {
        let (answer, answered) = oneshot::channel();
        self.inner.intake.tell(Command::Probe(answer));
        match tokio::time::timeout(timeout, answered).await {
            Ok(Ok(result)) => result.map_err(HealthError),
            Ok(Err(_)) => Err(HealthError("the producer is closed".to_owned())),
            Err(_) => Err(HealthError(format!("no answer from the cluster within {timeout:?}"))),
        }
    }

    /// What it has done so far.
    pub fn stats(&self) -> Stats {
        let shared = &*self.inner.intake.shared;
        Stats {
            sent: shared.counts.sent.load(Ordering::Relaxed),
            failed: shared.counts.failed.load(Ordering::Relaxed),
            retried: shared.counts.retried.load(Ordering::Relaxed),
            buffered_bytes: shared.memory.used(),
            is_closed: shared.closed.load(Ordering::Relaxed),
        }
    }

    /// Accepts nothing more, delivers what was accepted for at most `timeout`, and gives up the rest. Every
    /// event has its verdict when this returns.
    ///
    /// Cancel safety: closing goes on without it.
    pub async fn close(&self, timeout: Duration) -> CloseReport {
        let shared = &*self.inner.intake.shared;
        shared.closed.store(true, Ordering::SeqCst);
        for slot in shared.topics.all_slots() {
            // Whoever was still inside has told the task of what it opened once this lock was free.
            drop(slot.accumulator.lock());
        }
        self.inner.intake.tell(Command::Close { deadline: after(timeout) });
        let mut finished = self.inner.finished.clone();
        // An error says that the task is gone, which is as good.
        let _ = finished.wait_for(|done| *done).await;
        CloseReport {
            delivered: shared.counts.sent.load(Ordering::Relaxed),
            failed: shared.counts.failed.load(Ordering::Relaxed),
        }
    }

    fn topic(&self, name: &str) -> Result<Arc<Topic>, PublishError> {
        let topics = &self.inner.intake.shared.topics;
        if let Some(topic) = topics.get(name) {
            return Ok(topic);
        }
        validate_topic_name(name)?;
        Ok(topics.get_or_add(name))
    }

    /// The fast way: encodes into this thread's scratch buffer and takes the record from there.
    fn offer_event(&self, topic: &Topic, event: &dyn Event) -> Result<Delivery, Refused> {
        SCRATCH.with_borrow_mut(|scratch| {
            scratch.clear();
            event.encode_into(scratch).map_err(|error| Refused::Error(error.into()))?;
            let offered = with_record(event, scratch, |record| self.inner.intake.offer(topic, None, record));
            if scratch.capacity() > SCRATCH_KEPT {
                *scratch = Vec::new();
            }
            offered
        })
    }

    /// Waits for what a record was refused for.
    async fn wait(&self, topic: &Topic, refused: Refused, deadline: Instant) -> Result<(), PublishError> {
        match refused {
            Refused::Error(error) => Err(error),
            Refused::NoTopic => self.wait_for_topic(topic).await,
            Refused::NoMemory { needed, asker } => {
                if self.wait_for_memory(needed, asker, deadline).await {
                    return Ok(());
                }
                Err(PublishError::BufferFull { needed, waited: self.inner.max_block })
            }
        }
    }

    /// Waits for memory until `deadline`; whether it is there. As long as batches on their way give some back
    /// the open ones go on filling; if none are, or none do, the open ones are sent as they are.
    async fn wait_for_memory(&self, needed: usize, asker: Asker, deadline: Instant) -> bool {
        let intake = &self.inner.intake;
        let memory = &intake.shared.memory;
        let patience = || deadline.saturating_duration_since(Instant::now());
        if intake.shared.on_their_way.load(Ordering::Relaxed) > 0
            && memory.wait_for(needed, asker, patience().min(SHORT_OF_MEMORY)).await
        {
            return true;
        }
        intake.tell(Command::SealOpen);
        memory.wait_for(needed, asker, patience()).await
    }

    async fn wait_for_topic(&self, topic: &Topic) -> Result<(), PublishError> {
        let mut standing = topic.standing.subscribe();
        let (mut ask, mut refused) = (false, None);
        topic.standing.send_if_modified(|standing| match standing {
            Standing::Unasked => {
                ask = true;
                *standing = Standing::Asked;
                true
            }
            Standing::Failed(reason, at) => {
                // Asked for again in the background: nobody waits a second time for a topic that is not there.
                ask = at.elapsed() >= FAILED_TOPIC_PAUSE;
                if ask {
                    *at = Instant::now();
                }
                refused = Some(reason.clone());
                false
            }
            Standing::Asked | Standing::Ready => false,
        });
        if ask {
            self.inner.intake.tell(Command::WantTopic(topic.name.clone()));
        }
        if let Some(reason) = refused {
            return Err(PublishError::Topic { topic: topic.name.clone(), reason });
        }
        let mut finished = self.inner.finished.clone();
        let settled = tokio::select! {
            seen = standing.wait_for(|now| matches!(now, Standing::Ready | Standing::Failed(..))) => seen.map(|s| s.clone()),
            _ = finished.wait_for(|done| *done) => return Err(PublishError::Closed),
        };
        match settled {
            Ok(Standing::Failed(reason, _)) => Err(PublishError::Topic { topic: topic.name.clone(), reason }),
            Ok(_) => Ok(()),
            Err(_) => Err(PublishError::Closed),
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        let shared = &*self.intake.shared;
        if !shared.closed.load(Ordering::Relaxed) && !shared.ledger.is_empty() {
            tracing::warn!(
                "the producer was dropped without close(): what it accepted is still delivered while the runtime lives"
            );
        }
    }
}

/// The point in time `wait` from now; beyond a year it makes no difference.
fn after(wait: Duration) -> Instant {
    const A_YEAR: Duration = Duration::from_secs(365 * 24 * 60 * 60);
    Instant::now() + wait.min(A_YEAR)
}

/// Calls `take` with the event as a record.
fn with_record<R>(event: &dyn Event, json: &[u8], take: impl FnOnce(&Record<'_>) -> R) -> R {
    let mut id = [0; EventId::UUID_LEN];
    let id = event.id().as_str(&mut id);
    let key = event.key();
    let mut headers = [Header { key: HEADER_EVENT_ID, value: Some(id.as_bytes()) }; 5];
    headers[1] = Header { key: HEADER_EVENT_TYPE, value: Some(event.event_type().as_bytes()) };
    let mut count = 2;
    let correlation = event.correlation_id().map(|id| (HEADER_CORRELATION_ID, id));
    let trace = event.trace();
    let parent = trace.map(|trace| ("traceparent", trace.traceparent()));
    let state = trace.and_then(|trace| trace.tracestate()).map(|state| ("tracestate", state));
    for (key, value) in [correlation, parent, state].into_iter().flatten() {
        headers[count] = Header { key, value: Some(value.as_bytes()) };
        count += 1;
    }
    take(&Record { key: key.as_deref(), value: Some(json), headers: &headers[..count], timestamp: wall_clock_ms() })
}

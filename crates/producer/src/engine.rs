//! [`Engine`]: construction, flush, close.
//!
//! The rules of this module:
//!  - Starting an engine never waits for Kafka.
//!  - The engine is finished once every accepted event has its verdict and the failure sink has settled its records.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use kafka_courier_batcher::{Compression, Limits};
use kafka_courier_client::config::ClientConfig;
use kafka_courier_client::{ErrorCode, TopicId};
use kafka_courier_event_model::{TopicMapping, TopicMappingError};
use kafka_courier_idempotent_sender::core::{ConfigError, FailedOutcome, RecordSet, Settlement, Submission, Verdict};
use kafka_courier_idempotent_sender::driver::{DriverCommand, DriverConfig, Upcalls, driver};
use tokio::runtime::Handle;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::watch;

use crate::callbacks::Callbacks;
use crate::counts::EventCounts;
use crate::delivery::Token;
use crate::failure_sink::FailureSink;
use crate::intake::Intake;
use crate::metrics::{self, Meter};
use crate::shared::Shared;
use crate::spool::{OpenSpool, SpoolCommand, SpoolSender, TopicNews};
use crate::spool_host::EngineHost;
use crate::spool_start::SpoolParts;
use crate::stats::Stats;
use crate::sync::Ordering;
use crate::trace::{SpanOrigin, TraceContextSource, Tracer};

/// The result of a record that was sent in a separate batch, not through the sender.
pub type SeparateResult = Result<(), (Option<ErrorCode>, FailedOutcome)>;

/// The settings of an [`Engine`].
#[derive(Debug)]
pub struct EngineConfig {
    /// The settings of the sender and its connections.
    pub driver: DriverConfig,
    /// The limits of a batch.
    pub limits: Limits,
    /// The compression of batches.
    pub compression: Compression,
    /// The memory for events without a verdict, in bytes.
    pub buffer_memory: usize,
    /// How long publishing waits for memory.
    pub max_block: Duration,
    /// Whether a batch with an awaited delivery leaves before its linger ends.
    pub expedite: bool,
    /// The topics of event types.
    pub mapping: TopicMapping,
    /// The attributes of every span.
    pub origin: SpanOrigin,
    /// The source of trace contexts.
    pub trace: Option<TraceContextSource>,
    /// Whether the metrics count the events. An engine that serves another one is not counted.
    pub is_metered: bool,
    /// The spool, which has events on disk before they are sent.
    pub spool: Option<OpenSpool>,
}

/// Why an engine can't start.
#[derive(Debug)]
pub enum StartError {
    /// Settings of the sender are out of bounds.
    Config(Vec<ConfigError>),
    /// The operating system starts no thread for the spool.
    Thread(std::io::Error),
}

/// Publishes events and records through one sender.
///
/// An engine that is dropped stays alive in its sender's task until the accepted events have their verdicts.
#[derive(Debug)]
pub struct Engine {
    pub(crate) intake: Intake,
    pub(crate) mapping: TopicMapping,
    pub(crate) max_block: Duration,
    pub(crate) tracer: Tracer,
    driver_config: DriverConfig,
    /// The producer ids that the spool held for earlier processes when it was opened.
    inherited_ids: BTreeSet<i64>,
    finished: watch::Receiver<bool>,
}

/// The sender's side of an engine without a sender, for a transport other than Kafka's.
///
/// The holder receives the engine's commands, and reports topics and verdicts. The engine finishes once this value is
/// dropped.
pub struct Unconnected {
    /// The engine's commands.
    pub commands: UnboundedReceiver<DriverCommand<Token>>,
    /// The callbacks that the sender's task calls.
    callbacks: Callbacks,
    /// The number of announced topics.
    topics: u32,
    _done: watch::Sender<bool>,
}

impl Unconnected {
    /// Announces a topic with this number of partitions, each with a leader.
    pub fn announce_topic(&mut self, topic: &str, partitions: usize) {
        self.callbacks.topic_ready(TopicId(self.topics), &topic.into(), &vec![true; partitions]);
        self.topics += 1;
    }

    /// Gives every record of a sealed batch the same verdict, as the sender's task does.
    pub fn settle(&mut self, submission: Submission<Token>, verdict: Verdict) {
        let Submission { partition, token, published_at, batch, .. } = submission;
        let (records, charge) = (RecordSet::Range(0..batch.record_count()), batch.capacity());
        let batch = Arc::new(batch);
        let first_attempt = None;
        self.callbacks.settled(Settlement {
            token,
            partition,
            records,
            verdict,
            published_at,
            first_attempt,
            batch,
            charge,
        });
    }
}

impl Engine {
    /// Starts an engine, and the sender's task on `runtime`. Never waits for Kafka. `sink` takes the records that fail.
    ///
    /// # Errors
    ///
    /// [`StartError`]: all problems of the sender's settings, or why the spool's thread does not start.
    pub fn start(
        mut config: EngineConfig,
        sink: Option<Arc<dyn FailureSink>>,
        runtime: &Handle,
    ) -> Result<Self, StartError> {
        let inherited_ids = config.spool.as_ref().map(OpenSpool::held_producer_ids).unwrap_or_default();
        let spool = config.spool.take().map(SpoolParts::new);
        let (topic_news, news) = spool.as_ref().map(|_| unbounded_channel()).unzip();
        let callbacks = callbacks(&config, sink.clone(), spool.as_ref().map(SpoolParts::sender), topic_news);
        let shared = callbacks.shared.clone();
        let (commands, task) = driver(config.driver.clone(), callbacks).map_err(StartError::Config)?;
        let start_spool = |(parts, news): (SpoolParts, _)| {
            let host = EngineHost {
                shared: shared.clone(),
                sink: sink.clone(),
                commands: commands.clone(),
                spool: parts.id(),
                nonce: parts.nonce(),
                is_metered: config.is_metered,
                runtime: runtime.clone(),
            };
            parts.start(host, &config.driver.client, news)
        };
        let running = spool.zip(news).map(start_spool).transpose().map_err(StartError::Thread)?;
        let (done, finished) = watch::channel(false);
        let last = sink.clone();
        runtime.spawn(async move {
            task.run().await;
            if let Some(sink) = &last {
                sink.settled().await;
            }
            if let Some(running) = running {
                running.finish().await;
                // The last round may have settled records that the sink waits for.
                if let Some(sink) = &last {
                    sink.settled().await;
                }
            }
            done.send_replace(true);
        });
        let mut engine = Self::new(config, shared, commands, sink, finished);
        engine.inherited_ids = inherited_ids;
        Ok(engine)
    }

    /// Creates an engine whose batches go to the caller.
    pub fn unconnected(config: EngineConfig) -> (Self, Unconnected) {
        let callbacks = callbacks(&config, None, None, None);
        let (sender, commands) = unbounded_channel();
        let (done, finished) = watch::channel(false);
        let engine = Self::new(config, callbacks.shared.clone(), sender, None, finished);
        (engine, Unconnected { commands, callbacks, topics: 0, _done: done })
    }

    fn new(
        config: EngineConfig,
        shared: Arc<Shared>,
        commands: UnboundedSender<DriverCommand<Token>>,
        sink: Option<Arc<dyn FailureSink>>,
        finished: watch::Receiver<bool>,
    ) -> Self {
        // A batch without linger is due when it is opened, and needs no expediting.
        let expedite = config.expedite && !config.limits.linger.is_zero();
        Self {
            intake: Intake { shared, commands, sink, expedite },
            mapping: config.mapping,
            max_block: config.max_block,
            tracer: Tracer { source: config.trace, origin: config.origin },
            driver_config: config.driver,
            inherited_ids: BTreeSet::new(),
            finished,
        }
    }

    /// Maps an event type to `topic` for all later events.
    ///
    /// # Errors
    ///
    /// [`TopicMappingError`] if the event type or the topic's name is invalid, or if `topic` is the dead-letter topic.
    pub fn set_topic_mapping(&self, event_type: &str, topic: &str) -> Result<(), TopicMappingError> {
        self.mapping.set_topic_mapping(event_type, topic)
    }

    /// Returns the topic of events of this type.
    pub fn topic_for(&self, event_type: &str) -> Arc<str> {
        self.mapping.topic_for(event_type)
    }

    /// Returns the settings of connections, for separate connections to the same cluster.
    pub fn client_config(&self) -> &ClientConfig {
        &self.driver_config.client
    }

    /// Returns the time from publishing to the verdict of an event, at most.
    pub fn delivery_timeout(&self) -> Duration {
        self.driver_config.core.delivery_timeout
    }

    /// Seals all open batches, so that they leave now.
    pub fn seal_open(&self) {
        self.intake.send_command(DriverCommand::SealOpen);
    }

    /// Seals all open batches, and waits until every event that was accepted before the call has its verdict.
    ///
    /// Returns `false` if some verdict is still missing after `timeout`.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future loses no event. The batches are still sent.
    pub async fn flush(&self, timeout: Duration) -> bool {
        self.seal_open();
        tokio::time::timeout(timeout, self.intake.shared.ledger.wait_until_settled()).await.is_ok()
    }

    /// Returns the counts and the view of the brokers. `dead_letter_queue_size` is 0, for the holder of the dead letters
    /// to fill in.
    pub fn stats(&self) -> Stats {
        Stats::of(&self.intake.shared)
    }

    /// Returns the delivered and the failed events since the start.
    pub fn settled(&self) -> (u64, u64) {
        self.intake.shared.counts.settled()
    }

    /// Returns whether the engine has a spool.
    pub fn has_spool(&self) -> bool {
        self.intake.shared.spool.is_some()
    }

    /// Returns the events that this closed engine left in the spool.
    pub fn left_stored(&self) -> u64 {
        self.intake.shared.counts.stored.load(Ordering::Acquire)
    }

    /// Returns the producer id of new batches. `None` if the cluster has assigned none within `timeout`.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future changes nothing.
    pub async fn producer_id(&self, timeout: Duration) -> Option<i64> {
        let deadline = Instant::now() + timeout;
        let mut pause = Duration::from_millis(1);
        loop {
            let present = self.intake.shared.cluster.producer_id();
            if present.is_some() || Instant::now() >= deadline {
                return present;
            }
            self.intake.send_command(DriverCommand::WantProducerId);
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(Duration::from_millis(200));
        }
    }

    /// Returns all producer ids that this engine ever had. Batches of earlier ids may be in flight.
    pub fn producer_ids(&self) -> Vec<i64> {
        self.intake.shared.cluster.producer_ids()
    }

    /// Returns the producer ids of earlier processes whose events the spool still had when it was opened.
    pub fn inherited_producer_ids(&self) -> &BTreeSet<i64> {
        &self.inherited_ids
    }

    /// Counts a record that was sent to `topic` outside of this engine, with its result.
    pub fn count_separate_batch(&self, topic: &str, result: SeparateResult) {
        self.intake.shared.counts.count_separate_batch(result.is_ok());
        metrics::count_separate_batch(topic, result);
    }

    /// Refuses new events, delivers accepted ones for at most `timeout`, and fails the rest. Every event has its verdict
    /// when the future is ready.
    ///
    /// # Cancel safety
    ///
    /// The close continues in the background after the future is dropped.
    ///
    /// Events in a spool do not fail. Events that are not delivered in time stay there for the next process.
    pub async fn close(&self, timeout: Duration) {
        self.begin_close(timeout);
        self.finished().await;
    }

    fn begin_close(&self, timeout: Duration) {
        let shared = &*self.intake.shared;
        shared.closed.store(true, Ordering::SeqCst);
        for slot in shared.topics.all_slots() {
            // A publisher that held this lock has sent its `Opened` command by the time the lock is free.
            drop(slot.accumulator.lock());
        }
        let deadline = deadline_after(timeout);
        if let Some(spool) = &shared.spool {
            spool.send(SpoolCommand::Close { deadline });
        }
        self.intake.send_command(DriverCommand::Close { deadline });
    }

    /// Waits until the engine is finished: closed, or its sender's task has ended.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future changes nothing.
    pub fn finished(&self) -> impl Future<Output = ()> + Send + use<> {
        let mut finished = self.finished.clone();
        async move {
            // An error means that the task has ended.
            let _ = finished.wait_for(|done| *done).await;
        }
    }
}

/// Returns the callbacks of a sender, with the state that they share with the engine.
fn callbacks(
    config: &EngineConfig,
    sink: Option<Arc<dyn FailureSink>>,
    spool: Option<SpoolSender<Token>>,
    topic_news: Option<UnboundedSender<TopicNews>>,
) -> Callbacks {
    let shared = Shared {
        origin: config.origin.clone(),
        counts: EventCounts::new(config.is_metered),
        spool,
        ..Shared::new(config.limits, config.compression, config.buffer_memory)
    };
    let meter = config.is_metered.then(|| Meter::start(config.buffer_memory));
    Callbacks { shared: Arc::new(shared), sink, meter, topic_news }
}

impl Drop for Engine {
    fn drop(&mut self) {
        let shared = &*self.intake.shared;
        if shared.closed.load(Ordering::Relaxed) {
            return;
        }
        if shared.spool.is_some() {
            // Events in the spool wait for the cluster without limit, and so would the sender's task.
            return self.begin_close(self.delivery_timeout());
        }
        if !shared.ledger.is_decided() {
            tracing::warn!(
                "producer dropped without close(): accepted events are delivered only while the runtime lives"
            );
        }
    }
}

/// Returns the instant `wait` from now, at most a year ahead.
pub(crate) fn deadline_after(wait: Duration) -> Instant {
    const A_YEAR: Duration = Duration::from_secs(365 * 24 * 60 * 60);
    Instant::now() + wait.min(A_YEAR)
}

#[cfg(test)]
pub(crate) mod tests {
    use kafka_courier_client::security::ConnectionSecurity;
    use kafka_courier_idempotent_sender::core::Config as CoreConfig;

    use super::*;
    use crate::record::ProducerRecord;

    /// Returns an engine without a sender.
    pub(crate) fn unconnected() -> (Engine, Unconnected) {
        let limits = Limits { max_records: 1000, max_bytes: 1 << 20, linger: Duration::from_secs(600) };
        let client = ClientConfig {
            bootstrap: Vec::new(),
            client_id: "test".into(),
            connect_timeout: Duration::from_secs(1),
            request_timeout: Duration::from_secs(1),
            retry_backoff: Duration::from_secs(1),
            retry_backoff_max: Duration::from_secs(1),
            security: ConnectionSecurity::default(),
            default_broker: None,
        };
        let driver = DriverConfig { core: CoreConfig::default(), client };
        let config = EngineConfig {
            driver,
            limits,
            compression: Compression::None,
            buffer_memory: 1 << 20,
            max_block: Duration::ZERO,
            expedite: false,
            mapping: TopicMapping::default(),
            origin: SpanOrigin::default(),
            trace: None,
            is_metered: false,
            spool: None,
        };
        Engine::unconnected(config)
    }

    #[test]
    fn unsettled_records_are_in_flight() {
        let (engine, mut unconnected) = unconnected();
        unconnected.announce_topic("t", 2);
        let record = ProducerRecord { topic: "t", value: Some(b"v"), ..ProducerRecord::default() };
        let delivery = engine.try_send(&record).unwrap();
        assert_eq!((engine.stats().in_flight, delivery.now()), (1, None));
    }
}

//! [`KafkaProducer`], the handle that applications hold: construction, flush, close.
//!
//! The rules of this module:
//!  - A clone of the handle is cheap.
//!  - `build` never waits for Kafka.
//!  - `publish` returns without waiting, unless the topic is still unknown or memory is full.

use std::sync::Arc;
use std::time::{Duration, Instant};

use kafka_courier_batcher::{Compression as Codec, Limits};
use kafka_courier_client::config::ClientConfig;
use kafka_courier_client::security::{ConnectionSecurity, TokenSource};
use kafka_courier_dlq::DeadLetterStore;
use kafka_courier_event_model::{TopicMapping, TopicMappingError};
use kafka_courier_idempotent_sender::driver::{DriverCommand, DriverConfig, driver};
use tokio::runtime::Handle;
use tokio::sync::watch;

use crate::builder::{Builder, Extras};
use crate::config::{Compression, ConfigErrors, KafkaConfig};
use crate::dead_letters::DeadLetters;
use crate::error::debug_as_display;
use crate::health::HealthError;
use crate::intake::Intake;
use crate::metrics::Meter;
use crate::shared::{Callbacks, Shared};
use crate::stats::Stats;
use crate::sync::Ordering;
use crate::trace::{SpanOrigin, Tracer};
use crate::verify::Verifier;

/// Publishes events to Kafka.
///
/// One producer serves a whole process: clone the handle, and share the clones between tasks and threads.
#[derive(Clone, Debug)]
pub struct KafkaProducer {
    pub(crate) inner: Arc<Inner>,
}

#[derive(Debug)]
pub(crate) struct Inner {
    pub(crate) intake: Intake,
    pub(crate) mapping: TopicMapping,
    pub(crate) max_block: Duration,
    pub(crate) letters: DeadLetters,
    /// The sender's configuration, for separate connections: verification, replay, claims.
    pub(crate) driver_config: DriverConfig,
    pub(crate) finished: watch::Receiver<bool>,
    pub(crate) tracer: Tracer,
}

/// The handling of records that failed.
#[derive(Clone, Debug)]
pub(crate) enum DeadLetterMode {
    /// The producer keeps dead letters. The given store takes precedence over the configured stores.
    Kept(Option<Arc<dyn DeadLetterStore>>),
    /// The producer keeps nothing. Its caller gets the error and keeps the record.
    None,
}

impl Default for DeadLetterMode {
    fn default() -> Self {
        Self::Kept(None)
    }
}

/// The final counts of a closed producer.
///
/// Nothing is in flight after a close, so `delivered + failed` is the number of all events that the producer ever
/// accepted. Both numbers equal `sent` and `failed` of [`Stats`] and of the metrics.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct CloseReport {
    /// Events delivered since the producer was built.
    pub delivered: u64,
    /// Events that failed since the producer was built.
    pub failed: u64,
    /// Dead letters that stores have taken since the producer was built: one for each failed event, and each that the
    /// application stored itself.
    pub dead_lettered: u64,
    /// Dead letters that only memory holds. They are lost with the process, unless the application reads
    /// [`dead_letters`](KafkaProducer::dead_letters) or replays them through another producer.
    pub in_memory: u64,
}

/// Why [`KafkaProducer::connect`] failed.
#[derive(Clone, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// The configuration is invalid.
    #[error(transparent)]
    Config(#[from] ConfigErrors),
    /// The cluster did not answer, or refused the producer.
    #[error(transparent)]
    Health(#[from] HealthError),
}

debug_as_display!(ConnectError);

impl KafkaProducer {
    /// Returns a builder that starts with the defaults and has one method for each option.
    pub fn builder() -> Builder {
        Builder::default()
    }

    /// Builds a producer and waits for a round trip to the cluster, for at most `metadata_timeout`.
    ///
    /// Use [`build`](Self::build) if the process shall start while Kafka is away.
    ///
    /// # Errors
    ///
    /// [`ConnectError::Config`] if the configuration is invalid, [`ConnectError::Health`] if the cluster does not
    /// answer or refuses the producer.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future loses nothing, because nothing was published.
    pub async fn connect(config: KafkaConfig) -> Result<Self, ConnectError> {
        Self::connect_with(config, Vec::new(), Extras::default()).await
    }

    pub(crate) async fn connect_with(
        config: KafkaConfig,
        problems: Vec<String>,
        extras: Extras,
    ) -> Result<Self, ConnectError> {
        let timeout = config.metadata_timeout;
        let producer = Self::build_with(config, problems, extras)?;
        producer.health_check(timeout).await?;
        Ok(producer)
    }

    /// Checks the configuration and starts the sender's task on the current tokio runtime. Never waits for Kafka.
    ///
    /// # Errors
    ///
    /// All problems of the configuration together, and the absence of a tokio runtime.
    pub fn build(config: KafkaConfig) -> Result<Self, ConfigErrors> {
        Self::build_with(config, Vec::new(), Extras::default())
    }

    /// Builds a producer. `problems` are the problems that the caller has found already.
    pub(crate) fn build_with(config: KafkaConfig, problems: Vec<String>, extras: Extras) -> Result<Self, ConfigErrors> {
        let tokens = extras.tokens;
        let (security, runtime) = security_and_runtime(&config, tokens.clone(), problems)?;
        let mapping = config.mapping().map_err(|error| ConfigErrors(vec![error.to_string()]))?;
        let limits =
            Limits { max_records: config.flush_messages, max_bytes: config.flush_bytes, linger: config.flush_timeout };
        let codec = match config.compression {
            Compression::None => Codec::None,
            Compression::Snappy => Codec::Snappy,
        };
        let origin = SpanOrigin::of(&config);
        let shared = Shared::new(limits, codec, config.buffer_memory);
        let metered = matches!(extras.letters, DeadLetterMode::Kept(_));
        let shared = Arc::new(Shared { origin: origin.clone(), metered, ..shared });
        let (letters, writer) = match extras.letters {
            DeadLetterMode::None => (DeadLetters::none(), None),
            DeadLetterMode::Kept(store) => {
                let letters = DeadLetters::start(&config, store, tokens, &shared)?;
                (letters.clone(), Some(letters.writer()))
            }
        };
        let meter = metered.then(|| Meter::start(config.buffer_memory, letters.len()));
        let callbacks = Callbacks { shared: shared.clone(), letters: writer.clone(), meter };
        let driver_config = DriverConfig {
            core: config.core(),
            client: ClientConfig {
                bootstrap: config.brokers.iter().map(|broker| (broker.host.clone(), broker.port)).collect(),
                client_id: config.client_id.as_str().into(),
                connect_timeout: config.connect_timeout,
                request_timeout: config.request_timeout,
                retry_backoff: config.retry_backoff,
                retry_backoff_max: config.retry_backoff_max,
                security,
                default_broker: config.default_broker(),
            },
        };
        let (commands, task) = driver(driver_config.clone(), callbacks)
            .map_err(|problems| ConfigErrors(problems.iter().map(ToString::to_string).collect()))?;
        let (done, finished) = watch::channel(false);
        let last_letters = letters.clone();
        runtime.spawn(async move {
            task.run().await;
            last_letters.settled().await;
            done.send_replace(true);
        });
        // A batch without linger is due when it is opened, and needs no expediting.
        let expedite = config.expedite && !config.flush_timeout.is_zero();
        let intake = Intake { shared, commands, letters: writer, expedite };
        let max_block = config.max_block;
        let inner = Inner {
            intake,
            mapping,
            max_block,
            letters,
            driver_config,
            finished,
            tracer: Tracer { source: extras.trace, origin },
        };
        let producer = Self { inner: Arc::new(inner) };
        if config.auto_replay {
            producer.replay_automatically(&config);
        }
        Ok(producer)
    }

    /// Maps an event type to `topic` for all later events.
    ///
    /// # Errors
    ///
    /// [`TopicMappingError`] if the event type or the topic's name is invalid, or if `topic` is the dead-letter topic.
    ///
    /// # Examples
    ///
    /// ```
    /// # use kafka_courier_test_broker::TestCluster;
    /// # use kafka_courier::KafkaProducer;
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let cluster = TestCluster::builder().topic("orders", 6).topic("user-events", 6).start().await?;
    /// # let producer = KafkaProducer::builder().brokers(cluster.bootstrap()).build()?;
    /// producer.set_topic_mapping("user.login", "logins")?;
    /// assert_eq!(&*producer.topic_for("user.login"), "logins");
    /// # Ok(())
    /// # }
    /// ```
    pub fn set_topic_mapping(&self, event_type: &str, topic: &str) -> Result<(), TopicMappingError> {
        self.inner.mapping.set_topic_mapping(event_type, topic)
    }

    /// Returns the topic of events of this type.
    pub fn topic_for(&self, event_type: &str) -> Arc<str> {
        self.inner.mapping.topic_for(event_type)
    }

    /// Sends all open batches, and waits until every event that was accepted before the call has its verdict.
    ///
    /// Returns `false` if some verdict is still missing after `timeout`.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future loses no event. The batches are still sent.
    ///
    /// # Examples
    ///
    /// ```
    /// # use kafka_courier_test_broker::TestCluster;
    /// # use std::time::Duration;
    /// # use kafka_courier::KafkaProducer;
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let cluster = TestCluster::builder().topic("orders", 6).topic("user-events", 6).start().await?;
    /// # let producer = KafkaProducer::builder().brokers(cluster.bootstrap()).build()?;
    /// if !producer.flush(Duration::from_secs(5)).await {
    ///     eprintln!("{} events are still in flight", producer.stats().in_flight);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub async fn flush(&self, timeout: Duration) -> bool {
        self.inner.intake.send_command(DriverCommand::SealOpen);
        tokio::time::timeout(timeout, self.inner.intake.shared.ledger.wait_until_settled()).await.is_ok()
    }

    /// Returns the dead letters of this producer.
    pub fn dead_letters(&self) -> DeadLetters {
        self.inner.letters.clone()
    }

    /// Returns a verifier, which searches the log for records with the outcome `unknown`.
    ///
    /// The verifier opens its own connections. Each of its requests may take `delivery_timeout`.
    pub fn verifier(&self) -> Verifier {
        let driver_config = &self.inner.driver_config;
        Verifier::new(&driver_config.client, driver_config.core.delivery_timeout)
    }

    /// Returns the producer's counts and its view of the brokers.
    ///
    /// The call locks each partition's open batch briefly: suited to a status page, not to every event.
    ///
    /// # Examples
    ///
    /// ```
    /// # use kafka_courier_test_broker::TestCluster;
    /// # use kafka_courier::KafkaProducer;
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let cluster = TestCluster::builder().topic("orders", 6).topic("user-events", 6).start().await?;
    /// # let producer = KafkaProducer::builder().brokers(cluster.bootstrap()).build()?;
    /// let stats = producer.stats();
    /// println!("{} sent, {} failed, {} retried", stats.sent, stats.failed, stats.retried);
    /// # Ok(())
    /// # }
    /// ```
    pub fn stats(&self) -> Stats {
        Stats::of(&self.inner.intake.shared, self.inner.letters.len())
    }

    /// Closes the producer: refuses new events, delivers accepted ones for at most `timeout`, and fails the rest.
    ///
    /// Every event has its verdict when the future is ready.
    ///
    /// # Cancel safety
    ///
    /// The close continues in the background after the future is dropped.
    ///
    /// # Examples
    ///
    /// ```
    /// # use kafka_courier_test_broker::TestCluster;
    /// # use std::time::Duration;
    /// # use kafka_courier::KafkaProducer;
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let cluster = TestCluster::builder().topic("orders", 6).topic("user-events", 6).start().await?;
    /// # let producer = KafkaProducer::builder().brokers(cluster.bootstrap()).build()?;
    /// let report = producer.close(Duration::from_secs(30)).await;
    /// println!("{} delivered, {} failed, {} dead letters", report.delivered, report.failed, report.dead_lettered);
    /// # Ok(())
    /// # }
    /// ```
    pub async fn close(&self, timeout: Duration) -> CloseReport {
        let shared = &*self.inner.intake.shared;
        shared.closed.store(true, Ordering::SeqCst);
        for slot in shared.topics.all_slots() {
            // A publisher that held this lock has sent its `Opened` command by the time the lock is free.
            drop(slot.accumulator.lock());
        }
        self.inner.intake.send_command(DriverCommand::Close { deadline: deadline_after(timeout) });
        let mut finished = self.inner.finished.clone();
        // An error means that the task has ended. `close` waits for no more than that.
        let _ = finished.wait_for(|done| *done).await;
        let in_memory = self.inner.letters.in_memory();
        if in_memory > 0 {
            tracing::warn!(
                letters = in_memory,
                "dead letters are only in memory and are lost with the process: set dlq_file or dlq_topic to keep them"
            );
        }
        let (delivered, failed) = shared.counts.settled();
        CloseReport { delivered, failed, dead_lettered: self.inner.letters.kept(), in_memory }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        let shared = &*self.intake.shared;
        if !shared.closed.load(Ordering::Relaxed) && !shared.ledger.is_decided() {
            tracing::warn!(
                "producer dropped without close(): accepted events are delivered only while the runtime lives"
            );
        }
    }
}

/// Loads the files that `config` names for TLS and SASL, and finds the current tokio runtime.
///
/// # Errors
///
/// `problems` and the problems of the configuration, its files and the runtime, all together.
fn security_and_runtime(
    config: &KafkaConfig,
    tokens: Option<TokenSource>,
    mut problems: Vec<String>,
) -> Result<(ConnectionSecurity, Handle), ConfigErrors> {
    problems.extend(config.problems());
    let security = config.security(tokens);
    let runtime = Handle::try_current().map_err(|_| {
        ConfigErrors(vec!["no tokio runtime here: build the producer inside one, such as in #[tokio::main]".into()])
    });
    match (security, runtime) {
        (Ok(security), Ok(runtime)) if problems.is_empty() => Ok((security, runtime)),
        (security, runtime) => {
            let found = [security.err(), runtime.err()].into_iter().flatten().flat_map(|ConfigErrors(found)| found);
            problems.extend(found);
            Err(ConfigErrors(problems))
        }
    }
}

/// Returns the instant `wait` from now, at most a year ahead.
pub(crate) fn deadline_after(wait: Duration) -> Instant {
    const A_YEAR: Duration = Duration::from_secs(365 * 24 * 60 * 60);
    Instant::now() + wait.min(A_YEAR)
}

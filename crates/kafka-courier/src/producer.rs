//! [`KafkaProducer`], the handle that applications hold: the engine, and the dead letters of its failures.
//!
//! The rules of this module:
//!  - A clone of the handle is cheap.
//!  - `build` never waits for Kafka.
//!  - Each method hands its work to the engine or to the recovery. Nothing is decided here.

use std::num::NonZeroU32;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use kafka_courier_client::security::{ConnectionSecurity, TokenSource};
use kafka_courier_event_model::TopicMappingError;
use kafka_courier_producer::{
    Engine, EngineConfig, FailureSink, HealthError, StartError, Stats, Unconnected, debug_as_display,
};
use kafka_courier_recovery::verify::Verifier;
use kafka_courier_recovery::{AutoReplay, DeadLetters, Recovery, Replay, ReplayError, ReplayReport};
use tokio::runtime::Handle;

use crate::builder::{Builder, Extras, add_problems};
use crate::config::{ConfigErrors, ConfigProblem, KafkaConfig};
use crate::{dead_letters, spool};

/// Publishes events to Kafka.
///
/// One producer serves a whole process: clone the handle, and share the clones between tasks and threads.
#[derive(Clone, Debug)]
pub struct KafkaProducer {
    pub(crate) inner: Arc<Recovery>,
}

/// The final counts of a closed producer.
///
/// Nothing is in flight after a close, so `delivered + failed + stored` is the number of all events that the producer ever
/// accepted. The numbers equal `sent`, `failed` and `stored` of [`Stats`], and the first two those of the metrics.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct CloseReport {
    /// Events delivered since the producer was built.
    pub delivered: u64,
    /// Events that failed since the producer was built.
    pub failed: u64,
    /// Events that the producer left in its spool. The next producer with the same `spool_dir` delivers them. 0 without a
    /// spool.
    pub stored: u64,
    /// Dead letters that stores have taken since the producer was built: one for each failed event, except those that returned
    /// to a waiting caller ([`send_awaited`](KafkaProducer::send_awaited)), and each that the application stored itself.
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
        problems: Vec<ConfigProblem>,
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
    pub(crate) fn build_with(
        config: KafkaConfig,
        problems: Vec<ConfigProblem>,
        extras: Extras,
    ) -> Result<Self, ConfigErrors> {
        let (security, runtime) = security_and_runtime(&config, extras.tokens.clone(), problems)?;
        let mut engine_config = config.engine(security, extras.trace, true)?;
        engine_config.spool = spool::open(&config)?;
        let letters = dead_letters::start(&config, extras.letters, extras.tokens)?;
        let engine = start_engine(engine_config, Some(Arc::new(letters.clone())), &runtime)?;
        let producer = Self::from_engine(engine, letters);
        if config.auto_replay {
            let rate = NonZeroU32::new(config.auto_replay_rate);
            AutoReplay { interval: config.auto_replay_interval, rate }.start(&producer.inner);
        }
        Ok(producer)
    }

    /// Builds a producer without a sender and without dead letters. Its batches go to the caller.
    pub(crate) fn build_unconnected(
        config: KafkaConfig,
        problems: Vec<ConfigProblem>,
        extras: Extras,
    ) -> Result<(Self, Unconnected), ConfigErrors> {
        let (security, _) = security_and_runtime(&config, extras.tokens, problems)?;
        let (engine, unconnected) = Engine::unconnected(config.engine(security, extras.trace, false)?);
        Ok((Self::from_engine(engine, DeadLetters::none()), unconnected))
    }

    fn from_engine(engine: Engine, letters: DeadLetters) -> Self {
        Self { inner: Arc::new(Recovery::new(engine, letters)) }
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
        self.inner.engine().set_topic_mapping(event_type, topic)
    }

    /// Returns the topic of events of this type.
    pub fn topic_for(&self, event_type: &str) -> Arc<str> {
        self.inner.engine().topic_for(event_type)
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
        self.inner.engine().flush(timeout).await
    }

    /// Checks within `timeout` that the cluster is reachable and writable.
    ///
    /// The check proves:
    ///  - a round trip to a broker (DNS, TCP, TLS, SASL, metadata), over an open connection if there is one.
    ///  - that every topic that was published to exists and is writable, if brokers report that (Kafka 2.3 and later).
    ///  - that the cluster assigns a producer id, until the first event. Assignment needs the right to write at all
    ///    (IDEMPOTENT_WRITE or WRITE).
    ///
    /// It does not prove that each partition's leader is reachable or has enough in-sync replicas.
    ///
    /// Use it for readiness and at startup, not for liveness: a liveness probe that asks Kafka restarts every instance
    /// while a broker is away.
    ///
    /// # Errors
    ///
    /// A [`HealthError`] names the failed part.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future changes nothing.
    pub async fn health_check(&self, timeout: Duration) -> Result<(), HealthError> {
        self.inner.engine().health_check(timeout).await
    }

    /// Checks the cluster as [`health_check`](Self::health_check) does, and that `topics` exist and are writable.
    ///
    /// No topic is created. The topics' partitions are known afterwards, and [`try_publish`](Self::try_publish) accepts
    /// events for them.
    ///
    /// # Errors
    ///
    /// As [`health_check`](Self::health_check).
    ///
    /// # Cancel safety
    ///
    /// As [`health_check`](Self::health_check).
    pub async fn health_check_topics(&self, topics: &[&str], timeout: Duration) -> Result<(), HealthError> {
        self.inner.engine().health_check_topics(topics, timeout).await
    }

    /// Returns the dead letters of this producer.
    pub fn dead_letters(&self) -> DeadLetters {
        self.inner.letters().clone()
    }

    /// Replays the dead letters of each store in turn. `progress` is called after each group of letters and may end the
    /// replay. Every record that was sent has its verdict then. A group has at most 500 letters, and with a rate the
    /// letters of about a second.
    ///
    /// # Errors
    /// Returns an error if another replay has the store, a store fails, or the producer is closed.
    ///
    /// # Cancel safety
    /// Records that were sent may still be delivered. Their letters are marked as in progress, and the next replay looks
    /// for the records in the log.
    pub async fn replay(
        &self,
        replay: &Replay,
        progress: impl FnMut(&ReplayReport) -> ControlFlow<()> + Send,
    ) -> Result<ReplayReport, ReplayError> {
        self.inner.replay(replay, progress).await
    }

    /// Returns a verifier, which searches the log for records with the outcome `unknown`.
    ///
    /// The verifier opens its own connections. Each of its requests may take `delivery_timeout`.
    pub fn verifier(&self) -> Verifier {
        self.inner.verifier()
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
        let mut stats = self.inner.engine().stats();
        stats.dead_letter_queue_size = self.inner.letters().len();
        stats
    }

    /// Closes the producer: refuses new events, delivers accepted ones for at most `timeout`, and fails the rest. Events in
    /// a spool do not fail: the next producer with the same `spool_dir` delivers them.
    ///
    /// Every event has its verdict when the future is ready. The spool's folder is free then.
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
        let (engine, letters) = (self.inner.engine(), self.inner.letters());
        engine.close(timeout).await;
        let in_memory = letters.in_memory();
        if in_memory > 0 {
            tracing::warn!(
                letters = in_memory,
                "dead letters are only in memory and are lost with the process: set dlq_file or dlq_topic to keep them"
            );
        }
        let (delivered, failed) = engine.settled();
        CloseReport { delivered, failed, stored: engine.left_stored(), dead_lettered: letters.kept(), in_memory }
    }
}

impl Builder {
    /// Builds the producer: [`KafkaProducer::build`] with these settings.
    ///
    /// # Errors
    ///
    /// As [`KafkaProducer::build`].
    pub fn build(self) -> Result<KafkaProducer, ConfigErrors> {
        let (config, problems, extras) = self.take();
        KafkaProducer::build_with(config, problems, extras)
    }

    /// Builds a producer without a sender and without dead letters: its batches go to the caller, who gives them their
    /// verdicts. The project's benchmarks measure publishing alone with it.
    ///
    /// # Errors
    ///
    /// As [`KafkaProducer::build`].
    #[doc(hidden)]
    pub fn build_unconnected(self) -> Result<(KafkaProducer, Unconnected), ConfigErrors> {
        let (config, problems, extras) = self.take();
        KafkaProducer::build_unconnected(config, problems, extras)
    }

    /// Builds the producer and waits for the cluster: [`KafkaProducer::connect`] with these settings.
    ///
    /// # Errors
    ///
    /// As [`KafkaProducer::connect`].
    ///
    /// # Cancel safety
    ///
    /// As [`KafkaProducer::connect`].
    pub async fn connect(self) -> Result<KafkaProducer, ConnectError> {
        let (config, problems, extras) = self.take();
        KafkaProducer::connect_with(config, problems, extras).await
    }
}

/// Loads the files that `config` names for TLS and SASL, and finds the current tokio runtime.
///
/// # Errors
///
/// `problems` and the problems of the configuration, its files and the runtime, all together.
pub(crate) fn security_and_runtime(
    config: &KafkaConfig,
    tokens: Option<TokenSource>,
    mut problems: Vec<ConfigProblem>,
) -> Result<(ConnectionSecurity, Handle), ConfigErrors> {
    add_problems(config, &mut problems);
    let security = config.security(tokens);
    let runtime = Handle::try_current().map_err(|_| ConfigProblem::no_runtime());
    match (security, runtime) {
        (Ok(security), Ok(runtime)) if problems.is_empty() => Ok((security, runtime)),
        (security, runtime) => {
            problems.extend(security.err().into_iter().flatten());
            problems.extend(runtime.err());
            Err(problems.into())
        }
    }
}

/// Starts an engine on `runtime`.
pub(crate) fn start_engine(
    config: EngineConfig,
    sink: Option<Arc<dyn FailureSink>>,
    runtime: &Handle,
) -> Result<Engine, ConfigErrors> {
    let started = Engine::start(config, sink, runtime);
    Ok(started.map_err(|error| match error {
        StartError::Config(problems) => problems.into_iter().map(ConfigProblem::from).collect(),
        StartError::Thread(error) => vec![ConfigProblem::spool_thread(error)],
    })?)
}

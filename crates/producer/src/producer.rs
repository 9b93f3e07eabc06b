//! The handle that applications hold.
//!
//! Rules: cheap to clone; building it never waits for Kafka; an event is accepted or refused at once unless
//! its topic is still unknown or memory is full.

use std::sync::Arc;
use std::time::{Duration, Instant};

use kafka_courier_batcher::{Compression as Codec, Limits};
use kafka_courier_dlq::DeadLetterStore;
use kafka_courier_event_model::{TopicMapping, TopicMappingError};
use kafka_courier_idempotent_sender::driver::security::{Security, TokenSource};
use kafka_courier_idempotent_sender::driver::{Command, DriverConfig, driver};
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
use crate::trace::{Origin, Tracer};
use crate::verify::Verifier;

/// Publishes events to Kafka.
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
    /// For those who need connections of their own.
    pub(crate) reach: DriverConfig,
    pub(crate) finished: watch::Receiver<bool>,
    pub(crate) tracer: Tracer,
}

/// What is done with what fails for good.
#[derive(Clone, Debug)]
pub(crate) enum Letters {
    /// It is kept, in this store before any other.
    Kept(Option<Arc<dyn DeadLetterStore>>),
    /// Whoever published it is told, and keeps it.
    None,
}

impl Default for Letters {
    fn default() -> Self {
        Self::Kept(None)
    }
}

/// What became of everything, when the producer was closed.
///
/// Nothing is in flight then: `delivered + failed` is all that the producer ever accepted. Both are the `sent` and
/// `failed` of [`Stats`], and of the metrics.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct CloseReport {
    /// Events delivered in the producer's life.
    pub delivered: u64,
    /// Events given up in its life.
    pub failed: u64,
    /// Dead letters that stores took in its life: of each event that was given up, and of those handed in by hand.
    pub dead_lettered: u64,
    /// Dead letters that only memory holds, and that end with the process unless
    /// [`dead_letters`](KafkaProducer::dead_letters) are read, or sent again by another producer, before.
    pub in_memory: u64,
}

/// Why no producer could be had that has spoken with the cluster.
#[derive(Clone, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// The configuration is wrong.
    #[error(transparent)]
    Config(#[from] ConfigErrors),
    /// The cluster did not answer.
    #[error(transparent)]
    Health(#[from] HealthError),
}

debug_as_display!(ConnectError);

impl KafkaProducer {
    /// Begins with the defaults: a method for each option, and `build()` or `connect()` at the end.
    pub fn builder() -> Builder {
        Builder::default()
    }

    /// As [`build`](Self::build), and waits for a round trip to the cluster, for at most `metadata_timeout`: for those who
    /// would rather not start than start without Kafka.
    ///
    /// Cancel safety: nothing was published, so nothing is lost.
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

    /// Checks the configuration and starts the sender's task on the current tokio runtime. Never waits for
    /// Kafka. Errors: everything that is wrong with the configuration, or that there is no tokio runtime here.
    pub fn build(config: KafkaConfig) -> Result<Self, ConfigErrors> {
        Self::build_with(config, Vec::new(), Extras::default())
    }

    /// As [`build`](Self::build), where so much was wrong already.
    pub(crate) fn build_with(config: KafkaConfig, problems: Vec<String>, extras: Extras) -> Result<Self, ConfigErrors> {
        let tokens = extras.tokens;
        let (security, runtime) = surroundings(&config, tokens.clone(), problems)?;
        let mapping = config.mapping().map_err(|error| ConfigErrors(vec![error]))?;
        let limits =
            Limits { max_records: config.flush_messages, max_bytes: config.flush_bytes, linger: config.flush_timeout };
        let codec = match config.compression {
            Compression::None => Codec::None,
            Compression::Snappy => Codec::Snappy,
        };
        let origin = Origin::of(&config);
        let shared = Shared::new(limits, codec, config.buffer_memory);
        let metered = matches!(extras.letters, Letters::Kept(_));
        let shared = Arc::new(Shared { origin: origin.clone(), metered, ..shared });
        let (letters, writer) = match extras.letters {
            Letters::None => (DeadLetters::none(), None),
            Letters::Kept(store) => {
                let letters = DeadLetters::start(&config, store, tokens, &shared)?;
                (letters.clone(), Some(letters.writer()))
            }
        };
        let meter = metered.then(|| Meter::begin(config.buffer_memory, letters.len()));
        let callbacks = Callbacks { shared: shared.clone(), letters: writer.clone(), meter };
        let driver_config = DriverConfig {
            core: config.core(),
            bootstrap: config.brokers.iter().map(|broker| (broker.host.clone(), broker.port)).collect(),
            client_id: config.client_id.as_str().into(),
            connect_timeout: config.connect_timeout,
            security,
            default_broker: config.default_broker(),
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
        // What does not linger is due as soon as it is opened, whether somebody waits for it or not.
        let expedite = config.expedite && !config.flush_timeout.is_zero();
        let intake = Intake { shared, commands, letters: writer, expedite };
        let max_block = config.max_block;
        let inner = Inner {
            intake,
            mapping,
            max_block,
            letters,
            reach: driver_config,
            finished,
            tracer: Tracer { source: extras.trace, origin },
        };
        let producer = Self { inner: Arc::new(inner) };
        if config.auto_replay {
            producer.replay_automatically(&config);
        }
        Ok(producer)
    }

    /// Sends events of this type to `topic` from now on.
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

    /// The topic that events of this type go to now.
    pub fn topic_for(&self, event_type: &str) -> Arc<str> {
        self.inner.mapping.topic_for(event_type)
    }

    /// Sends whatever is still being gathered, and waits until everything accepted before has its verdict.
    /// Returns whether it all had within `timeout`.
    ///
    /// Cancel safety: nothing is lost.
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
    ///     eprintln!("{} events are still on their way", producer.stats().in_flight);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub async fn flush(&self, timeout: Duration) -> bool {
        self.inner.intake.tell(Command::SealOpen);
        tokio::time::timeout(timeout, self.inner.intake.shared.ledger.settled()).await.is_ok()
    }

    /// What failed for good.
    pub fn dead_letters(&self) -> DeadLetters {
        self.inner.letters.clone()
    }

    /// Looks in the log for records whose delivery is in doubt, over connections of its own. Each of its requests may
    /// take `delivery_timeout`.
    pub fn verifier(&self) -> Verifier {
        let reach = &self.inner.reach;
        Verifier::new(reach, reach.core.delivery_timeout)
    }

    /// What it has done so far, and how it stands with the cluster. Cheap, but no thing for each event: it looks into
    /// every partition's open batch.
    ///
    /// ```
    /// # use kafka_courier_test_broker::TestCluster;
    /// # use kafka_courier::KafkaProducer;
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let cluster = TestCluster::builder().topic("orders", 6).topic("user-events", 6).start().await?;
    /// # let producer = KafkaProducer::builder().brokers(cluster.bootstrap()).build()?;
    /// let stats = producer.stats();
    /// println!("{} sent, {} failed, {} tried again", stats.sent, stats.failed, stats.retried);
    /// # Ok(())
    /// # }
    /// ```
    pub fn stats(&self) -> Stats {
        Stats::of(&self.inner.intake.shared, self.inner.letters.len())
    }

    /// Accepts nothing more, delivers what was accepted for at most `timeout`, and gives up the rest. Every
    /// event has its verdict when this returns.
    ///
    /// Cancel safety: closing goes on without it.
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
    /// println!("{} delivered, {} failed, {} letters kept", report.delivered, report.failed, report.dead_lettered);
    /// # Ok(())
    /// # }
    /// ```
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
        let in_memory = self.inner.letters.in_memory();
        if in_memory > 0 {
            tracing::warn!(
                letters = in_memory,
                "dead letters are held in memory only, and end with the process: dlq_file or dlq_topic would keep them"
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
                "the producer was dropped without close(): what it accepted is still delivered while the runtime lives"
            );
        }
    }
}

/// What a producer finds where it is built: the files that secure it, and a runtime. Errors: everything that is wrong, the
/// configuration and these `problems` included.
fn surroundings(
    config: &KafkaConfig,
    tokens: Option<TokenSource>,
    mut problems: Vec<String>,
) -> Result<(Security, Handle), ConfigErrors> {
    problems.extend(config.problems());
    let security = config.security(tokens);
    let runtime = Handle::try_current().map_err(|_| {
        ConfigErrors(vec![
            "there is no tokio runtime here: build the producer within one, such as #[tokio::main]".into(),
        ])
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

/// The point in time `wait` from now; beyond a year it makes no difference.
pub(crate) fn after(wait: Duration) -> Instant {
    const A_YEAR: Duration = Duration::from_secs(365 * 24 * 60 * 60);
    Instant::now() + wait.min(A_YEAR)
}

//! A producer that checks the equations of `Stats` when it is closed and when it is dropped.
//!
//! Rules:
//!  - Tests build every producer with [`Producer`], so that no test omits the check. `tests/tests/local/audited.rs` enforces
//!    this rule.
//!  - All tests of a process share one metrics recorder. The recorder counts by tokio runtime, because each test has a
//!    separate runtime.
#![allow(dead_code, unreachable_pub, reason = "each test binary uses a part of this module")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a failed check fails its test")]

use std::collections::HashMap;
use std::ops::Deref;
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use kafka_courier::{Builder, CloseReport, ConfigErrors, ConnectError, KafkaConfig, KafkaProducer, Stats};
use metrics::{Counter, CounterFn, Gauge, Histogram, Key, KeyName, Metadata, Recorder, SharedString, Unit};
use tokio::runtime::{Handle, Id, RuntimeFlavor};

/// The time that a runtime with several threads has until its counts settle.
const SETTLE_TIMEOUT: Duration = Duration::from_secs(10);

/// The metrics that equal a field of `Stats`: sent, failed, refused.
const COMPARED: [&str; 3] =
    ["kafka_messages_sent_total", "kafka_messages_failed_total", "kafka_messages_refused_total"];
/// A metric that shows whether the installed recorder is [`TotalsRecorder`].
const PROBE: &str = "audited_probe";

/// The counts of one runtime, as recorded in metrics and as reported by producers.
#[derive(Default)]
struct Account {
    recorded: [u64; 3],
    probes: u64,
    live: Vec<(u64, KafkaProducer)>,
    /// The sums of all dropped producers.
    dropped: [u64; 3],
    /// Whether metrics and statistics are not comparable: a producer was dropped with events in flight, or another
    /// recorder is installed.
    incomparable: bool,
}

static ACCOUNTS: LazyLock<Mutex<HashMap<Option<Id>, Account>>> = LazyLock::new(Mutex::default);

fn accounts() -> MutexGuard<'static, HashMap<Option<Id>, Account>> {
    ACCOUNTS.lock().unwrap_or_else(PoisonError::into_inner)
}

fn runtime() -> Option<Id> {
    Handle::try_current().ok().map(|handle| handle.id())
}

/// Adds up counters by runtime.
struct TotalsRecorder;

/// A counter of the current runtime: an index into [`COMPARED`], or `None` for the probe.
struct RuntimeCounter(Option<usize>);

impl CounterFn for RuntimeCounter {
    fn increment(&self, value: u64) {
        let mut accounts = accounts();
        let account = accounts.entry(runtime()).or_default();
        match self.0 {
            Some(index) => account.recorded[index] += value,
            None => account.probes += value,
        }
    }

    fn absolute(&self, _: u64) {}
}

impl Recorder for TotalsRecorder {
    fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
        match COMPARED.iter().position(|name| *name == key.name()) {
            None if key.name() != PROBE => Counter::noop(),
            index => Counter::from_arc(Arc::new(RuntimeCounter(index))),
        }
    }

    fn register_gauge(&self, _: &Key, _: &Metadata<'_>) -> Gauge {
        Gauge::noop()
    }

    fn register_histogram(&self, _: &Key, _: &Metadata<'_>) -> Histogram {
        Histogram::noop()
    }
}

/// A [`KafkaProducer`] whose counts are checked. All clones share one producer.
#[derive(Clone, Debug)]
pub struct Producer(Arc<Audited>);

#[derive(Debug)]
struct Audited {
    producer: KafkaProducer,
    number: u64,
    runtime: Option<Id>,
}

impl Deref for Producer {
    type Target = KafkaProducer;

    fn deref(&self) -> &KafkaProducer {
        &self.0.producer
    }
}

impl Producer {
    /// Builds a producer like [`KafkaProducer::build`].
    pub fn build(config: KafkaConfig) -> Result<Self, ConfigErrors> {
        install_recorder();
        KafkaProducer::build(config).map(Self::audit)
    }

    /// Builds a producer from a builder with these options.
    pub fn with(options: impl FnOnce(Builder) -> Builder) -> Result<Self, ConfigErrors> {
        install_recorder();
        options(KafkaProducer::builder()).build().map(Self::audit)
    }

    /// Builds a producer like [`with`](Self::with), and waits until the cluster has answered.
    pub async fn connect_with(options: impl FnOnce(Builder) -> Builder) -> Result<Self, ConnectError> {
        install_recorder();
        options(KafkaProducer::builder()).connect().await.map(Self::audit)
    }

    fn audit(producer: KafkaProducer) -> Self {
        let (runtime, mut accounts) = (runtime(), accounts());
        let account = accounts.entry(runtime).or_default();
        let number = account.live.last().map_or(0, |(number, _)| number + 1);
        account.live.push((number, producer.clone()));
        Self(Arc::new(Audited { producer, number, runtime }))
    }

    /// Closes the producer like [`KafkaProducer::close`]. Asserts that the report equals the statistics, and that
    /// nothing is in flight.
    pub async fn close(&self, timeout: Duration) -> CloseReport {
        let report = self.0.producer.close(timeout).await;
        let stats = self.stats();
        let reported = (report.delivered, report.failed, report.stored);
        assert_eq!(reported, (stats.sent, stats.failed, stats.stored), "{report:?}: {stats:?}");
        let settled = stats.sent + stats.failed + stats.stored;
        assert_eq!((stats.in_flight, stats.accepted), (0, settled), "closed: {stats:?}");
        report
    }
}

/// Installs the recorder. A test may have its own recorder, which makes its counts incomparable.
fn install_recorder() {
    static INSTALLED: LazyLock<bool> = LazyLock::new(|| metrics::set_global_recorder(TotalsRecorder).is_ok());
    let _ = *INSTALLED;
    let before = accounts().entry(runtime()).or_default().probes;
    metrics::counter!(PROBE).increment(1);
    let mut accounts = accounts();
    let account = accounts.entry(runtime()).or_default();
    account.incomparable |= account.probes == before;
}

fn counted(stats: &Stats) -> [u64; 3] {
    [stats.sent, stats.failed, stats.refused]
}

fn sum(one: [u64; 3], other: [u64; 3]) -> [u64; 3] {
    std::array::from_fn(|index| one[index] + other[index])
}

impl Audited {
    /// Returns the first equation that does not hold.
    fn mismatch(&self) -> Option<String> {
        let stats = self.producer.stats();
        if stats.accepted != stats.sent + stats.failed + stats.stored + stats.in_flight {
            return Some(format!("accepted is not sent + failed + stored + in_flight: {stats:?}"));
        }
        let accounts = accounts();
        let account = accounts.get(&self.runtime)?;
        let live = account.live.iter().map(|(_, producer)| counted(&producer.stats()));
        let reported = live.fold(account.dropped, sum);
        let mut recorded = account.recorded;
        if self.runtime != runtime() {
            // The runtime that refused an event has recorded the refusal.
            recorded[2] = reported[2];
        }
        (recorded != reported && !account.incomparable)
            .then(|| format!("{COMPARED:?} are {recorded:?} in the metrics and {reported:?} in the statistics"))
    }

    /// Returns a mismatch that remains once the runtime's threads have settled.
    fn settled_mismatch(&self) -> Option<String> {
        let is_multi_threaded =
            Handle::try_current().is_ok_and(|handle| handle.runtime_flavor() != RuntimeFlavor::CurrentThread);
        let deadline = Instant::now()
            + if is_multi_threaded || self.runtime != runtime() { SETTLE_TIMEOUT } else { Duration::ZERO };
        loop {
            let mismatch = self.mismatch()?;
            if Instant::now() >= deadline {
                return Some(mismatch);
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

impl Drop for Audited {
    fn drop(&mut self) {
        let mismatch = if std::thread::panicking() { None } else { self.settled_mismatch() };
        let mut accounts = accounts();
        if let Some(account) = accounts.get_mut(&self.runtime) {
            account.live.retain(|(number, _)| *number != self.number);
            let stats = self.producer.stats();
            account.dropped = sum(account.dropped, counted(&stats));
            account.incomparable |= stats.in_flight > 0;
        }
        drop(accounts);
        if let Some(mismatch) = mismatch {
            panic!("{mismatch}");
        }
    }
}

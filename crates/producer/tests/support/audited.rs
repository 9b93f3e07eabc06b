//! A producer whose counts are checked when it is closed and when it is dropped: the equations of `Stats`.
//!
//! Rules: tests build every producer here, so that none can forget the check (`tests/tests/audited.rs` holds them to it).
//! The metrics of a process are shared by its tests, so they are counted by the tokio runtime that they were recorded in:
//! each test has its own.
#![allow(dead_code, unreachable_pub)] // each test file uses its own part
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a failed check fails its test

use std::collections::HashMap;
use std::ops::Deref;
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use kafka_courier::{Builder, CloseReport, ConfigErrors, ConnectError, KafkaConfig, KafkaProducer, Stats};
use metrics::{Counter, CounterFn, Gauge, Histogram, Key, KeyName, Metadata, Recorder, SharedString, Unit};
use tokio::runtime::{Handle, Id, RuntimeFlavor};

/// How long a runtime of several threads has to come to rest.
const PATIENCE: Duration = Duration::from_secs(10);

/// The metrics that have an equal in `Stats`: sent, failed, refused.
const COUNTED: [&str; 3] = ["kafka_messages_sent_total", "kafka_messages_failed_total", "kafka_messages_refused_total"];
/// Recorded to see whether the recorder in force is the one of this file.
const PROBE: &str = "audited_probe";

/// What was recorded and what producers say, in one runtime.
#[derive(Default)]
struct Account {
    recorded: [u64; 3],
    probes: u64,
    living: Vec<(u64, KafkaProducer)>,
    /// The sums of the producers that were dropped.
    dropped: [u64; 3],
    /// Metrics and statistics can't be compared: a producer was dropped while it still delivered, or records elsewhere.
    incomparable: bool,
}

static ACCOUNTS: LazyLock<Mutex<HashMap<Option<Id>, Account>>> = LazyLock::new(Mutex::default);

fn accounts() -> MutexGuard<'static, HashMap<Option<Id>, Account>> {
    ACCOUNTS.lock().unwrap_or_else(PoisonError::into_inner)
}

fn runtime() -> Option<Id> {
    Handle::try_current().ok().map(|handle| handle.id())
}

/// Adds up by runtime.
struct Totals;

struct Tally(Option<usize>);

impl CounterFn for Tally {
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

impl Recorder for Totals {
    fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
        match COUNTED.iter().position(|name| *name == key.name()) {
            None if key.name() != PROBE => Counter::noop(),
            index => Counter::from_arc(Arc::new(Tally(index))),
        }
    }

    fn register_gauge(&self, _: &Key, _: &Metadata<'_>) -> Gauge {
        Gauge::noop()
    }

    fn register_histogram(&self, _: &Key, _: &Metadata<'_>) -> Histogram {
        Histogram::noop()
    }
}

/// A producer under audit. It is used as the [`KafkaProducer`] that it is; clones are one.
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
    /// As [`KafkaProducer::build`].
    pub fn build(config: KafkaConfig) -> Result<Self, ConfigErrors> {
        begin();
        KafkaProducer::build(config).map(Self::of)
    }

    /// A producer from a builder with these options.
    pub fn with(options: impl FnOnce(Builder) -> Builder) -> Result<Self, ConfigErrors> {
        begin();
        options(KafkaProducer::builder()).build().map(Self::of)
    }

    /// As [`with`](Self::with), once it has spoken with the cluster.
    pub async fn connect_with(options: impl FnOnce(Builder) -> Builder) -> Result<Self, ConnectError> {
        begin();
        options(KafkaProducer::builder()).connect().await.map(Self::of)
    }

    fn of(producer: KafkaProducer) -> Self {
        let (runtime, mut accounts) = (runtime(), accounts());
        let account = accounts.entry(runtime).or_default();
        let number = account.living.last().map_or(0, |(number, _)| number + 1);
        account.living.push((number, producer.clone()));
        Self(Arc::new(Audited { producer, number, runtime }))
    }

    /// As [`KafkaProducer::close`]. Its report says what the statistics say, and nothing is in flight.
    pub async fn close(&self, timeout: Duration) -> CloseReport {
        let report = self.0.producer.close(timeout).await;
        let stats = self.stats();
        assert_eq!((report.delivered, report.failed), (stats.sent, stats.failed), "{report:?}: {stats:?}");
        assert_eq!((stats.in_flight, stats.accepted), (0, stats.sent + stats.failed), "closed: {stats:?}");
        report
    }
}

/// Installs the recorder, unless the test has its own.
fn begin() {
    static INSTALLED: LazyLock<bool> = LazyLock::new(|| metrics::set_global_recorder(Totals).is_ok());
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
    /// What does not add up, if anything.
    fn fault(&self) -> Option<String> {
        let stats = self.producer.stats();
        if stats.accepted != stats.sent + stats.failed + stats.in_flight {
            return Some(format!("accepted is not sent + failed + in_flight: {stats:?}"));
        }
        let accounts = accounts();
        let account = accounts.get(&self.runtime)?;
        let living = account.living.iter().map(|(_, producer)| counted(&producer.stats()));
        let said = living.fold(account.dropped, sum);
        let mut recorded = account.recorded;
        if self.runtime != runtime() {
            recorded[2] = said[2]; // what was refused elsewhere was recorded there
        }
        (recorded != said && !account.incomparable)
            .then(|| format!("{COUNTED:?} are {recorded:?} in the metrics and {said:?} in the statistics"))
    }

    fn settled_fault(&self) -> Option<String> {
        let several = Handle::try_current().is_ok_and(|handle| handle.runtime_flavor() != RuntimeFlavor::CurrentThread);
        let deadline = Instant::now() + if several || self.runtime != runtime() { PATIENCE } else { Duration::ZERO };
        loop {
            let fault = self.fault()?;
            if Instant::now() >= deadline {
                return Some(fault);
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

impl Drop for Audited {
    fn drop(&mut self) {
        let fault = if std::thread::panicking() { None } else { self.settled_fault() };
        let mut accounts = accounts();
        if let Some(account) = accounts.get_mut(&self.runtime) {
            account.living.retain(|(number, _)| *number != self.number);
            let stats = self.producer.stats();
            account.dropped = sum(account.dropped, counted(&stats));
            account.incomparable |= stats.in_flight > 0;
        }
        drop(accounts);
        if let Some(fault) = fault {
            panic!("{fault}");
        }
    }
}

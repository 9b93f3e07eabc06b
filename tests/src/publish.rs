//! The main job, `courier sample | courier publish`, and all that must hold of it afterwards.
use std::io::BufReader;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::batches::{self, Limits, Shape};
use crate::cluster::Cluster;
use crate::courier::{Courier, Finished};
use crate::ledger::{Ledger, TOPICS};
use crate::receipts;

/// What a topic takes by default: `message.max.bytes`, for a whole batch with its header.
pub const MESSAGE_MAX_BYTES: u64 = 1_048_588;

/// How long a run may take before it counts as hanging.
const DEADLINE: Duration = Duration::from_secs(300);

/// One run to be.
pub struct Job<'a> {
    /// How many sample events.
    pub events: u64,
    /// The seed that they come from.
    pub seed: u64,
    /// Settings, as environment variables.
    pub settings: &'a [(&'a str, &'a str)],
    /// What the settings allow a batch to hold.
    pub limits: Limits,
}

/// A run whose outcome was checked.
pub struct Done {
    /// How `courier publish` ended and what it cost.
    pub run: Finished,
    /// The batches in the log.
    pub shape: Shape,
}

/// Creates the default topics.
///
/// # Errors
/// When the cluster refuses one.
pub fn create_topics(cluster: &Cluster, partitions: u32, replication: u32) -> Result<()> {
    for topic in TOPICS {
        cluster.create_topic(topic, partitions, replication, &[])?;
    }
    Ok(())
}

impl Job<'_> {
    /// Publishes the sample into the cluster's empty default topics, and checks that each event is in the log exactly
    /// once, unchanged, in order, in the right place, that each receipt names its place, and that the batches are
    /// idempotent, snappy and within the limits. Prints the figures.
    ///
    /// # Errors
    /// What does not hold.
    pub fn publish_and_check(&self, cluster: &Cluster) -> Result<Done> {
        let folder = tempfile::tempdir()?;
        let receipts_file = folder.path().join("receipts.ndjson");
        let receipts_name = receipts_file.to_str().context("a temporary folder that is not UTF-8")?;
        let run = self.publish(cluster, receipts_name)?;
        let mut ledger = self.ledger()?;
        let counts = ledger.check(cluster)?;
        receipts::check(&receipts_file, &ledger)?;
        let shape = batches::check_idempotent(&cluster.batches(&TOPICS)?, self.limits)?;
        ensure!(shape.records.unsigned_abs() == self.events, "{shape} for {} events", self.events);
        println!(
            "courier publish: {} events in {:.1} s, {:.1} s of CPU ({:.2} us an event), peak memory {:.1} MB",
            self.events,
            run.wall.as_secs_f64(),
            run.cpu.as_secs_f64(),
            run.cpu.as_secs_f64() * 1e6 / self.events as f64,
            run.peak_rss as f64 / 1e6
        );
        println!("{shape}");
        println!("{counts:?}");
        Ok(Done { run, shape })
    }

    fn publish(&self, cluster: &Cluster, receipts: &str) -> Result<Finished> {
        let mut sample = self.sample()?.pipe()?;
        let events = sample.stdout.take().context("no pipe")?;
        let arguments = ["publish", "--brokers", cluster.bootstrap(), "--receipts", receipts, "-"];
        let mut courier = Courier::new(&arguments)?.input(Stdio::from(events)).within(DEADLINE);
        for (name, value) in self.settings {
            courier = courier.env(name, value);
        }
        let run = courier.run().and_then(|run| run.expect_code(0));
        let sampled = sample.wait()?;
        let run = run?;
        ensure!(sampled.success(), "courier sample failed with {sampled}");
        Ok(run)
    }

    /// A second sample of the same seed, which is the same: what the log must hold.
    fn ledger(&self) -> Result<Ledger> {
        let mut sample = self.sample()?.pipe()?;
        let events = sample.stdout.take().context("no pipe")?;
        let ledger = Ledger::read(BufReader::with_capacity(1 << 20, events), None)?;
        ensure!(sample.wait()?.success(), "courier sample failed");
        ensure!(ledger.len() as u64 == self.events, "{} sample events, not {}", ledger.len(), self.events);
        Ok(ledger)
    }

    fn sample(&self) -> Result<Courier> {
        let (count, seed) = (self.events.to_string(), self.seed.to_string());
        Courier::new(&["sample", "--count", &count, "--seed", &seed])
    }
}

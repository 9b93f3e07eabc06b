//! The loop that kills writers with a spool, and the comparison of their ledger with the log.
//!
//! Rules:
//! - A number of the ledger is in the log exactly once. Any other number is there at most once.
//! - The numbers of a key rise in the log.
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use crate::cluster::Cluster;

/// Tasks that publish in a writer.
pub const WRITERS: u64 = 16;
/// Keys of each task.
pub const KEYS: u64 = 5;
/// Numbers of a writer.
const NUMBERS: u64 = 1 << 32;

/// The writers of one loop, one after the other, on one spool.
pub struct KillLoop<'a> {
    cluster: &'a Cluster,
    topic: &'a str,
    program: PathBuf,
    preload: Option<PathBuf>,
    folder: tempfile::TempDir,
    lives: u64,
}

/// What a loop has shown.
#[derive(Clone, Copy, Debug)]
pub struct Killed {
    /// Processes that were killed.
    pub lives: u64,
    /// Records in the ledger.
    pub stored: usize,
    /// Records in the log.
    pub logged: usize,
}

impl<'a> KillLoop<'a> {
    /// Prepares a loop with this writer, the program `spool_writer`.
    ///
    /// # Errors
    /// Fails if no folder can be created.
    pub fn new(cluster: &'a Cluster, topic: &'a str, program: &Path) -> Result<Self> {
        Ok(Self { cluster, topic, program: program.to_owned(), preload: None, folder: tempfile::tempdir()?, lives: 0 })
    }

    /// Makes each kill a power cut: the spool loses what it has not synced. The library is `kafka-courier-power-cut`, beside
    /// the writer.
    ///
    /// # Errors
    /// Fails if the library is not there.
    pub fn with_power_cuts(mut self) -> Result<Self> {
        let library = self.program.with_file_name("libkafka_courier_power_cut.so");
        ensure!(library.is_file(), "{} is missing: build kafka-courier-power-cut", library.display());
        self.preload = Some(library);
        Ok(self)
    }

    /// Runs a writer for this time, and kills it.
    ///
    /// # Errors
    /// Fails if the writer ends by itself.
    pub fn live(&mut self, time: Duration) -> Result<()> {
        let first = (self.lives * NUMBERS).to_string();
        self.lives += 1;
        let ledger = self.ledger();
        let mut child = self.start(&[&ledger.display().to_string(), &first])?;
        std::thread::sleep(time);
        let ended = child.try_wait()?;
        child.kill()?;
        child.wait()?;
        ensure!(ended.is_none(), "the writer {} ended with {ended:?} before it was killed", self.lives);
        Ok(())
    }

    fn ledger(&self) -> PathBuf {
        self.folder.path().join("ledger")
    }

    fn start(&self, rest: &[&str]) -> Result<Child> {
        let spool = self.folder.path().join("spool");
        let mut command = Command::new(&self.program);
        command.arg(self.cluster.bootstrap()).arg(self.topic).arg(spool).args(rest).stdin(Stdio::null());
        command.envs(self.preload.iter().map(|library| ("LD_PRELOAD", library)));
        command.spawn().with_context(|| self.program.display().to_string())
    }

    /// Delivers what the spool has, and compares the ledger with the log.
    ///
    /// # Errors
    /// Fails if a record is lost, doubled or out of order.
    pub fn check(&self) -> Result<Killed> {
        let begun = Instant::now();
        let status = self.start(&[])?.wait()?;
        ensure!(status.success(), "the last process ended with {status} after {:?}", begun.elapsed());
        let text = std::fs::read_to_string(self.ledger())?;
        // A kill can leave a part of a line.
        let lines = text.split_inclusive('\n').filter(|line| line.ends_with('\n'));
        let stored: BTreeSet<u64> = lines.filter_map(|line| line.trim().parse().ok()).collect();
        let mut logged = BTreeSet::new();
        let mut last: BTreeMap<String, u64> = BTreeMap::new();
        self.cluster.dump(self.topic, |record| {
            let number = record.value.as_deref().and_then(|value| value.split(' ').next()?.parse::<u64>().ok());
            let number = number.context("a record without a number")?;
            ensure!(logged.insert(number), "record {number} is in the log twice");
            let before = last.insert(record.key.as_deref().unwrap_or_default().to_owned(), number);
            ensure!(before < Some(number), "record {number} of a key follows {before:?}");
            Ok(())
        })?;
        let lost: Vec<_> = stored.difference(&logged).take(5).collect();
        ensure!(lost.is_empty(), "{} stored records are lost: {lost:?}", stored.difference(&logged).count());
        Ok(Killed { lives: self.lives, stored: stored.len(), logged: logged.len() })
    }
}

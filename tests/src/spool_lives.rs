//! Processes with a spool, one after the other, and the comparison of their ledger with the log.
//!
//! Rules:
//! - A number of the ledger is in the log exactly once. Any other number is there at most once.
//! - The numbers of a key rise in the log, and a key has one partition.
//! - A wait is for a state of the ledger. A writer that ends by itself fails it.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use crate::cluster::Cluster;

/// Tasks that publish in a writer.
pub const WRITERS: u64 = 16;
/// Keys of each task.
pub const KEYS: u64 = 5;
/// The ledger's line about a record without room.
pub const REFUSED: &str = "refused";
/// Numbers of a writer.
const NUMBERS: u64 = 1 << 32;
/// The longest wait for a state.
const PATIENCE: Duration = Duration::from_secs(180);
const POLL_INTERVAL: Duration = Duration::from_millis(5);

/// The writers of a test, one after the other, on one spool.
pub struct SpoolLives<'a> {
    cluster: &'a Cluster,
    topic: String,
    program: PathBuf,
    folder: tempfile::TempDir,
    spool: PathBuf,
    settings: BTreeMap<String, OsString>,
    lives: u64,
}

/// A running writer. Dropping it kills the process.
pub struct Life {
    child: Child,
    ledger: PathBuf,
    position: usize,
    stored: u64,
    refused: u64,
}

/// The numbers in the log of a topic.
#[derive(Debug, Default)]
pub struct LoggedNumbers {
    /// Each number, with the record's timestamp in milliseconds.
    pub timestamps: BTreeMap<u64, i64>,
    /// The partitions of each key.
    pub partitions: BTreeMap<String, BTreeSet<i32>>,
}

/// A dead letter that the last process had.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LetterLine {
    /// The number of the record.
    pub number: u64,
    /// `unknown` or `not_written`.
    pub outcome: String,
    /// Why the record failed.
    pub reason: String,
}

/// What a check has shown.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Checked {
    /// Processes that published.
    pub lives: u64,
    /// Records in the ledger.
    pub stored: usize,
    /// Records in the log.
    pub logged: usize,
}

impl<'a> SpoolLives<'a> {
    /// Prepares the lives of this writer, the program `spool_writer`.
    ///
    /// # Errors
    /// Fails if no folder can be created.
    pub fn new(cluster: &'a Cluster, topic: &str, program: &Path) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let (spool, program, topic) = (folder.path().join("spool"), program.to_owned(), topic.to_owned());
        Ok(Self { cluster, topic, program, folder, spool, settings: BTreeMap::new(), lives: 0 })
    }

    /// Sets an environment variable of the next processes.
    pub fn set(&mut self, name: &str, value: impl Into<OsString>) -> &mut Self {
        self.settings.insert(name.to_owned(), value.into());
        self
    }

    /// Removes an environment variable of the next processes.
    pub fn unset(&mut self, name: &str) -> &mut Self {
        self.settings.remove(name);
        self
    }

    /// Makes the next processes load a library that stands beside the writer.
    ///
    /// # Errors
    /// Fails if the library is not there.
    pub fn preload(&mut self, library: &str, package: &str) -> Result<&mut Self> {
        let path = self.program.with_file_name(library);
        ensure!(path.is_file(), "{} is missing: build {package}", path.display());
        Ok(self.set("LD_PRELOAD", path))
    }

    /// Returns the spool's folder.
    #[must_use]
    pub fn spool(&self) -> &Path {
        &self.spool
    }

    /// Starts the next writer.
    ///
    /// # Errors
    /// Fails if the program does not start.
    pub fn start(&mut self) -> Result<Life> {
        let (first, ledger) = (self.lives * NUMBERS, self.ledger());
        self.lives += 1;
        let arguments = [ledger.clone().into_os_string(), first.to_string().into()];
        let position = usize::try_from(std::fs::metadata(&ledger).map_or(0, |found| found.len()))?;
        let child = self.command(&arguments).spawn().with_context(|| self.program.display().to_string())?;
        Ok(Life { child, ledger, position, stored: 0, refused: 0 })
    }

    /// Starts a process that delivers what the spool has.
    ///
    /// # Errors
    /// Fails if the program does not start.
    pub fn start_drain(&self) -> Result<Child> {
        let mut command = self.command(&[]);
        command.stdout(Stdio::piped()).spawn().with_context(|| self.program.display().to_string())
    }

    /// Delivers what the spool has. Returns the dead letters of all processes.
    ///
    /// # Errors
    /// Fails if the process fails.
    pub fn drain(&self) -> Result<Vec<LetterLine>> {
        let begun = Instant::now();
        let ended = self.start_drain()?.wait_with_output()?;
        ensure!(ended.status.success(), "the last process ended with {} after {:?}", ended.status, begun.elapsed());
        let text = String::from_utf8(ended.stdout)?;
        text.lines().map(LetterLine::parse).collect()
    }

    /// Delivers what the spool has, and compares the ledger with the log.
    ///
    /// # Errors
    /// Fails if a record is lost, doubled, out of order or a dead letter.
    pub fn check(&self) -> Result<Checked> {
        let letters = self.drain()?;
        ensure!(letters.is_empty(), "{} dead letters, the first is {:?}", letters.len(), letters.first());
        let logged = LoggedNumbers::read(self.cluster, &self.topic)?;
        logged.expect_one_partition()?;
        self.compare(&logged)
    }

    /// Compares the ledger with the log.
    ///
    /// # Errors
    /// Fails if a record of the ledger is not in the log.
    pub fn compare(&self, logged: &LoggedNumbers) -> Result<Checked> {
        let stored = self.stored()?;
        let lost: Vec<_> = stored.iter().filter(|number| !logged.timestamps.contains_key(number)).collect();
        ensure!(lost.is_empty(), "{} stored records are lost: {:?}", lost.len(), lost.get(..5).unwrap_or(&lost));
        Ok(Checked { lives: self.lives, stored: stored.len(), logged: logged.timestamps.len() })
    }

    /// Returns the numbers in the ledger.
    ///
    /// # Errors
    /// Fails if the ledger can't be read.
    pub fn stored(&self) -> Result<BTreeSet<u64>> {
        let text = std::fs::read_to_string(self.ledger())?;
        // A kill can leave a part of a line.
        let lines = text.split_inclusive('\n').filter(|line| line.ends_with('\n'));
        Ok(lines.filter_map(|line| line.trim().parse().ok()).collect())
    }

    fn ledger(&self) -> PathBuf {
        self.folder.path().join("ledger")
    }

    fn command(&self, rest: &[OsString]) -> Command {
        let mut command = Command::new(&self.program);
        command.arg(self.cluster.bootstrap()).arg(&self.topic).arg(&self.spool).args(rest).stdin(Stdio::null());
        command.envs(&self.settings);
        command
    }
}

impl Life {
    /// Waits until the spool has stored this many records of this life.
    ///
    /// # Errors
    /// Fails if the writer ends, or if nothing is stored for minutes.
    pub fn wait_stored(&mut self, count: u64) -> Result<()> {
        self.wait(&format!("{count} stored records"), |life| life.stored >= count)
    }

    /// Waits until the spool has stored this many more records.
    ///
    /// # Errors
    /// As [`Self::wait_stored`].
    pub fn wait_stored_more(&mut self, count: u64) -> Result<()> {
        self.read_ledger()?;
        self.wait_stored(self.stored + count)
    }

    /// Waits until a record was refused since the last call that read the ledger.
    ///
    /// # Errors
    /// As [`Self::wait_stored`].
    pub fn wait_refused(&mut self) -> Result<()> {
        self.read_ledger()?;
        let before = self.refused;
        self.wait("a refused record", |life| life.refused > before)
    }

    /// Returns the number of records that the spool has stored.
    ///
    /// # Errors
    /// Fails if the ledger can't be read.
    pub fn stored(&mut self) -> Result<u64> {
        self.read_ledger()?;
        Ok(self.stored)
    }

    /// Kills the writer with SIGKILL.
    ///
    /// # Errors
    /// Fails if the writer has ended by itself.
    pub fn kill(mut self) -> Result<()> {
        let ended = self.child.try_wait()?;
        ensure!(ended.is_none(), "the writer ended with {ended:?} before it was killed");
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    fn wait(&mut self, state: &str, is_reached: impl Fn(&Self) -> bool) -> Result<()> {
        let mut progress = (Instant::now(), self.stored);
        loop {
            self.read_ledger()?;
            if is_reached(self) {
                return Ok(());
            }
            let ended = self.child.try_wait()?;
            ensure!(ended.is_none(), "the writer ended with {ended:?} before {state}");
            if self.stored > progress.1 {
                progress = (Instant::now(), self.stored);
            }
            ensure!(
                progress.0.elapsed() < PATIENCE,
                "no {state}: {} are stored, {} refused",
                self.stored,
                self.refused
            );
            std::thread::sleep(POLL_INTERVAL);
        }
    }

    /// Counts the new lines of the ledger.
    fn read_ledger(&mut self) -> Result<()> {
        // The writer creates the file once its spool is open.
        let Ok(mut file) = File::open(&self.ledger) else { return Ok(()) };
        std::io::Seek::seek(&mut file, std::io::SeekFrom::Start(self.position.try_into()?))?;
        let mut text = String::new();
        file.read_to_string(&mut text)?;
        for line in text.split_inclusive('\n').filter(|line| line.ends_with('\n')) {
            self.position += line.len();
            *(if line.trim() == REFUSED { &mut self.refused } else { &mut self.stored }) += 1;
        }
        Ok(())
    }
}

impl Drop for Life {
    fn drop(&mut self) {
        // The process may have ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl LetterLine {
    fn parse(line: &str) -> Result<Self> {
        let mut words = line.splitn(3, ' ');
        let number = words.next().and_then(|number| number.parse().ok()).with_context(|| line.to_owned())?;
        let (outcome, reason) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        Ok(Self { number, outcome: outcome.to_owned(), reason: reason.to_owned() })
    }
}

impl LoggedNumbers {
    /// Reads a topic with a Java consumer.
    ///
    /// # Errors
    /// Fails if a number is there twice, or if the numbers of a key do not rise within a partition.
    pub fn read(cluster: &Cluster, topic: &str) -> Result<Self> {
        let mut found = Self::default();
        let mut last: BTreeMap<(i32, String), u64> = BTreeMap::new();
        cluster.dump(topic, |record| {
            let number = record.value.as_deref().and_then(|value| value.split(' ').next()?.parse::<u64>().ok());
            let number = number.context("a record without a number")?;
            let twice = found.timestamps.insert(number, record.timestamp);
            ensure!(twice.is_none(), "record {number} is in the log twice");
            let key = record.key.as_deref().unwrap_or_default();
            match found.partitions.get_mut(key) {
                Some(partitions) => _ = partitions.insert(record.partition),
                None => _ = found.partitions.insert(key.to_owned(), BTreeSet::from([record.partition])),
            }
            let before = last.insert((record.partition, key.to_owned()), number);
            ensure!(before < Some(number), "record {number} of a key follows {before:?}");
            Ok(())
        })?;
        Ok(found)
    }

    /// Returns the numbers.
    pub fn numbers(&self) -> impl Iterator<Item = u64> {
        self.timestamps.keys().copied()
    }

    /// Checks that a key has one partition.
    ///
    /// # Errors
    /// Fails with the first key that has several ones.
    pub fn expect_one_partition(&self) -> Result<()> {
        let several = self.partitions.iter().find(|(_, partitions)| partitions.len() > 1);
        ensure!(several.is_none(), "a key has several partitions: {several:?}");
        Ok(())
    }
}

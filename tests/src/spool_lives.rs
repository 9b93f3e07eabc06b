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
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::cluster::Cluster;
use crate::courier::Courier;

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
    /// A command that replaces itself with the writer.
    launcher: Vec<String>,
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

/// The numbers of the records that a spool has, by the state at its process's end.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct LeftNumbers {
    /// A process may have sent these.
    pub maybe_sent: BTreeSet<u64>,
    /// No process has sent these.
    pub never_sent: BTreeSet<u64>,
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
        let (settings, launcher) = (BTreeMap::new(), Vec::new());
        Ok(Self { cluster, topic, program, folder, spool, settings, launcher, lives: 0 })
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

    /// Leaves the numbers of these lives to other writers.
    pub fn skip_lives(&mut self, lives: u64) {
        self.lives += lives;
    }

    /// Puts the spool into this folder. The launcher is a command that replaces itself with its arguments, or empty.
    pub fn place_spool(&mut self, folder: &Path, launcher: &[String]) {
        (self.spool, self.launcher) = (folder.to_owned(), launcher.to_vec());
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

    /// Returns what the spool has while no process has it.
    ///
    /// # Errors
    /// Fails if `courier spool export` fails.
    pub fn left(&self) -> Result<LeftNumbers> {
        LeftNumbers::read(&self.spool)
    }

    fn ledger(&self) -> PathBuf {
        self.folder.path().join("ledger")
    }

    fn command(&self, rest: &[OsString]) -> Command {
        let program = self.program.clone().into_os_string();
        let mut words = self.launcher.iter().map(OsString::from).chain([program]);
        let mut command = Command::new(words.next().unwrap_or_default());
        command
            .args(words)
            .arg(self.cluster.bootstrap())
            .arg(&self.topic)
            .arg(&self.spool)
            .args(rest)
            .stdin(Stdio::null());
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

    /// Waits until the writer ends by itself. Returns whether it ended with success.
    ///
    /// # Errors
    /// Fails if the process can't be awaited.
    pub fn wait_end(mut self) -> Result<bool> {
        Ok(self.child.wait()?.success())
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

impl LeftNumbers {
    /// Reads the spool in a folder that no process has.
    ///
    /// # Errors
    /// Fails if `courier spool export` fails.
    pub fn read(spool: &Path) -> Result<Self> {
        let folder = spool.to_str().context("the path of the spool is not UTF-8")?;
        let run = Courier::new(&["spool", "export", folder])?.run()?.expect_code(0)?;
        let mut left = Self::default();
        for line in run.stdout.lines() {
            let event: serde_json::Value = serde_json::from_str(line)?;
            let value = STANDARD.decode(event["event_base64"].as_str().context("an event without a value")?);
            let value = value.map_err(anyhow::Error::msg)?;
            let number = std::str::from_utf8(&value)?.split(' ').next().and_then(|number| number.parse().ok());
            let number = number.context("an event without a number")?;
            match event["outcome"].as_str() {
                Some("unknown") => left.maybe_sent.insert(number),
                _ => left.never_sent.insert(number),
            };
        }
        Ok(left)
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

//! Runs of the real `courier` binary, with their time and memory.
//!
//! Rules:
//! - `courier` inherits no setting: every `KAFKA_*` variable is removed.
//! - The state folder is temporary, so that a run leaves no files.
//! - A run is killed at its deadline, and fails.
use std::fs::File;
use std::io::{Read, Seek};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use wait4::{ResUse, Wait4};

/// The time between two checks for the end of a run.
const POLL_INTERVAL: Duration = Duration::from_millis(5);

/// Returns the path of the binary: `$COURIER_BIN`, or the binary that cargo built beside the test.
///
/// # Errors
/// Fails if the binary does not exist. The message contains the command that builds it.
pub fn binary() -> Result<PathBuf> {
    if let Some(named) = std::env::var_os("COURIER_BIN") {
        return Ok(named.into());
    }
    let test = std::env::current_exe()?;
    let profile = test.parent().and_then(|deps| deps.parent()).context("the test is not in a target folder")?;
    let built = profile.join("courier");
    ensure!(built.exists(), "{} does not exist: run cargo build --release -p kafka-courier-cli", built.display());
    Ok(built)
}

/// A run that has not started.
pub struct Courier {
    command: Command,
    /// The default folder for dead letters.
    _state: tempfile::TempDir,
    deadline: Duration,
}

/// A run that ended.
#[derive(Debug)]
pub struct FinishedRun {
    /// The exit code. None after a signal.
    pub code: Option<i32>,
    /// The standard output.
    pub stdout: String,
    /// The standard error.
    pub stderr: String,
    /// The time from start to end.
    pub wall: Duration,
    /// The CPU time, user and system.
    pub cpu: Duration,
    /// The peak of resident memory in bytes, an upper bound. Linux counts the test's own memory at the time of the
    /// start, so that a test must start `courier` before it allocates much.
    pub peak_rss: u64,
}

impl Courier {
    /// Returns a run with these arguments, a deadline of two minutes, and an empty standard input.
    ///
    /// # Errors
    /// Fails if the binary does not exist.
    pub fn new(arguments: &[&str]) -> Result<Self> {
        let mut command = Command::new(binary()?);
        let state = tempfile::tempdir()?;
        command.args(arguments).stdin(Stdio::null());
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("KAFKA_") {
                command.env_remove(name);
            }
        }
        command.env("XDG_STATE_HOME", state.path());
        Ok(Self { command, _state: state, deadline: Duration::from_secs(120) })
    }

    /// Sets an environment variable.
    #[must_use]
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.command.env(name, value);
        self
    }

    /// Sets the standard input.
    #[must_use]
    pub fn input(mut self, input: impl Into<Stdio>) -> Self {
        self.command.stdin(input);
        self
    }

    /// Sets the standard input to these bytes.
    ///
    /// # Errors
    /// Fails if the temporary file for the bytes can't be written.
    pub fn input_bytes(self, bytes: &[u8]) -> Result<Self> {
        let mut file = tempfile::tempfile()?;
        std::io::Write::write_all(&mut file, bytes)?;
        file.rewind()?;
        Ok(self.input(file))
    }

    /// Sets the deadline.
    #[must_use]
    pub fn within(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    /// Starts `courier` with a pipe as its standard output.
    ///
    /// # Errors
    /// Fails if the process does not start.
    pub fn pipe(mut self) -> Result<Child> {
        self.command.stdout(Stdio::piped()).spawn().context("courier did not start")
    }

    /// Runs `courier` to its end. Any exit code is a result.
    ///
    /// # Errors
    /// Fails if the process does not start, or does not end before the deadline.
    pub fn run(mut self) -> Result<FinishedRun> {
        let (mut out, mut err) = (tempfile::tempfile()?, tempfile::tempfile()?);
        self.command.stdout(out.try_clone()?).stderr(err.try_clone()?);
        let started = Instant::now();
        let child = self.command.spawn().context("courier did not start")?;
        let ended = wait(child, started + self.deadline);
        let wall = started.elapsed();
        let (stdout, stderr) = (text(&mut out)?, text(&mut err)?);
        let Some(used) = ended? else {
            bail!("courier did not end within {:?}. Its output:\n{stdout}\n{stderr}", self.deadline);
        };
        let cpu = used.rusage.utime + used.rusage.stime;
        Ok(FinishedRun { code: used.status.code(), stdout, stderr, wall, cpu, peak_rss: used.rusage.maxrss })
    }
}

impl FinishedRun {
    /// Checks the exit code.
    ///
    /// # Errors
    /// Returns an error with the output if the exit code is not `code`.
    pub fn expect_code(self, code: i32) -> Result<Self> {
        ensure!(
            self.code == Some(code),
            "the exit code is {:?}, not {code}. The output:\n{}\n{}",
            self.code,
            self.stdout,
            self.stderr
        );
        Ok(self)
    }

    /// Checks that standard error contains each of `words`.
    ///
    /// # Errors
    /// Fails if a word is missing, or if `courier` panicked.
    pub fn expect_stderr(self, words: &[&str]) -> Result<Self> {
        for word in words {
            ensure!(self.stderr.contains(word), "standard error does not contain {word:?}:\n{}", self.stderr);
        }
        ensure!(!self.stderr.contains("panicked at"), "courier panicked:\n{}", self.stderr);
        Ok(self)
    }
}

/// Waits for the child's end and returns its exit status and resource usage. Kills the child at the deadline and
/// returns none.
fn wait(mut child: Child, deadline: Instant) -> Result<Option<ResUse>> {
    loop {
        if let Some(used) = child.try_wait4()? {
            return Ok(Some(used));
        }
        if Instant::now() > deadline {
            child.kill()?;
            child.wait()?;
            return Ok(None);
        }
        std::thread::sleep(POLL_INTERVAL);
    }
}

fn text(file: &mut File) -> Result<String> {
    let mut bytes = Vec::new();
    file.rewind()?;
    file.read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

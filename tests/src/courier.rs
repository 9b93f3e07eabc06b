//! Runs of the real `courier` binary, and what they cost.
//!
//! Rules: no setting of the surroundings reaches it (every `KAFKA_*` variable is removed), and nothing that it keeps stays (its
//! state folder is a temporary one); a run that does not end is
//! killed at its deadline and fails.
use std::fs::File;
use std::io::{Read, Seek};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use wait4::{ResUse, Wait4};

/// Between two looks at whether a run has ended.
const LOOK: Duration = Duration::from_millis(5);

/// The binary: `$COURIER_BIN`, else the one that cargo built beside the test.
///
/// # Errors
/// When there is none; the message says how to build it.
pub fn binary() -> Result<PathBuf> {
    if let Some(named) = std::env::var_os("COURIER_BIN") {
        return Ok(named.into());
    }
    let test = std::env::current_exe()?;
    let profile = test.parent().and_then(|deps| deps.parent()).context("the test stands in no target folder")?;
    let built = profile.join("courier");
    ensure!(built.exists(), "{} is not there: cargo build --release -p kafka-courier-cli", built.display());
    Ok(built)
}

/// A run to be.
pub struct Courier {
    command: Command,
    /// Where it keeps dead letters, unless told otherwise.
    _state: tempfile::TempDir,
    deadline: Duration,
}

/// A run that ended.
#[derive(Debug)]
pub struct Finished {
    /// The exit code; none after a signal.
    pub code: Option<i32>,
    /// What it wrote to standard output.
    pub stdout: String,
    /// What it wrote to standard error.
    pub stderr: String,
    /// From start to end.
    pub wall: Duration,
    /// CPU time, user and system.
    pub cpu: Duration,
    /// The peak of its resident memory in bytes. Never less than the truth: on Linux it starts from the test's own
    /// memory at the time of the start, so run first and collect afterwards.
    pub peak_rss: u64,
}

impl Courier {
    /// `courier` with these arguments, two minutes to run, and nothing on standard input.
    ///
    /// # Errors
    /// When the binary is not there.
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

    /// What it reads from standard input.
    #[must_use]
    pub fn input(mut self, input: impl Into<Stdio>) -> Self {
        self.command.stdin(input);
        self
    }

    /// Bytes for it to read from standard input.
    ///
    /// # Errors
    /// When no temporary file can be written.
    pub fn input_bytes(self, bytes: &[u8]) -> Result<Self> {
        let mut file = tempfile::tempfile()?;
        std::io::Write::write_all(&mut file, bytes)?;
        file.rewind()?;
        Ok(self.input(file))
    }

    /// How long it may run.
    #[must_use]
    pub fn within(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    /// Starts it with a pipe as its standard output, for another to read.
    ///
    /// # Errors
    /// When it does not start.
    pub fn pipe(mut self) -> Result<Child> {
        self.command.stdout(Stdio::piped()).spawn().context("courier did not start")
    }

    /// Runs it to its end.
    ///
    /// # Errors
    /// When it does not start or not end in time. Its exit code is no error here.
    pub fn run(mut self) -> Result<Finished> {
        let (mut out, mut err) = (tempfile::tempfile()?, tempfile::tempfile()?);
        self.command.stdout(out.try_clone()?).stderr(err.try_clone()?);
        let started = Instant::now();
        let child = self.command.spawn().context("courier did not start")?;
        let ended = wait(child, started + self.deadline);
        let wall = started.elapsed();
        let (stdout, stderr) = (text(&mut out)?, text(&mut err)?);
        let Some(used) = ended? else {
            bail!("courier did not end within {:?}; it wrote:\n{stdout}\n{stderr}", self.deadline);
        };
        let cpu = used.rusage.utime + used.rusage.stime;
        Ok(Finished { code: used.status.code(), stdout, stderr, wall, cpu, peak_rss: used.rusage.maxrss })
    }
}

impl Finished {
    /// Fails unless it exited with `code`, showing what it said.
    ///
    /// # Errors
    /// When it exited otherwise.
    pub fn expect_code(self, code: i32) -> Result<Self> {
        ensure!(
            self.code == Some(code),
            "exit code {:?}, not {code}; it wrote:\n{}\n{}",
            self.code,
            self.stdout,
            self.stderr
        );
        Ok(self)
    }

    /// Fails unless standard error has each of `words`.
    ///
    /// # Errors
    /// When one is missing.
    pub fn expect_said(self, words: &[&str]) -> Result<Self> {
        for word in words {
            ensure!(self.stderr.contains(word), "standard error does not say {word:?}:\n{}", self.stderr);
        }
        ensure!(!self.stderr.contains("panicked at"), "it panicked:\n{}", self.stderr);
        Ok(self)
    }
}

/// The child's end and what it used; none if it had to be killed.
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
        std::thread::sleep(LOOK);
    }
}

fn text(file: &mut File) -> Result<String> {
    let mut bytes = Vec::new();
    file.rewind()?;
    file.read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

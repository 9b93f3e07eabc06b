//! Counting of Ctrl-C, SIGTERM and SIGHUP.
//!
//! Rules:
//! - SIGHUP counts as SIGTERM, unless the command starts with SIGHUP ignored, as under nohup.
//! - Signals are caught from the start of the command, and none is lost between two waits.
//! - The first signal requests an orderly end, the second an immediate one. The third exits the process without waiting,
//!   even for a process that reads receipts from a pipe.

use tokio::sync::watch;

use crate::exit::Exit;

/// The signals received until now.
#[derive(Clone, Copy)]
struct Caught {
    times: u32,
    /// The exit code of the last signal, for a command that it interrupts.
    exit: Exit,
}

/// A counter of received signals.
pub(crate) struct Signals(watch::Receiver<Caught>);

impl Signals {
    /// Starts to catch signals.
    pub(crate) fn catch() -> Self {
        let (sender, receiver) = watch::channel(Caught { times: 0, exit: Exit::Interrupted });
        match SignalSource::open() {
            Ok(source) => drop(tokio::spawn(count(source, sender))),
            Err(error) => crate::say(&format!("warning: cannot handle Ctrl-C, SIGTERM and SIGHUP: {error}")),
        }
        Self(receiver)
    }

    /// Returns the number of signals received.
    pub(crate) fn times(&self) -> u32 {
        self.0.borrow().times
    }

    /// Waits until `times` signals have been received in all.
    ///
    /// # Cancel safety
    /// Cancel safe: the method only reads the counter.
    pub(crate) async fn reached(&mut self, times: u32) {
        if self.0.wait_for(|caught| caught.times >= times).await.is_err() {
            // No task counts signals.
            std::future::pending::<()>().await;
        }
    }

    /// Returns the exit code of the last signal.
    pub(crate) fn exit(&self) -> Exit {
        self.0.borrow().exit
    }
}

async fn count(mut source: SignalSource, sender: watch::Sender<Caught>) {
    loop {
        let exit = source.next().await;
        sender.send_modify(|caught| *caught = Caught { times: caught.times.saturating_add(1), exit });
        if sender.borrow().times > 2 {
            std::process::exit(exit as i32);
        }
    }
}

#[cfg(unix)]
struct SignalSource {
    interrupt: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
    /// `None` if SIGHUP stays ignored.
    hangup: Option<tokio::signal::unix::Signal>,
}

#[cfg(unix)]
impl SignalSource {
    fn open() -> std::io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hangup: if is_hangup_ignored() { None } else { Some(signal(SignalKind::hangup())?) },
        })
    }

    async fn next(&mut self) -> Exit {
        tokio::select! {
            _ = self.interrupt.recv() => Exit::Interrupted,
            _ = self.terminate.recv() => Exit::Terminated,
            () = received(&mut self.hangup) => Exit::Terminated,
        }
    }
}

#[cfg(unix)]
async fn received(signal: &mut Option<tokio::signal::unix::Signal>) {
    match signal {
        Some(signal) => drop(signal.recv().await),
        None => std::future::pending().await,
    }
}

/// Whether the command started with SIGHUP ignored, as under nohup. Only Linux reports that without unsafe code.
#[cfg(unix)]
fn is_hangup_ignored() -> bool {
    std::fs::read_to_string("/proc/self/status").is_ok_and(|status| ignores_hangup(&status))
}

/// Reads the mask of ignored signals in `/proc/self/status`. The lowest bit is signal 1, SIGHUP.
#[cfg(unix)]
fn ignores_hangup(status: &str) -> bool {
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).is_some_and(|mask| mask & 1 == 1)
}

#[cfg(not(unix))]
struct SignalSource;

#[cfg(not(unix))]
impl SignalSource {
    fn open() -> std::io::Result<Self> {
        Ok(Self)
    }

    async fn next(&mut self) -> Exit {
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending::<()>().await;
        }
        Exit::Interrupted
    }
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    #[test]
    fn lowest_mask_bit_is_hangup() {
        assert!(ignores_hangup("Name:\tx\nSigIgn:\t0000000000000001\n"));
        assert!(!ignores_hangup("SigIgn:\t0000000000001002\nSigCgt:\t0000000000000001\n"));
        assert!(!ignores_hangup(""));
    }
}

//! Ctrl-C, SIGTERM and SIGHUP, counted.
//!
//! Rules: SIGHUP counts as SIGTERM, unless it is ignored where the command starts, as under nohup; signals are caught
//! from the first moment on, and none is lost between two that wait; the first asks for an
//! orderly end, the second for one at once, and the third does not wait for anybody, not even for whoever should read
//! the receipts from a pipe.

use tokio::sync::watch;

use crate::exit::Exit;

/// What has come so far.
#[derive(Clone, Copy)]
struct Caught {
    times: u32,
    /// How the last one makes the command end if it does so at once.
    exit: Exit,
}

/// The signals that have come, and those to come.
pub(crate) struct Signals(watch::Receiver<Caught>);

impl Signals {
    /// Starts catching.
    pub(crate) fn catch() -> Self {
        let (sender, receiver) = watch::channel(Caught { times: 0, exit: Exit::Interrupted });
        match Source::open() {
            Ok(source) => drop(tokio::spawn(count(source, sender))),
            Err(error) => crate::say(&format!("warning: Ctrl-C, SIGTERM and SIGHUP are not caught: {error}")),
        }
        Self(receiver)
    }

    /// How many have come.
    pub(crate) fn times(&self) -> u32 {
        self.0.borrow().times
    }

    /// Waits until so many have come.
    ///
    /// Cancel safety: it only looks.
    pub(crate) async fn reached(&mut self, times: u32) {
        if self.0.wait_for(|caught| caught.times >= times).await.is_err() {
            // Nobody counts.
            std::future::pending::<()>().await;
        }
    }

    /// The exit code of an end at once.
    pub(crate) fn exit(&self) -> Exit {
        self.0.borrow().exit
    }
}

async fn count(mut source: Source, sender: watch::Sender<Caught>) {
    loop {
        let exit = source.next().await;
        sender.send_modify(|caught| *caught = Caught { times: caught.times.saturating_add(1), exit });
        if sender.borrow().times > 2 {
            std::process::exit(exit as i32);
        }
    }
}

#[cfg(unix)]
struct Source {
    interrupt: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
    /// None: it stays ignored.
    hangup: Option<tokio::signal::unix::Signal>,
}

#[cfg(unix)]
impl Source {
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

/// Whether whoever started the command has SIGHUP ignored, as nohup does. Only Linux says so without unsafe code.
#[cfg(unix)]
fn is_hangup_ignored() -> bool {
    std::fs::read_to_string("/proc/self/status").is_ok_and(|status| ignores_hangup(&status))
}

/// Signal 1 is the lowest bit of the mask.
#[cfg(unix)]
fn ignores_hangup(status: &str) -> bool {
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).is_some_and(|mask| mask & 1 == 1)
}

#[cfg(not(unix))]
struct Source;

#[cfg(not(unix))]
impl Source {
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
    fn the_mask_of_ignored_signals() {
        assert!(ignores_hangup("Name:\tx\nSigIgn:\t0000000000000001\n"));
        assert!(!ignores_hangup("SigIgn:\t0000000000001002\nSigCgt:\t0000000000000001\n"));
        assert!(!ignores_hangup(""));
    }
}

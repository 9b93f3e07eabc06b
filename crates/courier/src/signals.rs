//! Ctrl-C and SIGTERM, counted.
//!
//! Rules: they are caught from the first moment on, and none is lost between two that wait; the first asks for an
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
            Err(error) => crate::say(&format!("warning: Ctrl-C and SIGTERM are not caught: {error}")),
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
}

#[cfg(unix)]
impl Source {
    fn open() -> std::io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Self { interrupt: signal(SignalKind::interrupt())?, terminate: signal(SignalKind::terminate())? })
    }

    async fn next(&mut self) -> Exit {
        tokio::select! {
            _ = self.interrupt.recv() => Exit::Interrupted,
            _ = self.terminate.recv() => Exit::Terminated,
        }
    }
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

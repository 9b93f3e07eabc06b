//! The bounded hand-over between the reader's thread and the publisher: lines, each with its position.
//!
//! Rules:
//! - Memory is bounded: by lines and bytes in a group, and by groups that wait.
//! - The reader stops once the hand-over is full, and goes on as the publisher takes groups.
//! - Lines that were parsed are not lost when reading is stopped.
//! - The input's end is handed over too: the publisher knows whether all of it was read.

use std::io;

use kafka_courier_event_model::AnyEvent;
use tokio::sync::{mpsc, watch};

use super::position::Position;

/// Lines that are handed over at once.
const GROUP: usize = 256;
/// Bytes of events that are handed over at once, about.
const GROUP_BYTES: usize = 512 << 10;
/// Groups that may wait.
const WAITING: usize = 4;

/// One item of the input: an event, or why it is none.
#[derive(Debug)]
pub(crate) struct Line {
    pub(crate) position: Position,
    pub(crate) event: Result<AnyEvent, String>,
}

/// What the reader hands over.
#[derive(Debug)]
pub(crate) enum Handed {
    /// The next lines, in their order.
    Lines(Vec<Line>),
    /// The input's end.
    End,
    /// The input could not be read on.
    Failed(io::Error),
}

/// Whether the reader may go on, and what it does.
#[derive(Clone, Copy, Default)]
struct Standing {
    /// Nothing more is to be read.
    stopped: bool,
    /// All that was read was handed over, and the input has nothing more at the moment.
    waiting: bool,
}

/// A hand-over: the reader's side and the publisher's.
pub(crate) fn hand_over() -> (Giver, Lines) {
    let (sender, handed) = mpsc::channel(WAITING);
    let (control, standing) = watch::channel(Standing::default());
    let giver = Giver { sender, control: control.clone(), lines: Vec::new(), bytes: 0 };
    (giver, Lines { handed, standing, control })
}

/// The publisher's side.
pub(crate) struct Lines {
    handed: mpsc::Receiver<Handed>,
    standing: watch::Receiver<Standing>,
    control: watch::Sender<Standing>,
}

impl Lines {
    /// What comes next. None once the end or a failure was handed over.
    ///
    /// Cancel safety: nothing is lost.
    pub(crate) async fn next(&mut self) -> Option<Handed> {
        self.handed.recv().await
    }

    /// Stops the reader, and returns what it handed over before; None once there is nothing more. Waits for nothing that
    /// is not there yet.
    ///
    /// Cancel safety: nothing is lost.
    pub(crate) async fn rest(&mut self) -> Option<Handed> {
        self.control.send_modify(|standing| standing.stopped = true);
        tokio::select! {
            biased;
            handed = self.handed.recv() => handed,
            _ = self.standing.wait_for(|standing| standing.waiting) => self.handed.try_recv().ok(),
        }
    }

    /// What comes next. Blocks.
    #[cfg(test)]
    pub(crate) fn blocking_next(&mut self) -> Option<Handed> {
        self.handed.blocking_recv()
    }
}

/// The reader's side.
pub(crate) struct Giver {
    sender: mpsc::Sender<Handed>,
    control: watch::Sender<Standing>,
    lines: Vec<Line>,
    bytes: usize,
}

impl Giver {
    /// Takes a line in, whose event has about this many bytes. Returns whether more is wanted.
    pub(crate) fn add(&mut self, line: Line, bytes: usize) -> bool {
        self.lines.push(line);
        self.bytes += bytes;
        if self.lines.len() >= GROUP || self.bytes >= GROUP_BYTES { self.give() } else { true }
    }

    /// Hands over what there is. Returns whether more is wanted.
    pub(crate) fn give(&mut self) -> bool {
        self.bytes = 0;
        let lines = std::mem::take(&mut self.lines);
        let taken = lines.is_empty() || self.sender.blocking_send(Handed::Lines(lines)).is_ok();
        taken && !self.control.borrow().stopped
    }

    /// Hands over what there is, and how the input ended. A reader that was stopped has not come to an end.
    pub(crate) fn end(mut self, result: io::Result<()>) {
        if self.give() {
            // The publisher may be gone.
            let _ = self.sender.blocking_send(result.map_or_else(Handed::Failed, |()| Handed::End));
        }
    }

    /// Notes that the input is waited for.
    pub(crate) fn wait(&self) {
        self.control.send_modify(|standing| standing.waiting = true);
    }

    /// Notes that the wait is over. Returns whether more is wanted.
    pub(crate) fn resume(&self) -> bool {
        let mut stopped = false;
        // In one step: the publisher sees either that the reader waits, or that it ends by itself.
        self.control.send_modify(|standing| {
            standing.waiting = standing.stopped;
            stopped = standing.stopped;
        });
        !stopped
    }
}

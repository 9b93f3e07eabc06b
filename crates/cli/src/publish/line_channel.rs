//! The bounded channel of lines from the reader's thread to the publisher.
//!
//! Rules:
//! - Memory is bounded by the lines and bytes of a group, and by the groups in the channel.
//! - The reader blocks while the channel is full.
//! - A stop of the reader loses no parsed line.
//! - The channel carries the input's end, so the publisher knows whether the whole input was read.

use std::io;

use kafka_courier_event_model::AnyEvent;
use tokio::sync::{mpsc, watch};

use super::item_error::ItemError;
use super::position::InputPosition;

/// Lines in a group.
const GROUP: usize = 256;
/// Approximate bytes of events in a group.
const GROUP_BYTES: usize = 512 << 10;
/// Groups in the channel.
const CAPACITY: usize = 4;

/// An item of the input: an event, or the reason why the item is not an event.
#[derive(Debug)]
pub(crate) struct InputLine {
    pub(crate) position: InputPosition,
    /// The item's check, for an input with a durable position.
    pub(crate) check: u64,
    pub(crate) event: Result<AnyEvent, ItemError>,
}

/// A message of the reader.
#[derive(Debug)]
pub(crate) enum Handover {
    /// The next lines in input order.
    Lines(Vec<InputLine>),
    /// The input's end.
    End,
    /// Reading the input failed.
    Failed(io::Error),
}

/// The state of the reader.
#[derive(Clone, Copy, Default)]
struct ReaderState {
    /// The publisher stopped the reader.
    stopped: bool,
    /// All lines are in the channel, and the reader waits for input.
    waiting: bool,
}

/// Creates a channel: the reader's side and the publisher's.
pub(crate) fn line_channel() -> (LineSender, LineReceiver) {
    let (sender, handed) = mpsc::channel(CAPACITY);
    let (control, state) = watch::channel(ReaderState::default());
    let sender = LineSender { sender, control: control.clone(), lines: Vec::new(), bytes: 0 };
    (sender, LineReceiver { handed, state, control })
}

/// The publisher's side.
pub(crate) struct LineReceiver {
    handed: mpsc::Receiver<Handover>,
    state: watch::Receiver<ReaderState>,
    control: watch::Sender<ReaderState>,
}

impl LineReceiver {
    /// Returns the next message. Returns `None` after the input's end or a failure.
    ///
    /// # Cancel safety
    /// Cancel safe: no message is lost.
    pub(crate) async fn next(&mut self) -> Option<Handover> {
        self.handed.recv().await
    }

    /// Stops the reader and returns the next message that it sent before the stop. Returns `None` after the last one. The
    /// method does not wait for more input.
    ///
    /// # Cancel safety
    /// Cancel safe: no message is lost.
    pub(crate) async fn rest(&mut self) -> Option<Handover> {
        self.control.send_modify(|state| state.stopped = true);
        tokio::select! {
            biased;
            handed = self.handed.recv() => handed,
            _ = self.state.wait_for(|state| state.waiting) => self.handed.try_recv().ok(),
        }
    }

    /// Returns the next message. Blocks.
    #[cfg(test)]
    pub(crate) fn blocking_next(&mut self) -> Option<Handover> {
        self.handed.blocking_recv()
    }
}

/// The reader's side.
pub(crate) struct LineSender {
    sender: mpsc::Sender<Handover>,
    control: watch::Sender<ReaderState>,
    lines: Vec<InputLine>,
    bytes: usize,
}

impl LineSender {
    /// Adds a line with the approximate size of its event. Returns whether the reader must continue.
    pub(crate) fn add(&mut self, line: InputLine, bytes: usize) -> bool {
        self.lines.push(line);
        self.bytes += bytes;
        if self.lines.len() >= GROUP || self.bytes >= GROUP_BYTES { self.flush() } else { true }
    }

    /// Sends all added lines. Returns whether the reader must continue.
    pub(crate) fn flush(&mut self) -> bool {
        self.bytes = 0;
        let lines = std::mem::take(&mut self.lines);
        let taken = lines.is_empty() || self.sender.blocking_send(Handover::Lines(lines)).is_ok();
        taken && !self.control.borrow().stopped
    }

    /// Sends all added lines and the input's end. A stopped reader has not reached the end and sends none.
    pub(crate) fn end(mut self, result: io::Result<()>) {
        if self.flush() {
            // The publisher may have ended.
            let _ = self.sender.blocking_send(result.map_or_else(Handover::Failed, |()| Handover::End));
        }
    }

    /// Records that the reader waits for input.
    pub(crate) fn wait(&self) {
        self.control.send_modify(|state| state.waiting = true);
    }

    /// Records that the wait is over. Returns whether the reader must continue.
    pub(crate) fn resume(&self) -> bool {
        let mut stopped = false;
        // One update: the publisher sees either a waiting reader, or one that ends without a further message.
        self.control.send_modify(|state| {
            state.waiting = state.stopped;
            stopped = state.stopped;
        });
        !stopped
    }
}

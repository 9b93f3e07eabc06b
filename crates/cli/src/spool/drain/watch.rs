//! Waits while another process delivers the events of its spool.
//!
//! Rules:
//! - Events that the process stores meanwhile are not waited for.
//! - A process that ends leaves its events to this command.

use std::time::{Duration, Instant};

use kafka_courier::spool::{SpoolHolder, SpoolView, SpoolViewError};

use super::super::folder::ChosenFolder;
use super::super::progress::WatchProgress;
use super::super::read_failed;
use crate::exit::CommandError;
use crate::signals::Signals;

/// The least interval between two reads of the folder. A read of a large spool takes longer, and then so does the interval.
const TICK: Duration = Duration::from_millis(200);
/// The interval in times of a read, so that the reads take a small part of a processor.
const TICKS_PER_READ: u32 = 10;

/// Why the wait ended.
#[derive(Debug)]
pub(super) enum WatchEnd {
    /// Every event that the spool had at first has its verdict.
    Settled {
        delivering: SpoolHolder,
        records: u64,
    },
    /// No process has the spool any more.
    Released,
    Timeout {
        delivering: SpoolHolder,
        left: u64,
    },
    Signal {
        left: u64,
    },
}

/// Waits while a process has the spool, until the events that are in it now have their verdict.
pub(super) async fn watch(
    chosen: &ChosenFolder,
    ends: Option<Instant>,
    signals: &mut Signals,
) -> Result<WatchEnd, CommandError> {
    let mut progress: Option<WatchProgress> = None;
    let mut wanted = None;
    let mut left = 0;
    let mut records = 0;
    loop {
        let Some(holder) = SpoolView::holder_of(&chosen.dir).map_err(read_failed)? else {
            return Ok(WatchEnd::Released);
        };
        let began = Instant::now();
        if let Some(view) = read_beside(chosen)? {
            left = view.records_before(wanted.get_or_insert_with(|| view.ends()));
            records = records.max(left);
            let shown = progress.get_or_insert_with(|| WatchProgress::new(holder, &chosen.shown(), left));
            shown.show(left);
            if left == 0 {
                return Ok(WatchEnd::Settled { delivering: holder, records });
            }
        }
        if ends.is_some_and(|ends| ends <= Instant::now()) {
            return Ok(WatchEnd::Timeout { delivering: holder, left });
        }
        tokio::select! {
            biased;
            () = signals.reached(1) => return Ok(WatchEnd::Signal { left }),
            () = tokio::time::sleep(TICK.max(began.elapsed() * TICKS_PER_READ)) => {}
        }
    }
}

/// Reads the spool, unless the process that has it disturbs every attempt.
fn read_beside(chosen: &ChosenFolder) -> Result<Option<SpoolView>, CommandError> {
    match SpoolView::read(&chosen.dir) {
        Ok(view) => Ok(Some(view)),
        Err(SpoolViewError::Unsteady { .. }) => Ok(None),
        Err(_) => chosen.read().map(Some),
    }
}

//! The summary of a run, and its exit code.
//!
//! Rules:
//! - The summary names only counts above zero.
//! - The exit code reports the worst outcome.
//! - A run that a signal interrupted before the input's end is not a success.

use std::io::Write;
use std::path::Path;
use std::time::Duration;

use indicatif::HumanCount;
use kafka_courier::shown_file;
use serde::Serialize;

use super::counts::InputCounts;
use super::dead_letters::{DeadLetterSummary, Kept};
use super::monitor::StopReason;
use super::position::{InputPlace, InputPosition};
use super::tally::Tally;
use crate::exit::Exit;

/// Groups of failures that are printed.
const REASONS: usize = 10;

/// The first event that was read and not published.
#[derive(Clone, Copy, Debug)]
pub(super) struct FirstUnpublished {
    pub(super) place: InputPlace,
    /// No later event was published.
    pub(super) is_last: bool,
}

/// The state of the spool at the end of a run.
pub(super) struct SpoolEnd {
    /// The folder, as messages show it.
    pub(super) dir: String,
    /// Events that this run delivered, those of earlier runs included.
    pub(super) delivered: u64,
    /// Accepted events that became dead letters.
    pub(super) failed: u64,
    /// Events that are left in the spool.
    pub(super) left: u64,
    /// Whether the input is a file, whose position is durable.
    pub(super) is_file: bool,
    /// The error that ended the delivery, and its exit code.
    pub(super) fault: Option<(Exit, String)>,
}

/// The summary as a line of JSON.
#[derive(Serialize)]
struct SummaryLine<'a> {
    exit: u8,
    /// Why reading ended.
    end: &'static str,
    read: u64,
    delivered: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    stored: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    left: Option<u64>,
    /// Why a later run of the same command is needed.
    #[serde(skip_serializing_if = "Option::is_none")]
    try_again: Option<&'a str>,
    failed: u64,
    unpublished: u64,
    bad: u64,
    seconds: f64,
}

/// The outcome of a run.
pub(super) struct Summary {
    /// The reason for the end of reading.
    pub(super) end: StopReason,
    /// The last item that was read.
    pub(super) last: Option<InputPosition>,
    /// The first event that was read and not published.
    pub(super) left: Option<FirstUnpublished>,
    /// The exit code, if a signal interrupted the run.
    pub(super) interrupted: Option<Exit>,
    pub(super) letters: DeadLetterSummary,
    pub(super) took: Duration,
    /// The line about types without their own topic.
    pub(super) unmapped: Option<String>,
    pub(super) tally: Tally,
    /// The spool, if the run had one.
    pub(super) spool: Option<SpoolEnd>,
}

impl Summary {
    /// Prints the summary and returns the exit code. `receipts` is the path of the receipts. `json` also prints the counts to
    /// standard output.
    pub(super) fn print(&self, receipts: Option<&Path>, json: bool) -> Exit {
        let counts = self.tally.counts();
        crate::say(&sentence(counts, self.took.as_secs_f64(), self.spool.is_some()));
        if let Some(spool) = &self.spool {
            crate::say(&spool.sentence());
            spool.fault.iter().for_each(|(_, why)| crate::say(why));
        }
        let (reasons, are_more) = self.tally.reasons();
        // A single failure was printed before and needs no group.
        for (count, reason) in reasons.most_frequent(REASONS).iter().filter(|(count, _)| *count > 1 || are_more) {
            let times = if *count == 1 { "time" } else { "times" };
            crate::say(&format!("  {} {times}: {reason}", HumanCount(*count)));
        }
        self.unmapped.iter().for_each(|line| crate::say(line));
        let stop = match &self.spool {
            Some(spool) if self.end != StopReason::Strict => spool.unread(self.end).map(str::to_owned),
            _ => stop(self.end, self.last, self.left, self.letters.kept),
        };
        stop.iter().for_each(|stop| crate::say(stop));
        self.letters.lines.iter().for_each(|line| crate::say(line));
        for letter in &self.letters.whole {
            // A failed write to standard error can't be reported.
            let _ = writeln!(std::io::stderr(), "{letter}");
        }
        let failed = self.tally.receipts_failed();
        if let (Some(error), Some(path)) = (failed, receipts) {
            let name = if path == Path::new("-") { "standard output".to_owned() } else { shown_file(path) };
            crate::say(&format!("cannot write receipts to {name}: {error}: some receipts are missing"));
        }
        let exit = self.interrupted.unwrap_or_else(|| match &self.spool {
            Some(spool) => spool.exit_code(counts, self.end, failed.is_some()),
            None => exit_code(counts, self.end, failed.is_some()),
        });
        if json {
            self.print_line(exit);
        }
        exit
    }

    fn print_line(&self, exit: Exit) {
        let counts = self.tally.counts();
        let (spool, failed) = (self.spool.as_ref(), counts.not_written + counts.unknown);
        let line = SummaryLine {
            exit: exit as u8,
            end: self.end.name(),
            read: counts.total(),
            delivered: spool.map_or(counts.delivered, |spool| spool.delivered),
            stored: spool.map(|_| counts.stored),
            left: spool.map(|spool| spool.left),
            try_again: spool.and_then(|spool| spool.try_again(self.end)),
            failed: failed + spool.map_or(0, |spool| spool.failed),
            unpublished: counts.unpublished,
            bad: counts.bad,
            seconds: self.took.as_secs_f64(),
        };
        // A reader that has ended changes no outcome.
        let written = serde_json::to_string(&line).map(|line| writeln!(std::io::stdout(), "{line}"));
        debug_assert!(written.is_ok());
    }
}

fn sentence(counts: &InputCounts, seconds: f64, is_spooled: bool) -> String {
    let InputCounts { delivered, stored, not_written, unknown, unpublished, bad, .. } = *counts;
    let (done, how) = if is_spooled { (stored, "stored") } else { (delivered, "delivered") };
    let rate = HumanCount((done as f64 / seconds.max(1e-3)) as u64);
    let total = HumanCount(counts.total());
    let mut text = format!("{total} read, {} {how} in {seconds:.1} s ({rate}/s)", HumanCount(done));
    for (count, what) in [
        (not_written, "failed and not written"),
        (unknown, "failed and possibly written"),
        (unpublished, "read and not published"),
        (bad, "not valid events"),
    ] {
        if count > 0 {
            text.push_str(&format!(", {} {what}", HumanCount(count)));
        }
    }
    text
}

/// Returns the line about an early end of reading: the position, and the start of the next run. The next run starts after
/// the position if every event that was read is delivered or a dead letter, as `kept` tells. Else it starts with the
/// first event that was not published.
fn stop(end: StopReason, last: Option<InputPosition>, left: Option<FirstUnpublished>, kept: Kept) -> Option<String> {
    let mut text = match (end, last) {
        (StopReason::InputEnded, _) => return None,
        (StopReason::Strict, Some(last)) => format!("stopped at {}, which is not an event (--strict)", last.place),
        (_, Some(last)) => {
            format!("stopped after {}, at byte {}, before the end of the input", last.place, last.end)
        }
        (_, None) => "stopped before the first event".to_owned(),
    };
    let (Some(left), Some(last)) = (left, last) else { return Some(text) };
    let (from, last) = (left.place, last.place);
    text += &match (kept, left.is_last) {
        (Kept::All, _) => {
            format!(": unpublished events from {from} on are dead letters, so replay them and continue after {last}")
        }
        (Kept::Some, true) => format!(
            ": no event from {from} on was published, and not all of them are dead letters: continue at {from}, and do not \
             replay the dead letters of those events"
        ),
        (Kept::None, true) => format!(": no event from {from} on was published, so continue at {from}"),
        (Kept::Some | Kept::None, false) => format!(
            ": some events from {from} on were not published (--receipts lists them), and continuing at {from} would publish \
             the others twice"
        ),
    };
    Some(text)
}

fn exit_code(counts: &InputCounts, end: StopReason, receipts_failed: bool) -> Exit {
    if receipts_failed {
        Exit::Io
    } else if counts.refusals > 0 && counts.refusals == counts.failed() {
        Exit::Refused
    } else if counts.failed() > 0 {
        Exit::SomeFailed
    } else if counts.bad > 0 || end == StopReason::Strict {
        Exit::Data
    } else if end == StopReason::InputFailed {
        Exit::Io
    } else {
        Exit::Ok
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exit_code_reports_worst_outcome() {
        let counts = |not_written, bad| InputCounts { delivered: 5, not_written, bad, ..InputCounts::default() };
        let unpublished = InputCounts { unpublished: 1, ..InputCounts::default() };
        assert_eq!(exit_code(&counts(0, 0), StopReason::InputEnded, false), Exit::Ok);
        assert_eq!(exit_code(&counts(1, 1), StopReason::InputEnded, false), Exit::SomeFailed);
        assert_eq!(exit_code(&unpublished, StopReason::Signal, false), Exit::SomeFailed);
        assert_eq!(exit_code(&counts(0, 1), StopReason::Strict, false), Exit::Data);
        assert_eq!(exit_code(&counts(0, 0), StopReason::InputFailed, false), Exit::Io);
        assert_eq!(exit_code(&counts(1, 1), StopReason::ReceiptsFailed, true), Exit::Io);
        let refusals =
            |refusals, not_written, bad| InputCounts { refusals, not_written, bad, ..InputCounts::default() };
        assert_eq!(exit_code(&refusals(2, 2, 1), StopReason::InputEnded, false), Exit::Refused);
        assert_eq!(exit_code(&refusals(2, 3, 0), StopReason::InputEnded, false), Exit::SomeFailed);
        assert_eq!(exit_code(&refusals(2, 2, 0), StopReason::ReceiptsFailed, true), Exit::Io);
    }

    #[test]
    fn summary_omits_zero_counts() {
        let counts = InputCounts { delivered: 1_000_000, unknown: 2, ..InputCounts::default() };
        assert_eq!(
            sentence(&counts, 2.0, false),
            "1,000,002 read, 1,000,000 delivered in 2.0 s (500,000/s), 2 failed and possibly written"
        );
    }

    #[test]
    fn early_end_names_position() {
        let last = Some(InputPosition { place: InputPlace::Line(7), start: 90, end: 99 });
        assert_eq!(stop(StopReason::InputEnded, last, None, Kept::All), None);
        assert_eq!(stop(StopReason::Signal, None, None, Kept::All).unwrap(), "stopped before the first event");
        let stopped = "stopped after line 7, at byte 99, before the end of the input";
        assert_eq!(stop(StopReason::Signal, last, None, Kept::None).unwrap(), stopped);
        assert_eq!(
            stop(StopReason::Strict, last, None, Kept::All).unwrap(),
            "stopped at line 7, which is not an event (--strict)"
        );
        let left = |kept, is_last| {
            stop(StopReason::ReceiptsFailed, last, Some(FirstUnpublished { place: InputPlace::Line(6), is_last }), kept)
                .unwrap()
        };
        assert_eq!(
            left(Kept::None, true),
            format!("{stopped}: no event from line 6 on was published, so continue at line 6")
        );
        let some = left(Kept::Some, true);
        assert!(some.contains("not all of them are dead letters: continue at line 6, and do not replay"), "{some}");
        let all = left(Kept::All, false);
        assert!(all.ends_with("from line 6 on are dead letters, so replay them and continue after line 7"), "{all}");
        let scattered = left(Kept::None, false);
        assert!(scattered.contains("some events from line 6 on were not published (--receipts"), "{scattered}");
    }
}

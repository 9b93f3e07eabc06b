//! What is said at the end, and the exit code.
//!
//! Rules: only what happened is named; the exit code says the worst; an input that a signal cut short is no success.

use std::io::Write;
use std::path::Path;
use std::time::Duration;

use indicatif::HumanCount;
use kafka_courier::shown_file;

use super::counts::Counts;
use super::desk::End;
use super::keeping::{Kept, Said};
use super::position::{Place, Position};
use super::tally::Tally;
use crate::exit::Exit;

/// Groups of failures that are told with their number.
const REASONS: usize = 10;

/// The first event that was read and not published.
#[derive(Clone, Copy, Debug)]
pub(super) struct Left {
    pub(super) place: Place,
    /// Nothing behind it was published.
    pub(super) is_last: bool,
}

/// What became of an input.
pub(super) struct Summary {
    /// Why reading ended.
    pub(super) end: End,
    /// The last item that was read.
    pub(super) last: Option<Position>,
    /// The first event that was read and not published.
    pub(super) left: Option<Left>,
    /// The exit code, if a signal ended the command before all was done.
    pub(super) interrupted: Option<Exit>,
    /// What is said of dead letters.
    pub(super) letters: Said,
    pub(super) took: Duration,
    /// What is said of types without a topic of their own.
    pub(super) unmapped: Option<String>,
    pub(super) tally: Tally,
}

impl Summary {
    /// Prints it. `receipts` is their file.
    pub(super) fn print(&self, receipts: Option<&Path>) -> Exit {
        let counts = self.tally.counts();
        crate::say(&sentence(counts, self.took.as_secs_f64()));
        let (reasons, are_more) = self.tally.reasons();
        // A failure that was printed by itself needs no group.
        for (count, reason) in reasons.most_frequent(REASONS).iter().filter(|(count, _)| *count > 1 || are_more) {
            let times = if *count == 1 { "time" } else { "times" };
            crate::say(&format!("  {} {times}: {reason}", HumanCount(*count)));
        }
        self.unmapped.iter().for_each(|line| crate::say(line));
        if let Some(stop) = stop(self.end, self.last, self.left, self.letters.kept) {
            crate::say(&stop);
        }
        self.letters.lines.iter().for_each(|line| crate::say(line));
        for letter in &self.letters.whole {
            // Nothing more can be said if that fails.
            let _ = writeln!(std::io::stderr(), "{letter}");
        }
        let failed = self.tally.receipts_failed();
        if let (Some(error), Some(path)) = (failed, receipts) {
            crate::say(&format!("receipts {}: {error}; they are not complete", shown_file(path)));
        }
        self.interrupted.unwrap_or_else(|| exit_code(counts, self.end, failed.is_some()))
    }
}

fn sentence(counts: &Counts, seconds: f64) -> String {
    let Counts { delivered, not_written, unknown, unpublished, bad, .. } = *counts;
    let rate = HumanCount((delivered as f64 / seconds.max(1e-3)) as u64);
    let total = HumanCount(counts.total());
    let mut text = format!("{total} read, {} delivered in {seconds:.1} s ({rate}/s)", HumanCount(delivered));
    for (count, what) in [
        (not_written, "failed and not written"),
        (unknown, "failed and perhaps written"),
        (unpublished, "read and not published"),
        (bad, "no event"),
    ] {
        if count > 0 {
            text.push_str(&format!(", {} {what}", HumanCount(count)));
        }
    }
    text
}

/// Where reading stopped, if that was not the input's end, and where the next run has to begin: behind that where all that was
/// read is delivered or a dead letter, as `kept` says; else with the first event that was not published.
fn stop(end: End, last: Option<Position>, left: Option<Left>, kept: Kept) -> Option<String> {
    let mut text = match (end, last) {
        (End::Input, _) => return None,
        (End::Strict, Some(last)) => format!("stopped at {}, which is no event (--strict)", last.place),
        (_, Some(last)) => {
            format!("stopped after {}, at byte {}, before the end of the input", last.place, last.end)
        }
        (_, None) => "stopped before the first event".to_owned(),
    };
    let (Some(left), Some(last)) = (left, last) else { return Some(text) };
    let (from, last) = (left.place, last.place);
    text += &match (kept, left.is_last) {
        (Kept::All, _) => format!(
            "; what was not published from {from} on are dead letters too: send those again, then go on behind {last}"
        ),
        (Kept::Some, true) => format!(
            "; nothing was published from {from} on, and not all of it is a dead letter: go on there, and leave out the \
             letters of that"
        ),
        (Kept::None, true) => format!("; nothing was published from {from} on: go on there"),
        (Kept::Some | Kept::None, false) => format!(
            "; not all was published from {from} on: --receipts says what was, and to go on there publishes that twice"
        ),
    };
    Some(text)
}

fn exit_code(counts: &Counts, end: End, receipts_failed: bool) -> Exit {
    if receipts_failed {
        Exit::Io
    } else if counts.refusals > 0 && counts.refusals == counts.failed() {
        Exit::Refused
    } else if counts.failed() > 0 {
        Exit::SomeFailed
    } else if counts.bad > 0 || end == End::Strict {
        Exit::Data
    } else if end == End::InputFailed {
        Exit::Io
    } else {
        Exit::Ok
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_exit_code_says_the_worst() {
        let counts = |not_written, bad| Counts { delivered: 5, not_written, bad, ..Counts::default() };
        let left_alone = Counts { unpublished: 1, ..Counts::default() };
        assert_eq!(exit_code(&counts(0, 0), End::Input, false), Exit::Ok);
        assert_eq!(exit_code(&counts(1, 1), End::Input, false), Exit::SomeFailed);
        assert_eq!(exit_code(&left_alone, End::Signal, false), Exit::SomeFailed);
        assert_eq!(exit_code(&counts(0, 1), End::Strict, false), Exit::Data);
        assert_eq!(exit_code(&counts(0, 0), End::InputFailed, false), Exit::Io);
        assert_eq!(exit_code(&counts(1, 1), End::NoReceipts, true), Exit::Io);
        let refusals = |refusals, not_written, bad| Counts { refusals, not_written, bad, ..Counts::default() };
        assert_eq!(exit_code(&refusals(2, 2, 1), End::Input, false), Exit::Refused);
        assert_eq!(exit_code(&refusals(2, 3, 0), End::Input, false), Exit::SomeFailed);
        assert_eq!(exit_code(&refusals(2, 2, 0), End::NoReceipts, true), Exit::Io);
    }

    #[test]
    fn the_summary_names_only_what_happened() {
        let counts = Counts { delivered: 1_000_000, unknown: 2, ..Counts::default() };
        assert_eq!(
            sentence(&counts, 2.0),
            "1,000,002 read, 1,000,000 delivered in 2.0 s (500,000/s), 2 failed and perhaps written"
        );
    }

    #[test]
    fn where_reading_stopped_is_told() {
        let last = Some(Position { place: Place::Line(7), start: 90, end: 99 });
        assert_eq!(stop(End::Input, last, None, Kept::All), None);
        assert_eq!(stop(End::Signal, None, None, Kept::All).unwrap(), "stopped before the first event");
        let stopped = "stopped after line 7, at byte 99, before the end of the input";
        assert_eq!(stop(End::Signal, last, None, Kept::None).unwrap(), stopped);
        assert_eq!(
            stop(End::Strict, last, None, Kept::All).unwrap(),
            "stopped at line 7, which is no event (--strict)"
        );
        let left =
            |kept, is_last| stop(End::NoReceipts, last, Some(Left { place: Place::Line(6), is_last }), kept).unwrap();
        assert_eq!(left(Kept::None, true), format!("{stopped}; nothing was published from line 6 on: go on there"));
        let some = left(Kept::Some, true);
        assert!(
            some.contains("from line 6 on, and not all of it is a dead letter: go on there, and leave out"),
            "{some}"
        );
        let all = left(Kept::All, false);
        assert!(all.ends_with("dead letters too: send those again, then go on behind line 7"), "{all}");
        let scattered = left(Kept::None, false);
        assert!(scattered.contains("not all was published from line 6 on: --receipts says"), "{scattered}");
    }
}

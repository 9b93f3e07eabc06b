//! What is said at the end, and the exit code.
//!
//! Rules: only what happened is named; the exit code says the worst.

use std::io::Write;
use std::path::Path;
use std::time::Duration;

use indicatif::HumanCount;

use super::input::Place;
use super::keeping::{Kept, Said};
use super::session::End;
use super::tally::{Counts, Tally};
use crate::exit::Exit;

/// Reasons that are told with their number.
const REASONS: usize = 10;

/// What became of an input.
pub(super) struct Summary {
    /// Why reading ended.
    pub(super) end: End,
    /// The last item that was read.
    pub(super) last: Option<Place>,
    /// The first event that was read and left alone.
    pub(super) left: Option<Place>,
    /// The exit code, if it was ended at once.
    pub(super) cut: Option<Exit>,
    /// What is to be said of dead letters.
    pub(super) letters: Said,
    pub(super) took: Duration,
    pub(super) tally: Tally,
}

impl Summary {
    /// Prints it. `receipts` is their file.
    pub(super) fn print(&self, receipts: Option<&Path>) -> Exit {
        let counts = self.tally.counts();
        crate::say(&sentence(counts, self.took.as_secs_f64()));
        let mut reasons: Vec<_> = self.tally.reasons().iter().collect();
        reasons.sort_by_key(|(_, count)| std::cmp::Reverse(**count));
        for (reason, count) in reasons.into_iter().take(REASONS).filter(|(_, count)| **count > 1) {
            crate::say(&format!("  {} times: {reason}", HumanCount(*count)));
        }
        if let Some(stop) = stop(self.end, self.last, self.left, self.letters.kept) {
            crate::say(&stop);
        }
        self.letters.lines.iter().for_each(|line| crate::say(line));
        for letter in &self.letters.whole {
            // Nobody is left to tell if that fails.
            let _ = writeln!(std::io::stderr(), "{letter}");
        }
        let failed = self.tally.receipts_failed();
        if let (Some(error), Some(path)) = (failed, receipts) {
            crate::say(&format!("receipts {}: {error}; they are not complete", path.display()));
        }
        self.cut.unwrap_or_else(|| exit_code(counts, self.end, failed.is_some()))
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

/// Where reading stopped, if that was not the input's end, and where whoever goes on has to begin: behind that where all that
/// was read is delivered or a letter, as `kept` says; else with the first that was left alone. The letters go first: they hold
/// what comes before.
fn stop(end: End, last: Option<Place>, left: Option<Place>, kept: Kept) -> Option<String> {
    let mut text = match (end, last) {
        (End::Input, _) => return None,
        (End::Strict, Some(last)) => format!("stopped at {last}, which is no event (--strict)"),
        (_, Some(last)) => format!("stopped after {last}"),
        (_, None) => "stopped before the first event".to_owned(),
    };
    let (Some(left), Some(last)) = (left, last) else { return Some(text) };
    text += &match kept {
        Kept::All => format!(
            "; what was not published from {left} on are dead letters too: send those again, then go on behind {last}"
        ),
        Kept::Some => format!(
            "; nothing was published from {left} on, and not all of it is a dead letter: go on there, and leave out the \
             letters of that"
        ),
        Kept::None => format!("; nothing was published from {left} on: go on there"),
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
        assert_eq!(exit_code(&counts(0, 0), End::Signal, false), Exit::Ok);
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
    fn where_reading_stopped_is_told_unless_it_was_the_end() {
        let (line, next) = (Some(Place::Line(7)), Some(Place::Line(6)));
        assert_eq!(stop(End::Input, line, None, Kept::All), None);
        assert_eq!(stop(End::Signal, None, None, Kept::All).unwrap(), "stopped before the first event");
        assert_eq!(stop(End::Signal, line, None, Kept::None).unwrap(), "stopped after line 7");
        let left = |kept| stop(End::NoReceipts, line, next, kept).unwrap();
        assert_eq!(left(Kept::None), "stopped after line 7; nothing was published from line 6 on: go on there");
        let some = left(Kept::Some);
        assert!(
            some.contains("from line 6 on, and not all of it is a dead letter: go on there, and leave out"),
            "{some}"
        );
        let all = left(Kept::All);
        assert!(all.ends_with("dead letters too: send those again, then go on behind line 7"), "{all}");
    }
}

//! Whether a replay is sending a dead letter's record, and how both formats of a letter say so.
//!
//! Rules:
//! - A replay stores the state before the record leaves. A process that finds the state after a crash knows that the
//!   record may be in the log.
//! - Format 2 has the field `replay`. Nothing is decided by the text of `failure_reason`.
//! - Format 1 has no such field: a replay put [`IN_PROGRESS`] or [`STAMPED`] in front of the reason.
//!   [`Letter::upgrade_format_1`] is the only place that reads these texts.

use serde::{Deserialize, Serialize};

use crate::letter::{Letter, Outcome};

/// Format of the letters that this version writes, in the JSON field `format`. A letter without that field has format 1.
pub const LETTER_FORMAT: u32 = 2;

/// The text that format 1 put in front of the reason while a replay was in progress.
const IN_PROGRESS: &str = "a replay of it was interrupted";
/// The same text for a record in its own batch. It begins as the other one does.
const STAMPED: &str = "a replay of it was interrupted while it went alone";
/// The text between those and the reason.
const BEFORE: &str = "; before: ";

/// Whether a replay is sending the record of a letter.
///
/// The state counts only while the letter's outcome is [`Outcome::Unknown`].
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Debug, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum ReplayState {
    /// No replay is sending the record.
    #[default]
    Idle,
    /// A replay is sending the record, or ended before the outcome was known.
    InProgress,
    /// The same, in a batch of this record alone. No other record has this stamp, so that a leader that remembers the
    /// stamp appends the record once. A repeat must use the same stamp.
    Stamped {
        /// The producer id of the batch.
        producer_id: i64,
        /// The producer epoch of the batch.
        producer_epoch: i16,
        /// The base sequence of the batch.
        sequence: i32,
    },
}

impl ReplayState {
    /// Returns whether no replay is sending the record.
    pub const fn is_idle(&self) -> bool {
        matches!(self, Self::Idle)
    }
}

impl Letter {
    /// Returns whether a replay may have written the record without recording the outcome: the replay is still running,
    /// or its process ended.
    pub fn is_replay_unfinished(&self) -> bool {
        self.outcome == Outcome::Unknown && !self.replay.is_idle()
    }

    /// Turns the text that format 1 kept in `failure_reason` into [`replay`](Self::replay), and restores the reason.
    ///
    /// Call this method on a letter that was read in format 1, and on no other one. Reading JSON calls it.
    pub fn upgrade_format_1(&mut self) {
        let reason = self.failure_reason.as_str();
        let (is_stamped, rest) = match (reason.strip_prefix(STAMPED), reason.strip_prefix(IN_PROGRESS)) {
            (Some(rest), _) => (true, rest),
            (None, Some(rest)) => (false, rest),
            (None, None) => return,
        };
        let rest = rest.strip_prefix(BEFORE).unwrap_or(rest).to_owned();
        // A letter that was proved absent kept the text in format 1.
        if self.outcome == Outcome::Unknown {
            let stamp = (self.producer_id, self.producer_epoch, self.sequence);
            self.replay = match stamp {
                (Some(producer_id), Some(producer_epoch), Some(sequence)) if is_stamped => {
                    ReplayState::Stamped { producer_id, producer_epoch, sequence }
                }
                _ => ReplayState::InProgress,
            };
        }
        self.failure_reason = rest;
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;

    fn letter(reason: &str) -> Letter {
        let letter = Letter::new("t", None, reason, Timestamp::UNIX_EPOCH);
        Letter { producer_id: Some(7), producer_epoch: Some(1), sequence: Some(2), ..letter }
    }

    fn upgraded(mut letter: Letter) -> (ReplayState, String) {
        letter.upgrade_format_1();
        (letter.replay, letter.failure_reason)
    }

    #[test]
    fn format_1_text_becomes_the_state() {
        let stamped = ReplayState::Stamped { producer_id: 7, producer_epoch: 1, sequence: 2 };
        for (text, state) in [(IN_PROGRESS, ReplayState::InProgress), (STAMPED, stamped)] {
            assert_eq!(upgraded(letter(&format!("{text}{BEFORE}no answer"))), (state, "no answer".to_owned()));
            assert_eq!(upgraded(letter(text)), (state, String::new()));
        }
        assert_eq!(upgraded(letter("no answer")), (ReplayState::Idle, "no answer".to_owned()));
    }

    #[test]
    fn incomplete_stamp_is_not_repeated() {
        let incomplete = Letter { sequence: None, ..letter(STAMPED) };
        assert_eq!(upgraded(incomplete).0, ReplayState::InProgress);
    }

    #[test]
    fn absent_letter_is_idle() {
        let absent = Letter { outcome: Outcome::NotWritten, ..letter(&format!("{STAMPED}{BEFORE}no answer")) };
        assert_eq!(upgraded(absent), (ReplayState::Idle, "no answer".to_owned()));
    }

    #[test]
    fn forgotten_place_forgets_the_stamp() {
        let mut stamped = letter(STAMPED);
        stamped.upgrade_format_1();
        stamped.forget_place();
        assert_eq!(stamped.replay, ReplayState::InProgress);
    }
}

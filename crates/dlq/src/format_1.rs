//! Letters in format 1, which had no field for the state of a replay.
//!
//! Rule: [`Letter::upgrade_format_1`] is the only place that reads these texts.

use crate::letter::{Letter, Outcome};
use crate::replay_state::ReplayState;

/// The text that format 1 put in front of the reason while a replay was in progress.
const IN_PROGRESS: &str = "a replay of it was interrupted";
/// The same text for a record in its own batch. It begins as the other one does.
const STAMPED: &str = "a replay of it was interrupted while it went alone";
/// The text between those and the reason.
const BEFORE: &str = "; before: ";

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

//! Selects letters for lists, replays, purges and exports.
//!
//! Rules: a letter must match every criterion that is set, and one value of a criterion with several values. A selection
//! without criteria matches every letter.

use bytes::Bytes;
use jiff::Timestamp;

use crate::letter::{Letter, LetterId, Outcome};

/// The criteria for letters.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Selection {
    /// The letter has one of these ids.
    pub ids: Vec<LetterId>,
    /// The record's topic is one of these.
    pub topics: Vec<String>,
    /// The event's type is one of these.
    pub event_types: Vec<String>,
    /// Kafka's name of the last error is one of these.
    pub error_codes: Vec<String>,
    /// The record's key is one of these, byte for byte.
    pub keys: Vec<Bytes>,
    /// The reason contains this text. Case is ignored.
    pub reason: Option<String>,
    /// The letter has this outcome.
    pub outcome: Option<Outcome>,
    /// The letter is retriable, or is not.
    pub retriable: Option<bool>,
    /// The last attempt was at this time or later.
    pub since: Option<Timestamp>,
    /// The last attempt was before this time.
    pub until: Option<Timestamp>,
    /// Most replays of the letter until now. This prevents loops.
    pub max_replay_count: Option<u32>,
}

/// Why a selection is refused.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SelectionError {
    /// A command that changes dead letters has no criterion, and was not asked for all.
    #[error("nothing is selected: name a criterion, or select all")]
    Empty,
    /// A command was asked for all, and for a criterion.
    #[error("all conflicts with the criteria: remove one of them")]
    AllAndOthers,
    /// No time is in the range.
    #[error("since {since} is not before until {until}, which selects nothing")]
    EmptyRange {
        /// The begin of the range.
        since: Timestamp,
        /// The end of the range.
        until: Timestamp,
    },
}

impl Selection {
    /// Checks the range of times.
    ///
    /// # Errors
    ///
    /// [`SelectionError::EmptyRange`].
    pub fn checked(self) -> Result<Self, SelectionError> {
        match (self.since, self.until) {
            (Some(since), Some(until)) if since >= until => Err(SelectionError::EmptyRange { since, until }),
            _ => Ok(self),
        }
    }

    /// Checks the selection of a command that changes dead letters: all of them must be asked for.
    ///
    /// # Errors
    ///
    /// [`SelectionError`].
    pub fn explicit(self, all: bool) -> Result<Self, SelectionError> {
        let selection = self.checked()?;
        match (all, selection == Self::all()) {
            (false, true) => Err(SelectionError::Empty),
            (true, false) => Err(SelectionError::AllAndOthers),
            _ => Ok(selection),
        }
    }

    /// Returns a selection that matches every letter.
    pub fn all() -> Self {
        Self::default()
    }

    /// Returns whether the letter matches.
    pub fn matches(&self, letter: &Letter) -> bool {
        any(&self.ids, Some(&letter.id))
            && any(&self.topics, Some(&letter.topic))
            && any(&self.event_types, letter.event_type.as_ref())
            && any(&self.error_codes, letter.error_code.as_ref())
            && any(&self.keys, letter.key.as_ref())
            && self.reason.as_ref().is_none_or(|part| contains(&letter.failure_reason, part))
            && self.outcome.is_none_or(|outcome| outcome == letter.outcome)
            && self.retriable.is_none_or(|retriable| retriable == letter.retriable)
            && self.since.is_none_or(|since| letter.last_attempt >= since)
            && self.until.is_none_or(|until| letter.last_attempt < until)
            && self.max_replay_count.is_none_or(|most| letter.replay_count <= most)
    }
}

fn any<T: PartialEq>(wanted: &[T], value: Option<&T>) -> bool {
    wanted.is_empty() || value.is_some_and(|value| wanted.contains(value))
}

fn contains(text: &str, part: &str) -> bool {
    text.to_lowercase().contains(&part.to_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn letter() -> Letter {
        let mut letter = Letter::new("orders", None, "broker not available: refused", at("2024-01-15T10:00:00Z"));
        letter.key = Some(Bytes::from_static(b"k"));
        letter.event_type = Some("order.placed".into());
        letter.error_code = Some("NOT_ENOUGH_REPLICAS".into());
        letter.replay_count = 2;
        letter
    }

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn selects(change: impl FnOnce(&mut Selection)) -> bool {
        let mut selection = Selection::all();
        change(&mut selection);
        selection.matches(&letter())
    }

    #[test]
    fn empty_selection_matches_everything() {
        assert!(selects(|_| ()));
    }

    #[test]
    fn empty_selection_needs_all() {
        let some = || Selection { reason: Some("r".to_owned()), ..Selection::all() };
        assert_eq!(Selection::all().explicit(false), Err(SelectionError::Empty));
        assert_eq!(some().explicit(true), Err(SelectionError::AllAndOthers));
        assert_eq!((Selection::all().explicit(true), some().explicit(false)), (Ok(Selection::all()), Ok(some())));
        let at = Some(at("2024-01-15T10:00:00Z"));
        let empty = Selection { since: at, until: at, ..Selection::all() };
        assert!(matches!(empty.explicit(false), Err(SelectionError::EmptyRange { .. })));
    }

    #[test]
    fn any_value_matches() {
        assert!(selects(|s| s.topics = vec!["others".into(), "orders".into()]));
        assert!(!selects(|s| s.topics = vec!["others".into()]));
        assert!(selects(|s| s.event_types = vec!["order.placed".into()]));
        assert!(!selects(|s| s.event_types = vec!["order".into()]));
        assert!(selects(|s| s.error_codes = vec!["NOT_ENOUGH_REPLICAS".into()]));
        assert!(!selects(|s| s.error_codes = vec!["REQUEST_TIMED_OUT".into()]));
        assert!(selects(|s| s.keys = vec![Bytes::from_static(b"k")]));
        assert!(!selects(|s| s.keys = vec![Bytes::new()]));
        assert!(!selects(|s| s.ids = vec![LetterId::new()]));
    }

    #[test]
    fn all_criteria_must_match() {
        assert!(!selects(|s| {
            s.topics = vec!["orders".into()];
            s.outcome = Some(Outcome::NotWritten);
        }));
    }

    #[test]
    fn reason_ignores_case() {
        assert!(selects(|s| s.reason = Some("NOT available".into())));
        assert!(!selects(|s| s.reason = Some("too large".into())));
    }

    #[test]
    fn time_range_excludes_its_end() {
        assert!(selects(|s| s.since = Some(at("2024-01-15T10:00:00Z"))));
        assert!(!selects(|s| s.since = Some(at("2024-01-15T10:00:00.001Z"))));
        assert!(!selects(|s| s.until = Some(at("2024-01-15T10:00:00Z"))));
        assert!(selects(|s| s.until = Some(at("2024-01-15T10:00:00.001Z"))));
    }

    #[test]
    fn replay_count_is_limited() {
        assert!(selects(|s| s.max_replay_count = Some(2)));
        assert!(!selects(|s| s.max_replay_count = Some(1)));
    }
}

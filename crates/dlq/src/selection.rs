//! Which letters: what lists, replays and purges choose by.
//!
//! - Every criterion that is set must hold; of one with several values, any. Nothing set selects everything.

use bytes::Bytes;
use jiff::Timestamp;

use crate::letter::{Letter, LetterId, Outcome};

/// What letters must be like.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Selection {
    /// One of these ids.
    pub ids: Vec<LetterId>,
    /// One of these topics.
    pub topics: Vec<String>,
    /// One of these event types.
    pub event_types: Vec<String>,
    /// One of these of Kafka's error names.
    pub error_codes: Vec<String>,
    /// One of these keys, byte for byte.
    pub keys: Vec<Bytes>,
    /// The failure's reason contains this, in whatever case.
    pub reason: Option<String>,
    /// This outcome.
    pub outcome: Option<Outcome>,
    /// Whether the cause was one that passes.
    pub retriable: Option<bool>,
    /// Last tried at this moment or later.
    pub since: Option<Timestamp>,
    /// Last tried before this moment.
    pub until: Option<Timestamp>,
    /// Sent again at most so often before: the guard against loops.
    pub max_replay_count: Option<u32>,
}

impl Selection {
    /// Everything.
    pub fn all() -> Self {
        Self::default()
    }

    /// Whether the letter is one of them.
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

fn any<T: PartialEq>(wanted: &[T], is: Option<&T>) -> bool {
    wanted.is_empty() || is.is_some_and(|is| wanted.contains(is))
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
    fn nothing_set_selects_everything() {
        assert!(selects(|_| ()));
    }

    #[test]
    fn of_one_criterion_any_value_will_do() {
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
    fn every_criterion_that_is_set_must_hold() {
        assert!(!selects(|s| {
            s.topics = vec!["orders".into()];
            s.outcome = Some(Outcome::NotWritten);
        }));
    }

    #[test]
    fn a_reason_is_found_by_a_part_in_any_case() {
        assert!(selects(|s| s.reason = Some("NOT available".into())));
        assert!(!selects(|s| s.reason = Some("too large".into())));
    }

    #[test]
    fn since_is_included_and_until_is_not() {
        assert!(selects(|s| s.since = Some(at("2024-01-15T10:00:00Z"))));
        assert!(!selects(|s| s.since = Some(at("2024-01-15T10:00:00.001Z"))));
        assert!(!selects(|s| s.until = Some(at("2024-01-15T10:00:00Z"))));
        assert!(selects(|s| s.until = Some(at("2024-01-15T10:00:00.001Z"))));
    }

    #[test]
    fn letters_replayed_too_often_are_left_out() {
        assert!(selects(|s| s.max_replay_count = Some(2)));
        assert!(!selects(|s| s.max_replay_count = Some(1)));
    }
}

//! Why events failed, counted by reason and topic.
//!
//! Rules: memory is bounded: bad input may bring a new reason with each line.

use std::collections::HashMap;
use std::sync::Arc;

/// Reasons that are told apart.
const TOLD_APART: usize = 1000;
/// All reasons beyond those.
const OTHERS: &str = "other reasons";

/// A reason, and the topic of the events that failed for it, if they had one.
type Group = (Option<Arc<str>>, String);

#[derive(Debug, Default)]
pub(super) struct Reasons(HashMap<Group, u64>);

impl Reasons {
    pub(super) fn add(&mut self, topic: Option<&str>, reason: &str) {
        let group: Group = (topic.map(Into::into), reason.to_owned());
        let is_known = self.0.contains_key(&group) || self.0.len() < TOLD_APART;
        *self.0.entry(if is_known { group } else { (None, OTHERS.to_owned()) }).or_default() += 1;
    }

    /// The most frequent groups, at most so many: how often, and what to say. Equally frequent ones stand in the order of
    /// their texts.
    pub(super) fn most_frequent(&self, most: usize) -> Vec<(u64, String)> {
        let mut groups: Vec<_> =
            self.0.iter().map(|((topic, reason), count)| (*count, text(topic.as_deref(), reason))).collect();
        groups.sort_by(|(more, one), (less, other)| less.cmp(more).then_with(|| one.cmp(other)));
        groups.truncate(most);
        groups
    }
}

fn text(topic: Option<&str>, reason: &str) -> String {
    match topic {
        Some(topic) => format!("topic {topic:?}: {reason}"),
        None => reason.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_most_frequent_come_first() {
        let mut reasons = Reasons::default();
        for (topic, reason) in [(Some("b"), "x"), (None, "y"), (Some("b"), "x"), (Some("a"), "x"), (None, "y")] {
            reasons.add(topic, reason);
        }
        let told = |count, text: &str| (count, text.to_owned());
        assert_eq!(reasons.most_frequent(2), [told(2, "topic \"b\": x"), told(2, "y")]);
        assert_eq!(reasons.most_frequent(9)[2], told(1, "topic \"a\": x"));
    }

    #[test]
    fn reasons_beyond_a_bound_share_one() {
        let mut reasons = Reasons::default();
        for line in 1..=5000 {
            reasons.add(None, &format!("reason {}", line.min(3000)));
        }
        assert_eq!(reasons.0.len(), TOLD_APART + 1);
        assert_eq!(reasons.most_frequent(1), [(4000, OTHERS.to_owned())]);
    }
}

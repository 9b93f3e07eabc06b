//! Why events failed, counted by reason and topic.
//!
//! Rules: memory is bounded: bad input may bring a new reason with each line.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;

/// Reasons that are told apart.
const TOLD_APART: usize = 1000;
/// All reasons beyond those.
const OTHERS: &str = "other reasons";

/// A kind of reason, and the topic of the events that failed for it, if they had one.
type Group = (Option<Arc<str>>, Cow<'static, str>);

/// What is known of a group.
#[derive(Debug)]
struct Failed {
    count: u64,
    /// The first reason.
    first: String,
    /// Whether others of the group read otherwise.
    differ: bool,
}

#[derive(Debug, Default)]
pub(super) struct Reasons(HashMap<Group, Failed>);

impl Reasons {
    /// Counts a failure: reasons of one `kind` differ at most in numbers and names of theirs.
    pub(super) fn add(&mut self, topic: Option<&str>, kind: impl Into<Cow<'static, str>>, reason: &str) {
        let group: Group = (topic.map(Into::into), kind.into());
        let is_known = self.0.contains_key(&group) || self.0.len() < TOLD_APART;
        let (group, reason) = if is_known { (group, reason) } else { ((None, OTHERS.into()), OTHERS) };
        let failed =
            self.0.entry(group).or_insert_with(|| Failed { count: 0, first: reason.to_owned(), differ: false });
        failed.count += 1;
        failed.differ |= failed.first != reason;
    }

    /// The most frequent groups, at most so many: how often, and what to say. Equally frequent ones stand in the order of
    /// their texts. The last one counts the failures of all groups that are left out.
    pub(super) fn most_frequent(&self, most: usize) -> Vec<(u64, String)> {
        let mut groups: Vec<_> =
            self.0.iter().map(|((topic, _), failed)| (failed.count, failed.text(topic.as_deref()))).collect();
        groups.sort_by(|(more, one), (less, other)| less.cmp(more).then_with(|| one.cmp(other)));
        let rest: u64 = groups.iter().skip(most).map(|(count, _)| count).sum();
        groups.truncate(most);
        groups.extend((rest > 0).then(|| (rest, OTHERS.to_owned())));
        groups
    }
}

impl Failed {
    fn text(&self, topic: Option<&str>) -> String {
        let like = if self.differ { ", and similar" } else { "" };
        match topic {
            Some(topic) => format!("topic {topic:?}: {}{like}", self.first),
            None => format!("{}{like}", self.first),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_most_frequent_come_first() {
        let mut reasons = Reasons::default();
        for (topic, reason) in [(Some("b"), "x"), (None, "y"), (Some("b"), "x"), (Some("a"), "x"), (None, "y")] {
            reasons.add(topic, reason, reason);
        }
        let told = |count, text: &str| (count, text.to_owned());
        assert_eq!(reasons.most_frequent(2), [told(2, "topic \"b\": x"), told(2, "y"), told(1, OTHERS)]);
        assert_eq!(reasons.most_frequent(9)[2], told(1, "topic \"a\": x"));
    }

    #[test]
    fn reasons_beyond_a_bound_share_one() {
        let mut reasons = Reasons::default();
        for line in 1..=5000 {
            let reason = format!("reason {}", line.min(3000));
            reasons.add(None, reason.clone(), &reason);
        }
        assert_eq!(reasons.0.len(), TOLD_APART + 1);
        assert_eq!(reasons.most_frequent(1), [(4000, OTHERS.to_owned()), (1000, OTHERS.to_owned())]);
    }

    #[test]
    fn sizes_do_not_split_a_group() {
        let mut reasons = Reasons::default();
        for bytes in [8329, 10330, 8329] {
            reasons.add(Some("t"), "too_large", &format!("{bytes} bytes are too many"));
        }
        assert_eq!(reasons.most_frequent(9), [(3, "topic \"t\": 8329 bytes are too many, and similar".to_owned())]);
    }
}

//! Failures, counted by reason and topic.
//!
//! Rules: memory is bounded, although each invalid line may have a new reason.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;

/// Largest number of groups.
const GROUPS_MAX: usize = 1000;
/// The text for all other reasons.
const OTHERS: &str = "other reasons";

/// The topic of the failed events, if they have one, and the kind of the reason.
type GroupKey = (Option<Arc<str>>, Cow<'static, str>);

/// A group of failures.
#[derive(Debug)]
struct FailureGroup {
    count: u64,
    /// The first reason.
    first: String,
    /// Whether the group has different reasons.
    differ: bool,
}

#[derive(Debug, Default)]
pub(super) struct Reasons {
    groups: HashMap<GroupKey, FailureGroup>,
    /// Failures beyond the largest number of groups.
    others: u64,
}

impl Reasons {
    /// Counts a failure. Reasons of one `kind` differ only in numbers and names.
    pub(super) fn add(&mut self, topic: Option<&str>, kind: impl Into<Cow<'static, str>>, reason: &str) {
        let group: GroupKey = (topic.map(Into::into), kind.into());
        if self.groups.len() >= GROUPS_MAX && !self.groups.contains_key(&group) {
            self.others += 1;
            return;
        }
        let new = || FailureGroup { count: 0, first: reason.to_owned(), differ: false };
        let failed = self.groups.entry(group).or_insert_with(new);
        failed.count += 1;
        failed.differ |= failed.first != reason;
    }

    /// Returns the `most` most frequent groups: the count and the text of each. Groups of one count are sorted by text. If
    /// groups are left out, a last row counts their failures.
    pub(super) fn most_frequent(&self, most: usize) -> Vec<(u64, String)> {
        let mut groups: Vec<_> =
            self.groups.iter().map(|((topic, _), failed)| (failed.count, failed.text(topic.as_deref()))).collect();
        groups.sort_by(|(more, one), (less, other)| less.cmp(more).then_with(|| one.cmp(other)));
        let rest = self.others + groups.iter().skip(most).map(|(count, _)| count).sum::<u64>();
        groups.truncate(most);
        groups.extend((rest > 0).then(|| (rest, OTHERS.to_owned())));
        groups
    }
}

impl FailureGroup {
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
    fn most_frequent_are_first() {
        let mut reasons = Reasons::default();
        for (topic, reason) in [(Some("b"), "x"), (None, "y"), (Some("b"), "x"), (Some("a"), "x"), (None, "y")] {
            reasons.add(topic, reason, reason);
        }
        let row = |count, text: &str| (count, text.to_owned());
        assert_eq!(reasons.most_frequent(2), [row(2, "topic \"b\": x"), row(2, "y"), row(1, OTHERS)]);
        assert_eq!(reasons.most_frequent(9)[2], row(1, "topic \"a\": x"));
    }

    #[test]
    fn number_of_groups_is_bounded() {
        let mut reasons = Reasons::default();
        for line in 1..=5000 {
            let reason = format!("reason {}", line.min(3000));
            reasons.add(None, reason.clone(), &reason);
        }
        assert_eq!(reasons.groups.len(), GROUPS_MAX);
        assert_eq!(reasons.most_frequent(1), [(1, "reason 1".to_owned()), (4999, OTHERS.to_owned())]);
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

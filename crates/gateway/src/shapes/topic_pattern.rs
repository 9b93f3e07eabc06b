//! [`TopicPattern`], a topic or a prefix of topics in options and rights.
//!
//! Rule: `*` stands at the end alone, and means any rest of a name.

use std::fmt;

/// A topic, or all topics with a prefix.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct TopicPattern {
    name: String,
    is_prefix: bool,
}

impl TopicPattern {
    /// Parses a topic, or a prefix that ends in `*`.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (name, is_prefix) = match text.strip_suffix('*') {
            Some(prefix) => (prefix, true),
            None => (text, false),
        };
        let is_valid = !name.contains('*') && (is_prefix || !name.is_empty());
        is_valid.then(|| Self { name: name.to_owned(), is_prefix })
    }

    /// Returns whether the pattern has this topic.
    pub(crate) fn has(&self, topic: &str) -> bool {
        match self.is_prefix {
            true => topic.starts_with(&self.name),
            false => topic == self.name,
        }
    }

    /// Returns a value that is greater for a narrower pattern: a topic, then longer prefixes.
    pub(crate) fn narrowness(&self) -> (bool, usize) {
        (!self.is_prefix, self.name.len())
    }
}

impl fmt::Display for TopicPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.name, if self.is_prefix { "*" } else { "" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn narrower_pattern_is_greater() {
        let parse = |text: &str| TopicPattern::parse(text).unwrap();
        let patterns = ["*", "logs.*", "logs.web*", "logs"].map(parse);
        assert!(patterns.is_sorted_by_key(TopicPattern::narrowness));
        assert!(patterns.iter().all(|pattern| parse(&pattern.to_string()) == *pattern));
        let has = |text, topic| parse(text).has(topic);
        assert!(has("*", "t") && has("logs.*", "logs.web") && has("logs", "logs") && !has("logs", "logs.web"));
        assert!(["", "a*b", "**"].iter().all(|text| TopicPattern::parse(text).is_none()));
    }
}

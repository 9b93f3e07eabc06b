//! What Kafka takes as a topic's name: the rules of `org.apache.kafka.common.internals.Topic.validate`.

use thiserror::Error;

/// Longest name of a topic, in bytes.
const MAX_LEN: usize = 249;

/// Checks a topic's name by Kafka's rules: 1 to 249 of the characters `a-z A-Z 0-9 . _ -`, and neither `.` nor `..`.
pub fn validate_topic_name(name: &str) -> Result<(), TopicNameError> {
    if name.is_empty() {
        return Err(TopicNameError::Empty);
    }
    if name == "." || name == ".." {
        return Err(TopicNameError::Dots { name: name.to_owned() });
    }
    if let Some(found) = name.chars().find(|c| !matches!(c, 'a'..='z' | 'A'..='Z' | '0'..='9' | '.' | '_' | '-')) {
        return Err(TopicNameError::Character { name: name.chars().take(MAX_LEN).collect(), found });
    }
    if name.len() > MAX_LEN {
        return Err(TopicNameError::TooLong { length: name.len() });
    }
    Ok(())
}

/// Why something can't be a topic's name.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
#[non_exhaustive]
pub enum TopicNameError {
    /// The empty name.
    #[error("a topic's name must not be empty")]
    Empty,
    /// `.` or `..`: a topic is a directory on the broker.
    #[error("a topic can't be named {name:?}")]
    Dots {
        /// The name.
        name: String,
    },
    /// A character that is not allowed.
    #[error("topic name {name:?} has {found:?} in it: only a-z, A-Z, 0-9, '.', '_' and '-' are allowed")]
    Character {
        /// The name, cut to the longest allowed.
        name: String,
        /// The first character that is not allowed.
        found: char,
    },
    /// Too long a name.
    #[error("a topic's name of {length} characters is too long: at most 249 are allowed")]
    TooLong {
        /// The name's length.
        length: usize,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_kafka_takes_are_taken() {
        let longest = "a".repeat(MAX_LEN);
        for name in ["a", "user-events", "A.b_C-9", "...", ".a", "_", "-", longest.as_str()] {
            assert_eq!(validate_topic_name(name), Ok(()), "{name}");
        }
    }

    #[test]
    fn names_that_kafka_refuses_are_refused_with_the_reason() {
        assert_eq!(validate_topic_name(""), Err(TopicNameError::Empty));
        for name in [".", ".."] {
            assert_eq!(validate_topic_name(name), Err(TopicNameError::Dots { name: name.into() }));
        }
        assert_eq!(validate_topic_name(&"a".repeat(250)), Err(TopicNameError::TooLong { length: 250 }));
        for (name, found) in [("a b", ' '), ("a/b", '/'), ("ä", 'ä'), ("a\0", '\0'), ("a,b", ',')] {
            let error = validate_topic_name(name).unwrap_err();
            assert_eq!(error, TopicNameError::Character { name: name.into(), found });
        }
    }
}

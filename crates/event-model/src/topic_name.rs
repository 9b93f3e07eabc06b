//! Validates topic names by the rules of `org.apache.kafka.common.internals.Topic.validate`.

use thiserror::Error;

/// Longest name of a topic, in bytes.
const MAX_LEN: usize = 249;

/// Checks a topic's name by Kafka's rules: 1 to 249 of the characters `a-z A-Z 0-9 . _ -`, and neither `.` nor `..`.
///
/// # Errors
/// Returns a [`TopicNameError`] if Kafka refuses the name.
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

/// Why a name is no topic name.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
#[non_exhaustive]
pub enum TopicNameError {
    /// The name is empty.
    #[error("a topic's name must not be empty")]
    Empty,
    /// The name is `.` or `..`, which cannot name a topic's directory on the broker.
    #[error("a topic can't be named {name:?}")]
    Dots {
        /// The name.
        name: String,
    },
    /// The name has a character that Kafka does not allow.
    #[error("topic name {name:?} contains {found:?}: only a-z, A-Z, 0-9, '.', '_' and '-' are allowed")]
    Character {
        /// The name, truncated to the longest allowed length.
        name: String,
        /// The first character that is not allowed.
        found: char,
    },
    /// The name is too long.
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
    fn valid_names_are_accepted() {
        let longest = "a".repeat(MAX_LEN);
        for name in ["a", "user-events", "A.b_C-9", "...", ".a", "_", "-", longest.as_str()] {
            assert_eq!(validate_topic_name(name), Ok(()), "{name}");
        }
    }

    #[test]
    fn invalid_names_are_refused() {
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

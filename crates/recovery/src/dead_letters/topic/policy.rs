//! The fitness of a topic's settings for dead letters.
//!
//! Rules:
//! - This module is pure.
//! - A dead letter has the key of its event. A compacted topic would keep one dead letter of each key, so it is
//!   refused.
//! - A topic that deletes dead letters before `dlq_max_age` causes a warning, and is used.

use std::fmt;
use std::time::Duration;

use kafka_courier_client::log_client::Cleanup;

/// The reason why a topic must not have dead letters.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum UnfitTopic {
    /// The topic is compacted.
    #[error(
        "topic {topic:?} is unfit for dead letters, because cleanup.policy={policy} keeps only the newest record of \
         each key: set cleanup.policy=delete on the topic, or use another topic"
    )]
    Compacted {
        /// The topic.
        topic: String,
        /// Its `cleanup.policy`.
        policy: String,
    },
}

/// A warning about a topic's settings, which may lose dead letters.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum TopicWarning {
    /// The topic deletes dead letters before they reach `dlq_max_age`.
    Retention {
        /// The topic.
        topic: String,
        /// Its `retention.ms`.
        retention_ms: i64,
        /// `dlq_max_age`, or `None` for no limit.
        max_age: Option<Duration>,
    },
    /// The topic deletes the oldest dead letters once a partition is too large.
    RetentionBytes {
        /// The topic.
        topic: String,
        /// Its `retention.bytes`.
        retention_bytes: i64,
    },
    /// The topic's settings are unknown, and the topic may be compacted.
    Unknown {
        /// The topic.
        topic: String,
        /// The reason why the settings are unknown.
        reason: String,
    },
}

impl fmt::Display for TopicWarning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Retention { topic, retention_ms, max_age } => {
                let wanted = match max_age {
                    Some(age) => format!("dlq_max_age={}ms keeps them longer", age.as_millis()),
                    None => "dlq_max_age sets no limit".to_owned(),
                };
                write!(
                    f,
                    "topic {topic:?} deletes dead letters after retention.ms={retention_ms}, including unread ones, \
                     but {wanted}: raise retention.ms on the topic (-1: no limit), or set dlq_max_age to at most \
                     retention.ms"
                )
            }
            Self::RetentionBytes { topic, retention_bytes } => write!(
                f,
                "topic {topic:?} deletes the oldest dead letters of a partition beyond \
                 retention.bytes={retention_bytes}, including unread ones: set retention.bytes=-1 on the topic for no \
                 limit"
            ),
            Self::Unknown { topic, reason } => write!(
                f,
                "the settings of topic {topic:?} are unknown ({reason}), and a compacted topic keeps only the newest \
                 dead letter of each key: grant DescribeConfigs on the topic, or ensure cleanup.policy=delete"
            ),
        }
    }
}

/// Checks a topic's settings. `max_age` is `dlq_max_age`, zero for no limit.
pub(super) fn check_settings(
    topic: &str,
    cleanup: &Cleanup,
    max_age: Duration,
) -> Result<Vec<TopicWarning>, UnfitTopic> {
    let topic = || topic.to_owned();
    if cleanup.is_compacted() {
        return Err(UnfitTopic::Compacted { topic: topic(), policy: cleanup.policy.to_string() });
    }
    let max_age = Some(max_age).filter(|age| !age.is_zero());
    let limit = |setting: Option<i64>| setting.filter(|limit| cleanup.deletes() && *limit >= 0);
    let is_short = |retention_ms: &i64| max_age.is_none_or(|age| (*retention_ms as u128) < age.as_millis());
    let age = limit(cleanup.retention_ms).filter(is_short);
    let age = age.map(|retention_ms| TopicWarning::Retention { topic: topic(), retention_ms, max_age });
    let bytes = limit(cleanup.retention_bytes);
    let bytes = bytes.map(|retention_bytes| TopicWarning::RetentionBytes { topic: topic(), retention_bytes });
    Ok(age.into_iter().chain(bytes).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cleanup(policy: &str, retention_ms: i64, retention_bytes: i64) -> Cleanup {
        Cleanup { policy: policy.into(), retention_ms: Some(retention_ms), retention_bytes: Some(retention_bytes) }
    }

    fn warnings(cleanup: &Cleanup, max_age_s: u64) -> usize {
        check_settings("dead", cleanup, Duration::from_secs(max_age_s)).unwrap().len()
    }

    #[test]
    fn compacted_topics_are_refused() {
        for policy in ["compact", "compact,delete", "delete,compact"] {
            let refused = check_settings("dead", &cleanup(policy, -1, -1), Duration::ZERO).unwrap_err();
            let text = refused.to_string();
            assert!(text.contains("\"dead\"") && text.contains(policy) && text.contains("=delete"), "{text}");
        }
    }

    #[test]
    fn short_retention_causes_a_warning() {
        assert_eq!(warnings(&cleanup("delete", 60_000, -1), 61), 1);
        assert_eq!(warnings(&cleanup("delete", 60_000, -1), 60), 0);
        // Every retention is shorter than no limit of age.
        assert_eq!(warnings(&cleanup("delete", i64::MAX, -1), 0), 1);
        assert_eq!(warnings(&cleanup("delete", -1, -1), 0), 0);
        assert_eq!(warnings(&cleanup("delete", -1, 1_000), 0), 1);
    }

    #[test]
    fn topics_without_deletion_cause_no_warning() {
        assert_eq!(warnings(&cleanup("", 1, 1), 0), 0);
    }

    #[test]
    fn warnings_name_value_and_remedy() {
        let warning = |max_age| {
            let warnings = check_settings("dead", &cleanup("delete", 5, -1), Duration::from_secs(max_age)).unwrap();
            warnings[0].to_string()
        };
        let without = warning(0);
        assert!(without.contains("retention.ms=5,") && without.contains("sets no limit"), "{without}");
        assert!(warning(9).contains("dlq_max_age=9000ms"), "{}", warning(9));
    }
}

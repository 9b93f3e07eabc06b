//! A topic's configuration: the settings that change this broker's behaviour, under Kafka's names.
//!
//! Rules: the broker refuses unknown settings instead of ignoring them.

use std::fmt::Display;

/// The topic settings that this broker implements.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TopicConfig {
    pub(crate) max_message_bytes: i32,
    pub(crate) min_insync_replicas: i32,
    pub(crate) segment_bytes: i32,
    pub(crate) retention_bytes: i64,
    /// The default is no limit, unlike Kafka's: tests write records with any timestamp.
    pub(crate) retention_ms: i64,
    pub(crate) timestamp_before_max_ms: i64,
    pub(crate) timestamp_after_max_ms: i64,
    pub(crate) compacted: bool,
    /// Whether `cleanup.policy` contains `delete`, and retention applies.
    pub(crate) deletes: bool,
    pub(crate) log_append_time: bool,
}

impl Default for TopicConfig {
    fn default() -> Self {
        Self {
            max_message_bytes: 1_048_588,
            min_insync_replicas: 1,
            segment_bytes: 1 << 30,
            retention_bytes: -1,
            retention_ms: -1,
            timestamp_before_max_ms: i64::MAX,
            timestamp_after_max_ms: 3_600_000,
            compacted: false,
            deletes: true,
            log_append_time: false,
        }
    }
}

/// Why a setting of a topic is invalid.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub(crate) enum TopicConfigError {
    #[error("Unknown topic config name: {0}")]
    Name(String),
    #[error("Invalid value {value} for configuration {name}: must be {allowed}")]
    Value { name: String, value: String, allowed: String },
}

/// Kafka's setting types, with their numbers in DescribeConfigs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ConfigType {
    Boolean = 1,
    Text = 2,
    Int = 3,
    Long = 5,
    List = 7,
}

impl TopicConfig {
    /// Returns the name, value and type of every setting.
    pub(crate) fn entries(&self) -> Vec<(&'static str, String, ConfigType)> {
        let policy = match (self.compacted, self.deletes) {
            (true, true) => "compact,delete",
            (true, false) => "compact",
            (false, _) => "delete",
        };
        let timestamp = if self.log_append_time { "LogAppendTime" } else { "CreateTime" };
        vec![
            ("cleanup.policy", policy.to_owned(), ConfigType::List),
            ("max.message.bytes", self.max_message_bytes.to_string(), ConfigType::Int),
            ("message.timestamp.after.max.ms", self.timestamp_after_max_ms.to_string(), ConfigType::Long),
            ("message.timestamp.before.max.ms", self.timestamp_before_max_ms.to_string(), ConfigType::Long),
            ("message.timestamp.type", timestamp.to_owned(), ConfigType::Text),
            ("min.insync.replicas", self.min_insync_replicas.to_string(), ConfigType::Int),
            ("retention.bytes", self.retention_bytes.to_string(), ConfigType::Long),
            ("retention.ms", self.retention_ms.to_string(), ConfigType::Long),
            ("segment.bytes", self.segment_bytes.to_string(), ConfigType::Int),
        ]
    }

    /// Changes a setting by name.
    pub(crate) fn set(&mut self, name: &str, value: &str) -> Result<(), TopicConfigError> {
        match name {
            "cleanup.policy" => (self.compacted, self.deletes) = policy(value)?,
            "max.message.bytes" => self.max_message_bytes = number(name, value, 0, i32::MAX)?,
            "message.timestamp.after.max.ms" => self.timestamp_after_max_ms = number(name, value, 0, i64::MAX)?,
            "message.timestamp.before.max.ms" => self.timestamp_before_max_ms = number(name, value, 0, i64::MAX)?,
            "message.timestamp.type" => self.log_append_time = timestamp_type(value)?,
            "min.insync.replicas" => self.min_insync_replicas = number(name, value, 1, i32::MAX)?,
            "retention.bytes" => self.retention_bytes = number(name, value, -1, i64::MAX)?,
            "retention.ms" => self.retention_ms = number(name, value, -1, i64::MAX)?,
            "segment.bytes" => self.segment_bytes = number(name, value, 14, i32::MAX)?,
            _ => return Err(TopicConfigError::Name(name.to_owned())),
        }
        Ok(())
    }
}

fn invalid(name: &str, value: &str, allowed: &str) -> TopicConfigError {
    TopicConfigError::Value { name: name.to_owned(), value: value.to_owned(), allowed: allowed.to_owned() }
}

fn number<N>(name: &str, value: &str, min: N, max: N) -> Result<N, TopicConfigError>
where
    N: std::str::FromStr + PartialOrd + Display,
{
    match value.parse::<N>() {
        Ok(number) if number >= min && number <= max => Ok(number),
        _ => Err(invalid(name, value, &format!("a number from {min} to {max}"))),
    }
}

/// Returns whether a cleanup policy compacts, and whether it deletes.
fn policy(value: &str) -> Result<(bool, bool), TopicConfigError> {
    match value {
        "delete" => Ok((false, true)),
        "compact" => Ok((true, false)),
        "compact,delete" | "delete,compact" => Ok((true, true)),
        _ => Err(invalid("cleanup.policy", value, "compact or delete")),
    }
}

fn timestamp_type(value: &str) -> Result<bool, TopicConfigError> {
    match value {
        "CreateTime" => Ok(false),
        "LogAppendTime" => Ok(true),
        _ => Err(invalid("message.timestamp.type", value, "CreateTime or LogAppendTime")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_round_trip_through_set() {
        for (compacted, deletes) in [(true, true), (true, false), (false, true)] {
            let mut config = TopicConfig { compacted, deletes, log_append_time: true, ..Default::default() };
            (config.max_message_bytes, config.retention_ms) = (77, 5);
            let mut read = TopicConfig::default();
            for (name, value, _) in config.entries() {
                read.set(name, &value).unwrap();
            }
            assert_eq!(read, config);
        }
    }

    #[test]
    fn invalid_names_and_values_are_refused() {
        let mut config = TopicConfig::default();
        for (name, value) in [
            ("max.message.byte", "1"),
            ("max.message.bytes", "-1"),
            ("max.message.bytes", "many"),
            ("cleanup.policy", "shred"),
            ("message.timestamp.type", "Now"),
        ] {
            assert!(config.set(name, value).is_err(), "{name}={value}");
        }
        assert_eq!(config, TopicConfig::default());
    }
}

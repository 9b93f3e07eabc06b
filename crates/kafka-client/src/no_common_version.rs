//! The error for a broker that has no version of a request in common with kafka-courier.
//!
//! Rules:
//!  - The type is plain data.
//!  - The message names both ranges, and the oldest Kafka that has a version in common.

use std::fmt;
use std::sync::Arc;

/// A broker has no version of a request in common with kafka-courier.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NoCommonVersion {
    /// The broker, as `host:port`.
    pub broker: Arc<str>,
    /// The name of the request in Kafka, such as `Produce`.
    pub api: &'static str,
    /// The lowest and the highest version that kafka-courier supports.
    pub ours: (i16, i16),
    /// The lowest and the highest version that the broker supports, if it supports the request at all.
    pub theirs: Option<(i16, i16)>,
}

impl NoCommonVersion {
    /// Returns the oldest Apache Kafka that has a version in common.
    const fn oldest_kafka(&self) -> &'static str {
        match self.api.as_bytes() {
            b"DescribeConfigs" => "1.1",
            b"OffsetForLeaderEpoch" => "2.1",
            b"DescribeProducers" => "2.8",
            _ => "0.11",
        }
    }
}

impl fmt::Display for NoCommonVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { broker, api, ours: (lowest, highest), theirs } = self;
        match theirs {
            Some((from, to)) => write!(f, "broker {broker} speaks {api} {from} to {to}")?,
            None => write!(f, "broker {broker} does not know {api}")?,
        }
        let oldest = self.oldest_kafka();
        write!(f, ", kafka-courier speaks {lowest} to {highest}: Kafka {oldest} or newer is needed")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn message_names_ranges_and_remedy() {
        let none = NoCommonVersion { broker: "b:9092".into(), api: "Produce", ours: (3, 13), theirs: Some((0, 2)) };
        let words = "broker b:9092 speaks Produce 0 to 2, kafka-courier speaks 3 to 13: Kafka 0.11 or newer is needed";
        assert_eq!(none.to_string(), words);
        let none = NoCommonVersion { api: "DescribeProducers", ours: (0, 0), theirs: None, ..none };
        let words =
            "broker b:9092 does not know DescribeProducers, kafka-courier speaks 0 to 0: Kafka 2.8 or newer is needed";
        assert_eq!(none.to_string(), words);
    }
}

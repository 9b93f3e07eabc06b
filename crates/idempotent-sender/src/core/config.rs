//! What the core is told once: limits and times.
//!
//! Rules: every limit is checked when the configuration is made, so the core never meets a bad one.

use std::time::Duration;

use super::backoff::Backoff;

/// The core's settings. `Default` gives the documented defaults.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Batches of a partition, and requests of a connection, that may be unanswered at once: 1 to 5.
    pub max_in_flight: u32,
    /// A Produce request holds at most this many bytes of batches (always at least one batch).
    pub max_request_bytes: usize,
    /// Errors of the write itself that a batch survives.
    pub retry_max: u32,
    /// The wait between tries, and between refreshes of metadata and reconnections.
    pub backoff: Backoff,
    /// From a batch's first publish to its verdict.
    pub delivery_timeout: Duration,
    /// From a request's last byte (or the previous answer on its connection) to its answer.
    pub request_timeout: Duration,
    /// How long a topic may be unknown to the cluster.
    pub metadata_timeout: Duration,
    /// Metadata older than this is refreshed unasked (`metadata.max.age.ms`).
    pub metadata_max_age: Duration,
    /// Connections to one broker, grown on demand.
    pub connections_per_broker: u32,
    /// A connection without a request for this long is closed, before the broker does it (10 min).
    pub idle_timeout: Duration,
    /// Where the core's chance (jitter) starts.
    pub seed: u64,
    /// The epoch under which a partition begins with its first producer id: 0, but a test of what happens
    /// when epochs are used up begins near `i16::MAX`.
    pub first_epoch: i16,
    /// The sequence number with which a partition begins: 0, but a test of the wrap begins near `i32::MAX`.
    pub first_sequence: i32,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            max_in_flight: 5,
            max_request_bytes: 8 << 20,
            retry_max: 3,
            backoff: Backoff { base: Duration::from_millis(100), cap: Duration::from_secs(1) },
            delivery_timeout: Duration::from_secs(30),
            request_timeout: Duration::from_secs(10),
            metadata_timeout: Duration::from_secs(10),
            metadata_max_age: Duration::from_secs(300),
            connections_per_broker: 4,
            idle_timeout: Duration::from_secs(540),
            seed: 0,
            first_epoch: 0,
            first_sequence: 0,
        }
    }
}

/// A setting that the core can't work with.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{name} is {value}, but must be {allowed}")]
pub struct ConfigError {
    /// The setting.
    pub name: &'static str,
    /// What it was set to.
    pub value: String,
    /// What it may be.
    pub allowed: &'static str,
}

impl Config {
    /// Every setting that is out of its bounds.
    pub fn problems(&self) -> Vec<ConfigError> {
        let mut problems = Vec::new();
        let mut check = |ok: bool, name, value: String, allowed| {
            if !ok {
                problems.push(ConfigError { name, value, allowed });
            }
        };
        check(
            (1..=5).contains(&self.max_in_flight),
            "max_in_flight",
            self.max_in_flight.to_string(),
            "1 to 5 (a broker remembers the last five batches of a producer id)",
        );
        check(self.max_request_bytes >= 1024, "max_request_bytes", self.max_request_bytes.to_string(), "at least 1024");
        check(
            self.connections_per_broker >= 1,
            "connections_per_broker",
            self.connections_per_broker.to_string(),
            "at least 1",
        );
        for (name, value) in [
            ("retry_backoff", self.backoff.base),
            ("retry_backoff_max", self.backoff.cap),
            ("delivery_timeout", self.delivery_timeout),
            ("request_timeout", self.request_timeout),
            ("metadata_timeout", self.metadata_timeout),
            ("metadata_max_age", self.metadata_max_age),
            ("idle_timeout", self.idle_timeout),
        ] {
            check(!value.is_zero(), name, "0s".to_owned(), "more than zero");
        }
        check(self.first_epoch >= 0, "first_epoch", self.first_epoch.to_string(), "at least 0");
        check(self.first_sequence >= 0, "first_sequence", self.first_sequence.to_string(), "at least 0");
        check(
            self.backoff.base <= self.backoff.cap,
            "retry_backoff",
            format!("{:?}, more than retry_backoff_max ({:?})", self.backoff.base, self.backoff.cap),
            "at most that: lower it, or raise retry_backoff_max",
        );
        problems
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_have_no_problem() {
        assert_eq!(Config::default().problems(), []);
    }

    #[test]
    fn six_in_flight_is_an_error_that_names_the_value() {
        let problems = Config { max_in_flight: 6, ..Config::default() }.problems();
        assert_eq!(problems.len(), 1);
        assert!(problems[0].to_string().starts_with("max_in_flight is 6, but must be 1 to 5"), "{}", problems[0]);
    }

    #[test]
    fn all_problems_are_reported_at_once() {
        let config = Config {
            max_in_flight: 0,
            connections_per_broker: 0,
            request_timeout: Duration::ZERO,
            ..Config::default()
        };
        assert_eq!(config.problems().len(), 3);
    }
}

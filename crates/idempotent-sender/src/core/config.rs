//! The configuration of the core: limits and times.
//!
//! Rules:
//!  - Every limit is checked when the sender is created, so the core never runs with an invalid one.

use std::time::Duration;

use super::backoff::Backoff;

/// How long after its last record a leader surely remembers a producer id: half of the default of
/// `producer.id.expiration.ms`, which is a day.
pub const ID_MEMORY: Duration = Duration::from_secs(12 * 60 * 60);

/// The fate of a stored batch of which nothing can show whether it is written.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum DoubtPolicy {
    /// The batch fails as unknown.
    #[default]
    Fail,
    /// The partition waits until something shows it.
    Hold,
    /// The batch is sent again, and may be in the log twice.
    Resend,
}

/// Returns whether a leader that keeps producer ids for `memory` may have forgotten the id of records with this timestamp,
/// by this wall clock. Both are in milliseconds since the Unix epoch. A timestamp in the future shows that a clock was
/// wrong, so the age of the records is unknown.
#[must_use]
pub fn is_old(timestamp: i64, wall_clock: i64, memory: Duration) -> bool {
    u128::try_from(wall_clock.saturating_sub(timestamp)).map_or(true, |age| age >= memory.as_millis())
}

/// The settings of the core. `Default` returns the documented defaults.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// The most unanswered batches of a partition, and unanswered requests of a connection: 1 to 5.
    pub max_in_flight: u32,
    /// The most bytes of batches in a Produce request. A request always holds at least one batch.
    pub max_request_bytes: usize,
    /// The number of write errors that a batch survives.
    pub retry_max: u32,
    /// The pause between tries, between metadata refreshes, and between reconnections.
    pub backoff: Backoff,
    /// The time from the first publish of a batch to its verdict.
    pub delivery_timeout: Duration,
    /// The time from the last byte of a request (or the previous answer on its connection) to the answer.
    pub request_timeout: Duration,
    /// The time after which a topic that the cluster does not know fails.
    pub metadata_timeout: Duration,
    /// The age at which metadata is refreshed automatically (`metadata.max.age.ms`).
    pub metadata_max_age: Duration,
    /// The most connections to one broker. They are opened on demand.
    pub connections_per_broker: u32,
    /// The time without a request after which a connection is closed. It is shorter than the broker's own limit (10
    /// minutes).
    pub idle_timeout: Duration,
    /// How long after its last record a leader surely remembers a producer id: half of the broker's
    /// `producer.id.expiration.ms`.
    pub id_memory: Duration,
    /// Whether the records of a stored batch that has waited for `id_memory` get new timestamps when it is sent.
    pub renews_timestamps: bool,
    /// The fate of stored batches in doubt.
    pub doubt: DoubtPolicy,
    /// The seed of the random jitter.
    pub seed: u64,
    /// The epoch with which a partition starts under its first producer id: 0. A test of used-up epochs starts near
    /// `i16::MAX`.
    pub first_epoch: i16,
    /// The sequence number with which a partition starts: 0. A test of the wrap starts near `i32::MAX`.
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
            id_memory: ID_MEMORY,
            renews_timestamps: false,
            doubt: DoubtPolicy::Fail,
            seed: 0,
            first_epoch: 0,
            first_sequence: 0,
        }
    }
}

/// A setting that is out of bounds.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// The setting does not allow the value.
    #[error("{name} is {value}, but must be {allowed}")]
    OutOfBounds {
        /// The setting.
        name: &'static str,
        /// The value.
        value: String,
        /// The valid values.
        allowed: &'static str,
    },
    /// The setting is longer than another one.
    #[error("{name} is {value:?}, more than {limit} ({limit_value:?}): lower {name}, or raise {limit}")]
    AboveLimit {
        /// The setting.
        name: &'static str,
        /// The setting's value.
        value: Duration,
        /// The other setting.
        limit: &'static str,
        /// The other setting's value.
        limit_value: Duration,
    },
}

impl Config {
    /// Returns every setting that is out of bounds.
    pub fn problems(&self) -> Vec<ConfigError> {
        let mut problems = Vec::new();
        let mut check = |ok: bool, name, value: String, allowed| {
            if !ok {
                problems.push(ConfigError::OutOfBounds { name, value, allowed });
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
        if self.backoff.base > self.backoff.cap {
            let (value, limit_value) = (self.backoff.base, self.backoff.cap);
            let (name, limit) = ("retry_backoff", "retry_backoff_max");
            problems.push(ConfigError::AboveLimit { name, value, limit, limit_value });
        }
        problems
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_have_no_problem() {
        assert_eq!(Config::default().problems(), []);
    }

    #[test]
    fn too_many_in_flight_is_reported() {
        let problems = Config { max_in_flight: 6, ..Config::default() }.problems();
        assert_eq!(problems.len(), 1);
        assert!(problems[0].to_string().starts_with("max_in_flight is 6, but must be 1 to 5"), "{}", problems[0]);
    }

    #[test]
    fn all_problems_are_reported() {
        let config = Config {
            max_in_flight: 0,
            connections_per_broker: 0,
            request_timeout: Duration::ZERO,
            ..Config::default()
        };
        assert_eq!(config.problems().len(), 3);
    }
}

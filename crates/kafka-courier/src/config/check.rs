//! Checks that types cannot express: the bounds of options, and options that depend on each other.
//!
//! Rules: a problem begins with the option's name and value. A problem between two options names both options, both
//! values and the remedy.

use std::time::Duration;

use kafka_courier_event_model::{TopicMapping, validate_topic_name};
use kafka_courier_idempotent_sender::core::ConfigError;

use super::problem::ConfigProblem;
use super::{KafkaConfig, duration};

/// The longest duration of an option. A deadline further away might not be representable as an instant.
const MAX_DURATION: Duration = Duration::from_secs(365 * 24 * 60 * 60);

impl KafkaConfig {
    /// Returns the texts of all problems of the configuration.
    pub(crate) fn problems(&self) -> Vec<String> {
        self.typed_problems().iter().map(ToString::to_string).collect()
    }

    /// Returns all problems of the configuration.
    pub(super) fn typed_problems(&self) -> Vec<ConfigProblem> {
        let mut problems = self.core_problems();
        if self.brokers.is_empty() {
            problems.push(not_allowed("brokers", "empty", "at least one broker, such as localhost:9092"));
        }
        self.batch_problems(&mut problems);
        self.time_problems(&mut problems);
        self.security_problems(&mut problems);
        problems.extend(self.mapping().err());
        self.dead_letter_problems(&mut problems);
        problems
    }

    fn core_problems(&self) -> Vec<ConfigProblem> {
        let exceeds_max = self.retry_backoff > self.retry_backoff_max;
        let problem = |problem: ConfigError| {
            let related = (exceeds_max && problem.name == "retry_backoff").then_some("retry_backoff_max");
            ConfigProblem::Core { problem, related }
        };
        self.core().problems().into_iter().map(problem).collect()
    }

    /// Returns the mapping of event types to topics.
    ///
    /// # Errors
    /// Returns the problem if `topic_mapping` is invalid, or maps an event type to `dlq_topic`.
    pub(crate) fn mapping(&self) -> Result<TopicMapping, ConfigProblem> {
        let mapping = TopicMapping::reserving(&self.dlq_topic);
        mapping.apply(&self.topic_mapping).map_err(ConfigProblem::TopicMapping)?;
        match mapping.conflict() {
            None => Ok(mapping),
            Some(event_type) => {
                let (topic, event_type) = (self.dlq_topic.clone(), event_type.to_string());
                Err(ConfigProblem::DlqTopicHasEvents { topic, event_type })
            }
        }
    }

    fn dead_letter_problems(&self, problems: &mut Vec<ConfigProblem>) {
        if !self.dlq_topic.is_empty()
            && let Err(error) = validate_topic_name(&self.dlq_topic)
        {
            problems.push(ConfigProblem::DlqTopicName(error));
        }
        if self.auto_replay_rate == 0 {
            problems.push(ConfigProblem::NoReplayRate);
        }
        if self.auto_replay_interval.is_zero() {
            problems.push(not_allowed("auto_replay_interval", "0s", "more than zero"));
        }
    }

    fn batch_problems(&self, problems: &mut Vec<ConfigProblem>) {
        if self.flush_messages == 0 {
            problems.push(not_allowed("flush_messages", "0", "at least 1"));
        }
        if self.flush_bytes < 128 {
            problems.push(not_allowed("flush_bytes", &self.flush_bytes.to_string(), "at least 128"));
        }
        if self.buffer_memory < self.flush_bytes.min(1 << 20) {
            problems.push(ConfigProblem::BatchExceedsMemory { memory: self.buffer_memory, batch: self.flush_bytes });
        }
    }

    fn time_problems(&self, problems: &mut Vec<ConfigProblem>) {
        if self.connect_timeout.is_zero() {
            problems.push(not_allowed("connect_timeout", "0s", "more than zero"));
        }
        for (name, value) in self.durations() {
            if value > MAX_DURATION {
                problems.push(not_allowed(name, &duration::format(value), "at most a year (8760h)"));
            }
        }
        if self.delivery_timeout < self.flush_timeout {
            problems.push(ConfigProblem::FlushExceedsDelivery {
                delivery: duration::format(self.delivery_timeout),
                flush: duration::format(self.flush_timeout),
            });
        }
    }
}

fn not_allowed(option: &'static str, value: &str, allowed: &'static str) -> ConfigProblem {
    ConfigProblem::NotAllowed { option, value: value.to_owned(), allowed }
}

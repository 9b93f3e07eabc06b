//! Checks that types cannot express: the bounds of options, and options that depend on each other.
//!
//! Rules: a problem begins with the option's name and value. A problem between two options names both options, both values
//! and the remedy.

use std::time::Duration;

use kafka_courier_event_model::{TopicMapping, validate_topic_name};

use super::{KafkaConfig, duration};

/// The longest duration of an option. A deadline further away might not be representable as an instant.
const MAX_DURATION: Duration = Duration::from_secs(365 * 24 * 60 * 60);

impl KafkaConfig {
    /// Returns all problems of the configuration.
    pub(crate) fn problems(&self) -> Vec<String> {
        let mut problems: Vec<String> = self.core().problems().iter().map(ToString::to_string).collect();
        if self.brokers.is_empty() {
            problems.push("brokers is empty, but must have at least one broker, such as localhost:9092".to_owned());
        }
        self.batch_problems(&mut problems);
        self.time_problems(&mut problems);
        self.security_problems(&mut problems);
        if let Err(error) = self.mapping() {
            problems.push(error);
        }
        self.dead_letter_problems(&mut problems);
        problems
    }

    /// Returns the mapping of event types to topics.
    ///
    /// # Errors
    /// Returns the problem if `topic_mapping` is invalid, or maps an event type to `dlq_topic`.
    pub(crate) fn mapping(&self) -> Result<TopicMapping, String> {
        let mapping = TopicMapping::reserving(&self.dlq_topic);
        mapping.apply(&self.topic_mapping).map_err(|error| format!("topic_mapping: {error}"))?;
        match mapping.conflict() {
            None => Ok(mapping),
            Some(event_type) => Err(format!(
                "dlq_topic is {:?}, which is also the topic of events of type {event_type}: set dlq_topic to another topic, \
                 or map the type to another topic in topic_mapping",
                self.dlq_topic
            )),
        }
    }

    fn dead_letter_problems(&self, problems: &mut Vec<String>) {
        if !self.dlq_topic.is_empty()
            && let Err(error) = validate_topic_name(&self.dlq_topic)
        {
            problems.push(format!("dlq_topic: {error}"));
        }
        if self.auto_replay_rate == 0 {
            problems
                .push("auto_replay_rate is 0, but must be at least 1: set auto_replay=false for no replay".to_owned());
        }
        if self.auto_replay_interval.is_zero() {
            problems.push("auto_replay_interval is 0s, but must be more than zero".to_owned());
        }
    }

    fn batch_problems(&self, problems: &mut Vec<String>) {
        if self.flush_messages == 0 {
            problems.push("flush_messages is 0, but must be at least 1".to_owned());
        }
        if self.flush_bytes < 128 {
            problems.push(format!("flush_bytes is {}, but must be at least 128", self.flush_bytes));
        }
        if self.buffer_memory < self.flush_bytes.min(1 << 20) {
            problems.push(format!(
                "buffer_memory is {}, less than one batch of flush_bytes ({}): raise buffer_memory or lower flush_bytes",
                self.buffer_memory, self.flush_bytes
            ));
        }
    }

    fn time_problems(&self, problems: &mut Vec<String>) {
        if self.connect_timeout.is_zero() {
            problems.push("connect_timeout is 0s, but must be more than zero".to_owned());
        }
        for (name, value) in self.durations() {
            if value > MAX_DURATION {
                problems.push(format!("{name} is {}, but must be at most a year (8760h)", duration::format(value)));
            }
        }
        if self.delivery_timeout < self.flush_timeout {
            problems.push(format!(
                "delivery_timeout is {}, less than flush_timeout ({}), and events would fail before they are sent: raise \
                 delivery_timeout or lower flush_timeout",
                duration::format(self.delivery_timeout),
                duration::format(self.flush_timeout)
            ));
        }
    }
}

//! What types can't hold: bounds, and options against each other.
//!
//! Rules: a problem begins with the option's name and tells its value; one between two options names both, both values
//! and what to do.

use std::time::Duration;

use kafka_courier_event_model::{TopicMapping, validate_topic_name};

use super::{KafkaConfig, duration};

/// The longest time that an option may be set to: beyond it a deadline might not be a point in time.
const A_YEAR: Duration = Duration::from_secs(365 * 24 * 60 * 60);

impl KafkaConfig {
    /// Everything that is wrong.
    pub(crate) fn problems(&self) -> Vec<String> {
        let mut problems: Vec<String> = self.core().problems().iter().map(ToString::to_string).collect();
        if self.brokers.is_empty() {
            problems.push("brokers is empty: name at least one, such as localhost:9092".to_owned());
        }
        self.batch_problems(&mut problems);
        self.time_problems(&mut problems);
        self.security_problems(&mut problems);
        if let Err(error) = self.mapping() {
            problems.push(error);
        }
        self.letter_problems(&mut problems);
        problems
    }

    /// Where events go by their type. Errors: what is wrong with it, or that events would go where dead letters go.
    pub(crate) fn mapping(&self) -> Result<TopicMapping, String> {
        let mapping = TopicMapping::reserving(&self.dlq_topic);
        mapping.apply(&self.topic_mapping).map_err(|error| format!("topic_mapping: {error}"))?;
        match mapping.conflict() {
            None => Ok(mapping),
            Some(event_type) => Err(format!(
                "dlq_topic is {:?}, where events of type {event_type} go: use another topic, or map that type to another \
                 one in topic_mapping",
                self.dlq_topic
            )),
        }
    }

    fn letter_problems(&self, problems: &mut Vec<String>) {
        if !self.dlq_topic.is_empty()
            && let Err(error) = validate_topic_name(&self.dlq_topic)
        {
            problems.push(format!("dlq_topic: {error}"));
        }
        if self.auto_replay_rate == 0 {
            problems.push("auto_replay_rate is 0, but must be at least 1; auto_replay=false sends nothing".to_owned());
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
                "buffer_memory is {}, less than one batch of flush_bytes ({}): raise it or lower flush_bytes",
                self.buffer_memory, self.flush_bytes
            ));
        }
    }

    fn time_problems(&self, problems: &mut Vec<String>) {
        if self.connect_timeout.is_zero() {
            problems.push("connect_timeout is 0s, but must be more than zero".to_owned());
        }
        for (name, value) in self.durations() {
            if value > A_YEAR {
                problems.push(format!("{name} is {}, but must be at most a year (8760h)", duration::format(value)));
            }
        }
        if self.delivery_timeout < self.flush_timeout {
            problems.push(format!(
                "delivery_timeout is {}, less than flush_timeout ({}): events would be given up before they are sent; \
                 raise it or lower flush_timeout",
                duration::format(self.delivery_timeout),
                duration::format(self.flush_timeout)
            ));
        }
    }
}

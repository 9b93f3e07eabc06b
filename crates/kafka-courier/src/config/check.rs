//! Checks that types cannot express: the bounds of options, and options that depend on each other.
//!
//! Rule: the problem of two options has both options and both values.

use std::time::Duration;

use kafka_courier_event_model::{TopicMapping, validate_topic_name};

use super::cause::ProblemCause;
use super::problem::ConfigProblem;
use super::{ConfigErrors, KafkaConfig, duration};

/// The longest client id in bytes. The header of a request has 16 bits for the length.
const MAX_CLIENT_ID: usize = 32_767;
/// The smallest memory in bytes that holds an open batch.
const MIN_BUFFER_MEMORY: usize = 1024;

/// The smallest spool in bytes: four files of 16 MiB. Files are freed in their order once two newer ones are in use, and
/// one is reserved for facts.
const MIN_SPOOL_BYTES: u64 = 64 << 20;

/// The longest duration of an option. A deadline further away might not be representable as an instant.
const MAX_DURATION: Duration = Duration::from_secs(365 * 24 * 60 * 60);

impl KafkaConfig {
    /// Returns all problems of the configuration.
    pub(crate) fn problems(&self) -> Vec<ConfigProblem> {
        self.causes().into_iter().map(ConfigProblem::from).collect()
    }

    fn causes(&self) -> Vec<ProblemCause> {
        let mut problems: Vec<_> = self.core().problems().into_iter().map(ProblemCause::from).collect();
        if self.brokers.is_empty() {
            problems.push(not_allowed("brokers", "empty", "at least one broker, such as localhost:9092"));
        }
        if self.client_id.len() > MAX_CLIENT_ID {
            let value = format!("{} bytes long", self.client_id.len());
            problems.push(not_allowed("client_id", &value, "at most 32767 bytes long"));
        }
        self.batch_problems(&mut problems);
        self.time_problems(&mut problems);
        self.security_problems(&mut problems);
        problems.extend(self.checked_mapping().err());
        self.dead_letter_problems(&mut problems);
        if self.spool_max_bytes < MIN_SPOOL_BYTES {
            problems.push(not_allowed("spool_max_bytes", &self.spool_max_bytes.to_string(), "at least 67108864"));
        }
        problems
    }

    /// Returns the mapping of event types to topics.
    ///
    /// # Errors
    /// Returns the problem if `topic_mapping` is invalid, or maps an event type to `dlq_topic`.
    pub(crate) fn mapping(&self) -> Result<TopicMapping, ConfigErrors> {
        self.checked_mapping().map_err(|cause| ConfigProblem::from(cause).into())
    }

    fn checked_mapping(&self) -> Result<TopicMapping, ProblemCause> {
        let mapping = TopicMapping::reserving(&self.dlq_topic);
        mapping.apply(&self.topic_mapping).map_err(ProblemCause::TopicMapping)?;
        match mapping.conflict() {
            None => Ok(mapping),
            Some(event_type) => {
                let (topic, event_type) = (self.dlq_topic.clone(), event_type.to_string());
                Err(ProblemCause::DlqTopicHasEvents { topic, event_type })
            }
        }
    }

    fn dead_letter_problems(&self, problems: &mut Vec<ProblemCause>) {
        if !self.dlq_topic.is_empty()
            && let Err(error) = validate_topic_name(&self.dlq_topic)
        {
            problems.push(ProblemCause::DlqTopicName { topic: self.dlq_topic.clone(), error });
        }
        if self.auto_replay_rate == 0 {
            problems.push(ProblemCause::NoReplayRate);
        }
        if self.auto_replay_interval.is_zero() {
            problems.push(not_allowed("auto_replay_interval", "0s", "more than zero"));
        }
    }

    fn batch_problems(&self, problems: &mut Vec<ProblemCause>) {
        if self.flush_messages == 0 {
            problems.push(not_allowed("flush_messages", "0", "at least 1"));
        }
        if self.flush_bytes < 128 {
            problems.push(not_allowed("flush_bytes", &self.flush_bytes.to_string(), "at least 128"));
        }
        if self.buffer_memory < MIN_BUFFER_MEMORY {
            problems.push(not_allowed("buffer_memory", &self.buffer_memory.to_string(), "at least 1024"));
        } else if self.buffer_memory < self.flush_bytes.min(1 << 20) {
            problems.push(ProblemCause::BatchExceedsMemory { memory: self.buffer_memory, batch: self.flush_bytes });
        }
    }

    fn time_problems(&self, problems: &mut Vec<ProblemCause>) {
        if self.connect_timeout.is_zero() {
            problems.push(not_allowed("connect_timeout", "0s", "more than zero"));
        }
        for (name, value) in self.durations() {
            if value > MAX_DURATION {
                problems.push(not_allowed(name, &duration::format(value), "at most a year (8760h)"));
            }
        }
        if self.delivery_timeout < self.flush_timeout {
            problems.push(ProblemCause::FlushExceedsDelivery {
                delivery: duration::format(self.delivery_timeout),
                flush: duration::format(self.flush_timeout),
            });
        }
    }
}

fn not_allowed(option: &'static str, value: &str, allowed: &'static str) -> ProblemCause {
    ProblemCause::OutOfBounds { option, value: value.to_owned(), allowed }
}

//! The check of the dead-letter topic's settings, repeated as needed.
//!
//! Rules:
//! - A topic is checked when it is opened, before it accepts dead letters, and again every ten minutes. An unfit topic
//!   is checked each time.
//! - Each result is logged once.
//! - A missing topic is created before its first dead letter is written, if the cluster creates topics on demand, and
//!   then checked. Opening the store creates no topic.

use std::time::{Duration, Instant};

use kafka_courier_client::ErrorCode;
use kafka_courier_producer::Engine;

use super::policy::{TopicWarning, UnfitTopic, check_settings};
use super::reader::TopicReader;

/// How long the result of a check is valid.
const VALID: Duration = Duration::from_secs(600);
/// How long a missing answer is valid.
const VALID_UNANSWERED: Duration = Duration::from_secs(30);

/// The check of a topic's settings, and its last result.
pub(super) struct TopicCheck {
    /// `dlq_max_age`, zero for no limit.
    max_age: Duration,
    /// How long the cluster may take to answer.
    timeout: Duration,
    /// The time until which `found` is valid.
    until: Option<Instant>,
    found: Result<Vec<TopicWarning>, UnfitTopic>,
    /// The last result that was logged or returned to a caller.
    reported: Result<Vec<TopicWarning>, UnfitTopic>,
}

impl TopicCheck {
    pub(super) fn new(max_age: Duration, timeout: Duration) -> Self {
        Self { max_age, timeout, until: None, found: Ok(Vec::new()), reported: Ok(Vec::new()) }
    }

    /// Returns the warnings about the topic, or an error if the topic must not have dead letters. A missing topic has
    /// no warnings.
    pub(super) async fn check(&mut self, reader: &TopicReader) -> Result<Vec<TopicWarning>, UnfitTopic> {
        if self.until.is_some_and(|until| Instant::now() < until) {
            return self.found.clone();
        }
        match self.exists(reader).await {
            false => Ok(Vec::new()),
            true => self.settings(reader).await,
        }
    }

    /// Returns whether the topic exists. Returns true if the cluster does not describe the topic for another reason.
    pub(super) async fn exists(&self, reader: &TopicReader) -> bool {
        let described = reader.log.topic(&reader.topic, Instant::now() + self.timeout).await;
        described.err().and_then(|error| error.code()) != Some(ErrorCode::UNKNOWN_TOPIC_OR_PARTITION)
    }

    /// Checks a topic before a write, as [`check`](Self::check) does. Creates a missing topic. The write reports a
    /// failed creation.
    pub(super) async fn before_writing(&mut self, engine: &Engine, reader: &TopicReader) -> Result<(), UnfitTopic> {
        let mut found = self.check(reader).await;
        if found.is_ok() && self.until.is_none() && engine.partition_count(&reader.topic).await.is_ok() {
            found = self.settings(reader).await;
        }
        self.log(&found);
        found.map(|_| ())
    }

    /// Checks the topic as [`check`](Self::check) does, for a caller that reports the result. The result is not logged.
    pub(super) async fn check_for_caller(&mut self, reader: &TopicReader) -> Result<Vec<TopicWarning>, UnfitTopic> {
        let found = self.check(reader).await;
        self.reported.clone_from(&found);
        found
    }

    /// Checks the topic as [`check`](Self::check) does, and logs the result.
    pub(super) async fn check_and_log(&mut self, reader: &TopicReader) {
        let found = self.check(reader).await;
        self.log(&found);
    }

    /// Requests and checks the settings of an existing topic.
    async fn settings(&mut self, reader: &TopicReader) -> Result<Vec<TopicWarning>, UnfitTopic> {
        let (found, valid) = match reader.log.cleanup(&reader.topic, Instant::now() + self.timeout).await {
            Ok(cleanup) => (check_settings(&reader.topic, &cleanup, self.max_age), VALID),
            Err(error) => {
                let valid = if error.code().is_some() { VALID } else { VALID_UNANSWERED };
                let (topic, reason) = (reader.topic.to_string(), error.to_string());
                (Ok(vec![TopicWarning::Unknown { topic, reason }]), valid)
            }
        };
        self.until = found.is_ok().then(|| Instant::now() + valid);
        self.found.clone_from(&found);
        found
    }

    /// Logs the parts of a result that were not reported before.
    fn log(&mut self, found: &Result<Vec<TopicWarning>, UnfitTopic>) {
        match found {
            Err(unfit) if self.reported.as_ref().err() != Some(unfit) => {
                tracing::error!(error = %unfit, "dead-letter topic refuses dead letters");
            }
            Err(_) => {}
            Ok(warnings) => {
                let before = self.reported.as_deref().unwrap_or_default();
                for warning in warnings.iter().filter(|warning| !before.contains(warning)) {
                    tracing::warn!(%warning, "dead-letter topic may lose dead letters");
                }
            }
        }
        self.reported.clone_from(found);
    }
}

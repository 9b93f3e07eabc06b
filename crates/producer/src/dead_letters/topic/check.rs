//! The check of the dead-letter topic's settings, as often as needed.
//!
//! Rules: a topic is checked when it is opened, before it takes dead letters, and again every ten minutes; one that was
//! found unfit, each time; what is logged is logged once. A topic that is not there is created before its first dead letter
//! is written, where the cluster does that on demand, and then checked; opening it creates nothing.

use std::time::{Duration, Instant};

use kafka_courier_idempotent_sender::core::ErrorCode;

use super::policy::{TopicWarning, UnfitTopic, judge};
use super::task::Reader;
use crate::producer::KafkaProducer;

/// How long an answer of the check counts.
const COUNTS: Duration = Duration::from_secs(600);
/// How long it counts that nobody answered.
const UNANSWERED: Duration = Duration::from_secs(30);

/// What is known of the topic's settings.
pub(super) struct Check {
    /// `dlq_max_age`; zero: no limit.
    max_age: Duration,
    /// How long the cluster may take to answer.
    patience: Duration,
    /// Until when `found` counts.
    until: Option<Instant>,
    found: Result<Vec<TopicWarning>, UnfitTopic>,
    /// What was logged, or returned to who asked for it.
    reported: Result<Vec<TopicWarning>, UnfitTopic>,
}

impl Check {
    pub(super) fn new(max_age: Duration, patience: Duration) -> Self {
        Self { max_age, patience, until: None, found: Ok(Vec::new()), reported: Ok(Vec::new()) }
    }

    /// What is to be said of the topic; an error: it takes no dead letters. Nothing is to be said of one that is not there.
    pub(super) async fn topic(&mut self, reader: &Reader) -> Result<Vec<TopicWarning>, UnfitTopic> {
        if self.until.is_some_and(|until| Instant::now() < until) {
            return self.found.clone();
        }
        match self.exists(reader).await {
            false => Ok(Vec::new()),
            true => self.settings(reader).await,
        }
    }

    /// Whether the topic exists. One that the cluster does not describe, for another reason, may.
    pub(super) async fn exists(&self, reader: &Reader) -> bool {
        let described = reader.log.topic(&reader.topic, Instant::now() + self.patience).await;
        described.err().and_then(|error| error.code()) != Some(ErrorCode::UNKNOWN_TOPIC_OR_PARTITION)
    }

    /// As [`topic`](Self::topic), of a topic that is about to be written: it is created if it is missing. Whether that
    /// works shows when it is written.
    pub(super) async fn before_writing(&mut self, producer: &KafkaProducer, reader: &Reader) -> Result<(), UnfitTopic> {
        let mut found = self.topic(reader).await;
        if found.is_ok() && self.until.is_none() && producer.partition_count(&reader.topic).await.is_ok() {
            found = self.settings(reader).await;
        }
        self.log(&found);
        found.map(|_| ())
    }

    /// As [`topic`](Self::topic), for a caller that reports what is found: it is not logged.
    pub(super) async fn for_caller(&mut self, reader: &Reader) -> Result<Vec<TopicWarning>, UnfitTopic> {
        let found = self.topic(reader).await;
        self.reported.clone_from(&found);
        found
    }

    /// As [`topic`](Self::topic), and logs what is found.
    pub(super) async fn logged(&mut self, reader: &Reader) {
        let found = self.topic(reader).await;
        self.log(&found);
    }

    /// Asks for the settings of a topic that is there.
    async fn settings(&mut self, reader: &Reader) -> Result<Vec<TopicWarning>, UnfitTopic> {
        let (found, counts) = match reader.log.cleanup(&reader.topic, Instant::now() + self.patience).await {
            Ok(cleanup) => (judge(&reader.topic, &cleanup, self.max_age), COUNTS),
            Err(error) => {
                let counts = if error.code().is_some() { COUNTS } else { UNANSWERED };
                let (topic, reason) = (reader.topic.to_string(), error.to_string());
                (Ok(vec![TopicWarning::Unknown { topic, reason }]), counts)
            }
        };
        self.until = found.is_ok().then(|| Instant::now() + counts);
        self.found.clone_from(&found);
        found
    }

    /// Logs what was not reported before.
    fn log(&mut self, found: &Result<Vec<TopicWarning>, UnfitTopic>) {
        match found {
            Err(unfit) if self.reported.as_ref().err() != Some(unfit) => {
                tracing::error!(error = %unfit, "the dead-letter topic takes no dead letters");
            }
            Err(_) => {}
            Ok(warnings) => {
                let before = self.reported.as_deref().unwrap_or_default();
                for warning in warnings.iter().filter(|warning| !before.contains(warning)) {
                    tracing::warn!(%warning, "the dead-letter topic may lose dead letters");
                }
            }
        }
        self.reported.clone_from(found);
    }
}

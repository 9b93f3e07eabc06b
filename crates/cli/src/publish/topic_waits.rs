//! Concurrent waits for topics.
//!
//! Rules:
//! - There is one wait for each topic.
//! - A wait ends with the producer.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use kafka_courier::{KafkaProducer, PublishError};
use tokio::task::{Id, JoinSet};

/// The time before a topic is requested again after an outage.
const PAUSE: Duration = Duration::from_secs(1);

/// A topic at the end of its wait: known, or failed.
pub(super) struct ResolvedTopic {
    pub(super) topic: Arc<str>,
    pub(super) result: Result<(), PublishError>,
}

#[derive(Default)]
pub(super) struct TopicWaits {
    waits: JoinSet<Result<(), PublishError>>,
    names: HashMap<Id, Arc<str>>,
}

impl TopicWaits {
    /// Starts a wait for a topic.
    pub(super) fn wait_for(&mut self, producer: &KafkaProducer, topic: Arc<str>) {
        let (producer, name) = (producer.clone(), topic.clone());
        let wait = self.waits.spawn(async move { producer.learn_topic(&name).await });
        self.names.insert(wait.id(), topic);
    }

    /// Starts another wait for a topic, after a pause.
    pub(super) fn wait_again(&mut self, producer: &KafkaProducer, topic: Arc<str>) {
        let (producer, name) = (producer.clone(), topic.clone());
        let wait = self.waits.spawn(async move {
            tokio::time::sleep(PAUSE).await;
            producer.learn_topic(&name).await
        });
        self.names.insert(wait.id(), topic);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.waits.is_empty()
    }

    /// Returns the next topic that is known or has failed. Returns `None` if there is no wait.
    ///
    /// # Cancel safety
    /// Cancel safe: no topic is lost.
    pub(super) async fn next(&mut self) -> Option<ResolvedTopic> {
        let (id, result) = match self.waits.join_next_with_id().await? {
            Ok(ended) => ended,
            // A task fails only when the runtime ends, which also ends the producer.
            Err(error) => (error.id(), Err(PublishError::Closed)),
        };
        self.names.remove(&id).map(|topic| ResolvedTopic { topic, result })
    }
}

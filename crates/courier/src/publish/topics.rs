//! The topics that are waited for, all at the same time.
//!
//! Rules: each topic is waited for once; a wait ends with the producer.

use std::collections::HashMap;
use std::sync::Arc;

use kafka_courier::{KafkaProducer, PublishError};
use tokio::task::{Id, JoinSet};

/// A topic, and whether it is known now.
pub(super) struct Settled {
    pub(super) topic: Arc<str>,
    pub(super) result: Result<(), PublishError>,
}

#[derive(Default)]
pub(super) struct Topics {
    waits: JoinSet<Result<(), PublishError>>,
    names: HashMap<Id, Arc<str>>,
}

impl Topics {
    /// Begins to wait for a topic.
    pub(super) fn wait_for(&mut self, producer: &KafkaProducer, topic: Arc<str>) {
        let (producer, name) = (producer.clone(), topic.clone());
        let wait = self.waits.spawn(async move { producer.learn_topic(&name).await });
        self.names.insert(wait.id(), topic);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.waits.is_empty()
    }

    /// The next topic that is known, or has failed; none where none is waited for.
    ///
    /// Cancel safety: nothing is lost.
    pub(super) async fn next(&mut self) -> Option<Settled> {
        let (id, result) = match self.waits.join_next_with_id().await? {
            Ok(ended) => ended,
            // It ends early only with the runtime, and the producer with it.
            Err(error) => (error.id(), Err(PublishError::Closed)),
        };
        self.names.remove(&id).map(|topic| Settled { topic, result })
    }
}

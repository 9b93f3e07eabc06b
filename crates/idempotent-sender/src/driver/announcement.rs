//! Announces topics to the layer above, once the topic's batch limit is known.
//!
//! Rule: no producer publishes to a topic before a broker was asked for the topic's `max.message.bytes`.

use kafka_courier_client::TopicId;
use kafka_courier_client::control::TopicLimit;

use super::interface::Upcalls;
use super::io_event::IoEvent;
use super::{Announcement, Driver};

impl<T, U> Driver<T, U>
where
    T: Clone + Send + 'static,
    U: Upcalls<T>,
{
    /// Announces a topic, or first asks for its limit.
    pub(super) fn announce(&mut self, topic: TopicId, available: Vec<bool>) {
        let Some(name) = self.core.topic_name(topic) else { return };
        match self.topics.get_mut(&topic) {
            Some(Announcement::AwaitingLimit(latest)) => *latest = available,
            Some(Announcement::Announced) => self.upcalls.topic_ready(topic, &name, &available),
            None => {
                self.topics.insert(topic, Announcement::AwaitingLimit(available));
                let control = self.control.clone();
                self.spawn_io(async move { IoEvent::Limit(topic, control.topic_limit(name).await) });
            }
        }
    }

    /// Announces the topic. If the limit is unavailable, the next news of the topic asks for the limit again.
    pub(super) fn handle_limit(&mut self, topic: TopicId, limit: TopicLimit) {
        let Some(name) = self.core.topic_name(topic) else { return };
        let held = match limit {
            TopicLimit::Bytes(_) | TopicLimit::Unsupported => self.topics.insert(topic, Announcement::Announced),
            TopicLimit::Unavailable => self.topics.remove(&topic),
        };
        if let TopicLimit::Bytes(bytes) = limit {
            self.upcalls.topic_limit(&name, bytes);
        }
        if let Some(Announcement::AwaitingLimit(available)) = held {
            self.upcalls.topic_ready(topic, &name, &available);
        }
    }
}

//! Topics are announced once their limit is known.
//!
//! Rule: nobody is to publish to a topic before it was asked how large a batch it takes.

use super::Driver;
use super::control::TopicLimit;
use super::events::IoEvent;
use super::words::Upcalls;
use crate::core::TopicId;

/// How far a topic's announcement has come.
pub(super) enum Announcement {
    /// It waits for the topic's limit.
    Held(Vec<bool>),
    Made,
}

impl<T, U> Driver<T, U>
where
    T: Clone + Send + 'static,
    U: Upcalls<T>,
{
    /// Tells of a topic, once its limit is known.
    pub(super) fn announce(&mut self, topic: TopicId, available: Vec<bool>) {
        let Some(name) = self.core.topic_name(topic) else { return };
        match self.topics.get_mut(&topic) {
            Some(Announcement::Held(latest)) => *latest = available,
            Some(Announcement::Made) => self.upcalls.topic_ready(topic, &name, &available),
            None => {
                self.topics.insert(topic, Announcement::Held(available));
                let control = self.control.clone();
                self.start(async move { IoEvent::Limit(topic, control.topic_limit(name).await) });
            }
        }
    }

    /// What the topic takes is known, or can't be had now: then it is asked for again with the next news of the topic.
    pub(super) fn on_limit(&mut self, topic: TopicId, limit: TopicLimit) {
        let Some(name) = self.core.topic_name(topic) else { return };
        let held = match limit {
            TopicLimit::Bytes(_) | TopicLimit::Untold => self.topics.insert(topic, Announcement::Made),
            TopicLimit::NotNow => self.topics.remove(&topic),
        };
        if let TopicLimit::Bytes(bytes) = limit {
            self.upcalls.topic_limit(&name, bytes);
        }
        if let Some(Announcement::Held(available)) = held {
            self.upcalls.topic_ready(topic, &name, &available);
        }
    }
}

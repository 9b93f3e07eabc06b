//! Counts of events whose type has no topic in the mapping. Their publisher may not expect the default topic.

use std::collections::BTreeSet;
use std::sync::Arc;

use indicatif::HumanCount;
use kafka_courier::KafkaProducer;

/// Matches every type without its own topic.
const ANY_TYPE: &str = "*";
/// Largest number of types that the summary names.
const NAMED: usize = 5;

#[derive(Debug)]
pub(super) struct Unmapped {
    /// The default topic, compared by address. `None` if the mapping names a topic for all other types.
    default: Option<Arc<str>>,
    events: u64,
    types: BTreeSet<Box<str>>,
}

impl Unmapped {
    /// Counts the events for this producer's default topic, unless the mapping names a topic for all other types.
    pub(super) fn new(producer: &KafkaProducer, topic_mapping: &str) -> Self {
        let is_chosen =
            |entry: &str| entry.split_once('=').is_some_and(|(event_type, _)| event_type.trim() == ANY_TYPE);
        let default = (!topic_mapping.split(',').any(is_chosen)).then(|| producer.topic_for(ANY_TYPE));
        Self { default, events: 0, types: BTreeSet::new() }
    }

    /// Counts a published event. A topic that the mapping names for the event's type has another address, even if it has the
    /// name of the default topic.
    pub(super) fn note(&mut self, topic: &Arc<str>, event_type: &str) {
        if self.default.as_ref().is_some_and(|default| Arc::ptr_eq(default, topic)) {
            self.events += 1;
            if self.types.len() <= NAMED && !self.types.contains(event_type) {
                self.types.insert(event_type.into());
            }
        }
    }

    /// Returns the line of the summary.
    pub(super) fn line(&self) -> Option<String> {
        let default = self.default.as_ref().filter(|_| self.events > 0)?;
        let events = if self.events == 1 { "event" } else { "events" };
        let mut types = self.types.iter().take(NAMED).map(|name| &**name).collect::<Vec<_>>().join(", ");
        if self.types.len() > NAMED {
            types.push_str(" and others");
        }
        Some(format!(
            "{} {events} of types without a topic in topic_mapping went to {default}: {types}",
            HumanCount(self.events)
        ))
    }
}

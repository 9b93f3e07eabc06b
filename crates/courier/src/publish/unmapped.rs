//! Events of types that no mapping names: they go to the default topic, which their publisher may not have meant.

use std::collections::BTreeSet;
use std::sync::Arc;

use indicatif::HumanCount;
use kafka_courier::KafkaProducer;

/// Stands for every type that has no topic of its own.
const ANY_TYPE: &str = "*";
/// Types that are named.
const NAMED: usize = 5;

#[derive(Debug)]
pub(super) struct Unmapped {
    /// The topic of types without one of their own, by its address; none where somebody chose one for all of them.
    default: Option<Arc<str>>,
    events: u64,
    types: BTreeSet<Box<str>>,
}

impl Unmapped {
    /// Counts what goes to this producer's default topic, unless the mapping names a topic for all other types.
    pub(super) fn new(producer: &KafkaProducer, topic_mapping: &str) -> Self {
        let is_chosen =
            |entry: &str| entry.split_once('=').is_some_and(|(event_type, _)| event_type.trim() == ANY_TYPE);
        let default = (!topic_mapping.split(',').any(is_chosen)).then(|| producer.topic_for(ANY_TYPE));
        Self { default, events: 0, types: BTreeSet::new() }
    }

    /// Notes an event that was published. A topic that the mapping names for its type has another address, also if it has
    /// the same name.
    pub(super) fn note(&mut self, topic: &Arc<str>, event_type: &str) {
        if self.default.as_ref().is_some_and(|default| Arc::ptr_eq(default, topic)) {
            self.events += 1;
            if self.types.len() <= NAMED && !self.types.contains(event_type) {
                self.types.insert(event_type.into());
            }
        }
    }

    /// What the summary says of it.
    pub(super) fn line(&self) -> Option<String> {
        let default = self.default.as_ref().filter(|_| self.events > 0)?;
        let events = if self.events == 1 { "event" } else { "events" };
        let mut types = self.types.iter().take(NAMED).map(|name| &**name).collect::<Vec<_>>().join(", ");
        if self.types.len() > NAMED {
            types.push_str(" and others");
        }
        Some(format!(
            "{} {events} of types without a topic of their own went to {default}: {types} (topic_mapping names topics)",
            HumanCount(self.events)
        ))
    }
}

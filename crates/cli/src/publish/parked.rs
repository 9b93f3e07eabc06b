//! Events that wait for the metadata of their topic, while events of other topics are published.
//!
//! Rules:
//! - The code does no IO.
//! - Events of a topic stay in order.
//! - Memory is bounded: while the store is full, reading pauses until a topic is known or has failed.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use kafka_courier_event_model::AnyEvent;

use super::position::InputPosition;
use super::tally::Ticket;

/// Largest number of parked events.
const EVENTS_MAX: usize = 20_000;
/// Largest number of their bytes.
const BYTES_MAX: usize = 16 << 20;

/// An event that waits for its topic.
#[derive(Debug)]
pub(super) struct ParkedEvent {
    pub(super) position: InputPosition,
    pub(super) check: u64,
    pub(super) event: AnyEvent,
    /// The event's entry in the tally.
    pub(super) ticket: Ticket,
}

#[derive(Debug, Default)]
pub(super) struct Parked {
    topics: HashMap<Arc<str>, VecDeque<ParkedEvent>>,
    events: usize,
    bytes: usize,
}

impl Parked {
    /// Whether no more events can be parked.
    pub(super) fn is_full(&self) -> bool {
        self.events >= EVENTS_MAX || self.bytes >= BYTES_MAX
    }

    /// Whether events of this topic wait.
    pub(super) fn holds(&self, topic: &str) -> bool {
        self.events > 0 && self.topics.contains_key(topic)
    }

    /// Parks an event. Returns whether the event is the first one of its topic.
    pub(super) fn park(&mut self, topic: Arc<str>, waiting: ParkedEvent) -> bool {
        self.events += 1;
        self.bytes += waiting.event.as_str().len();
        let events = self.topics.entry(topic).or_default();
        events.push_back(waiting);
        events.len() == 1
    }

    /// Removes and returns the events of this topic in their order.
    pub(super) fn take(&mut self, topic: &str) -> VecDeque<ParkedEvent> {
        let events = self.topics.remove(topic).unwrap_or_default();
        self.events -= events.len();
        self.bytes -= events.iter().map(|waiting| waiting.event.as_str().len()).sum::<usize>();
        events
    }

    /// Removes and returns all events, each with its topic, in the input's order.
    pub(super) fn take_all(&mut self) -> Vec<(Arc<str>, ParkedEvent)> {
        (self.events, self.bytes) = (0, 0);
        let topics = std::mem::take(&mut self.topics).into_iter();
        let mut all: Vec<_> =
            topics.flat_map(|(topic, events)| events.into_iter().map(move |event| (topic.clone(), event))).collect();
        all.sort_by_key(|(_, waiting)| waiting.position.place);
        all
    }
}

#[cfg(test)]
mod tests {
    use super::super::position::InputPlace;
    use super::*;

    fn waiting(line: u64, text: &str) -> ParkedEvent {
        let position = InputPosition { place: InputPlace::Line(line), start: 0, end: 0 };
        let json =
            format!("{{\"id\":\"{line}\",\"type\":\"t\",\"timestamp\":\"2024-01-15T10:00:00Z\",\"x\":\"{text}\"}}");
        ParkedEvent {
            position,
            check: 0,
            event: AnyEvent::from_json(json.as_bytes()).unwrap(),
            ticket: Ticket::default(),
        }
    }

    fn places<'a>(events: impl IntoIterator<Item = &'a ParkedEvent>) -> Vec<String> {
        events.into_iter().map(|waiting| waiting.position.place.to_string()).collect()
    }

    #[test]
    fn each_topic_keeps_its_order() {
        let mut parked = Parked::default();
        assert!(parked.park("a".into(), waiting(1, "")) && parked.park("b".into(), waiting(2, "")));
        assert!(!parked.park("a".into(), waiting(3, "")) && parked.holds("a") && !parked.holds("c"));
        assert_eq!(places(&parked.take("a")), ["line 1", "line 3"]);
        assert!(!parked.holds("a") && parked.take("a").is_empty());
        parked.park("a".into(), waiting(1, ""));
        let all = parked.take_all();
        assert_eq!(places(all.iter().map(|(_, waiting)| waiting)), ["line 1", "line 2"]);
        assert!(!parked.holds("b"));
    }

    #[test]
    fn count_and_bytes_are_bounded() {
        let (mut many, mut large) = (Parked::default(), Parked::default());
        for line in 0..EVENTS_MAX as u64 {
            assert!(!many.is_full());
            many.park("a".into(), waiting(line, ""));
        }
        large.park("a".into(), waiting(1, &"x".repeat(BYTES_MAX)));
        assert!(many.is_full() && large.is_full());
        many.take("a");
        large.take_all();
        assert!(!many.is_full() && !large.is_full());
    }
}

//! Events that wait for their topic, while those of other topics go on.
//!
//! Rules: pure; events of a topic stay in their order; memory is bounded: once this is full no more events are taken before
//! a topic is known, or has failed.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use kafka_courier_event_model::AnyEvent;

use super::position::Position;
use super::tally::Ticket;

/// Events that may wait.
const EVENTS_MAX: usize = 20_000;
/// Bytes of them.
const BYTES_MAX: usize = 16 << 20;

/// An event that waits for its topic.
#[derive(Debug)]
pub(super) struct Waiting {
    pub(super) position: Position,
    pub(super) event: AnyEvent,
    /// Its place among the receipts.
    pub(super) ticket: Ticket,
}

#[derive(Debug, Default)]
pub(super) struct Parked {
    topics: HashMap<Arc<str>, VecDeque<Waiting>>,
    events: usize,
    bytes: usize,
}

impl Parked {
    /// Whether no more may wait.
    pub(super) fn is_full(&self) -> bool {
        self.events >= EVENTS_MAX || self.bytes >= BYTES_MAX
    }

    /// Whether events of this topic wait.
    pub(super) fn holds(&self, topic: &str) -> bool {
        self.events > 0 && self.topics.contains_key(topic)
    }

    /// Has an event wait. Returns whether it is the first of its topic.
    pub(super) fn park(&mut self, topic: Arc<str>, waiting: Waiting) -> bool {
        self.events += 1;
        self.bytes += waiting.event.as_str().len();
        let events = self.topics.entry(topic).or_default();
        events.push_back(waiting);
        events.len() == 1
    }

    /// The events of this topic, in their order; they wait no more.
    pub(super) fn take(&mut self, topic: &str) -> VecDeque<Waiting> {
        let events = self.topics.remove(topic).unwrap_or_default();
        self.events -= events.len();
        self.bytes -= events.iter().map(|waiting| waiting.event.as_str().len()).sum::<usize>();
        events
    }

    /// All events, each with its topic, in the input's order; none waits any more.
    pub(super) fn take_all(&mut self) -> Vec<(Arc<str>, Waiting)> {
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
    use super::super::position::Place;
    use super::*;

    fn waiting(line: u64, text: &str) -> Waiting {
        let position = Position { place: Place::Line(line), start: 0, end: 0 };
        let json =
            format!("{{\"id\":\"{line}\",\"type\":\"t\",\"timestamp\":\"2024-01-15T10:00:00Z\",\"x\":\"{text}\"}}");
        Waiting { position, event: AnyEvent::from_json(json.as_bytes()).unwrap(), ticket: Ticket::default() }
    }

    fn places<'a>(events: impl IntoIterator<Item = &'a Waiting>) -> Vec<String> {
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

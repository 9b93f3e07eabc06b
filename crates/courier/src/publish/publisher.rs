//! The publisher: takes lines in their order, and hands their events to the producer.
//!
//! Rules:
//! - A line stays here until it was dealt with: whatever interrupts, it is published later or told.
//! - Events of one topic are handed over in the input's order. A topic that is not known yet holds up its own events only.
//! - No more is handed over than the cluster takes in good time (see `pace`).

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use kafka_courier::{Delivery, KafkaProducer, PublishError};
use kafka_courier_event_model::{AnyEvent, Event};

use super::desk::{Desk, End, Patience};
use super::lines::Line;
use super::parked::{Parked, Waiting};
use super::position::{Place, Position};
use super::tally::{Room, Ticket};
use super::topics::{Settled, Topics};
use super::unmapped::Unmapped;

const PUBLISHING: &str = "publishing";
const WAITING_FOR_TOPICS: &str = "waiting for topics";

/// A line that is to be dealt with; one that waited for its topic has a number already.
struct Taken {
    line: Line,
    ticket: Option<Ticket>,
}

pub(super) struct Publisher {
    producer: KafkaProducer,
    /// The topic of all events; else each type's own.
    topic: Option<Arc<str>>,
    /// Whether the first item that is no event ends it.
    strict: bool,
    waiting: VecDeque<Taken>,
    parked: Parked,
    topics: Topics,
    unmapped: Unmapped,
    /// The last item that was handed over, in the input's order.
    reached: Option<Place>,
    /// The item that is no event and ended it.
    bad: Option<Position>,
}

impl Publisher {
    pub(super) fn new(producer: KafkaProducer, topic: Option<Arc<str>>, strict: bool, unmapped: Unmapped) -> Self {
        let (waiting, parked, topics) = (VecDeque::new(), Parked::default(), Topics::default());
        Self { producer, topic, strict, waiting, parked, topics, unmapped, reached: None, bad: None }
    }

    /// Takes lines in, behind those that are there.
    pub(super) fn take(&mut self, lines: Vec<Line>) {
        self.waiting.extend(lines.into_iter().map(|line| Taken { line, ticket: None }));
    }

    /// Whether topics are waited for.
    pub(super) fn waits_for_topics(&self) -> bool {
        !self.topics.is_empty()
    }

    /// The next topic that is known, or has failed. None: none is waited for.
    ///
    /// Cancel safety: nothing is lost.
    pub(super) async fn next_topic(&mut self) -> Option<Settled> {
        self.topics.next().await
    }

    /// Types without a topic of their own, and what was published of them.
    pub(super) fn unmapped(&self) -> &Unmapped {
        &self.unmapped
    }

    /// The last item that was handed over, in the input's order.
    pub(super) fn reached(&self) -> Option<Place> {
        self.reached
    }

    /// The item that is no event and ended it.
    pub(super) fn bad(&self) -> Option<Position> {
        self.bad
    }

    /// Hands over the events of a topic that is known now: they go before all others. Or refuses them, if it failed.
    pub(super) fn on_topic(&mut self, desk: &mut Desk, settled: Settled) {
        let Settled { topic, result } = settled;
        let events = self.parked.take(&topic);
        match result {
            Ok(()) => {
                for Waiting { position, event, ticket } in events.into_iter().rev() {
                    self.waiting.push_front(Taken { line: Line { position, event: Ok(event) }, ticket: Some(ticket) });
                }
            }
            Err(error) => {
                for Waiting { position, event, ticket } in events {
                    desk.keeping.refused(&topic, &event, &error);
                    let at = (Some(ticket), position.place);
                    desk.tally.refused(at, event.id().clone(), topic.clone(), &error);
                }
            }
        }
    }

    /// Deals with all lines that are here. Those whose topic is not known yet may be left, parked.
    pub(super) async fn publish_waiting(&mut self, desk: &mut Desk, patience: Patience) -> Result<(), End> {
        while !self.waiting.is_empty() {
            if self.room(desk) != Room::Yes {
                self.make_room(desk, patience).await?;
            }
            let Some(Taken { line, .. }) = self.waiting.front() else { continue };
            match &line.event {
                Err(why) => {
                    let position = line.position;
                    desk.tally.bad(position.place, why.clone());
                    self.waiting.pop_front();
                    if self.strict {
                        self.bad = Some(position);
                        return Err(End::Strict);
                    }
                }
                Ok(_) => self.publish_first(desk, patience).await?,
            }
            if desk.keeping.is_full() {
                desk.keep().await;
            }
        }
        desk.note(PUBLISHING);
        Ok(())
    }

    /// Waits for all topics, and deals with the events that wait for them.
    pub(super) async fn finish(&mut self, desk: &mut Desk, patience: Patience) -> Result<(), End> {
        self.publish_waiting(desk, patience).await?;
        while self.waits_for_topics() {
            self.wait_for_topic(desk, patience).await?;
            self.publish_waiting(desk, patience).await?;
        }
        Ok(())
    }

    /// Forgets the lines behind the one that ended the reading. Events that wait for their topics come before it.
    pub(super) fn forget_waiting(&mut self) {
        self.waiting.retain(|taken| taken.ticket.is_some());
    }

    /// Deals with the first line, an event: hands it over, parks it, or notes why neither can be.
    async fn publish_first(&mut self, desk: &mut Desk, patience: Patience) -> Result<(), End> {
        let Some(Taken { line: Line { position, event: Ok(event) }, ticket }) = self.waiting.front() else {
            return Ok(());
        };
        desk.check(patience)?;
        let topic = self.topic_of(event);
        let at = (*ticket, position.place);
        match self.offer(&topic, event, desk, patience).await? {
            Ok(delivery) => {
                desk.tally.accepted(at, event.id().clone(), delivery, event.as_str().len());
                self.unmapped.note(&topic, event.event_type());
                self.reached = self.reached.max(Some(position.place));
            }
            Err(PublishError::TopicPending { .. }) if self.parked.is_full() => {
                return self.wait_for_topic(desk, patience).await;
            }
            Err(PublishError::TopicPending { .. }) => {
                let ticket = desk.tally.parked(at, event.id().clone());
                return self.park_first(topic, ticket);
            }
            Err(error) => {
                desk.keeping.refused(&topic, event, &error);
                desk.tally.refused(at, event.id().clone(), topic, &error);
            }
        }
        self.waiting.pop_front();
        Ok(())
    }

    /// Offers an event: it waits for memory, but for no topic.
    async fn offer(
        &self,
        topic: &Arc<str>,
        event: &AnyEvent,
        desk: &mut Desk,
        patience: Patience,
    ) -> Result<Result<Delivery, PublishError>, End> {
        if self.parked.holds(topic) {
            // Those of its topic go before it.
            return Ok(Err(PublishError::TopicPending { topic: topic.clone() }));
        }
        match self.producer.try_publish_to(topic, event) {
            Err(PublishError::BufferFull { .. }) => {
                desk.work(PUBLISHING, patience, self.producer.publish_to(topic, event)).await
            }
            offered => Ok(offered),
        }
    }

    /// Has the first line wait for its topic.
    fn park_first(&mut self, topic: Arc<str>, ticket: Ticket) -> Result<(), End> {
        if let Some(Taken { line: Line { position, event: Ok(event) }, .. }) = self.waiting.pop_front()
            && self.parked.park(topic.clone(), Waiting { position, event, ticket })
        {
            self.topics.wait_for(&self.producer, topic);
        }
        Ok(())
    }

    /// Whether the first line may be dealt with now. One that waited for its topic has a place among those whose receipts are
    /// to come, and all others may wait for it there.
    fn room(&self, desk: &mut Desk) -> Room {
        let has_place = self.waiting.front().is_some_and(|taken| taken.ticket.is_some());
        match desk.tally.room() {
            Room::Full if has_place => Room::Yes,
            room => room,
        }
    }

    /// Waits until the first line may be dealt with.
    async fn make_room(&mut self, desk: &mut Desk, patience: Patience) -> Result<(), End> {
        desk.keep().await;
        desk.tally.note_settled();
        if self.room(desk) == Room::Paced {
            // Nothing is added to the open batches for now: they go as they are.
            self.producer.flush(Duration::ZERO).await;
        }
        while self.room(desk) != Room::Yes {
            desk.check(patience)?;
            match desk.tally.oldest() {
                // Its verdict is noted with the others'.
                Some(oldest) => drop(desk.work(PUBLISHING, patience, oldest).await?),
                None if self.waits_for_topics() => self.wait_for_topic(desk, patience).await?,
                None => {
                    desk.keep().await;
                    tokio::task::yield_now().await;
                }
            }
            desk.tally.note_settled();
        }
        Ok(())
    }

    async fn wait_for_topic(&mut self, desk: &mut Desk, patience: Patience) -> Result<(), End> {
        if let Some(settled) = desk.work(WAITING_FOR_TOPICS, patience, self.topics.next()).await? {
            self.on_topic(desk, settled);
        }
        Ok(())
    }

    /// Reports all items that were read and are still here as not published. Returns the place of the first such event.
    pub(super) fn leave_all(&mut self, desk: &mut Desk) -> Option<Place> {
        let parked = self.parked.take_all().into_iter().map(|(topic, Waiting { position, event, ticket })| {
            let line = Line { position, event: Ok(event) };
            (Some(topic), Taken { line, ticket: Some(ticket) })
        });
        let waiting = std::mem::take(&mut self.waiting).into_iter().map(|taken| (None, taken));
        let mut first = None;
        for (topic, Taken { line: Line { position, event }, ticket }) in parked.chain(waiting) {
            let Position { place, .. } = position;
            match event {
                Ok(event) => {
                    let topic = topic.unwrap_or_else(|| self.topic_of(&event));
                    first = Some(first.map_or(place, |first: Place| first.min(place)));
                    desk.keeping.refused(&topic, &event, &PublishError::Closed);
                    desk.tally.unpublished((ticket, place), event.id().clone(), topic);
                }
                Err(why) => desk.tally.bad(place, why),
            }
        }
        first
    }

    fn topic_of(&self, event: &AnyEvent) -> Arc<str> {
        self.topic.clone().unwrap_or_else(|| self.producer.topic_for(event.event_type()))
    }
}

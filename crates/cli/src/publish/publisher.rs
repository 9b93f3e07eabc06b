//! The publisher: it takes lines in input order and passes their events to the producer.
//!
//! Rules:
//! - A line stays in the queue until it is processed. An interruption loses no line: it is published later or reported.
//! - Events of one topic are published in input order. A topic that is not known yet delays only its own events.
//! - The pace of the cluster limits publishing (see `pace`). The disk sets the pace with a spool.
//! - An event waits for memory, for room on the disk, and for the metadata of its topic without limit, if there is a spool.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use kafka_courier::spool::{InputId, InputItem};
use kafka_courier::{Delivery, KafkaProducer, PublishError};
use kafka_courier_event_model::{AnyEvent, Event};

use super::line_channel::InputLine;
use super::monitor::{Monitor, StopConditions, StopReason};
use super::parked::{Parked, ParkedEvent};
use super::position::{InputPlace, InputPosition};
use super::refusal::Refusal;
use super::tally::{Room, Ticket};
use super::topic_waits::{ResolvedTopic, TopicWaits};
use super::unmapped::Unmapped;

const PUBLISHING: &str = "publishing";
/// The pause before an event that found no room is offered again.
const ROOM_PAUSE: Duration = Duration::from_millis(20);
const WAITING_FOR_TOPICS: &str = "waiting for topics";

/// A line in the queue. A line that waited for its topic already has a ticket.
struct QueuedLine {
    line: InputLine,
    ticket: Option<Ticket>,
}

/// The spool of a publisher, and its input if that is a file.
#[derive(Clone, Copy, Debug)]
pub(super) struct SpooledLines(pub(super) Option<InputId>);

pub(super) struct Publisher {
    producer: KafkaProducer,
    /// The topic of all events. `None`: each type has its own topic.
    topic: Option<Arc<str>>,
    /// Whether the first item that is not an event ends publishing.
    strict: bool,
    waiting: VecDeque<QueuedLine>,
    parked: Parked,
    topics: TopicWaits,
    unmapped: Unmapped,
    spool: Option<SpooledLines>,
    /// The last published item in input order.
    reached: Option<InputPlace>,
    /// The item that is not an event and ended publishing.
    bad: Option<InputPosition>,
}

impl Publisher {
    pub(super) fn new(
        producer: KafkaProducer,
        topic: Option<Arc<str>>,
        strict: bool,
        unmapped: Unmapped,
        spool: Option<SpooledLines>,
    ) -> Self {
        let (waiting, parked, topics) = (VecDeque::new(), Parked::default(), TopicWaits::default());
        Self { producer, topic, strict, waiting, parked, topics, unmapped, spool, reached: None, bad: None }
    }

    /// Returns the item of a line, if the input has a durable position.
    fn item(&self, position: InputPosition, check: u64) -> Option<InputItem> {
        let input = self.spool?.0?;
        Some(InputItem { input, number: position.place.number(), check })
    }

    /// Adds lines to the end of the queue.
    pub(super) fn take(&mut self, lines: Vec<InputLine>) {
        self.waiting.extend(lines.into_iter().map(|line| QueuedLine { line, ticket: None }));
    }

    /// Whether a topic is pending.
    pub(super) fn waits_for_topics(&self) -> bool {
        !self.topics.is_empty()
    }

    /// Returns the next topic that is known or has failed. Returns `None` if no topic is pending.
    ///
    /// # Cancel safety
    /// Cancel safe: no topic is lost.
    pub(super) async fn next_topic(&mut self) -> Option<ResolvedTopic> {
        self.topics.next().await
    }

    /// Returns the counts of events whose type has no topic in the mapping.
    pub(super) fn unmapped(&self) -> &Unmapped {
        &self.unmapped
    }

    /// Returns the last published item in input order.
    pub(super) fn reached(&self) -> Option<InputPlace> {
        self.reached
    }

    /// Returns the item that is not an event and ended publishing.
    pub(super) fn bad(&self) -> Option<InputPosition> {
        self.bad
    }

    /// Moves the events of a topic that is now known to the front of the queue, or fails them if the topic has failed.
    ///
    /// # Errors
    /// [`StopReason::SpoolFailed`] if the producer of a spool has ended. The events stay parked.
    pub(super) fn topic_resolved(&mut self, monitor: &mut Monitor, settled: ResolvedTopic) -> Result<(), StopReason> {
        let ResolvedTopic { topic, result } = settled;
        match result.as_ref().err().map(|error| Refusal::of(error, self.spool.is_some())) {
            Some(Refusal::Ended) => return Err(StopReason::SpoolFailed),
            Some(Refusal::Topic | Refusal::Room) => {
                self.topics.wait_again(&self.producer, topic);
                return Ok(());
            }
            Some(Refusal::Event) | None => {}
        }
        let events = self.parked.take(&topic);
        match result {
            Ok(()) => {
                for ParkedEvent { position, check, event, ticket } in events.into_iter().rev() {
                    self.waiting.push_front(QueuedLine {
                        line: InputLine { position, check, event: Ok(event) },
                        ticket: Some(ticket),
                    });
                }
            }
            Err(error) => {
                for ParkedEvent { position, check, event, ticket } in events {
                    let item = self.item(position, check);
                    let letter = monitor.dead_letters.refused(&topic, &event, &error, item);
                    monitor.skip(item, letter);
                    let at = (Some(ticket), position.place);
                    monitor.tally.refused(at, event.id().clone(), topic.clone(), &error);
                }
            }
        }
        Ok(())
    }

    /// Processes all lines in the queue. Events whose topic is not known yet may stay parked.
    pub(super) async fn publish_waiting(
        &mut self,
        monitor: &mut Monitor,
        conditions: StopConditions,
    ) -> Result<(), StopReason> {
        while !self.waiting.is_empty() {
            if self.room(monitor) != Room::Yes {
                self.make_room(monitor, conditions).await?;
            }
            let Some(QueuedLine { line, .. }) = self.waiting.front() else { continue };
            match &line.event {
                Err(error) => {
                    let position = line.position;
                    monitor.tally.bad(position.place, error.to_string());
                    if !self.strict {
                        monitor.skip(self.item(position, line.check), None);
                    }
                    self.waiting.pop_front();
                    if self.strict {
                        self.bad = Some(position);
                        return Err(StopReason::Strict);
                    }
                }
                Ok(_) => self.publish_first(monitor, conditions).await?,
            }
            if monitor.is_full() {
                monitor.keep().await;
            }
        }
        monitor.update(PUBLISHING);
        Ok(())
    }

    /// Waits for all topics, and processes the events that wait for them.
    pub(super) async fn finish(&mut self, monitor: &mut Monitor, conditions: StopConditions) -> Result<(), StopReason> {
        self.publish_waiting(monitor, conditions).await?;
        while self.waits_for_topics() {
            self.wait_for_topic(monitor, conditions).await?;
            self.publish_waiting(monitor, conditions).await?;
        }
        Ok(())
    }

    /// Drops the lines after the one that ended reading. Lines with a ticket precede that line.
    pub(super) fn forget_waiting(&mut self) {
        self.waiting.retain(|taken| taken.ticket.is_some());
    }

    /// Processes the first line, an event: publishes it, parks it, or records its failure.
    async fn publish_first(&mut self, monitor: &mut Monitor, conditions: StopConditions) -> Result<(), StopReason> {
        let Some(QueuedLine { line: InputLine { position, check, event: Ok(event) }, ticket }) = self.waiting.front()
        else {
            return Ok(());
        };
        monitor.check(conditions)?;
        let topic = self.topic_of(event);
        let at = (*ticket, position.place);
        let item = self.item(*position, *check);
        let offered = self.offer((&topic, event, item), monitor, conditions).await?;
        let refusal = offered.as_ref().err().map(|error| Refusal::of(error, self.spool.is_some()));
        match (offered, refusal) {
            (Ok(delivery), _) => {
                monitor.tally.accepted(at, event.id().clone(), delivery, event.as_str().len());
                self.unmapped.note(&topic, event.event_type());
                self.reached = self.reached.max(Some(position.place));
            }
            (Err(_), Some(Refusal::Topic)) if self.parked.is_full() => {
                return self.wait_for_topic(monitor, conditions).await;
            }
            (Err(_), Some(Refusal::Topic)) => {
                let ticket = monitor.tally.parked(at, event.id().clone());
                return self.park_first(topic, ticket);
            }
            (Err(_), Some(Refusal::Room)) => {
                return monitor.run(PUBLISHING, conditions, tokio::time::sleep(ROOM_PAUSE)).await;
            }
            (Err(_), Some(Refusal::Ended)) => return Err(StopReason::SpoolFailed),
            (Err(error), _) => {
                let letter = monitor.dead_letters.refused(&topic, event, &error, item);
                monitor.skip(item, letter);
                monitor.tally.refused(at, event.id().clone(), topic, &error);
            }
        }
        self.waiting.pop_front();
        Ok(())
    }

    /// Offers an event to the producer. Waits for memory, but not for a topic.
    async fn offer(
        &self,
        (topic, event, item): (&Arc<str>, &AnyEvent, Option<InputItem>),
        monitor: &mut Monitor,
        conditions: StopConditions,
    ) -> Result<Result<Delivery, PublishError>, StopReason> {
        if self.parked.holds(topic) {
            // Earlier events of the topic are parked.
            return Ok(Err(PublishError::TopicPending { topic: topic.clone() }));
        }
        let offered = match &item {
            Some(item) => self.producer.try_publish_item(topic, event, item),
            None => self.producer.try_publish_to(topic, event),
        };
        match (offered, item) {
            (Err(PublishError::BufferFull { .. } | PublishError::SpoolFull { .. }), Some(item)) => {
                monitor.run(PUBLISHING, conditions, self.producer.publish_item(topic, event, &item)).await
            }
            (Err(PublishError::BufferFull { .. } | PublishError::SpoolFull { .. }), None) => {
                monitor.run(PUBLISHING, conditions, self.producer.publish_to(topic, event)).await
            }
            (offered, _) => Ok(offered),
        }
    }

    /// Parks the first line.
    fn park_first(&mut self, topic: Arc<str>, ticket: Ticket) -> Result<(), StopReason> {
        if let Some(QueuedLine { line: InputLine { position, check, event: Ok(event) }, .. }) = self.waiting.pop_front()
            && self.parked.park(topic.clone(), ParkedEvent { position, check, event, ticket })
        {
            self.topics.wait_for(&self.producer, topic);
        }
        Ok(())
    }

    /// Whether the first line may be processed now. A line with a ticket already has an entry in the tally, for which all
    /// later entries may wait.
    fn room(&self, monitor: &mut Monitor) -> Room {
        let has_place = self.waiting.front().is_some_and(|taken| taken.ticket.is_some());
        match monitor.tally.room() {
            Room::Full if has_place => Room::Yes,
            room => room,
        }
    }

    /// Waits until the first line may be processed.
    async fn make_room(&mut self, monitor: &mut Monitor, conditions: StopConditions) -> Result<(), StopReason> {
        monitor.keep().await;
        monitor.tally.note_settled();
        if self.room(monitor) == Room::Paced {
            // No event joins the open batches for now, so they are sent as they are.
            self.producer.flush(Duration::ZERO).await;
        }
        while self.room(monitor) != Room::Yes {
            monitor.check(conditions)?;
            match monitor.tally.oldest() {
                // The tally records the verdict.
                Some(oldest) if self.spool.is_some() => {
                    drop(monitor.run(PUBLISHING, conditions, oldest.stored()).await?);
                }
                Some(oldest) => drop(monitor.run(PUBLISHING, conditions, oldest).await?),
                None if self.waits_for_topics() => self.wait_for_topic(monitor, conditions).await?,
                None => {
                    monitor.keep().await;
                    tokio::task::yield_now().await;
                }
            }
            monitor.tally.note_settled();
        }
        Ok(())
    }

    async fn wait_for_topic(&mut self, monitor: &mut Monitor, conditions: StopConditions) -> Result<(), StopReason> {
        match monitor.run(WAITING_FOR_TOPICS, conditions, self.topics.next()).await? {
            Some(settled) => self.topic_resolved(monitor, settled),
            None => Ok(()),
        }
    }

    /// Reports all items in the queue and all parked events as not published. Returns the place of the first such event.
    pub(super) fn report_unpublished(&mut self, monitor: &mut Monitor) -> Option<InputPlace> {
        let parked =
            self.parked.take_all().into_iter().map(|(topic, ParkedEvent { position, check, event, ticket })| {
                let line = InputLine { position, check, event: Ok(event) };
                (Some(topic), QueuedLine { line, ticket: Some(ticket) })
            });
        let waiting = std::mem::take(&mut self.waiting).into_iter().map(|taken| (None, taken));
        let mut first = None;
        for (topic, QueuedLine { line: InputLine { position, check: _, event }, ticket }) in parked.chain(waiting) {
            let InputPosition { place, .. } = position;
            match event {
                Ok(event) => {
                    let topic = topic.unwrap_or_else(|| self.topic_of(&event));
                    first = Some(first.map_or(place, |first: InputPlace| first.min(place)));
                    monitor.dead_letters.refused(&topic, &event, &PublishError::Closed, None);
                    monitor.tally.unpublished((ticket, place), event.id().clone(), topic);
                }
                Err(why) => monitor.tally.bad(place, why.to_string()),
            }
        }
        first
    }

    /// Drops the lines that were not published. They are still in the input.
    pub(super) fn forget_unpublished(&mut self, monitor: &mut Monitor) {
        let waiting = std::mem::take(&mut self.waiting).into_iter().filter_map(|taken| taken.ticket);
        let parked = self.parked.take_all().into_iter().map(|(_, parked)| parked.ticket);
        monitor.tally.forget(waiting.chain(parked));
    }

    fn topic_of(&self, event: &AnyEvent) -> Arc<str> {
        self.topic.clone().unwrap_or_else(|| self.producer.topic_for(event.event_type()))
    }
}

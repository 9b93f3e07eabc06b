//! The outcome of each item: counts, receipts, and printed failures.
//!
//! Rules:
//! - Every item of the input is counted exactly once.
//! - Receipts have the order of the input.
//! - Only the first failures are printed one by one. All are counted by reason and topic.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use kafka_courier::{Delivery, DeliveryError, FailedOutcome, PublishError, RecordMetadata};
use kafka_courier_event_model::EventId;

use super::counts::InputCounts;
use super::pace::Pace;
use super::position::InputPlace;
use super::reasons::Reasons;
use super::receipts::{ReceiptLine, Receipts};

/// Largest number of items without a written receipt.
const LATE_VERDICTS: usize = 50_000;
/// Failures that are printed one by one.
const PRINTED: u64 = 20;

/// The number of an item whose outcome is not decided yet.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Ticket(u64);

/// Whether another event may be published.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Room {
    Yes,
    /// The window of the pace is full until more verdicts arrive.
    Paced,
    /// Too many items wait for their receipts.
    Full,
}

/// An item whose receipt is not written yet.
struct TallyEntry {
    place: InputPlace,
    id: Option<EventId>,
    state: ItemState,
}

type DeliveryResult = Result<RecordMetadata, DeliveryError>;

/// The end of an accepted event, for this run.
enum ItemEnd {
    Verdict(DeliveryResult),
    /// The spool has the event.
    Stored,
}

/// Returns the end of an event, if it is known. An event that is stored has its end, whatever its verdict.
fn end_of(delivery: &Delivery, is_spooled: bool) -> Option<ItemEnd> {
    match delivery.now() {
        Some(Ok(metadata)) => Some(ItemEnd::Verdict(Ok(metadata))),
        _ if is_spooled && delivery.is_stored() => Some(ItemEnd::Stored),
        verdict => verdict.map(ItemEnd::Verdict),
    }
}

enum ItemState {
    /// The event's topic is not known yet.
    Parked,
    /// The producer accepted the event.
    Pending {
        delivery: Delivery,
        /// The event's bytes in the pace and the time of its publishing. `None` once the pace has its verdict.
        open: Option<(u64, Instant)>,
    },
    /// The producer did not accept the event, which is counted. The receipt waits for the dead letter with this number.
    Refused { topic: Arc<str>, error: String, letter: u64 },
    /// The item is not an event, and is counted.
    Bad(String),
    /// The event was not published, and is still in the input.
    Forgotten,
}

pub(super) struct Tally {
    queue: VecDeque<TallyEntry>,
    /// Number of items that have left the queue.
    noted: u64,
    /// Entries before this index wait for no verdict.
    first_open: usize,
    pace: Pace,
    delivery_timeout: Duration,
    /// The time of the last check of verdicts.
    now: Instant,
    counts: InputCounts,
    reasons: Reasons,
    printed: u64,
    /// Number of events that were not accepted.
    refused: u64,
    /// Number of the first of them whose dead letters are stored.
    kept: u64,
    receipts: Receipts,
    /// Whether the producer has a spool.
    is_spooled: bool,
    /// Prints a line.
    show: Box<dyn Fn(&str) + Send>,
}

impl Tally {
    pub(super) fn new(
        receipts: Receipts,
        delivery_timeout: Duration,
        is_spooled: bool,
        show: Box<dyn Fn(&str) + Send>,
    ) -> Self {
        Self {
            queue: VecDeque::new(),
            noted: 0,
            first_open: 0,
            pace: Pace::new(delivery_timeout),
            delivery_timeout,
            now: Instant::now(),
            counts: InputCounts::default(),
            reasons: Reasons::default(),
            printed: 0,
            refused: 0,
            kept: 0,
            receipts,
            is_spooled,
            show,
        }
    }

    pub(super) fn counts(&self) -> &InputCounts {
        &self.counts
    }

    /// Returns the number of items without a verdict or receipt.
    pub(super) fn in_flight(&self) -> usize {
        self.queue.len()
    }

    /// Returns the reasons of failures, and whether some failures were not printed.
    pub(super) fn reasons(&self) -> (&Reasons, bool) {
        (&self.reasons, self.printed > PRINTED)
    }

    /// Returns the error that ended the writing of receipts.
    pub(super) fn receipts_failed(&self) -> Option<&io::Error> {
        self.receipts.failed()
    }

    /// Returns whether another event may be published.
    pub(super) fn room(&mut self) -> Room {
        let oldest = self.oldest_open().and_then(|(_, open)| open).map(|(_, at)| at);
        if !self.pace.has_room(oldest, self.now) {
            Room::Paced
        } else if self.queue.len() >= LATE_VERDICTS {
            Room::Full
        } else {
            Room::Yes
        }
    }

    /// Adds an accepted event, with the size of its JSON in bytes.
    pub(super) fn accepted(&mut self, at: (Option<Ticket>, InputPlace), id: EventId, delivery: Delivery, bytes: usize) {
        let open = Some((self.pace.handed_over(bytes), self.now));
        self.enter(at, Some(id), ItemState::Pending { delivery, open });
    }

    /// Adds an event that waits for its topic. Returns its ticket.
    pub(super) fn parked(&mut self, at: (Option<Ticket>, InputPlace), id: EventId) -> Ticket {
        self.enter(at, Some(id), ItemState::Parked)
    }

    /// Adds an event that was not accepted.
    pub(super) fn refused(
        &mut self,
        at: (Option<Ticket>, InputPlace),
        id: EventId,
        topic: Arc<str>,
        error: &PublishError,
    ) {
        let why = error.to_string();
        self.counts.not_written += 1;
        self.counts.refusals += u64::from(error.is_refusal());
        self.counts.retriable += u64::from(error.is_retriable());
        match error {
            PublishError::Topic { reason, .. } => self.reasons.add(Some(&topic), reason.name(), &reason.to_string()),
            _ => self.reasons.add(Some(&topic), error.name(), &why),
        }
        self.print(at.1, &why);
        self.enter_refused(at, id, topic, why);
    }

    /// Adds an event that was read and not published, because the command ends.
    pub(super) fn unpublished(&mut self, at: (Option<Ticket>, InputPlace), id: EventId, topic: Arc<str>) {
        self.counts.unpublished += 1;
        self.counts.retriable += 1;
        self.enter_refused(at, id, topic, "not published: courier had to end".to_owned());
    }

    fn enter_refused(&mut self, at: (Option<Ticket>, InputPlace), id: EventId, topic: Arc<str>, error: String) {
        let letter = self.refused;
        self.refused += 1;
        self.enter(at, Some(id), ItemState::Refused { topic, error, letter });
    }

    /// Records that the dead letters of all events that were not accepted are stored. Their receipts can be written.
    pub(super) fn kept(&mut self) {
        self.kept = self.refused;
    }

    /// Adds an item that is not an event.
    pub(super) fn bad(&mut self, place: InputPlace, error: String) {
        self.counts.bad += 1;
        self.reasons.add(None, error.clone(), &error);
        self.print(place, &error);
        self.enter((None, place), None, ItemState::Bad(error));
    }

    /// Adds an item, or updates the entry of an item with a ticket.
    fn enter(
        &mut self,
        (ticket, place): (Option<Ticket>, InputPlace),
        id: Option<EventId>,
        state: ItemState,
    ) -> Ticket {
        let entry = TallyEntry { place, id, state };
        let index = ticket.and_then(|Ticket(number)| usize::try_from(number.checked_sub(self.noted)?).ok());
        match (ticket, index.and_then(|index| Some((index, self.queue.get_mut(index)?)))) {
            (Some(ticket), Some((index, there))) => {
                *there = entry;
                self.first_open = self.first_open.min(index);
                ticket
            }
            _ => {
                self.queue.push_back(entry);
                Ticket(self.noted + self.queue.len() as u64 - 1)
            }
        }
    }

    /// Records all known verdicts, from the oldest item on.
    pub(super) fn note_settled(&mut self) {
        self.now = Instant::now();
        while let Some(oldest) = self.queue.front() {
            let verdict = match &oldest.state {
                ItemState::Pending { delivery, .. } => match end_of(delivery, self.is_spooled) {
                    None => break,
                    end => end,
                },
                ItemState::Parked => break,
                ItemState::Refused { letter, .. } if *letter >= self.kept => break,
                ItemState::Refused { .. } | ItemState::Bad(_) | ItemState::Forgotten => None,
            };
            self.note_oldest(verdict);
        }
        // The pace also gets the verdicts of items behind one that waits for its topic or its dead letter.
        let is_spooled = self.is_spooled;
        while let Some((delivery, _)) = self.oldest_open() {
            if end_of(delivery, is_spooled).is_none() {
                return;
            }
            if let Some(ItemState::Pending { open, .. }) =
                self.queue.get_mut(self.first_open).map(|entry| &mut entry.state)
                && let Some((bytes, at)) = open.take()
            {
                self.pace.settled(bytes, at, self.now);
            }
        }
    }

    /// Returns the oldest event without a verdict, with its bytes and the time of its publishing.
    fn oldest_open(&mut self) -> Option<(&Delivery, Option<(u64, Instant)>)> {
        while let Some(entry) = self.queue.get(self.first_open) {
            if matches!(entry.state, ItemState::Pending { open: Some(_), .. }) {
                break;
            }
            self.first_open += 1;
        }
        match &self.queue.get(self.first_open)?.state {
            ItemState::Pending { delivery, open } => Some((delivery, *open)),
            _ => None,
        }
    }

    /// Returns the delivery of the oldest event without a verdict.
    pub(super) fn oldest(&mut self) -> Option<Delivery> {
        self.oldest_open().map(|(delivery, _)| delivery.clone())
    }

    /// Returns the time at which the oldest event without a verdict fails at the latest.
    pub(super) fn first_deadline(&mut self) -> Option<Instant> {
        let (_, at) = self.oldest_open()?.1?;
        at.checked_add(self.delivery_timeout)
    }

    /// Removes events that wait for their topics: the run ends, and they are still in the input.
    pub(super) fn forget(&mut self, tickets: impl Iterator<Item = Ticket>) {
        for Ticket(number) in tickets {
            let index = number.checked_sub(self.noted).and_then(|index| usize::try_from(index).ok());
            if let Some(entry) = index.and_then(|index| self.queue.get_mut(index)) {
                entry.state = ItemState::Forgotten;
            }
        }
    }

    /// Records all remaining items. Events without a verdict are counted as unknown.
    pub(super) fn note_all(&mut self) {
        while !self.queue.is_empty() {
            self.note_settled();
            self.note_oldest(None);
        }
    }

    fn note_oldest(&mut self, end: Option<ItemEnd>) {
        let Some(TallyEntry { place, id, state }) = self.queue.pop_front() else { return };
        self.noted += 1;
        self.first_open = self.first_open.saturating_sub(1);
        let empty = ReceiptLine { id: id.as_ref(), ..ReceiptLine::of(place) };
        match state {
            ItemState::Pending { delivery, open } => {
                if let Some((bytes, at)) = open {
                    self.pace.settled(bytes, at, self.now);
                }
                let at = ReceiptLine { topic: Some(delivery.topic()), partition: Some(delivery.partition()), ..empty };
                match end {
                    Some(ItemEnd::Stored) => {
                        self.counts.stored += 1;
                        self.receipts.write(&ReceiptLine { outcome: Some("stored"), ..at });
                    }
                    Some(ItemEnd::Verdict(verdict)) => self.note_verdict(at, Some(verdict)),
                    None => self.note_verdict(at, None),
                }
            }
            ItemState::Refused { topic, error, .. } => {
                let outcome = Some(FailedOutcome::NotWritten.as_str());
                self.receipts.write(&ReceiptLine { topic: Some(&topic), outcome, error: Some(&error), ..empty });
            }
            ItemState::Bad(error) => self.receipts.write(&ReceiptLine { error: Some(&error), ..empty }),
            ItemState::Forgotten => {}
            // The publisher leaves no parked event.
            ItemState::Parked => debug_assert!(false, "{place} was never published"),
        }
    }

    fn note_verdict(&mut self, at: ReceiptLine<'_>, verdict: Option<DeliveryResult>) {
        let (outcome, error, kind, reason) = match verdict {
            Some(Ok(metadata)) => {
                match self.is_spooled {
                    true => self.counts.stored += 1,
                    false => self.counts.delivered += 1,
                }
                return self.receipts.write(&ReceiptLine { offset: metadata.offset, ..at });
            }
            Some(Err(error)) => {
                self.counts.refusals += u64::from(error.is_refusal());
                self.counts.retriable += u64::from(error.is_retriable());
                (error.outcome(), error.to_string(), error.reason().name(), error.reason().to_string())
            }
            None => {
                self.counts.retriable += 1;
                let why = "no verdict: courier was ended before it came".to_owned();
                (FailedOutcome::Unknown, why.clone(), "no_verdict", why)
            }
        };
        match outcome {
            FailedOutcome::NotWritten => self.counts.not_written += 1,
            FailedOutcome::Unknown => self.counts.unknown += 1,
        }
        self.reasons.add(at.topic, kind, &reason);
        self.print(at.place, &error);
        self.receipts.write(&ReceiptLine { outcome: Some(outcome.as_str()), error: Some(&error), ..at });
    }

    /// Prints the first failures one by one.
    fn print(&mut self, place: InputPlace, error: &str) {
        self.printed += 1;
        if self.printed <= PRINTED {
            (self.show)(&format!("{place}: {error}"));
        } else if self.printed == PRINTED + 1 {
            (self.show)("more failures follow and are only counted (--receipts lists all of them)");
        }
    }

    /// Writes the buffered receipts.
    pub(super) fn flush(&mut self) {
        self.receipts.flush();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tally() -> Tally {
        Tally::new(Receipts::default(), Duration::from_secs(30), false, Box::new(|_| {}))
    }

    #[test]
    fn invalid_items_settle_immediately() {
        let mut tally = tally();
        tally.bad(InputPlace::Line(1), "x".to_owned());
        assert_eq!((tally.in_flight(), tally.counts().total()), (1, 1));
        tally.note_settled();
        assert_eq!((tally.in_flight(), tally.counts().total()), (0, 1));
        assert_eq!(tally.room(), Room::Yes);
    }

    #[test]
    fn parked_event_keeps_its_place() {
        let mut tally = tally();
        tally.bad(InputPlace::Line(1), "x".to_owned());
        let ticket = tally.parked((None, InputPlace::Line(2)), EventId::parse("a").unwrap());
        tally.bad(InputPlace::Line(3), "x".to_owned());
        tally.note_settled();
        assert_eq!(tally.in_flight(), 2);
        tally.unpublished((Some(ticket), InputPlace::Line(2)), EventId::parse("a").unwrap(), "t".into());
        tally.note_settled();
        assert_eq!(tally.in_flight(), 2, "the dead letter is not stored yet");
        tally.kept();
        tally.note_settled();
        assert_eq!((tally.in_flight(), tally.counts().total()), (0, 3));
    }
}

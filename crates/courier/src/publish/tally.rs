//! What became of each event: counts, receipts, and the lines that name what failed.
//!
//! Rules: every item of the input is counted exactly once; receipts stand in the order of the input; only the first
//! failures are printed one by one, the rest is counted by reason and topic.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use kafka_courier::{Delivery, DeliveryError, FailedOutcome, PublishError, RecordMetadata};
use kafka_courier_event_model::EventId;

use super::counts::Counts;
use super::pace::Pace;
use super::position::Place;
use super::reasons::Reasons;
use super::receipts::{Receipt, Receipts};

/// Items whose verdict may be noted late.
const LATE_VERDICTS: usize = 50_000;
/// Failures that are printed one by one.
const PRINTED: u64 = 20;

/// The number of an item whose fate is decided later.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Ticket(u64);

/// Whether another event may be handed over.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Room {
    Yes,
    /// The cluster takes no more at the moment: verdicts have to come first.
    Paced,
    /// Too many items wait for their receipts.
    Full,
}

/// An item whose receipt is still to be written.
struct Entry {
    place: Place,
    id: Option<EventId>,
    fate: Fate,
}

type Verdict = Result<RecordMetadata, DeliveryError>;

enum Fate {
    /// Its topic is not known yet.
    Parked,
    /// Accepted.
    Pending {
        delivery: Delivery,
        /// What it counts for the pace, and when it was handed over, until its verdict is seen.
        open: Option<(u64, Instant)>,
    },
    /// Never accepted. Counted already; the number of its dead letter says when the receipt may be written.
    Refused { topic: Arc<str>, error: String, letter: u64 },
    /// No event. Counted already.
    Bad(String),
}

pub(super) struct Tally {
    queue: VecDeque<Entry>,
    /// How many items have left the queue.
    noted: u64,
    /// The entries before this one wait for no verdict.
    first_open: usize,
    pace: Pace,
    delivery_timeout: Duration,
    /// The time of the last look at verdicts.
    now: Instant,
    counts: Counts,
    reasons: Reasons,
    printed: u64,
    /// Events that were not accepted, and how many of the first of them have their letters kept.
    refused: u64,
    kept: u64,
    receipts: Receipts,
    /// Called with each line that is shown.
    show: Box<dyn Fn(&str) + Send>,
}

impl Tally {
    pub(super) fn new(receipts: Receipts, delivery_timeout: Duration, show: Box<dyn Fn(&str) + Send>) -> Self {
        Self {
            queue: VecDeque::new(),
            noted: 0,
            first_open: 0,
            pace: Pace::new(delivery_timeout),
            delivery_timeout,
            now: Instant::now(),
            counts: Counts::default(),
            reasons: Reasons::default(),
            printed: 0,
            refused: 0,
            kept: 0,
            receipts,
            show,
        }
    }

    pub(super) fn counts(&self) -> &Counts {
        &self.counts
    }

    /// Items whose verdict, or receipt, is still to come.
    pub(super) fn in_flight(&self) -> usize {
        self.queue.len()
    }

    /// Why events failed, and whether some failures were only counted.
    pub(super) fn reasons(&self) -> (&Reasons, bool) {
        (&self.reasons, self.printed > PRINTED)
    }

    /// Why receipts are written no longer.
    pub(super) fn receipts_failed(&self) -> Option<&io::Error> {
        self.receipts.failed()
    }

    /// Whether another event may be handed over.
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

    /// Notes an accepted event, whose JSON has so many bytes.
    pub(super) fn accepted(&mut self, at: (Option<Ticket>, Place), id: EventId, delivery: Delivery, bytes: usize) {
        let open = Some((self.pace.handed_over(bytes), self.now));
        self.enter(at, Some(id), Fate::Pending { delivery, open });
    }

    /// Notes an event that waits for its topic. Returns its number.
    pub(super) fn parked(&mut self, at: (Option<Ticket>, Place), id: EventId) -> Ticket {
        self.enter(at, Some(id), Fate::Parked)
    }

    /// Notes an event that was not accepted.
    pub(super) fn refused(&mut self, at: (Option<Ticket>, Place), id: EventId, topic: Arc<str>, error: &PublishError) {
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

    /// Notes an event that was read and not published, for the command has to end.
    pub(super) fn unpublished(&mut self, at: (Option<Ticket>, Place), id: EventId, topic: Arc<str>) {
        self.counts.unpublished += 1;
        self.counts.retriable += 1;
        self.enter_refused(at, id, topic, "not published: courier had to end".to_owned());
    }

    fn enter_refused(&mut self, at: (Option<Ticket>, Place), id: EventId, topic: Arc<str>, error: String) {
        let letter = self.refused;
        self.refused += 1;
        self.enter(at, Some(id), Fate::Refused { topic, error, letter });
    }

    /// Notes that the letters of all events that were not accepted are kept: their receipts waited for that.
    pub(super) fn kept(&mut self) {
        self.kept = self.refused;
    }

    /// Notes an item that is no event.
    pub(super) fn bad(&mut self, place: Place, error: String) {
        self.counts.bad += 1;
        self.reasons.add(None, error.clone(), &error);
        self.print(place, &error);
        self.enter((None, place), None, Fate::Bad(error));
    }

    /// Enters an item's fate: of one that has a ticket, in the place that it has.
    fn enter(&mut self, (ticket, place): (Option<Ticket>, Place), id: Option<EventId>, fate: Fate) -> Ticket {
        let entry = Entry { place, id, fate };
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

    /// Notes the verdicts that are there, from the oldest item on.
    pub(super) fn note_settled(&mut self) {
        self.now = Instant::now();
        while let Some(oldest) = self.queue.front() {
            let verdict = match &oldest.fate {
                Fate::Pending { delivery, .. } => match delivery.now() {
                    None => break,
                    verdict => verdict,
                },
                Fate::Parked => break,
                Fate::Refused { letter, .. } if *letter >= self.kept => break,
                Fate::Refused { .. } | Fate::Bad(_) => None,
            };
            self.note_oldest(verdict);
        }
        // Those behind an item that waits for its topic, or its letter, have theirs all the same.
        while let Some((delivery, _)) = self.oldest_open() {
            if delivery.now().is_none() {
                return;
            }
            if let Some(Fate::Pending { open, .. }) = self.queue.get_mut(self.first_open).map(|entry| &mut entry.fate)
                && let Some((bytes, at)) = open.take()
            {
                self.pace.settled(bytes, at, self.now);
            }
        }
    }

    /// The oldest event without a verdict, and since when.
    fn oldest_open(&mut self) -> Option<(&Delivery, Option<(u64, Instant)>)> {
        while let Some(entry) = self.queue.get(self.first_open) {
            if matches!(entry.fate, Fate::Pending { open: Some(_), .. }) {
                break;
            }
            self.first_open += 1;
        }
        match &self.queue.get(self.first_open)?.fate {
            Fate::Pending { delivery, open } => Some((delivery, *open)),
            _ => None,
        }
    }

    /// What the oldest event without a verdict waits for.
    pub(super) fn oldest(&mut self) -> Option<Delivery> {
        self.oldest_open().map(|(delivery, _)| delivery.clone())
    }

    /// When the oldest event without a verdict fails at the latest.
    pub(super) fn first_deadline(&mut self) -> Option<Instant> {
        let (_, at) = self.oldest_open()?.1?;
        at.checked_add(self.delivery_timeout)
    }

    /// Notes all that is left: what has no verdict gets none any more.
    pub(super) fn note_all(&mut self) {
        while !self.queue.is_empty() {
            self.note_settled();
            self.note_oldest(None);
        }
    }

    fn note_oldest(&mut self, verdict: Option<Verdict>) {
        let Some(Entry { place, id, fate }) = self.queue.pop_front() else { return };
        self.noted += 1;
        self.first_open = self.first_open.saturating_sub(1);
        let empty = Receipt { id: id.as_ref(), ..Receipt::of(place) };
        match fate {
            Fate::Pending { delivery, open } => {
                if let Some((bytes, at)) = open {
                    self.pace.settled(bytes, at, self.now);
                }
                let at = Receipt { topic: Some(delivery.topic()), partition: Some(delivery.partition()), ..empty };
                self.note_verdict(at, verdict);
            }
            Fate::Refused { topic, error, .. } => {
                let outcome = Some(FailedOutcome::NotWritten.as_str());
                self.receipts.write(&Receipt { topic: Some(&topic), outcome, error: Some(&error), ..empty });
            }
            Fate::Bad(error) => self.receipts.write(&Receipt { error: Some(&error), ..empty }),
            // None is left once the publisher has ended.
            Fate::Parked => debug_assert!(false, "{place} was never published"),
        }
    }

    fn note_verdict(&mut self, at: Receipt<'_>, verdict: Option<Verdict>) {
        let (outcome, error, kind, reason) = match verdict {
            Some(Ok(metadata)) => {
                self.counts.delivered += 1;
                return self.receipts.write(&Receipt { offset: metadata.offset, ..at });
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
        self.receipts.write(&Receipt { outcome: Some(outcome.as_str()), error: Some(&error), ..at });
    }

    /// Prints the first failures one by one.
    fn print(&mut self, place: Place, error: &str) {
        self.printed += 1;
        if self.printed <= PRINTED {
            (self.show)(&format!("{place}: {error}"));
        } else if self.printed == PRINTED + 1 {
            (self.show)("more failures follow; only their number is told, or see --receipts");
        }
    }

    /// Hands over the receipts that are gathered.
    pub(super) fn flush(&mut self) {
        self.receipts.flush();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tally() -> Tally {
        Tally::new(Receipts::default(), Duration::from_secs(30), Box::new(|_| {}))
    }

    #[test]
    fn items_that_are_no_event_wait_for_nothing() {
        let mut tally = tally();
        tally.bad(Place::Line(1), "x".to_owned());
        assert_eq!((tally.in_flight(), tally.counts().total()), (1, 1));
        tally.note_settled();
        assert_eq!((tally.in_flight(), tally.counts().total()), (0, 1));
        assert_eq!(tally.room(), Room::Yes);
    }

    #[test]
    fn a_parked_event_keeps_its_place() {
        let mut tally = tally();
        tally.bad(Place::Line(1), "x".to_owned());
        let ticket = tally.parked((None, Place::Line(2)), EventId::parse("a").unwrap());
        tally.bad(Place::Line(3), "x".to_owned());
        tally.note_settled();
        assert_eq!(tally.in_flight(), 2);
        tally.unpublished((Some(ticket), Place::Line(2)), EventId::parse("a").unwrap(), "t".into());
        tally.note_settled();
        assert_eq!(tally.in_flight(), 2, "its letter is not kept yet");
        tally.kept();
        tally.note_settled();
        assert_eq!((tally.in_flight(), tally.counts().total()), (0, 3));
    }
}

//! What became of each event: counts, receipts, and the lines that name what failed.
//!
//! Rules: every item of the input is counted exactly once; receipts stand in the order of the input; only
//! the first failures are printed one by one, the rest is counted by its reason, of which so many are told apart.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::sync::Arc;

use kafka_courier::{Delivery, DeliveryError, FailedOutcome, PublishError, RecordMetadata};
use kafka_courier_event_model::EventId;

use super::input::Place;
use super::receipts::{Receipt, Receipts};

/// Failures that are printed one by one.
const PRINTED: u64 = 20;
/// Reasons that are told apart: bad input may bring a new one with each line.
const REASONS: usize = 1000;
/// All reasons beyond those.
const OTHERS: &str = "others";

/// An item whose receipt is still to be written.
struct Entry {
    place: Place,
    id: Option<EventId>,
    fate: Fate,
}

type Verdict = Result<RecordMetadata, DeliveryError>;

enum Fate {
    /// Accepted.
    Pending(Delivery),
    /// Never accepted. Counted already; its dead letter is the so-manieth.
    Refused { topic: Arc<str>, error: String, letter: u64 },
    /// No event. Counted already.
    Bad(String),
}

/// Counts of what became of the input.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) delivered: u64,
    /// Accepted and given up, or never accepted: certainly not in the log.
    pub(crate) not_written: u64,
    /// Given up, but may be in the log.
    pub(crate) unknown: u64,
    /// Of the last two: those that the cluster refuses, for want of rights or trust.
    pub(crate) refusals: u64,
    /// Read, and left alone since the command was to end.
    pub(crate) unpublished: u64,
    /// Items that are no event.
    pub(crate) bad: u64,
}

impl Counts {
    pub(crate) fn total(&self) -> u64 {
        self.delivered + self.failed() + self.bad
    }

    /// Events that were not delivered, or not for sure.
    pub(crate) fn failed(&self) -> u64 {
        self.not_written + self.unknown + self.unpublished
    }
}

pub(crate) struct Tally {
    queue: VecDeque<Entry>,
    counts: Counts,
    reasons: BTreeMap<String, u64>,
    printed: u64,
    /// Events that were not accepted, and how many of the first of them have their letters kept.
    refused: u64,
    kept: u64,
    receipts: Receipts,
    /// Called with each line that is to be shown.
    show: Box<dyn Fn(&str) + Send>,
}

impl Tally {
    pub(crate) fn new(receipts: Receipts, show: Box<dyn Fn(&str) + Send>) -> Self {
        let (queue, counts, reasons) = (VecDeque::new(), Counts::default(), BTreeMap::new());
        Self { queue, counts, reasons, printed: 0, refused: 0, kept: 0, receipts, show }
    }

    pub(crate) fn counts(&self) -> &Counts {
        &self.counts
    }

    /// Items whose verdict is still to come, or to be noted.
    pub(crate) fn in_flight(&self) -> usize {
        self.queue.len()
    }

    /// How often each reason of failure occurred.
    pub(crate) fn reasons(&self) -> &BTreeMap<String, u64> {
        &self.reasons
    }

    /// Why receipts are written no longer.
    pub(crate) fn receipts_failed(&self) -> Option<&io::Error> {
        self.receipts.failed()
    }

    pub(crate) fn accepted(&mut self, place: Place, id: EventId, delivery: Delivery) {
        self.queue.push_back(Entry { place, id: Some(id), fate: Fate::Pending(delivery) });
    }

    /// Notes an event that was not accepted.
    pub(crate) fn refused(&mut self, place: Place, id: EventId, topic: Arc<str>, error: &PublishError) {
        let why = error.to_string();
        self.counts.not_written += 1;
        self.counts.refusals += u64::from(error.is_refusal());
        self.report(place, &why);
        self.push_refused(place, id, topic, why);
    }

    fn push_refused(&mut self, place: Place, id: EventId, topic: Arc<str>, error: String) {
        let letter = self.refused;
        self.refused += 1;
        self.queue.push_back(Entry { place, id: Some(id), fate: Fate::Refused { topic, error, letter } });
    }

    /// Notes that the letters of all events that were not accepted are kept: their receipts waited for that.
    pub(crate) fn kept(&mut self) {
        self.kept = self.refused;
    }

    /// Notes an event that was read and left alone.
    pub(crate) fn unpublished(&mut self, place: Place, id: EventId, topic: Arc<str>) {
        self.counts.unpublished += 1;
        let error = "not published: courier was to end".to_owned();
        self.push_refused(place, id, topic, error);
    }

    /// Notes an item that is no event.
    pub(crate) fn bad(&mut self, place: Place, error: String) {
        self.counts.bad += 1;
        self.report(place, &error);
        self.queue.push_back(Entry { place, id: None, fate: Fate::Bad(error) });
    }

    /// Notes the verdicts that are there, from the oldest item on.
    pub(crate) fn note_settled(&mut self) {
        while let Some(oldest) = self.queue.front() {
            let verdict = match &oldest.fate {
                Fate::Pending(delivery) => match delivery.now() {
                    None => return,
                    verdict => verdict,
                },
                Fate::Refused { letter, .. } if *letter >= self.kept => return,
                Fate::Refused { .. } | Fate::Bad(_) => None,
            };
            self.note_oldest(verdict);
        }
    }

    /// What the oldest item waits for.
    pub(crate) fn oldest(&self) -> Option<Delivery> {
        match &self.queue.front()?.fate {
            Fate::Pending(delivery) => Some(delivery.clone()),
            _ => None,
        }
    }

    /// Notes all that is left: what has no verdict gets none any more.
    pub(crate) fn note_all(&mut self) {
        while !self.queue.is_empty() {
            self.note_settled();
            self.note_oldest(None);
        }
    }

    fn note_oldest(&mut self, verdict: Option<Verdict>) {
        let Some(Entry { place, id, fate }) = self.queue.pop_front() else { return };
        let empty = Receipt { id: id.as_ref(), ..Receipt::of(place) };
        match fate {
            Fate::Pending(delivery) => {
                let at = Receipt { topic: Some(delivery.topic()), partition: Some(delivery.partition()), ..empty };
                self.note_verdict(at, verdict);
            }
            Fate::Refused { topic, error, .. } => {
                let outcome = Some(FailedOutcome::NotWritten.as_str());
                self.receipts.write(&Receipt { topic: Some(&topic), outcome, error: Some(&error), ..empty });
            }
            Fate::Bad(error) => self.receipts.write(&Receipt { error: Some(&error), ..empty }),
        }
    }

    fn note_verdict(&mut self, at: Receipt<'_>, verdict: Option<Verdict>) {
        let (outcome, error) = match verdict {
            Some(Ok(metadata)) => {
                self.counts.delivered += 1;
                return self.receipts.write(&Receipt { offset: metadata.offset, ..at });
            }
            Some(Err(error)) => {
                self.counts.refusals += u64::from(error.is_refusal());
                (error.outcome(), error.to_string())
            }
            None => (FailedOutcome::Unknown, "no verdict: courier was ended before it came".to_owned()),
        };
        match outcome {
            FailedOutcome::NotWritten => self.counts.not_written += 1,
            FailedOutcome::Unknown => self.counts.unknown += 1,
        }
        self.report(at.place, &error);
        self.receipts.write(&Receipt { outcome: Some(outcome.as_str()), error: Some(&error), ..at });
    }

    fn report(&mut self, place: Place, error: &str) {
        let is_known = self.reasons.contains_key(error) || self.reasons.len() < REASONS;
        let reason = if is_known { error } else { OTHERS };
        *self.reasons.entry(reason.to_owned()).or_default() += 1;
        self.printed += 1;
        if self.printed <= PRINTED {
            (self.show)(&format!("{place}: {error}"));
        } else if self.printed == PRINTED + 1 {
            (self.show)("more failures follow; only their number is told, or see --receipts");
        }
    }

    /// Hands over the receipts that are gathered.
    pub(crate) fn flush(&mut self) {
        self.receipts.flush();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_beyond_a_thousand_are_counted_together() {
        let mut tally = Tally::new(Receipts::default(), Box::new(|_| {}));
        for line in 1..=5000 {
            tally.bad(Place::Line(line), format!("reason {}", line.min(3000)));
        }
        assert_eq!((tally.reasons().len(), tally.reasons()[OTHERS]), (REASONS + 1, 4000));
        assert_eq!((tally.reasons()["reason 1"], tally.counts().bad), (1, 5000));
    }

    #[test]
    fn an_item_without_a_verdict_holds_no_other_back_from_the_counts() {
        let mut tally = Tally::new(Receipts::default(), Box::new(|_| {}));
        tally.bad(Place::Line(1), "x".to_owned());
        assert_eq!((tally.in_flight(), tally.counts().total()), (1, 1));
        tally.note_settled();
        assert_eq!((tally.in_flight(), tally.counts().total()), (0, 1));
    }
}

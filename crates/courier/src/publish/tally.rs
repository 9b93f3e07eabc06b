//! What became of each event: counts, receipts, and the lines that name what failed.
//!
//! Rules: every item of the input is counted exactly once; receipts stand in the order of the input; only
//! the first failures are printed one by one, the rest is counted by its reason.

use std::collections::{BTreeMap, VecDeque};
use std::fs::File;
use std::io::{self, BufWriter, Write};

use kafka_courier::{Delivery, DeliveryError, FailedOutcome, RecordMetadata};
use kafka_courier_event_model::EventId;
use serde::Serialize;

use super::input::Place;

/// Failures that are printed one by one.
const PRINTED: u64 = 20;

/// An event that was accepted and whose verdict is still to be noted.
struct Pending {
    place: Place,
    id: EventId,
    delivery: Delivery,
}

/// Counts of what became of the input.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) delivered: u64,
    /// Accepted and given up, or never accepted: certainly not in the log.
    pub(crate) not_written: u64,
    /// Given up, but may be in the log.
    pub(crate) unknown: u64,
    /// Items that are no event.
    pub(crate) bad: u64,
}

pub(crate) struct Tally {
    pending: VecDeque<Pending>,
    counts: Counts,
    reasons: BTreeMap<String, u64>,
    printed: u64,
    receipts: Option<BufWriter<File>>,
    /// Called with each line that is to be shown.
    show: Box<dyn Fn(&str) + Send>,
}

#[derive(Serialize)]
struct Receipt<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<&'a EventId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    topic: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    partition: Option<i32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    offset: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    place: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    outcome: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'a str>,
}

const EMPTY: Receipt<'static> =
    Receipt { id: None, topic: None, partition: None, offset: None, place: None, outcome: None, error: None };

impl Tally {
    pub(crate) fn new(receipts: Option<File>, show: Box<dyn Fn(&str) + Send>) -> Self {
        Self {
            pending: VecDeque::new(),
            counts: Counts::default(),
            reasons: BTreeMap::new(),
            printed: 0,
            receipts: receipts.map(|file| BufWriter::with_capacity(256 << 10, file)),
            show,
        }
    }

    pub(crate) fn counts(&self) -> &Counts {
        &self.counts
    }

    /// Events whose verdict is still to come, or to be noted.
    pub(crate) fn in_flight(&self) -> usize {
        self.pending.len()
    }

    /// How often each reason of failure occurred.
    pub(crate) fn reasons(&self) -> &BTreeMap<String, u64> {
        &self.reasons
    }

    pub(crate) fn accepted(&mut self, place: Place, id: EventId, delivery: Delivery) {
        self.pending.push_back(Pending { place, id, delivery });
    }

    /// Notes an event that was not accepted.
    pub(crate) fn refused(&mut self, place: Place, id: &EventId, topic: &str, error: &str) -> io::Result<()> {
        self.counts.not_written += 1;
        self.report(place, error);
        let outcome = Some(FailedOutcome::NotWritten.as_str());
        self.write(&Receipt {
            id: Some(id),
            topic: Some(topic),
            place: Some(place.to_string()),
            outcome,
            error: Some(error),
            ..EMPTY
        })
    }

    /// Notes an item that is no event.
    pub(crate) fn bad(&mut self, place: Place, error: &str) -> io::Result<()> {
        self.counts.bad += 1;
        self.report(place, error);
        self.write(&Receipt { place: Some(place.to_string()), error: Some(error), ..EMPTY })
    }

    /// Notes the verdicts that are there, from the oldest event on.
    pub(crate) fn note_settled(&mut self) -> io::Result<()> {
        while let Some(result) = self.pending.front().and_then(|pending| pending.delivery.now()) {
            self.note(result)?;
        }
        Ok(())
    }

    /// Waits for the oldest event's verdict and notes it.
    ///
    /// Cancel safety: nothing is lost.
    pub(crate) async fn wait_for_oldest(&mut self) -> io::Result<()> {
        match self.pending.front() {
            Some(pending) => {
                let result = pending.delivery.clone().await;
                self.note(result)
            }
            None => Ok(()),
        }
    }

    fn note(&mut self, result: Result<RecordMetadata, DeliveryError>) -> io::Result<()> {
        let Some(Pending { place, id, delivery }) = self.pending.pop_front() else { return Ok(()) };
        let (topic, partition) = (Some(delivery.topic()), Some(delivery.partition()));
        match result {
            Ok(metadata) => {
                self.counts.delivered += 1;
                self.write(&Receipt { id: Some(&id), topic, partition, offset: metadata.offset, ..EMPTY })
            }
            Err(error) => {
                match error.outcome() {
                    FailedOutcome::NotWritten => self.counts.not_written += 1,
                    FailedOutcome::Unknown => self.counts.unknown += 1,
                }
                let text = error.to_string();
                self.report(place, &text);
                let (place, outcome) = (Some(place.to_string()), Some(error.outcome().as_str()));
                self.write(&Receipt { id: Some(&id), topic, partition, place, outcome, error: Some(&text), ..EMPTY })
            }
        }
    }

    fn report(&mut self, place: Place, error: &str) {
        *self.reasons.entry(error.to_owned()).or_default() += 1;
        self.printed += 1;
        if self.printed <= PRINTED {
            (self.show)(&format!("{place}: {error}"));
        } else if self.printed == PRINTED + 1 {
            (self.show)("more failures follow; only their number is told, or see --receipts");
        }
    }

    fn write(&mut self, receipt: &Receipt<'_>) -> io::Result<()> {
        let Some(receipts) = &mut self.receipts else { return Ok(()) };
        serde_json::to_writer(&mut *receipts, receipt)?;
        receipts.write_all(b"\n")
    }

    /// Writes what is still buffered of the receipts.
    pub(crate) fn finish(&mut self) -> io::Result<()> {
        self.receipts.as_mut().map_or(Ok(()), Write::flush)
    }
}

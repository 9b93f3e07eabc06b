//! A partition's log as the proof needs it: epochs fence, a watermark lags, a start moves, an id is forgotten.
//!
//! Rules: what is read goes through the same bytes as an answer of a broker; nothing appended is ever hidden from the
//! test, whatever the check may see of it.
#![allow(clippy::unwrap_used)] // a helper of tests

use std::collections::HashMap;
use std::time::{Duration, Instant};

use kafka_courier_batcher::{Accumulator, BufferPool, Compression, Header, Limits, Record, Stamp};
use kafka_courier_idempotent_sender::core::TopicUuid;

use super::check::{PartitionCheck, Topic};
use super::scan::scan;
use super::{Doubt, Verdict};
use crate::headers::{DLQ_ID, EVENT_ID};

pub(super) const NOW: i64 = 1_800_000_000_000;
pub(super) const DAY: i64 = 24 * 60 * 60 * 1000;
pub(super) const UUID: TopicUuid = [7; 16];
pub(super) const TOPIC: Topic = Topic { uuid: UUID, compacted: Some(false) };
/// The producer id that doubts are of.
pub(super) const Q: i64 = 42;

/// What a leader knows of a producer id.
struct Known {
    epoch: i16,
    /// The last batch's timestamp and offset.
    last: (i64, i64),
    batches: HashMap<(i16, i32), i64>,
}

#[derive(Default)]
pub(super) struct ModelLog {
    batches: Vec<(i64, Vec<u8>)>,
    known: HashMap<i64, Known>,
    /// The event at each offset.
    pub(super) events: Vec<String>,
    pub(super) start: i64,
    /// `None`: everything.
    pub(super) watermark: Option<i64>,
}

pub(super) fn stamp(epoch: i16, base_sequence: i32) -> Stamp {
    Stamp { producer_id: Q, epoch, base_sequence }
}

/// A doubt about the event `id`, sent under this epoch and sequence number of `Q`.
pub(super) fn doubt(id: &str, epoch: i16, sequence: i32) -> Doubt {
    Doubt {
        letter_id: format!("letter-{id}"),
        event_id: Some(id.to_owned()),
        topic_id: Some(UUID),
        producer_id: Some(Q),
        producer_epoch: Some(epoch),
        sequence: Some(sequence),
        search_from: Some(0),
    }
}

/// A batch's bytes: each record has the event id, and the letter id unless that is empty.
pub(super) fn bytes(base_offset: i64, stamp: Stamp, timestamp: i64, records: &[(&str, &str)]) -> Vec<u8> {
    let limits = Limits { max_records: u32::MAX, max_bytes: 1 << 20, linger: Duration::ZERO };
    let pool = BufferPool::new(0);
    let mut accumulator = Accumulator::new(limits, Compression::Snappy);
    for (event, letter) in records {
        let headers = [
            Header { key: EVENT_ID, value: Some(event.as_bytes()) },
            Header { key: DLQ_ID, value: Some(letter.as_bytes()) },
        ];
        let headers = if letter.is_empty() { &headers[..1] } else { &headers };
        let record = Record { key: None, value: Some(b"{}"), headers, timestamp };
        accumulator.push(Instant::now(), &record, &mut |_| true, &pool, || ()).unwrap();
    }
    let mut batch = accumulator.seal().unwrap().encode(&pool).batch;
    batch.stamp(stamp);
    let mut bytes = batch.as_bytes().to_vec();
    bytes[..8].copy_from_slice(&base_offset.to_be_bytes());
    bytes
}

impl ModelLog {
    pub(super) fn end(&self) -> i64 {
        self.events.len() as i64
    }

    pub(super) fn high_watermark(&self) -> i64 {
        self.watermark.unwrap_or(self.end())
    }

    /// What a leader does with a Produce request; `None`: INVALID_PRODUCER_EPOCH.
    pub(super) fn produce(&mut self, stamp: Stamp, timestamp: i64, events: &[&str]) -> Option<i64> {
        let records: Vec<_> = events.iter().map(|event| (*event, "")).collect();
        self.produce_records(stamp, timestamp, &records)
    }

    pub(super) fn produce_records(&mut self, stamp: Stamp, timestamp: i64, records: &[(&str, &str)]) -> Option<i64> {
        let end = self.end();
        let known = self.known.entry(stamp.producer_id);
        let known = known.or_insert_with(|| Known { epoch: 0, last: (i64::MIN, 0), batches: HashMap::new() });
        if stamp.epoch < known.epoch {
            return None;
        }
        known.epoch = stamp.epoch;
        if let Some(offset) = known.batches.get(&(stamp.epoch, stamp.base_sequence)) {
            return Some(*offset);
        }
        known.last = (timestamp, end);
        known.batches.insert((stamp.epoch, stamp.base_sequence), end);
        self.batches.push((end, bytes(end, stamp, timestamp, records)));
        self.events.extend(records.iter().map(|(event, _)| (*event).to_owned()));
        Some(end)
    }

    /// Leaders forget ids by the timestamp of their last batch, once that is a day old. They look only every few minutes:
    /// what a reader, who is at `read_to`, has not seen yet makes them forget nothing.
    pub(super) fn forget(&mut self, read_to: i64) {
        self.known.retain(|_, Known { last: (timestamp, offset), .. }| NOW - *timestamp < DAY || *offset >= read_to);
    }

    /// Reads on from where the check is, up to the watermark.
    pub(super) fn read(&self, check: &mut PartitionCheck) {
        if check.next() < self.start {
            check.begin_at(self.start);
        }
        let (next, end) = (check.next(), self.high_watermark());
        let mut answer = Vec::new();
        for (offset, batch) in self.batches.iter().filter(|(offset, _)| *offset < end) {
            let behind = self.batches.iter().map(|(next, _)| *next).find(|next| next > offset).unwrap_or(self.end());
            if behind > next {
                answer.extend_from_slice(batch);
            }
        }
        scan(&answer, check).unwrap();
    }

    /// Begins a check, and reads.
    pub(super) fn check(&self, doubts: Vec<Doubt>) -> PartitionCheck {
        self.check_of(TOPIC, doubts)
    }

    pub(super) fn check_of(&self, topic: Topic, doubts: Vec<Doubt>) -> PartitionCheck {
        let mut check = PartitionCheck::new(doubts, topic);
        check.begin_at(check.from().max(self.start));
        self.read(&mut check);
        check
    }

    /// Sends the fences that the check wants, as letters of their own.
    pub(super) fn fence(&mut self, check: &mut PartitionCheck) -> usize {
        let wanted = check.wanted_fences(NOW);
        for stamp in &wanted {
            if let Some(offset) = self.produce_records(*stamp, NOW, &[("fence", "letter-fence")]) {
                check.on_fenced(*stamp, offset);
            }
        }
        wanted.len()
    }
}

pub(super) fn verdicts(check: PartitionCheck) -> Vec<Verdict> {
    check.verdicts(NOW).into_iter().map(|(_, verdict)| verdict).collect()
}

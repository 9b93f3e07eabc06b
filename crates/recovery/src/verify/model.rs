//! A model of a partition's log: fencing epochs, a lagging high watermark, a moving log start, expiring producer ids.
//!
//! Rules: a read returns the bytes that a broker would return. Tests see all appended events, even if the check does
//! not.
#![allow(clippy::unwrap_used)] // test code

use std::collections::HashMap;
use std::time::{Duration, Instant};

use kafka_courier_batcher::{Accumulator, BufferPool, Compression, Header, Limits, Record, Stamp};
use kafka_courier_client::TopicUuid;

use super::check::{ObservedTopic, PartitionCheck};
use super::scan::scan;
use super::{Doubt, Verdict};
use crate::headers::{DLQ_ID, EVENT_ID};

pub(super) const NOW: i64 = 1_800_000_000_000;
pub(super) const DAY: i64 = 24 * 60 * 60 * 1000;
pub(super) const UUID: TopicUuid = [7; 16];
pub(super) const TOPIC: ObservedTopic = ObservedTopic { uuid: Some(UUID), compacted: Some(false) };
/// The producer id of the doubts.
pub(super) const Q: i64 = 42;

/// The leader's state of a producer id.
struct ProducerMemory {
    epoch: i16,
    /// The last batch's timestamp and offset.
    last: (i64, i64),
    batches: HashMap<(i16, i32), i64>,
}

#[derive(Default)]
pub(super) struct ModelLog {
    batches: Vec<(i64, Vec<u8>)>,
    known: HashMap<i64, ProducerMemory>,
    /// The event at each offset.
    pub(super) events: Vec<String>,
    pub(super) start: i64,
    /// The high watermark. `None` for the end of the log.
    pub(super) watermark: Option<i64>,
}

pub(super) fn stamp(epoch: i16, base_sequence: i32) -> Stamp {
    Stamp { producer_id: Q, epoch, base_sequence }
}

/// Returns a doubt about the event `id`, which was sent with this epoch and sequence number of `Q`.
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

/// Encodes a batch. Each record has an event id, and a letter id unless it is empty.
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

    /// Handles a Produce request as a leader does. Returns `None` for INVALID_PRODUCER_EPOCH.
    pub(super) fn produce(&mut self, stamp: Stamp, timestamp: i64, events: &[&str]) -> Option<i64> {
        let records: Vec<_> = events.iter().map(|event| (*event, "")).collect();
        self.produce_records(stamp, timestamp, &records)
    }

    pub(super) fn produce_records(&mut self, stamp: Stamp, timestamp: i64, records: &[(&str, &str)]) -> Option<i64> {
        let end = self.end();
        let known = self.known.entry(stamp.producer_id);
        let known = known.or_insert_with(|| ProducerMemory { epoch: 0, last: (i64::MIN, 0), batches: HashMap::new() });
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

    /// Expires producer ids whose last batch has a timestamp that is a day old. Leaders check for expiry only every few
    /// minutes, so batches after `read_to`, the reader's offset, do not expire an id.
    pub(super) fn forget(&mut self, read_to: i64) {
        self.known
            .retain(|_, ProducerMemory { last: (timestamp, offset), .. }| NOW - *timestamp < DAY || *offset >= read_to);
    }

    /// Reads from the check's next offset up to the high watermark.
    pub(super) fn read(&self, check: &mut PartitionCheck) {
        if check.next() < self.start {
            check.begin_at(self.start);
        }
        let (next, end) = (check.next(), self.high_watermark());
        let mut answer = Vec::new();
        for (offset, batch) in self.batches.iter().filter(|(offset, _)| *offset < end) {
            let batch_end = self.batches.iter().map(|(next, _)| *next).find(|next| next > offset).unwrap_or(self.end());
            if batch_end > next {
                answer.extend_from_slice(batch);
            }
        }
        scan(&answer, check).unwrap();
    }

    /// Starts a check, and reads up to the high watermark.
    pub(super) fn check(&self, doubts: Vec<Doubt>) -> PartitionCheck {
        self.check_of(TOPIC, doubts)
    }

    pub(super) fn check_of(&self, topic: ObservedTopic, doubts: Vec<Doubt>) -> PartitionCheck {
        let mut check = PartitionCheck::new(doubts, topic);
        check.begin_at(check.from().max(self.start));
        self.read(&mut check);
        check
    }

    /// Sends the fences that the check needs, each with a separate letter.
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

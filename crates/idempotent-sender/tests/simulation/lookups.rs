//! Looks at producer states and logs: the brokers' answers, their filtering, and the results for each record.
//!
//! Rules:
//! - Every replica answers DescribeProducers with its own state, which may be older or newer than the leader's. The
//!   driver confirms before and after the request that the broker leads under the epoch that the sender knows.
//! - A sender without the right to read receives no state and no log.
//! - A look belongs to the batch that was answered last. A record that the look finds counts as found while leader and
//!   epoch stay the same, and so do all earlier records. The answer itself counts for the look's batch only.

use std::collections::BTreeMap;
use std::time::Duration;

use kafka_courier_batcher::Sequence;
use kafka_courier_client::{BrokerAddress, PartitionId};
use kafka_courier_idempotent_sender::core::{
    LogSearch, LoggedBatch, LookupId, SearchAnswer, StateLookup, StateLookupAnswer,
};

use crate::cluster::{MS, SECOND};
use crate::history::History;
use crate::log::LogEntry;
use crate::plan::Reading;
use crate::record::RecordHistory;
use crate::world::{Event, World, model_partition};

/// The results of looks for a record.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct LookResults {
    /// The newest leader epoch of metadata when a look found the record.
    pub(crate) found_in: Option<i32>,
    /// The newest leader epoch of metadata when a look for the record, or the search after the look, was answered.
    pub(crate) answered_in: Option<i32>,
}

#[derive(Debug)]
struct PendingLook {
    numbers: Vec<u32>,
    metadata_epoch: i32,
    producer_id: i64,
}

/// All looks of a schedule.
#[derive(Debug, Default)]
pub(crate) struct Looks {
    pending: BTreeMap<u64, PendingLook>,
    /// The records of each partition's last answered look.
    last_answered: BTreeMap<usize, Vec<u32>>,
}

impl World {
    pub(crate) fn request_look(&mut self, look: StateLookup) {
        self.history.note_look_request(&look);
        let wait = self.latency(look.leader.id.0 as usize - 1);
        self.schedule_after(wait, Event::ServeLook(Box::new(look)));
    }

    pub(crate) fn request_search(&mut self, search: LogSearch) {
        let wait = self.latency(search.leader.id.0 as usize - 1);
        self.schedule_after(wait, Event::ServeSearch(Box::new(search)));
    }

    /// Returns whether the broker confirms that it leads the partition, under the given epoch if any (ListOffsets).
    pub(crate) fn confirms_leader(&self, leader: &BrokerAddress, partition: PartitionId, epoch: Option<i32>) -> bool {
        let broker = leader.id.0 as usize - 1;
        let view = self.brokers[broker].views[model_partition(partition)];
        let leads = view.exists && view.leader == Some(broker) && epoch.is_none_or(|epoch| epoch == view.epoch);
        leads && self.brokers[broker].runs() && !self.partitions[model_partition(partition)].replicas[broker].offline
    }

    /// Answers a look with the broker's own producer state, on a leader or a follower.
    pub(crate) fn serve_look(&mut self, look: StateLookup) {
        let broker = look.leader.id.0 as usize - 1;
        let partition = model_partition(look.partition);
        let runs = self.brokers[broker].runs();
        let view = self.brokers[broker].views[partition];
        let now_ms = self.machine_clock_ms();
        let replica = &self.partitions[partition].replicas[broker];
        let log_start = self.partitions[partition].log_start;
        let answers = runs && view.exists && !replica.offline;
        let confirmed = self.confirms_leader(&look.leader, look.partition, look.leader_epoch);
        self.history.follower_looks += u64::from(answers && !confirmed);
        let answer = match replica.producers.get(look.producer_id) {
            _ if !confirmed => StateLookupAnswer::Unavailable,
            _ if self.plan.rules.reading == Reading::Forbidden => {
                StateLookupAnswer::Unreadable { log_start: Some(log_start) }
            }
            Some(known) => StateLookupAnswer::Producer {
                epoch: i32::from(known.epoch),
                last_sequence: known.last_sequence,
                age: self.look_age(now_ms.saturating_sub(known.last_timestamp)),
            },
            None => StateLookupAnswer::NotKnown { log_start },
        };
        let wait = if runs { self.latency(broker) } else { self.rng.range(MS..10 * SECOND) };
        self.trace(|| format!("look at p{partition} on broker {broker}: {answer:?}"));
        self.schedule_after(wait, Event::LookAnswered(Box::new(look), answer));
    }

    /// Returns an age in a cluster with the default of `producer.id.expiration.ms`, which is a day. A sender of stored batches
    /// knows the schedule's own value.
    fn look_age(&self, age_ms: i64) -> Duration {
        if self.lives.is_some() {
            return u64::try_from(age_ms).map_or(Duration::MAX, Duration::from_millis);
        }
        let day_ms = 24 * 3600 * 1000;
        let scaled = self.plan.rules.id_expiration_ms.map_or(age_ms, |expiration| age_ms * day_ms / expiration);
        Duration::from_millis(scaled.try_into().unwrap_or(0))
    }

    /// Answers a search with the batches of a producer's epoch, up to the leader's high watermark.
    pub(crate) fn serve_search(&mut self, search: LogSearch) {
        let partition = model_partition(search.partition);
        let broker = search.leader.id.0 as usize - 1;
        let replica = &self.partitions[partition].replicas[broker];
        let wanted = search.wanted;
        let old = |entry: &&LogEntry| wanted.from.is_none() && entry.max_timestamp < wanted.since;
        let log_start = self.partitions[partition].log_start;
        let present = |entry: &&LogEntry| entry.base_offset >= log_start;
        let ours = |entry: &&LogEntry| {
            let is_of_epoch = (entry.producer_id, entry.epoch) == (wanted.producer_id, wanted.epoch);
            is_of_epoch && entry.end() > wanted.from.unwrap_or(0) && entry.end() <= replica.high_watermark
        };
        let logged = |entry: &LogEntry| LoggedBatch {
            base_sequence: entry.first,
            records: entry.records.len() as u32,
            base_offset: entry.base_offset,
            log_append_time: self.plan.rules.log_append_time.then_some(entry.max_timestamp),
        };
        let answer = match self.plan.rules.reading {
            _ if !self.confirms_leader(&search.leader, search.partition, search.leader_epoch) => {
                SearchAnswer::Unavailable
            }
            Reading::Allowed if wanted.whole_log && replica.end() > replica.high_watermark => SearchAnswer::Unavailable,
            // Kafka answers OFFSET_OUT_OF_RANGE.
            Reading::Allowed if wanted.from.is_some_and(|from| from < log_start) => SearchAnswer::Unreadable,
            Reading::Allowed => {
                let found = replica.log.iter().filter(present).skip_while(old).filter(ours).map(logged);
                let found: Vec<LoggedBatch> = found.collect();
                let first = replica.log.iter().find(present);
                let is_cut = log_start > 0 && first.is_none_or(|first| first.max_timestamp >= wanted.since);
                match wanted.from.is_none() && wanted.whole_log && is_cut && found.is_empty() {
                    true => SearchAnswer::Unreadable,
                    false => SearchAnswer::Read(found),
                }
            }
            Reading::Forbidden | Reading::StateOnly => SearchAnswer::Unreadable,
        };
        let runs = self.brokers[broker].runs();
        let wait = if runs { self.latency(broker) } else { self.rng.range(MS..10 * SECOND) };
        self.trace(|| format!("search of p{partition} on broker {broker}: {answer:?}"));
        self.schedule_after(wait, Event::SearchAnswered(Box::new(search), answer));
    }
}

impl History {
    fn note_look_request(&mut self, look: &StateLookup) {
        let partition = model_partition(look.partition);
        let (numbers, metadata_epoch) =
            (self.last_answered[partition].clone(), self.known_leaders[partition].metadata_epoch);
        let pending = PendingLook { numbers, metadata_epoch, producer_id: look.producer_id };
        self.looks.pending.insert(look.look.0, pending);
    }

    pub(crate) fn note_look(&mut self, asked: PartitionId, look: LookupId, answer: StateLookupAnswer) {
        let Some(PendingLook { numbers, metadata_epoch, producer_id }) = self.looks.pending.remove(&look.0) else {
            return;
        };
        let last = match answer {
            StateLookupAnswer::Unavailable => return,
            StateLookupAnswer::NotKnown { .. } | StateLookupAnswer::Unreadable { .. } => None,
            StateLookupAnswer::Producer { epoch, last_sequence, .. } => {
                i16::try_from(epoch).ok().zip(Some(last_sequence))
            }
        };
        if let Some((epoch, last)) = last {
            self.note_found(model_partition(asked), metadata_epoch, producer_id, epoch, last);
        }
        let current_epoch = Some(self.known_leaders[model_partition(asked)].metadata_epoch);
        for number in &numbers {
            self.records[*number as usize].look_results.answered_in = current_epoch;
        }
        self.looks.last_answered.insert(model_partition(asked), numbers);
    }

    pub(crate) fn note_search(&mut self, asked: PartitionId) {
        let partition = model_partition(asked);
        let current_epoch = Some(self.known_leaders[partition].metadata_epoch);
        for number in self.looks.last_answered.get(&partition).into_iter().flatten() {
            self.records[*number as usize].look_results.answered_in = current_epoch;
        }
    }

    /// Returns whether a look for the record was answered under the current leader epoch.
    pub(crate) fn has_look_answer(&self, record: &RecordHistory) -> bool {
        record.look_results.answered_in == Some(self.known_leaders[record.partition].metadata_epoch)
    }

    /// Marks the records up to the last sequence number of a producer's epoch as found, back to 200 numbers.
    fn note_found(&mut self, partition: usize, metadata_epoch: i32, producer_id: i64, epoch: i16, last: i32) {
        for back in 0..200 {
            let sequence = Sequence::wrapping(last).advance((1 << 31) - back).number();
            if let Some(first_use) = self.first_use(partition, producer_id, epoch, sequence) {
                self.records[first_use.record as usize].look_results.found_in = Some(metadata_epoch);
            }
        }
    }

    /// Returns whether a look has found the record, and leader and epoch are still the same.
    pub(crate) fn is_found_by_look(&self, number: u32) -> bool {
        let record = &self.records[number as usize];
        record.look_results.found_in.is_some_and(|epoch| epoch >= self.known_leaders[record.partition].metadata_epoch)
    }
}

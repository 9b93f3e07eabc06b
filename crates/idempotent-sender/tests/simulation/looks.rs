//! Looks at producer states and logs: what brokers answer, what their asker makes of it, and what it says of each record.
//!
//! Rules:
//! - Every replica answers DescribeProducers, with its own state, which may be older than the leader's or newer. Who asks
//!   has the broker confirmed as the leader of the epoch that the sender knows, before and after.
//! - Without the right to read no state and no log is shown.
//! - A look is made for the batch whose answer has just come. What it finds counts while the leader is the same and of the
//!   same epoch, for all batches up to it; that it was answered counts for that batch alone.

use std::collections::BTreeMap;
use std::time::Duration;

use kafka_courier_batcher::sequence_add;
use kafka_courier_idempotent_sender::core::{
    BrokerAddress, LogSearch, LoggedBatch, Look, LookAnswer, LookId, PartitionId, SearchAnswer,
};

use crate::cluster::{MS, SECOND};
use crate::history::History;
use crate::log::Entry;
use crate::plan::Reading;
use crate::record::RecordHistory;
use crate::world::{Event, World, model_partition};

/// What looks have said of a record.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct LookedFor {
    /// It was found when metadata had named this leader epoch.
    pub(crate) found_in: Option<i32>,
    /// A look that was made for it was answered, or the search that followed, when metadata had named this leader epoch.
    pub(crate) answered_in: Option<i32>,
}

#[derive(Debug)]
struct Asked {
    numbers: Vec<u32>,
    known: i32,
    producer_id: i64,
}

/// Looks under way, and the records of each partition's last one.
#[derive(Debug, Default)]
pub(crate) struct Looks(BTreeMap<u64, Asked>, BTreeMap<usize, Vec<u32>>);

impl World {
    pub(crate) fn look(&mut self, look: Look) {
        self.history.look_asked(&look);
        let wait = self.latency(look.leader.id.0 as usize - 1);
        self.after(wait, Event::AskLook(Box::new(look)));
    }

    pub(crate) fn search(&mut self, search: LogSearch) {
        let wait = self.latency(search.leader.id.0 as usize - 1);
        self.after(wait, Event::AskSearch(Box::new(search)));
    }

    /// Whether the broker says that it leads the partition, under that epoch if one is named (ListOffsets).
    pub(crate) fn confirms(&self, leader: &BrokerAddress, partition: PartitionId, epoch: i32) -> bool {
        let broker = leader.id.0 as usize - 1;
        let view = self.brokers[broker].views[model_partition(partition)];
        let leads = view.exists && view.leader == Some(broker) && (epoch < 0 || epoch == view.epoch);
        leads && self.brokers[broker].runs() && !self.partitions[model_partition(partition)].replicas[broker].offline
    }

    /// The broker's own producer state, whether it leads or follows.
    pub(crate) fn ask_look(&mut self, look: Look) {
        let broker = look.leader.id.0 as usize - 1;
        let partition = model_partition(look.partition);
        let runs = self.brokers[broker].runs();
        let view = self.brokers[broker].views[partition];
        let now_ms = self.clock_ms();
        let replica = &self.partitions[partition].replicas[broker];
        let answers = runs && view.exists && !replica.offline;
        let confirmed = self.confirms(&look.leader, look.partition, look.leader_epoch);
        self.history.follower_looks += u64::from(answers && !confirmed);
        let answer = match replica.producers.get(look.producer_id) {
            _ if !confirmed => LookAnswer::Unavailable,
            _ if self.plan.rules.reading == Reading::Forbidden => LookAnswer::Nothing,
            Some(known) => LookAnswer::Producer {
                epoch: i32::from(known.epoch),
                last_sequence: known.last_sequence,
                age: Duration::from_millis(now_ms.saturating_sub(known.last_timestamp).try_into().unwrap_or(0)),
            },
            None => LookAnswer::Nothing,
        };
        let wait = if runs { self.latency(broker) } else { self.rng.range(MS..10 * SECOND) };
        self.trace(|| format!("look at p{partition} on broker {broker}: {answer:?}"));
        self.after(wait, Event::Looked(Box::new(look), answer));
    }

    /// What a leader's log shows of a producer's epoch, up to its high watermark.
    pub(crate) fn ask_search(&mut self, search: LogSearch) {
        let partition = model_partition(search.partition);
        let broker = search.leader.id.0 as usize - 1;
        let replica = &self.partitions[partition].replicas[broker];
        let wanted = search.wanted;
        let old = |entry: &&Entry| wanted.from.is_none() && entry.max_timestamp < wanted.since;
        let ours = |entry: &&Entry| {
            let is_of_epoch = (entry.producer_id, entry.epoch) == (wanted.producer_id, wanted.epoch);
            is_of_epoch && entry.end() > wanted.from.unwrap_or(0) && entry.end() <= replica.high_watermark
        };
        let logged = |entry: &Entry| LoggedBatch {
            base_sequence: entry.first,
            records: entry.records.len() as u32,
            base_offset: entry.base_offset,
            log_append_time: self.plan.rules.log_append_time.then_some(entry.max_timestamp),
        };
        let answer = match self.plan.rules.reading {
            _ if !self.confirms(&search.leader, search.partition, search.leader_epoch) => SearchAnswer::Unavailable,
            Reading::Allowed => {
                SearchAnswer::Read(replica.log.iter().skip_while(old).filter(ours).map(logged).collect())
            }
            Reading::Forbidden | Reading::StateOnly => SearchAnswer::Unreadable,
        };
        let runs = self.brokers[broker].runs();
        let wait = if runs { self.latency(broker) } else { self.rng.range(MS..10 * SECOND) };
        self.trace(|| format!("search of p{partition} on broker {broker}: {answer:?}"));
        self.after(wait, Event::Searched(Box::new(search), answer));
    }
}

impl History {
    fn look_asked(&mut self, look: &Look) {
        let partition = model_partition(look.partition);
        let (numbers, known) = (self.last_answered[partition].clone(), self.told_leaders[partition].known);
        self.looks.0.insert(look.look.0, Asked { numbers, known, producer_id: look.producer_id });
    }

    pub(crate) fn looked(&mut self, asked: PartitionId, look: LookId, answer: LookAnswer) {
        let Some(Asked { numbers, known, producer_id }) = self.looks.0.remove(&look.0) else { return };
        let last = match answer {
            LookAnswer::Unavailable => return,
            LookAnswer::Nothing => None,
            LookAnswer::Producer { epoch, last_sequence, .. } => i16::try_from(epoch).ok().zip(Some(last_sequence)),
        };
        if let Some((epoch, last)) = last {
            self.note_found(model_partition(asked), known, producer_id, epoch, last);
        }
        let known_now = Some(self.told_leaders[model_partition(asked)].known);
        for number in &numbers {
            self.records[*number as usize].looked_for.answered_in = known_now;
        }
        self.looks.1.insert(model_partition(asked), numbers);
    }

    pub(crate) fn searched(&mut self, asked: PartitionId) {
        let partition = model_partition(asked);
        let known_now = Some(self.told_leaders[partition].known);
        for number in self.looks.1.get(&partition).into_iter().flatten() {
            self.records[*number as usize].looked_for.answered_in = known_now;
        }
    }

    /// Whether a look was made for the record at the leader that it has now.
    pub(crate) fn is_looked_for(&self, record: &RecordHistory) -> bool {
        record.looked_for.answered_in == Some(self.told_leaders[record.partition].known)
    }

    /// Everything at or before the last sequence number of that epoch is found, as far back as a window reaches.
    fn note_found(&mut self, partition: usize, known: i32, producer_id: i64, epoch: i16, last: i32) {
        for back in 0..200 {
            let sequence = sequence_add(last, (1 << 31) - back);
            if let Some(stamped) = self.stamped(partition, producer_id, epoch, sequence) {
                self.records[stamped.record as usize].looked_for.found_in = Some(known);
            }
        }
    }

    /// Whether a look has found the record, and its leader is still the same and of the same epoch.
    pub(crate) fn is_found(&self, number: u32) -> bool {
        let record = &self.records[number as usize];
        record.looked_for.found_in.is_some_and(|known| known >= self.told_leaders[record.partition].known)
    }
}

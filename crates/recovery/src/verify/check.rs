//! The proof for one partition: from the records of a read to verdicts.
//!
//! A verdict of absence needs all of the following:
//! - The topic is the one to which the record was sent, and is not compacted.
//! - All offsets from the first possible offset of the record up to the fence were read without a gap.
//! - The fence is in force: it was acknowledged to this process, or it was read and is so recent that its leader still
//!   remembers it. A leader's state of a producer id is that of the id's last batch: the epoch, below which the leader
//!   refuses batches, and the timestamp, by which the leader expires the id. The leader checks for expired ids every
//!   ten minutes (Kafka's default). The proof therefore assumes that no batch expires an id before the read reaches the
//!   batch.
//!
//! A record is identified by its stamp, or by the id of its event or letter in a header. The stamp only counts if the
//! topic is certainly the same, because a rebuilt cluster assigns the same producer ids again. Headers of a transaction
//! do not count, because the transaction may have been aborted.

use std::collections::{BTreeMap, HashMap};

use kafka_courier_batcher::{Sequence, Stamp};
use kafka_courier_client::TopicUuid;

use super::{Doubt, Verdict, WhyNot};

/// How long a fence in the log is in force after its last record: half of Kafka's default `producer.id.expiration.ms`.
const FENCE_LIFETIME_MS: i64 = 12 * 60 * 60 * 1000;
/// The distance of a sent fence's epoch from all known epochs. A producer raises its epoch less often during its life.
const FENCE_STEP: i16 = 1000;

/// The topic as the cluster describes it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct ObservedTopic {
    /// The topic id, if it is known.
    pub(super) uuid: Option<TopicUuid>,
    /// Whether the topic is compacted. `None` if unknown.
    pub(super) compacted: Option<bool>,
}

/// The parts of a batch header that the proof uses.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct BatchHead {
    pub(super) base_offset: i64,
    pub(super) last_offset_delta: i32,
    /// The stamp. A batch without a stamp proves nothing.
    pub(super) stamp: Option<Stamp>,
    pub(super) max_timestamp: i64,
}

/// One doubt, and the offsets that the read found for it.
#[derive(Debug)]
struct Case {
    doubt: Doubt,
    /// Whether the topic is certainly the one to which the record was sent.
    same_topic: bool,
    /// The first possible offset of the record in this topic.
    from: i64,
    /// The record's offset.
    found: Option<i64>,
    /// The offset of another record with the record's stamp.
    taken: Option<i64>,
    /// The offset of an undecodable batch that may contain the record.
    unreadable: Option<i64>,
}

/// A producer id of the doubts, and the batches that were read of it.
#[derive(Debug, Default)]
struct TrackedId {
    cases: Vec<usize>,
    /// The cases with a known epoch and sequence number.
    stamped: BTreeMap<(i16, i32), Vec<usize>>,
    /// The highest epoch that was read.
    highest: Option<i16>,
    /// The epoch and maximum timestamp of the last batch. `None` if the last batch may be in a gap.
    last: Option<(i16, i64)>,
    /// The epoch and offset of a fence that was acknowledged to this process.
    fence: Option<(i16, i64)>,
}

/// Whether the leader refuses a late request.
enum Fenced {
    No,
    /// The leader refuses late requests from this offset. `i64::MIN` if the fence itself was read.
    From(i64),
}

/// The content of the offset at which a fence was acknowledged.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum OffsetContent {
    /// The offset was not read.
    Unread,
    /// An undecodable batch with the fence's stamp.
    FenceStamp,
    /// Another undecodable batch.
    Unreadable,
    /// A decodable batch.
    Readable,
}

/// The check of one partition's doubts.
#[derive(Debug)]
pub(super) struct PartitionCheck {
    topic: ObservedTopic,
    cases: Vec<Case>,
    ids: HashMap<i64, TrackedId>,
    by_event: HashMap<String, Vec<usize>>,
    by_letter: HashMap<String, Vec<usize>>,
    /// The ids of letters that serve as fences, and the offsets of their records.
    watched: HashMap<String, Option<i64>>,
    /// Ranges of undecodable offsets, with exclusive ends. Ranges are in ascending order, and adjacent ranges are
    /// joined.
    unreadable: Vec<(i64, i64)>,
    /// Undecodable batches that may be fences, by offset: one record, the first of its epoch.
    unreadable_firsts: HashMap<i64, Stamp>,
    /// The offsets and cases whose stamp is in the last batch.
    just_found: Vec<(i64, usize)>,
    /// The offset from which all records up to `read_to` were read.
    whole_from: i64,
    read_to: i64,
}

impl PartitionCheck {
    pub(super) fn new(doubts: Vec<Doubt>, topic: ObservedTopic) -> Self {
        let mut check = Self {
            topic,
            cases: Vec::with_capacity(doubts.len()),
            ids: HashMap::new(),
            by_event: HashMap::new(),
            by_letter: HashMap::new(),
            watched: HashMap::new(),
            unreadable: Vec::new(),
            unreadable_firsts: HashMap::new(),
            just_found: Vec::new(),
            whole_from: 0,
            read_to: 0,
        };
        doubts.into_iter().for_each(|doubt| check.add(doubt));
        check
    }

    fn add(&mut self, doubt: Doubt) {
        let index = self.cases.len();
        if let Some(id) = doubt.producer_id {
            let id = self.ids.entry(id).or_default();
            id.cases.push(index);
            if let Some(stamp) = stamp_of(&doubt) {
                id.stamped.entry(stamp).or_default().push(index);
            }
        }
        if let Some(event) = &doubt.event_id {
            self.by_event.entry(event.clone()).or_default().push(index);
        }
        self.by_letter.entry(doubt.letter_id.clone()).or_default().push(index);
        // An offset in a deleted topic is meaningless in a recreated topic.
        let same_topic = self.topic.uuid.is_some() && doubt.topic_id == self.topic.uuid;
        let from = if same_topic { doubt.search_from.unwrap_or(0).max(0) } else { 0 };
        self.cases.push(Case { doubt, same_topic, from, found: None, taken: None, unreadable: None });
    }

    /// Returns the first offset to read.
    pub(super) fn from(&self) -> i64 {
        self.cases.iter().map(|case| case.from).min().unwrap_or(0)
    }

    /// Starts the read at `offset`, or continues it there after a gap.
    pub(super) fn begin_at(&mut self, offset: i64) {
        self.whole_from = offset;
        self.read_to = offset;
        self.ids.values_mut().for_each(|id| id.last = None);
    }

    /// Notes that all offsets before `offset` were read.
    pub(super) fn read_up_to(&mut self, offset: i64) {
        self.read_to = self.read_to.max(offset);
    }

    /// Returns the first unread offset.
    pub(super) fn next(&self) -> i64 {
        self.read_to
    }

    /// Returns whether this offset was read.
    fn was_read(&self, offset: i64) -> bool {
        (self.whole_from..self.read_to).contains(&offset)
    }

    /// Adds a batch, before its records. Control batches are not added.
    pub(super) fn on_batch(&mut self, batch: &BatchHead) {
        self.just_found.clear();
        let Some(stamp) = batch.stamp else { return };
        let Some(id) = self.ids.get_mut(&stamp.producer_id) else { return };
        id.highest = id.highest.max(Some(stamp.epoch));
        id.last = Some((stamp.epoch, batch.max_timestamp));
        for (offset, index) in id.covered_by(batch, stamp) {
            if let Some(case) = self.cases.get_mut(index)
                && case.same_topic
                && offset >= case.from
                && case.found.is_none()
            {
                case.found = Some(offset);
                self.just_found.push((offset, index));
            }
        }
    }

    /// Adds the ids in the headers of a record of the last batch, which is not part of a transaction.
    pub(super) fn on_record(&mut self, offset: i64, event_id: Option<&str>, letter_id: Option<&str>) {
        if let Some(seen) = letter_id.and_then(|id| self.watched.get_mut(id)) {
            seen.get_or_insert(offset);
        }
        let named = |map: &HashMap<String, Vec<usize>>, id: Option<&str>| id.and_then(|id| map.get(id)).cloned();
        let by_id = [named(&self.by_event, event_id), named(&self.by_letter, letter_id)];
        for index in by_id.into_iter().flatten().flatten() {
            if let Some(case) = self.cases.get_mut(index)
                && offset >= case.from
                && case.found.is_none()
            {
                case.found = Some(offset);
            }
        }
    }

    /// Adds the event at an offset of the last batch. If the offset has the stamp of a case, but another event, the
    /// stamp is taken.
    pub(super) fn on_event(&mut self, offset: i64, event_id: Option<&str>) {
        let here = self.just_found.iter().filter(|(found, _)| *found == offset);
        for (_, index) in here {
            let Some(case) = self.cases.get_mut(*index) else { continue };
            let ours = case.doubt.event_id.as_deref();
            if event_id.zip(ours).is_some_and(|(there, ours)| there != ours) {
                (case.found, case.taken) = (None, Some(offset));
            }
        }
    }

    /// Notes that the last batch is undecodable. A case without a stamp may be in the batch.
    pub(super) fn on_unreadable(&mut self, batch: &BatchHead) {
        let batch_end = batch.base_offset.saturating_add(i64::from(batch.last_offset_delta)).saturating_add(1);
        match self.unreadable.last_mut() {
            Some((_, end)) if *end == batch.base_offset => *end = batch_end,
            _ => self.unreadable.push((batch.base_offset, batch_end)),
        }
        let Some(stamp) = batch.stamp else { return };
        let Some(id) = self.ids.get(&stamp.producer_id) else { return };
        if stamp.base_sequence == 0 && batch.last_offset_delta == 0 {
            self.unreadable_firsts.insert(batch.base_offset, stamp);
        }
        for index in &id.cases {
            if let Some(case) = self.cases.get_mut(*index)
                && stamp_of(&case.doubt).is_none()
            {
                case.unreadable.get_or_insert(batch.base_offset);
            }
        }
    }

    /// Watches for the record of a letter that is about to be sent as a fence.
    pub(super) fn watch(&mut self, letter_id: &str) {
        self.watched.insert(letter_id.to_owned(), None);
    }

    /// Returns the offset of the record of a letter that was sent as a fence.
    pub(super) fn watched(&self, letter_id: &str) -> Option<i64> {
        self.watched.get(letter_id).copied().flatten()
    }

    /// Returns the content of the offset at which a fence with this stamp was acknowledged.
    pub(super) fn content_at(&self, stamp: Stamp, offset: i64) -> OffsetContent {
        let up_to_here = self.unreadable.partition_point(|(from, _)| *from <= offset);
        let last = up_to_here.checked_sub(1).and_then(|last| self.unreadable.get(last));
        if !self.was_read(offset) {
            OffsetContent::Unread
        } else if self.unreadable_firsts.get(&offset) == Some(&stamp) {
            OffsetContent::FenceStamp
        } else if last.is_some_and(|(_, end)| offset < *end) {
            OffsetContent::Unreadable
        } else {
            OffsetContent::Readable
        }
    }

    /// Adds a fence that was acknowledged to this process.
    pub(super) fn on_fenced(&mut self, stamp: Stamp, offset: i64) {
        if let Some(id) = self.ids.get_mut(&stamp.producer_id) {
            id.fence = Some((stamp.epoch, offset));
        }
    }

    /// Returns the stamps of fences that would complete a proof.
    pub(super) fn wanted_fences(&self, now_ms: i64) -> Vec<Stamp> {
        let mut wanted: Vec<Stamp> = Vec::new();
        for (producer_id, id) in &self.ids {
            let lacks_only_a_fence = |case: &&Case| self.judge(case, now_ms) == not_found(WhyNot::NoFence);
            if !id.cases.iter().filter_map(|index| self.cases.get(*index)).any(|case| lacks_only_a_fence(&case)) {
                continue;
            }
            let sent = id.cases.iter().filter_map(|index| self.cases.get(*index)?.doubt.producer_epoch);
            let highest = sent.chain(id.highest).max().unwrap_or(0);
            let epoch = highest.saturating_add(FENCE_STEP);
            if epoch > highest {
                wanted.push(Stamp { producer_id: *producer_id, epoch, base_sequence: 0 });
            }
        }
        wanted.sort_by_key(|stamp| stamp.producer_id);
        wanted
    }

    /// Returns the offset after the last acknowledged fence, if it is not read yet.
    pub(super) fn unread_fence(&self) -> Option<i64> {
        let last = self.ids.values().filter_map(|id| id.fence).map(|(_, offset)| offset.saturating_add(1)).max()?;
        (last > self.read_to).then_some(last)
    }

    /// Returns whether all records and fences were found, so that further reads prove nothing new.
    pub(super) fn is_settled(&self) -> bool {
        self.cases.iter().all(|case| case.found.is_some()) && self.watched.values().all(Option::is_some)
    }

    /// Returns the letter id and verdict of each doubt, in the order of the doubts.
    pub(super) fn verdicts(self, now_ms: i64) -> Vec<(String, Verdict)> {
        let judged: Vec<Verdict> = self.cases.iter().map(|case| self.judge(case, now_ms)).collect();
        self.cases.into_iter().map(|case| case.doubt.letter_id).zip(judged).collect()
    }

    fn judge(&self, case: &Case, now_ms: i64) -> Verdict {
        if let Some(offset) = case.found {
            return Verdict::Landed { offset };
        }
        match self.obstacle(case, now_ms) {
            Some(why) => not_found(why),
            None => Verdict::Absent,
        }
    }

    /// Returns the obstacle to a proof of absence.
    fn obstacle(&self, case: &Case, now_ms: i64) -> Option<WhyNot> {
        let Some(producer_id) = case.doubt.producer_id else { return Some(WhyNot::NoStamp) };
        match case.doubt.topic_id {
            _ if case.same_topic => {}
            Some(sent_to) if is_known(sent_to) && self.topic.uuid.is_some() => return Some(WhyNot::TopicRecreated),
            _ => return Some(WhyNot::TopicIdUnknown),
        }
        match self.topic.compacted {
            Some(false) => {}
            Some(true) => return Some(WhyNot::Compacted),
            None => return Some(WhyNot::CleanupPolicyUnknown),
        }
        if case.from < self.whole_from {
            return Some(WhyNot::LogStartPast { log_start: self.whole_from });
        }
        if let Some(offset) = case.unreadable {
            return Some(WhyNot::UnreadableBatch { offset });
        }
        if let Some(offset) = case.taken {
            return Some(WhyNot::StampTaken { offset });
        }
        match self.fence_of(producer_id, case.doubt.producer_epoch, now_ms) {
            Fenced::No => Some(WhyNot::NoFence),
            Fenced::From(offset) => (offset >= self.read_to).then_some(WhyNot::WatermarkBehindFence),
        }
    }

    /// Returns the fence against requests of this producer id and epoch. If the epoch is unknown, only a sent fence
    /// counts, because its epoch is above all others.
    fn fence_of(&self, producer_id: i64, epoch: Option<i16>, now_ms: i64) -> Fenced {
        let Some(id) = self.ids.get(&producer_id) else { return Fenced::No };
        let oldest_remembered_ms = oldest_remembered_ms(now_ms);
        let last = epoch.zip(id.last);
        let is_read = last.is_some_and(|(epoch, (last, timestamp))| last > epoch && timestamp >= oldest_remembered_ms);
        match id.fence {
            _ if is_read => Fenced::From(i64::MIN),
            Some((fence, offset)) if epoch.is_none_or(|epoch| fence > epoch) => Fenced::From(offset),
            _ => Fenced::No,
        }
    }
}

/// Returns the oldest timestamp of a batch that a leader certainly still remembers.
pub(crate) fn oldest_remembered_ms(now_ms: i64) -> i64 {
    now_ms.saturating_sub(FENCE_LIFETIME_MS)
}

/// Returns whether the topic id of a letter is one. Letters of earlier versions have zeros where the broker sent none.
fn is_known(uuid: TopicUuid) -> bool {
    uuid != [0; 16]
}

fn not_found(why: WhyNot) -> Verdict {
    Verdict::NotFound { why }
}

/// Returns the epoch and sequence number of the record, if both are known.
fn stamp_of(doubt: &Doubt) -> Option<(i16, i32)> {
    doubt.producer_epoch.zip(doubt.sequence.filter(|sequence| *sequence >= 0))
}

impl TrackedId {
    /// Returns the offsets and cases whose sequence numbers are in this batch. The batch may be one half of the
    /// original batch, which was split.
    fn covered_by(&self, batch: &BatchHead, stamp: Stamp) -> Vec<(i64, usize)> {
        let (first, deltas) = (stamp.base_sequence, batch.last_offset_delta);
        if first < 0 || deltas < 0 {
            return Vec::new();
        }
        let last = first.checked_add(deltas);
        let wrapped = last.is_none().then(|| stamp.advance(deltas.unsigned_abs()).base_sequence);
        let before_wrap = self.stamped.range((stamp.epoch, first)..=(stamp.epoch, last.unwrap_or(i32::MAX)));
        let after_wrap = wrapped.map(|last| self.stamped.range((stamp.epoch, 0)..=(stamp.epoch, last)));
        let all = before_wrap.chain(after_wrap.into_iter().flatten());
        let passed = |sequence: i32| stamp.sequence().distance(Sequence::wrapping(sequence));
        let at = |sequence: i32| batch.base_offset.saturating_add(passed(sequence).into());
        all.flat_map(|((_, sequence), cases)| cases.iter().map(move |case| (at(*sequence), *case))).collect()
    }
}

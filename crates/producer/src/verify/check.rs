//! The proof, for one partition: what was read goes in, verdicts come out.
//!
//! Rules (each absence needs all of them):
//! - The topic is the one that the record was sent to, and never drops records from its middle.
//! - Everything from where the record can be to behind the fence was read without a gap.
//! - The fence is in force: it was acknowledged to us, or it was read and is young enough that its leader remembers it.
//!   What a leader knows of a producer id is its last batch's: the epoch it refuses lower ones by, and the timestamp it
//!   forgets the id by. It looks for what to forget every ten minutes (Kafka's default), which a read takes for longer than
//!   what is appended meanwhile.
//! - What identifies a record: its stamp, where the topic is the same for certain (a cluster that was built anew gives the
//!   same producer ids again), or its event's or letter's id in a header. A transaction's headers don't count: it may have
//!   been aborted.

use std::collections::{BTreeMap, HashMap};

use kafka_courier_batcher::{Stamp, sequence_add};
use kafka_courier_idempotent_sender::core::TopicUuid;

use super::{Doubt, Verdict, WhyNot};

/// A fence that was read counts for so long after its last record: half of Kafka's default `producer.id.expiration.ms`.
const FENCE_LIFETIME_MS: i64 = 12 * 60 * 60 * 1000;
/// A fence of ours lies so far above every epoch that is known, beyond what a producer raises in its life.
const FENCE_STEP: i16 = 1000;

/// What is known of the topic now.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Topic {
    /// All zero: unknown.
    pub(super) uuid: TopicUuid,
    /// Whether it is compacted; `None`: unknown.
    pub(super) compacted: Option<bool>,
}

/// A batch's header, as far as the proof goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct BatchHead {
    pub(super) base_offset: i64,
    pub(super) last_offset_delta: i32,
    /// Without one it proves nothing.
    pub(super) stamp: Option<Stamp>,
    pub(super) max_timestamp: i64,
}

/// One doubt, and what was seen of it.
#[derive(Debug)]
struct Case {
    doubt: Doubt,
    /// Whether the topic is for certain the one that it was sent to.
    same_topic: bool,
    /// The first offset at which it can be in this topic.
    from: i64,
    found: Option<i64>,
    taken: Option<i64>,
    unreadable: Option<i64>,
}

/// What is known of a producer id that doubts name.
#[derive(Debug, Default)]
struct Id {
    cases: Vec<usize>,
    /// Those whose epoch and sequence number are known.
    stamped: BTreeMap<(i16, i32), Vec<usize>>,
    /// The highest epoch that was read.
    highest: Option<i16>,
    /// Epoch and maximum timestamp of its last batch, unless that may be in a gap.
    last: Option<(i16, i64)>,
    /// A fence that was acknowledged to us: its epoch and offset.
    fence: Option<(i16, i64)>,
}

/// Whether a late request can still be written.
enum Fenced {
    No,
    /// From this offset on; 0: the fence was itself read.
    From(i64),
}

/// What is at an offset at which a fence was acknowledged.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum There {
    /// It was not read.
    Unread,
    /// A batch that can't be looked into, with just the fence's stamp.
    ItsStamp,
    /// Another that can't be looked into.
    Unreadable,
    /// Something that can be read.
    Readable,
}

/// The check of one partition's doubts.
#[derive(Debug)]
pub(super) struct PartitionCheck {
    topic: Topic,
    cases: Vec<Case>,
    ids: HashMap<i64, Id>,
    by_event: HashMap<String, Vec<usize>>,
    by_letter: HashMap<String, Vec<usize>>,
    /// Letters that serve as fences, and where they were seen.
    watched: HashMap<String, Option<i64>>,
    /// Offsets from and to (exclusive) whose records could not be read, rising, what is adjacent joined.
    unreadable: Vec<(i64, i64)>,
    /// Those among them that may be fences: one record, the first of its epoch.
    unreadable_firsts: HashMap<i64, Stamp>,
    /// Cases whose stamp is in the last batch, with their offsets.
    just_found: Vec<(i64, usize)>,
    /// Everything from here to `read_to` was read.
    whole_from: i64,
    read_to: i64,
}

impl PartitionCheck {
    pub(super) fn new(doubts: Vec<Doubt>, topic: Topic) -> Self {
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
        // Offsets of a topic that is no more say nothing about this one.
        let same_topic = is_known(self.topic.uuid) && doubt.topic_id == Some(self.topic.uuid);
        let from = if same_topic { doubt.search_from.unwrap_or(0).max(0) } else { 0 };
        self.cases.push(Case { doubt, same_topic, from, found: None, taken: None, unreadable: None });
    }

    /// The first offset that has to be read.
    pub(super) fn from(&self) -> i64 {
        self.cases.iter().map(|case| case.from).min().unwrap_or(0)
    }

    /// Reading begins here, or goes on here behind a gap.
    pub(super) fn begin_at(&mut self, offset: i64) {
        self.whole_from = offset;
        self.read_to = offset;
        self.ids.values_mut().for_each(|id| id.last = None);
    }

    /// Everything before this offset was read.
    pub(super) fn read_up_to(&mut self, offset: i64) {
        self.read_to = self.read_to.max(offset);
    }

    /// The first offset that was not read.
    pub(super) fn next(&self) -> i64 {
        self.read_to
    }

    /// Whether this offset was read.
    fn was_read(&self, offset: i64) -> bool {
        (self.whole_from..self.read_to).contains(&offset)
    }

    /// A batch that is no marker of a transaction; comes before its records.
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

    /// A record of the last batch, which belongs to no transaction, with what its headers say.
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

    /// The event that stands at an offset of the last batch. Where a stamp was found it should be the one that was sent
    /// under it.
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

    /// The last batch's records could not be read: whatever is known only by its ids may be among them.
    pub(super) fn on_unreadable(&mut self, batch: &BatchHead) {
        let behind = batch.base_offset.saturating_add(i64::from(batch.last_offset_delta)).saturating_add(1);
        match self.unreadable.last_mut() {
            Some((_, end)) if *end == batch.base_offset => *end = behind,
            _ => self.unreadable.push((batch.base_offset, behind)),
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

    /// A letter is about to go out as a fence.
    pub(super) fn watch(&mut self, letter_id: &str) {
        self.watched.insert(letter_id.to_owned(), None);
    }

    /// Where a letter that went out as a fence was seen.
    pub(super) fn watched(&self, letter_id: &str) -> Option<i64> {
        self.watched.get(letter_id).copied().flatten()
    }

    /// What is at the offset at which a fence with this stamp was acknowledged.
    pub(super) fn there(&self, stamp: Stamp, offset: i64) -> There {
        let up_to_here = self.unreadable.partition_point(|(from, _)| *from <= offset);
        let last = up_to_here.checked_sub(1).and_then(|last| self.unreadable.get(last));
        if !self.was_read(offset) {
            There::Unread
        } else if self.unreadable_firsts.get(&offset) == Some(&stamp) {
            There::ItsStamp
        } else if last.is_some_and(|(_, end)| offset < *end) {
            There::Unreadable
        } else {
            There::Readable
        }
    }

    /// A fence of ours was acknowledged.
    pub(super) fn on_fenced(&mut self, stamp: Stamp, offset: i64) {
        if let Some(id) = self.ids.get_mut(&stamp.producer_id) {
            id.fence = Some((stamp.epoch, offset));
        }
    }

    /// The stamps under which fences would prove something that is not proved yet.
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

    /// How far has to be read, beyond what was: behind the last fence of ours.
    pub(super) fn unread_fence(&self) -> Option<i64> {
        let last = self.ids.values().filter_map(|id| id.fence).map(|(_, offset)| offset.saturating_add(1)).max()?;
        (last > self.read_to).then_some(last)
    }

    /// Whether everything that is looked for was found, so that reading on tells nothing more.
    pub(super) fn is_settled(&self) -> bool {
        self.cases.iter().all(|case| case.found.is_some()) && self.watched.values().all(Option::is_some)
    }

    /// The verdicts, in the order of the doubts.
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

    /// What stands against the proof that a record is absent.
    fn obstacle(&self, case: &Case, now_ms: i64) -> Option<WhyNot> {
        let Some(producer_id) = case.doubt.producer_id else { return Some(WhyNot::NoStamp) };
        match case.doubt.topic_id {
            _ if case.same_topic => {}
            Some(sent_to) if is_known(sent_to) && is_known(self.topic.uuid) => return Some(WhyNot::TopicMadeAnew),
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

    /// The fence against requests of this id under this epoch; where the epoch is unknown, only one of ours, which was
    /// chosen above all, will do.
    fn fence_of(&self, producer_id: i64, epoch: Option<i16>, now_ms: i64) -> Fenced {
        let Some(id) = self.ids.get(&producer_id) else { return Fenced::No };
        let young = young(now_ms);
        let last = epoch.zip(id.last);
        let is_read = last.is_some_and(|(epoch, (last, timestamp))| last > epoch && timestamp >= young);
        match id.fence {
            _ if is_read => Fenced::From(i64::MIN),
            Some((fence, offset)) if epoch.is_none_or(|epoch| fence > epoch) => Fenced::From(offset),
            _ => Fenced::No,
        }
    }
}

/// The least timestamp of a batch that a leader certainly still remembers.
pub(crate) fn young(now_ms: i64) -> i64 {
    now_ms.saturating_sub(FENCE_LIFETIME_MS)
}

/// Brokers before Kafka 2.8 give topics no id: all zero.
fn is_known(uuid: TopicUuid) -> bool {
    uuid != [0; 16]
}

fn not_found(why: WhyNot) -> Verdict {
    Verdict::NotFound { why }
}

/// The epoch and sequence number of the record, where both are known.
fn stamp_of(doubt: &Doubt) -> Option<(i16, i32)> {
    doubt.producer_epoch.zip(doubt.sequence.filter(|sequence| *sequence >= 0))
}

impl Id {
    /// The cases whose sequence numbers are among this batch's, with their offsets. The batch may be a half of the one
    /// that they were in.
    fn covered_by(&self, batch: &BatchHead, stamp: Stamp) -> Vec<(i64, usize)> {
        let (first, deltas) = (stamp.base_sequence, batch.last_offset_delta);
        if first < 0 || deltas < 0 {
            return Vec::new();
        }
        // Sequence numbers live on a circle of 2^31: i32::MAX is followed by 0.
        let last = first.checked_add(deltas);
        let wrapped = last.is_none().then(|| sequence_add(first, deltas.unsigned_abs()));
        let before = self.stamped.range((stamp.epoch, first)..=(stamp.epoch, last.unwrap_or(i32::MAX)));
        let behind = wrapped.map(|last| self.stamped.range((stamp.epoch, 0)..=(stamp.epoch, last)));
        let all = before.chain(behind.into_iter().flatten());
        let at = |sequence: i32| batch.base_offset.saturating_add(i64::from(sequence.wrapping_sub(first) & i32::MAX));
        all.flat_map(|((_, sequence), cases)| cases.iter().map(move |case| (at(*sequence), *case))).collect()
    }
}

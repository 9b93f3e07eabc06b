//! Random histories of replays, with a plain model of a store and of the log.
//!
//! Rules:
//! - The decisions are those of the shipped code: `sort`, `order`, `plan`, and the topic's index. Sending and storing are
//!   modelled.
//! - The records of a lane are in the log in the order in which their letters arrived, after every history.
//! - No letter is left after a replay without failures.
#![allow(clippy::unwrap_used)] // a helper of tests

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use kafka_courier_batcher::Stamp;
use kafka_courier_dlq::{Bytes, Held, Letter, LetterId, Outcome, Position, Selection, Timestamp};
use proptest::prelude::*;

use super::order::{ReplayLane, Waves};
use super::placed::PlacedLetter;
use super::plan::{self, ReplayAttempt};
use super::sort::Sorter;
use super::stamps::{Slots, StampIds};
use super::{Doubtful, Replay};
use crate::dead_letters::topic::arrival::Arrival;
use crate::dead_letters::topic::index::{FoundLetters, Index};
use crate::verify::{Verdict, WhyNot};

/// Result of a record that is sent.
#[derive(Clone, Copy, Debug)]
enum RecordFate {
    Delivered,
    Rejected,
    Outage,
    /// The answer is lost. Says whether the record is in the log.
    Lost(bool),
}

#[derive(Clone, Debug)]
struct Round {
    limit: Option<u64>,
    selection: u8,
    doubtful: Doubtful,
    max_replays: u32,
    page: usize,
    fates: Vec<RecordFate>,
    /// Whether a letter that is not in the log is proved absent, in turn.
    proofs: Vec<bool>,
    /// Number of records after which the process is killed.
    killed_after: Option<usize>,
}

#[derive(Clone, Debug)]
enum ModelAct {
    /// A letter arrives: its lane, its partition if the lane has several, and whether its outcome is unknown.
    Arrive(u8, i32, bool),
    Replay(Round),
    /// The dead-letter topic gets one more partition.
    AddPartition,
}

fn fate() -> impl Strategy<Value = RecordFate> {
    prop_oneof![
        4 => Just(RecordFate::Delivered),
        1 => Just(RecordFate::Rejected),
        1 => Just(RecordFate::Outage),
        1 => any::<bool>().prop_map(RecordFate::Lost),
    ]
}

fn round() -> impl Strategy<Value = Round> {
    let doubtful = prop_oneof![
        Just(Doubtful::LeaveOut),
        any::<bool>().prop_map(|force| Doubtful::Verify { force }),
        Just(Doubtful::Send),
    ];
    let lists = (prop::collection::vec(fate(), 1..8), prop::collection::vec(any::<bool>(), 1..4));
    let killed = prop::option::weighted(0.3, 0..6_usize);
    (prop::option::of(1..6_u64), 0..4_u8, doubtful, 1..4_u32, 1..5_usize, lists, killed).prop_map(
        |(limit, selection, doubtful, max_replays, page, (fates, proofs), killed_after)| Round {
            limit,
            selection,
            doubtful,
            max_replays,
            page,
            fates,
            proofs,
            killed_after,
        },
    )
}

fn acts() -> impl Strategy<Value = Vec<ModelAct>> {
    let act = prop_oneof![
        5 => (0..5_u8, 0..2_i32, any::<bool>()).prop_map(|(lane, partition, doubt)| ModelAct::Arrive(lane, partition, doubt)),
        3 => round().prop_map(ModelAct::Replay),
        1 => Just(ModelAct::AddPartition),
    ];
    prop::collection::vec(act, 1..40)
}

/// The part of a store that a replay uses.
trait ModelStore {
    fn append(&mut self, letter: Letter);
    fn add_partition(&mut self) {}
    /// Another process opens the store.
    fn open(&mut self) {}
    fn scan(&self, after: Option<Position>, limit: usize) -> Vec<Held>;
    fn update(&mut self, held: Held);
    fn remove(&mut self, position: Position);
}

#[derive(Default)]
struct ModelFile(BTreeMap<Position, Letter>, u64);

impl ModelStore for ModelFile {
    fn append(&mut self, letter: Letter) {
        self.0.insert(Position(self.1), letter);
        self.1 += 1;
    }
    fn scan(&self, after: Option<Position>, limit: usize) -> Vec<Held> {
        let behind = self.0.iter().filter(|(position, _)| after.is_none_or(|after| **position > after));
        behind.take(limit).map(|(position, letter)| Held::new(*position, letter.clone())).collect()
    }
    fn update(&mut self, held: Held) {
        self.0.entry(held.position).and_modify(|letter| *letter = held.letter);
    }
    fn remove(&mut self, position: Position) {
        self.0.remove(&position);
    }
}

/// A record of a dead-letter topic.
enum TopicRecord {
    Letter(Box<Letter>, Arrival),
    Settled(LetterId),
}

struct ModelTopic {
    partitions: Vec<Vec<TopicRecord>>,
    index: Index,
}

impl ModelTopic {
    fn new() -> Self {
        Self { partitions: vec![Vec::new()], index: Index::default() }
    }

    fn write(&mut self, partition: usize, entry: TopicRecord) -> (i32, i64) {
        let log = &mut self.partitions[partition];
        log.push(entry);
        (i32::try_from(partition).unwrap(), i64::try_from(log.len() - 1).unwrap())
    }
}

impl ModelStore for ModelTopic {
    fn append(&mut self, letter: Letter) {
        let spread = letter.key.as_ref().map_or(letter.id.as_uuid().as_u128() as usize, |key| usize::from(key[0]));
        let partition = spread % self.partitions.len();
        self.write(partition, TopicRecord::Letter(Box::new(letter), Arrival::First(Arrival::now())));
    }
    fn add_partition(&mut self) {
        self.partitions.push(Vec::new());
    }
    fn open(&mut self) {
        let mut found = FoundLetters::default();
        for (partition, log) in (0..).zip(&self.partitions) {
            for (offset, entry) in (0..).zip(log) {
                match entry {
                    TopicRecord::Letter(letter, arrival) => found.add_letter(letter.id, (partition, offset), *arrival),
                    TopicRecord::Settled(id) => found.remove(*id),
                }
            }
        }
        self.index = Index::default();
        self.index.replace(found);
    }
    fn scan(&self, after: Option<Position>, limit: usize) -> Vec<Held> {
        let found = self.index.after(after, limit).into_iter().map(|(_, known)| {
            let (partition, offset) = known.newest;
            match &self.partitions[usize::try_from(partition).unwrap()][usize::try_from(offset).unwrap()] {
                TopicRecord::Letter(letter, _) => Held::new(known.position, Letter::clone(letter)),
                TopicRecord::Settled(id) => panic!("{id} is at {:?}", known.newest),
            }
        });
        found.collect()
    }
    fn update(&mut self, held: Held) {
        let Some((id, known)) = self.index.get(held.position) else { return };
        let partition = usize::try_from(known.newest.0).unwrap();
        let at = self.write(partition, TopicRecord::Letter(Box::new(held.letter), Arrival::Before(known.arrived)));
        self.index.update(id, at);
    }
    fn remove(&mut self, position: Position) {
        let Some((id, known)) = self.index.get(position) else { return };
        self.write(usize::try_from(known.newest.0).unwrap(), TopicRecord::Settled(id));
        self.index.remove(id);
    }
}

/// A store, and the log.
struct ReplayModel<S> {
    store: S,
    /// The letters' numbers in the order of arrival.
    numbers: HashMap<LetterId, u64>,
    written: BTreeSet<u64>,
    /// The last written letter of each lane.
    last_written: HashMap<ReplayLane, u64>,
    /// The appended sequence numbers by partition and producer id, with the letters.
    appended: HashMap<(i32, i64), BTreeMap<i32, u64>>,
    last_id: i64,
    sent: usize,
}

/// The process was killed.
struct Killed;

impl<S: ModelStore> ReplayModel<S> {
    fn new(store: S) -> Self {
        let (numbers, written, last_written, appended) =
            (HashMap::new(), BTreeSet::new(), HashMap::new(), HashMap::new());
        Self { store, numbers, written, last_written, appended, last_id: 100, sent: 0 }
    }

    fn act(&mut self, act: ModelAct) {
        match act {
            ModelAct::AddPartition => self.store.add_partition(),
            ModelAct::Arrive(lane, partition, doubt) => self.arrive(lane, partition, doubt),
            ModelAct::Replay(round) => {
                self.store.open();
                // A killed replay leaves the store as it is.
                let _ = self.replay(&round);
            }
        }
    }

    fn arrive(&mut self, lane: u8, partition: i32, doubt: bool) {
        let number = self.numbers.len() as u64;
        let mut letter = Letter::new("t", None, "why", Timestamp::UNIX_EPOCH);
        letter.key = (lane < 3).then(|| Bytes::copy_from_slice(&[lane]));
        letter.partition = Some(if lane < 3 { partition } else { i32::from(lane) });
        letter.error_code = number.is_multiple_of(3).then(|| "A".to_owned());
        letter.retriable = number.is_multiple_of(2);
        letter.outcome = if doubt { Outcome::Unknown } else { Outcome::NotWritten };
        self.numbers.insert(letter.id, number);
        self.store.append(letter);
    }

    /// Writes the record to the log. No record of its lane that arrived later may be there.
    fn write(&mut self, placed: &PlacedLetter) {
        let number = self.numbers[&placed.held.letter.id];
        if self.written.insert(number) {
            let before = self.last_written.insert(placed.lane().unwrap(), number);
            assert!(before.is_none_or(|before| before < number), "{number} was written after {before:?}");
        }
    }

    fn replay(&mut self, round: &Round) -> Result<(), Killed> {
        let mut sorter = Sorter::new(round.replay());
        sorter.order.begin_store();
        self.sent = 0;
        let all = self.store.scan(None, usize::MAX);
        let Some(end) = all.last().map(|held| held.position) else { return Ok(()) };
        self.check_letters(&all, round, &mut sorter);
        let (mut ids, mut after) = (StampIds::default(), None);
        loop {
            let mut page = self.store.scan(after, round.page);
            page.retain(|held| held.position <= end);
            let Some(last) = page.last().map(|held| held.position) else { return Ok(()) };
            after = Some(last);
            self.page(page, &mut ids, round, &mut sorter)?;
            if last >= end || sorter.remaining() == 0 {
                return Ok(());
            }
        }
    }

    fn check_letters(&self, all: &[Held], round: &Round, sorter: &mut Sorter) {
        let mut proofs = round.proofs.iter().cycle();
        for held in all {
            let verdict = if self.written.contains(&self.numbers[&held.letter.id]) {
                Verdict::Landed { offset: 0 }
            } else if *proofs.next().unwrap() {
                Verdict::Absent
            } else {
                Verdict::NotFound { why: WhyNot::NoFence }
            };
            sorter.checked.verdicts.insert(held.letter.id, verdict);
        }
    }

    fn page(&mut self, page: Vec<Held>, ids: &mut StampIds, round: &Round, sorter: &mut Sorter) -> Result<(), Killed> {
        let sorted = sorter.sort(page, 0);
        sorted.settled.into_iter().for_each(|position| self.store.remove(position));
        sorted.changed.into_iter().for_each(|held| self.store.update(held));
        let mut repeats = Waves::new(sorted.repeat, |held| ReplayLane::of(&held.letter));
        while let Some(wave) = repeats.next() {
            for held in wave {
                if !sorter.is_held_back(&held, held.letter.partition) {
                    self.repeat(place(held), round, sorter)?;
                }
            }
        }
        let ready = sorted.send.into_iter().map(place).collect();
        self.send(ready, ids, round, sorter)
    }

    /// Repeats a letter under its stamp. The record is in the log once afterwards.
    fn repeat(&mut self, placed: PlacedLetter, round: &Round, sorter: &mut Sorter) -> Result<(), Killed> {
        let stamp = plan::stamp_to_repeat(&placed.held.letter, 0);
        let fate = self.fate(&placed, stamp, round)?;
        if matches!(fate, RecordFate::Delivered) {
            self.store.remove(placed.held.position);
            return Ok(());
        }
        sorter.order.note_staying(&placed.held, Some(placed.partition));
        let letter = plan::after_failed_repeat(&placed.held.letter, !matches!(fate, RecordFate::Outage));
        self.store.update(Held { letter, ..placed.held });
        Ok(())
    }

    fn send(
        &mut self,
        mut letters: Vec<PlacedLetter>,
        ids: &mut StampIds,
        round: &Round,
        sorter: &mut Sorter,
    ) -> Result<(), Killed> {
        letters.retain(|placed| !sorter.is_held_back(&placed.held, Some(placed.partition)));
        let slots = Slots::of(&letters);
        for _ in ids.len()..slots.needed() {
            self.last_id += 1;
            ids.add(self.last_id);
        }
        let stamps = ids.stamp(&letters, &slots);
        for (PlacedLetter { held, partition, .. }, stamp) in letters.iter().zip(&stamps) {
            let (now, producer_id) = (Timestamp::UNIX_EPOCH, Some(7));
            let attempt = ReplayAttempt { now, partition: *partition, topic_id: None, producer_id, log_end: None };
            let letter = match stamp {
                Some(stamp) => plan::in_progress_stamped(&held.letter, &attempt, *stamp),
                None => plan::in_progress(&held.letter, &attempt),
            };
            self.store.update(Held::new(held.position, letter));
        }
        let (mut delivered, mut back, mut unsettled) = (Vec::new(), Vec::new(), HashSet::new());
        let mut waves = Waves::new(letters.into_iter().zip(stamps), |(placed, _)| placed.lane());
        while let Some(wave) = waves.next() {
            for (placed, stamp) in wave {
                let position = placed.held.position;
                if sorter.is_held_back(&placed.held, Some(placed.partition)) {
                    back.push(placed.held);
                } else {
                    let fate = self.fate(&placed, stamp, round)?;
                    self.settle(placed, fate, sorter, &mut delivered);
                }
                if delivered.last() != Some(&position) {
                    unsettled.extend(stamp.map(|stamp| stamp.producer_id));
                }
            }
        }
        ids.retire(&unsettled);
        delivered.into_iter().for_each(|position| self.store.remove(position));
        back.into_iter().for_each(|held| self.store.update(held));
        Ok(())
    }

    /// Sends a record, and writes it to the log if its fate says so.
    fn fate(&mut self, placed: &PlacedLetter, stamp: Option<Stamp>, round: &Round) -> Result<RecordFate, Killed> {
        let mut fate = round.fates[self.sent % round.fates.len()];
        if matches!(fate, RecordFate::Delivered | RecordFate::Lost(true)) && !self.is_acknowledged(placed, stamp) {
            fate = RecordFate::Rejected;
        }
        let is_killed = round.killed_after == Some(self.sent);
        self.sent += 1;
        if is_killed { Err(Killed) } else { Ok(fate) }
    }

    /// Returns whether the leader acknowledges the record: the leader knows the last sequence number of each producer id.
    fn is_acknowledged(&mut self, placed: &PlacedLetter, stamp: Option<Stamp>) -> bool {
        let number = self.numbers[&placed.held.letter.id];
        let Some(stamp) = stamp else {
            self.write(placed);
            return true;
        };
        let known = self.appended.entry((placed.partition, stamp.producer_id)).or_default();
        match known.last_key_value().map(|(last, _)| *last) {
            Some(last) if stamp.base_sequence <= last => {
                let duplicate = known.get(&stamp.base_sequence);
                assert_eq!(duplicate, Some(&number), "another record has this stamp");
            }
            Some(last) if stamp.base_sequence > last + 1 => return false,
            _ => {
                known.insert(stamp.base_sequence, number);
                self.write(placed);
            }
        }
        true
    }

    fn settle(&mut self, placed: PlacedLetter, fate: RecordFate, sorter: &mut Sorter, delivered: &mut Vec<Position>) {
        let PlacedLetter { held, partition, .. } = placed;
        let mut letter = match fate {
            RecordFate::Delivered => return delivered.push(held.position),
            RecordFate::Rejected | RecordFate::Outage | RecordFate::Lost(_) => {
                let counts = !matches!(fate, RecordFate::Outage);
                plan::after_failed_attempt(&held.letter, Timestamp::UNIX_EPOCH, "again".to_owned(), counts)
            }
        };
        letter.partition = Some(partition);
        letter.error_code = Some("B".to_owned());
        if matches!(fate, RecordFate::Lost(_)) {
            letter.outcome = Outcome::Unknown;
        }
        sorter.order.note_staying(&held, Some(partition));
        self.store.update(Held { letter, ..held });
    }

    /// Replays without failures. No letter may be left.
    fn replay_all(&mut self) {
        let round = Round {
            limit: None,
            selection: 0,
            doubtful: Doubtful::Verify { force: true },
            max_replays: u32::MAX,
            page: 3,
            fates: vec![RecordFate::Delivered],
            proofs: vec![true],
            killed_after: None,
        };
        for _ in 0..2 {
            self.act(ModelAct::Replay(round.clone()));
        }
        self.store.open();
        assert_eq!(self.store.scan(None, 1), []);
        assert_eq!(self.written.len(), self.numbers.len());
    }
}

impl Round {
    fn replay(&self) -> Replay {
        let mut selection = Selection::all();
        match self.selection {
            1 => selection.error_codes = vec!["A".to_owned()],
            2 => selection.retriable = Some(true),
            3 => selection.outcome = Some(Outcome::NotWritten),
            _ => {}
        }
        let (doubtful, max_replays, limit) = (self.doubtful, self.max_replays, self.limit);
        Replay { selection, doubtful, max_replays, limit, ..Replay::default() }
    }
}

fn place(held: Held) -> PlacedLetter {
    let partition = held.letter.partition.unwrap();
    PlacedLetter { held, partition, before: None }
}

fn history(store: impl ModelStore, acts: Vec<ModelAct>) {
    let mut model = ReplayModel::new(store);
    acts.into_iter().for_each(|act| model.act(act));
    model.replay_all();
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(1000) })]

    #[test]
    fn lanes_leave_files_in_order(acts in acts()) {
        history(ModelFile::default(), acts);
    }

    #[test]
    fn lanes_leave_topics_in_order(acts in acts()) {
        history(ModelTopic::new(), acts);
    }

    /// Retention deletes the first records. The other records keep their order.
    #[test]
    fn retention_keeps_the_order(acts in prop::collection::vec((0..3_usize, any::<bool>()), 1..30), cut in 0..20_usize) {
        let mut topic = ModelTopic { partitions: vec![Vec::new(), Vec::new(), Vec::new()], index: Index::default() };
        let mut ids = Vec::new();
        for (partition, again) in acts {
            topic.open();
            match topic.scan(None, usize::MAX).into_iter().nth(partition).filter(|_| again) {
                Some(held) => topic.update(held),
                None => {
                    let letter = Letter::new("t", None, "why", Timestamp::UNIX_EPOCH);
                    ids.push(letter.id);
                    topic.write(partition, TopicRecord::Letter(Box::new(letter), Arrival::First(Arrival::now())));
                }
            }
        }
        topic.partitions.iter_mut().for_each(|log| _ = log.drain(..cut.min(log.len())));
        topic.open();
        let left: Vec<LetterId> = topic.scan(None, usize::MAX).into_iter().map(|held| held.letter.id).collect();
        ids.retain(|id| left.contains(id));
        prop_assert_eq!(left, ids);
    }
}

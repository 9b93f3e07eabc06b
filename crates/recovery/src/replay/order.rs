//! Holds back the letters behind one that stays, so that the letters of one key leave in the order of their arrival.
//!
//! Rules:
//! - Pure. Letters are visited in the store's order, selected or not.
//! - A letter that stays holds back all later ones of its lane. With `out_of_order`, a letter that was left out does not hold back later ones. A
//!   letter that failed always does.
//! - Ids decide between stores, because ids grow within a process: the letter with the smaller id is the earlier one.
//! - A letter that is sent to another topic keeps its order there as well: it has a lane in both topics.
//! - One letter of each lane is in progress at a time. The next one waits for its verdict.

use std::collections::{HashMap, VecDeque};

use kafka_courier_dlq::{Bytes, Held, Letter, LetterId, Position};

use super::Replay;

/// A partition of a topic.
pub(super) type TopicPartition = (String, i32);

/// A sequence of letters that leave in order: those of one key of a topic, or those of a partition without a key.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(crate) struct ReplayLane {
    topic: String,
    key: LaneKey,
}

#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
enum LaneKey {
    Key(Bytes),
    Partition(i32),
}

impl ReplayLane {
    /// Returns the letter's lane. A record without a key and a partition has none, because no other record is ordered with it.
    pub(crate) fn of(letter: &Letter) -> Option<Self> {
        Self::at(letter, letter.partition)
    }

    /// Returns the lane of a letter that is sent to this partition.
    pub(crate) fn at(letter: &Letter, partition: Option<i32>) -> Option<Self> {
        let key = match &letter.key {
            Some(key) => LaneKey::Key(key.clone()),
            None => LaneKey::Partition(partition?),
        };
        Some(Self { topic: letter.topic.clone(), key })
    }

    /// Returns all lanes of a letter that is sent to this partition: its own, and the one in the topic that a replay sends it
    /// to. A record without a key has no lane in that topic.
    pub(crate) fn all(letter: &Letter, partition: Option<i32>, replay: &Replay) -> impl Iterator<Item = Self> {
        let rerouted = letter.key.clone().filter(|_| replay.reroutes(letter));
        let rerouted = rerouted.map(|key| Self { topic: replay.topic_of(letter).to_owned(), key: LaneKey::Key(key) });
        Self::at(letter, partition).into_iter().chain(rerouted)
    }
}

/// The lanes that are held back.
#[derive(Debug, Default)]
pub(crate) struct Order {
    replay: Replay,
    /// Lanes of the present store with letters that stay.
    present: HashMap<ReplayLane, Blocker>,
    /// The smallest id of each lane that stayed in the earlier stores.
    earlier: HashMap<ReplayLane, LetterId>,
    /// The smallest id of each lane in the later stores.
    later: HashMap<ReplayLane, LetterId>,
}

/// The first letter of a lane that stays, which holds back the later ones.
#[derive(Clone, Copy, Debug)]
struct Blocker {
    position: Position,
    /// The smallest id of the lane's letters that stay.
    id: LetterId,
}

impl Order {
    pub(crate) fn new(replay: Replay) -> Self {
        Self { replay, ..Self::default() }
    }

    /// Begins the next store.
    pub(crate) fn begin_store(&mut self) {
        for (lane, stays) in self.present.drain() {
            note_smallest(&mut self.earlier, lane, stays.id);
        }
        self.later.clear();
    }

    /// Notes a letter of a later store.
    pub(crate) fn note_later_store(&mut self, letter: &Letter) {
        if let Some(lane) = ReplayLane::of(letter) {
            note_smallest(&mut self.later, lane, letter.id);
        }
    }

    /// Notes that the letter stays because it was not selected. This holds back its lane in its own topic alone.
    pub(crate) fn note_not_selected(&mut self, held: &Held) {
        if !self.replay.out_of_order {
            self.note_staying_in(ReplayLane::of(&held.letter), held);
        }
    }

    /// Notes that the letter stays because it was left out.
    pub(crate) fn note_left_out(&mut self, held: &Held) {
        if !self.replay.out_of_order {
            self.note_staying(held, held.letter.partition);
        }
    }

    /// Notes that the letter stays because its record failed, or was refused, for this partition.
    pub(crate) fn note_staying(&mut self, held: &Held, partition: Option<i32>) {
        self.note_staying_in(ReplayLane::all(&held.letter, partition, &self.replay).collect::<Vec<_>>(), held);
    }

    fn note_staying_in(&mut self, lanes: impl IntoIterator<Item = ReplayLane>, held: &Held) {
        for lane in lanes {
            let stays = self.present.entry(lane).or_insert(Blocker { position: held.position, id: held.letter.id });
            stays.position = stays.position.min(held.position);
            stays.id = stays.id.min(held.letter.id);
        }
    }

    /// Returns whether an earlier letter of its lanes stays.
    pub(crate) fn is_held_back(&self, held: &Held, partition: Option<i32>) -> bool {
        ReplayLane::all(&held.letter, partition, &self.replay).any(|lane| self.is_blocked_in(&lane, held))
    }

    fn is_blocked_in(&self, lane: &ReplayLane, held: &Held) -> bool {
        let is_earlier = |other: &LetterId| *other < held.letter.id;
        let is_in_other_store =
            [&self.earlier, &self.later].into_iter().any(|ids| ids.get(lane).is_some_and(is_earlier));
        let is_in_this_store = self.present.get(lane).is_some_and(|stays| stays.position < held.position);
        is_in_this_store || (is_in_other_store && !self.replay.out_of_order)
    }
}

fn note_smallest(lanes: &mut HashMap<ReplayLane, LetterId>, lane: ReplayLane, id: LetterId) {
    let least = lanes.entry(lane).or_insert(id);
    *least = id.min(*least);
}

/// Items in groups of one item for each lane: items of one lane follow each other, and different lanes run in parallel.
#[derive(Debug)]
pub(crate) struct Waves<T> {
    lanes: Vec<VecDeque<T>>,
}

impl<T> Waves<T> {
    /// Takes the items in the store's order.
    pub(crate) fn new(items: impl IntoIterator<Item = T>, lane: impl Fn(&T) -> Option<ReplayLane>) -> Self {
        let (mut lanes, mut known) = (Vec::<VecDeque<T>>::new(), HashMap::new());
        for item in items {
            let at = lane(&item).map_or(lanes.len(), |lane| *known.entry(lane).or_insert(lanes.len()));
            match lanes.get_mut(at) {
                Some(lane) => lane.push_back(item),
                None => lanes.push(VecDeque::from([item])),
            }
        }
        Self { lanes }
    }

    /// Returns the next group: the first remaining item of each lane.
    pub(crate) fn next(&mut self) -> Option<Vec<T>> {
        let wave: Vec<T> = self.lanes.iter_mut().filter_map(VecDeque::pop_front).collect();
        self.lanes.retain(|lane| !lane.is_empty());
        (!wave.is_empty()).then_some(wave)
    }
}

#[cfg(test)]
mod tests {
    use kafka_courier_dlq::Timestamp;

    use super::*;

    fn letter(topic: &str, key: Option<&'static str>, partition: Option<i32>) -> Letter {
        let mut letter = Letter::new(topic, None, "why", Timestamp::UNIX_EPOCH);
        (letter.key, letter.partition) = (key.map(|key| Bytes::from_static(key.as_bytes())), partition);
        letter
    }

    fn held(position: u64, letter: &Letter) -> Held {
        Held::new(Position(position), letter.clone())
    }

    fn is_held_back(order: &Order, letter: &Letter) -> bool {
        order.is_held_back(&held(9, letter), letter.partition)
    }

    #[test]
    fn letter_that_stays_holds_its_lane() {
        let mut order = Order::default();
        order.note_left_out(&held(1, &letter("t", Some("k"), Some(0))));
        order.note_staying(&held(2, &letter("t", None, None)), Some(1));
        let later = letter("t", Some("k"), Some(3));
        assert!(is_held_back(&order, &later), "in every partition");
        assert!(is_held_back(&order, &letter("t", None, Some(1))));
        for free in [letter("u", Some("k"), None), letter("t", Some("l"), None), letter("t", None, None)] {
            assert!(!is_held_back(&order, &free), "{free:?}");
        }
        assert!(!order.is_held_back(&held(0, &later), None), "it is earlier");
    }

    #[test]
    fn null_and_empty_keys_differ() {
        let mut order = Order::default();
        order.note_left_out(&held(0, &letter("t", Some(""), Some(0))));
        assert!(is_held_back(&order, &letter("t", Some(""), Some(0))));
        assert!(!is_held_back(&order, &letter("t", None, Some(0))));
    }

    #[test]
    fn out_of_order_only_failures_hold() {
        let mut order = Order::new(Replay { out_of_order: true, ..Replay::default() });
        order.note_left_out(&held(0, &letter("t", Some("k"), None)));
        assert!(!is_held_back(&order, &letter("t", Some("k"), None)));
        order.note_staying(&held(0, &letter("t", Some("k"), None)), None);
        assert!(is_held_back(&order, &letter("t", Some("k"), None)));
    }

    #[test]
    fn rerouted_letters_share_a_lane() {
        let mut order = Order::new(Replay { to_topic: Some("u".to_owned()), ..Replay::default() });
        order.note_not_selected(&held(0, &letter("x", Some("k"), None)));
        assert!(!is_held_back(&order, &letter("t", Some("k"), None)), "not sent to that topic");
        assert!(is_held_back(&order, &letter("x", Some("k"), None)));
        order.note_staying(&held(1, &letter("u", Some("k"), None)), Some(3));
        assert!(is_held_back(&order, &letter("t", Some("k"), None)));
        assert!(!is_held_back(&order, &letter("t", None, Some(0))));
        order.note_left_out(&held(1, &letter("t", Some("l"), None)));
        assert!(is_held_back(&order, &letter("u", Some("l"), None)));
    }

    #[test]
    fn other_stores_hold_later_letters() {
        let letters: Vec<Letter> = (0..3).map(|_| letter("t", Some("k"), None)).collect();
        let mut order = Order::default();
        order.begin_store();
        order.note_later_store(&letters[1]);
        assert!(!is_held_back(&order, &letters[0]));
        assert!(is_held_back(&order, &letters[2]));
        order.note_left_out(&held(0, &letters[2]));
        for _ in 0..2 {
            order.begin_store();
            assert!(!is_held_back(&order, &letters[1]), "earlier than the dead letter that stayed");
            assert!(is_held_back(&order, &letter("t", Some("k"), None)));
        }
    }

    #[test]
    fn waves_take_one_of_each_lane() {
        let lanes = [Some("a"), Some("a"), None, Some("b"), Some("a"), None];
        let letters: Vec<(usize, Letter)> = lanes.into_iter().map(|key| letter("t", key, None)).enumerate().collect();
        let mut waves = Waves::new(letters, |(_, letter)| ReplayLane::of(letter));
        let mut seen = Vec::new();
        while let Some(wave) = waves.next() {
            seen.push(wave.into_iter().map(|(number, _)| number).collect::<Vec<_>>());
        }
        assert_eq!(seen, [vec![0, 2, 3, 5], vec![1], vec![4]]);
    }
}

//! Which letters may leave a store, so that those of one key leave in the order in which they arrived.
//!
//! Rules:
//! - Pure. Letters are passed in the store's order, whether or not they are selected.
//! - A letter that stays holds back all later ones of its lane. One that was left out does so unless the caller sends out of
//!   order; one that failed always does.
//! - Across stores the letters' ids decide, which grow within a process: a letter that another store holds is the earlier
//!   one if its id is smaller.
//! - A letter that goes to another topic is in order there too: it has a lane in its own topic and one in that.
//! - What leaves at a time holds one letter of each lane: the next one waits for its verdict.

use std::collections::{HashMap, VecDeque};

use kafka_courier_dlq::{Bytes, Held, Letter, LetterId, Position};

use super::Replay;

/// What is kept in order: the records of a key of a topic, or those of a partition that have no key.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(crate) struct Lane {
    topic: String,
    of: Of,
}

#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
enum Of {
    Key(Bytes),
    Partition(i32),
}

impl Lane {
    /// The letter's lane. A record without key and partition has none: nothing was ever in order with it.
    pub(crate) fn of(letter: &Letter) -> Option<Self> {
        Self::at(letter, letter.partition)
    }

    /// As [`of`](Self::of), of a letter that goes to this partition.
    pub(crate) fn at(letter: &Letter, partition: Option<i32>) -> Option<Self> {
        let of = match &letter.key {
            Some(key) => Of::Key(key.clone()),
            None => Of::Partition(partition?),
        };
        Some(Self { topic: letter.topic.clone(), of })
    }

    /// All lanes of a letter that goes to this partition: its own, and that of the topic that a replay sends it to. There a
    /// record without a key has none, for nothing was ever in order with it.
    pub(crate) fn all(letter: &Letter, partition: Option<i32>, replay: &Replay) -> impl Iterator<Item = Self> {
        let there = letter.key.clone().filter(|_| replay.reroutes(letter));
        let there = there.map(|key| Self { topic: replay.topic_of(letter).to_owned(), of: Of::Key(key) });
        Self::at(letter, partition).into_iter().chain(there)
    }
}

/// Which lanes are held back.
#[derive(Debug, Default)]
pub(crate) struct Order {
    replay: Replay,
    /// Lanes of the present store of which letters stay.
    here: HashMap<Lane, Stays>,
    /// The smallest id of each lane that stayed in the stores before this one.
    before: HashMap<Lane, LetterId>,
    /// The smallest id of each lane that the stores behind this one hold.
    behind: HashMap<Lane, LetterId>,
}

/// The first letter of a lane that stays.
#[derive(Clone, Copy, Debug)]
struct Stays {
    position: Position,
    /// The smallest id of those that stay.
    id: LetterId,
}

impl Order {
    pub(crate) fn new(replay: Replay) -> Self {
        Self { replay, ..Self::default() }
    }

    /// Begins the next store.
    pub(crate) fn begin(&mut self) {
        for (lane, stays) in self.here.drain() {
            note(&mut self.before, lane, stays.id);
        }
        self.behind.clear();
    }

    /// A store behind this one holds the letter.
    pub(crate) fn is_behind(&mut self, letter: &Letter) {
        if let Some(lane) = Lane::of(letter) {
            note(&mut self.behind, lane, letter.id);
        }
    }

    /// The letter stays because it was not selected: whatever is sent elsewhere is sent without it.
    pub(crate) fn not_selected(&mut self, held: &Held) {
        if !self.replay.out_of_order {
            self.stays_in(Lane::of(&held.letter), held);
        }
    }

    /// The letter stays because it was left out.
    pub(crate) fn left_out(&mut self, held: &Held) {
        if !self.replay.out_of_order {
            self.stays(held, held.letter.partition);
        }
    }

    /// The letter stays: its record failed, or was not accepted, on its way to this partition.
    pub(crate) fn stays(&mut self, held: &Held, partition: Option<i32>) {
        self.stays_in(Lane::all(&held.letter, partition, &self.replay).collect::<Vec<_>>(), held);
    }

    fn stays_in(&mut self, lanes: impl IntoIterator<Item = Lane>, held: &Held) {
        for lane in lanes {
            let stays = self.here.entry(lane).or_insert(Stays { position: held.position, id: held.letter.id });
            stays.position = stays.position.min(held.position);
            stays.id = stays.id.min(held.letter.id);
        }
    }

    /// Whether an earlier letter of its lane stays.
    pub(crate) fn is_held_back(&self, held: &Held, partition: Option<i32>) -> bool {
        Lane::all(&held.letter, partition, &self.replay).any(|lane| self.is_behind_in(&lane, held))
    }

    fn is_behind_in(&self, lane: &Lane, held: &Held) -> bool {
        let is_earlier = |other: &LetterId| *other < held.letter.id;
        let is_elsewhere = [&self.before, &self.behind].into_iter().any(|ids| ids.get(lane).is_some_and(is_earlier));
        let is_here = self.here.get(lane).is_some_and(|stays| stays.position < held.position);
        is_here || (is_elsewhere && !self.replay.out_of_order)
    }
}

fn note(lanes: &mut HashMap<Lane, LetterId>, lane: Lane, id: LetterId) {
    let least = lanes.entry(lane).or_insert(id);
    *least = id.min(*least);
}

/// Items that wait for their turn: those of one lane one after the other, those of different lanes side by side.
#[derive(Debug)]
pub(crate) struct Waves<T> {
    lanes: Vec<VecDeque<T>>,
}

impl<T> Waves<T> {
    /// Of these, in the store's order.
    pub(crate) fn new(items: impl IntoIterator<Item = T>, lane: impl Fn(&T) -> Option<Lane>) -> Self {
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

    /// The next ones: of each lane the first that is left.
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
        order.left_out(&held(1, &letter("t", Some("k"), Some(0))));
        order.stays(&held(2, &letter("t", None, None)), Some(1));
        let later = letter("t", Some("k"), Some(3));
        assert!(is_held_back(&order, &later), "whichever its partition");
        assert!(is_held_back(&order, &letter("t", None, Some(1))));
        for free in [letter("u", Some("k"), None), letter("t", Some("l"), None), letter("t", None, None)] {
            assert!(!is_held_back(&order, &free), "{free:?}");
        }
        assert!(!order.is_held_back(&held(0, &later), None), "it is earlier");
    }

    #[test]
    fn null_and_empty_keys_differ() {
        let mut order = Order::default();
        order.left_out(&held(0, &letter("t", Some(""), Some(0))));
        assert!(is_held_back(&order, &letter("t", Some(""), Some(0))));
        assert!(!is_held_back(&order, &letter("t", None, Some(0))));
    }

    #[test]
    fn out_of_order_only_failures_hold() {
        let mut order = Order::new(Replay { out_of_order: true, ..Replay::default() });
        order.left_out(&held(0, &letter("t", Some("k"), None)));
        assert!(!is_held_back(&order, &letter("t", Some("k"), None)));
        order.stays(&held(0, &letter("t", Some("k"), None)), None);
        assert!(is_held_back(&order, &letter("t", Some("k"), None)));
    }

    #[test]
    fn rerouted_letters_share_a_lane() {
        let mut order = Order::new(Replay { to_topic: Some("u".to_owned()), ..Replay::default() });
        order.not_selected(&held(0, &letter("x", Some("k"), None)));
        assert!(!is_held_back(&order, &letter("t", Some("k"), None)), "it stays out of that topic");
        assert!(is_held_back(&order, &letter("x", Some("k"), None)));
        order.stays(&held(1, &letter("u", Some("k"), None)), Some(3));
        assert!(is_held_back(&order, &letter("t", Some("k"), None)));
        assert!(!is_held_back(&order, &letter("t", None, Some(0))));
        order.left_out(&held(1, &letter("t", Some("l"), None)));
        assert!(is_held_back(&order, &letter("u", Some("l"), None)));
    }

    #[test]
    fn other_stores_hold_later_letters() {
        let letters: Vec<Letter> = (0..3).map(|_| letter("t", Some("k"), None)).collect();
        let mut order = Order::default();
        order.begin();
        order.is_behind(&letters[1]);
        assert!(!is_held_back(&order, &letters[0]));
        assert!(is_held_back(&order, &letters[2]));
        order.left_out(&held(0, &letters[2]));
        for _ in 0..2 {
            order.begin();
            assert!(!is_held_back(&order, &letters[1]), "it is earlier than what stayed");
            assert!(is_held_back(&order, &letter("t", Some("k"), None)));
        }
    }

    #[test]
    fn waves_take_one_of_each_lane() {
        let lanes = [Some("a"), Some("a"), None, Some("b"), Some("a"), None];
        let letters: Vec<(usize, Letter)> = lanes.into_iter().map(|key| letter("t", key, None)).enumerate().collect();
        let mut waves = Waves::new(letters, |(_, letter)| Lane::of(letter));
        let mut seen = Vec::new();
        while let Some(wave) = waves.next() {
            seen.push(wave.into_iter().map(|(number, _)| number).collect::<Vec<_>>());
        }
        assert_eq!(seen, [vec![0, 2, 3, 5], vec![1], vec![4]]);
    }
}

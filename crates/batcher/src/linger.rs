//! Decides when the open batches of all partitions are sealed: at the end of their linger, or earlier if awaited.
//!
//! Rules:
//!  - A partition with an open batch has one entry, for its newest batch, however many batches it opens and seals.
//!  - Due batches are popped one by one, because sealing compresses.
//!  - An awaited batch is due once no earlier batch of its partition is in flight. Records that are published meanwhile
//!    share the next batch.

use std::collections::{BTreeSet, HashMap};
use std::hash::Hash;
use std::time::Instant;

/// The open batches of all partitions, and when each is due. `P` identifies a partition.
#[derive(Debug)]
pub struct LingerQueue<P> {
    open: HashMap<P, LingeringBatch>,
    /// The same batches by the time at which they are due.
    queue: BTreeSet<(Instant, P)>,
}

#[derive(Clone, Copy, Debug)]
struct LingeringBatch {
    due_at: Instant,
    ordinal: u64,
    /// A caller awaits a delivery of this batch.
    awaited: bool,
}

impl<P> Default for LingerQueue<P> {
    fn default() -> Self {
        Self { open: HashMap::new(), queue: BTreeSet::new() }
    }
}

impl<P: Copy + Ord + Hash> LingerQueue<P> {
    /// Adds a batch that was opened. It is its partition's newest, and its linger ends at `deadline`.
    pub fn opened(&mut self, partition: P, ordinal: u64, deadline: Instant) {
        let batch = LingeringBatch { due_at: deadline, ordinal, awaited: false };
        if let Some(before) = self.open.insert(partition, batch) {
            self.queue.remove(&(before.due_at, partition));
        }
        self.queue.insert((deadline, partition));
    }

    /// Removes a batch that was sealed for another reason. Does nothing if the partition has a newer batch.
    pub fn sealed(&mut self, partition: P, ordinal: u64) {
        if let Some(open) = self.open.get(&partition).copied()
            && open.ordinal == ordinal
        {
            self.open.remove(&partition);
            self.queue.remove(&(open.due_at, partition));
        }
    }

    /// Notes that a caller awaits a delivery of a batch. Does nothing if the partition has a newer batch.
    pub fn awaited(&mut self, partition: P, ordinal: u64) {
        if let Some(open) = self.open.get_mut(&partition).filter(|open| open.ordinal == ordinal) {
            open.awaited = true;
        }
    }

    /// Makes the partition's open batch due at `now`, if it is awaited and `is_free` says, for its ordinal, that no
    /// earlier batch is in flight. Returns whether the batch became due.
    pub fn expedite(&mut self, partition: P, now: Instant, is_free: impl FnOnce(u64) -> bool) -> bool {
        let Some(open) = self.open.get_mut(&partition) else { return false };
        if !open.awaited || open.due_at <= now || !is_free(open.ordinal) {
            return false;
        }
        self.queue.remove(&(open.due_at, partition));
        open.due_at = now;
        self.queue.insert((now, partition));
        true
    }

    /// Makes all open batches due at `now`.
    pub fn make_all_due(&mut self, now: Instant) {
        self.queue.clear();
        for (partition, open) in &mut self.open {
            open.due_at = now;
            self.queue.insert((now, *partition));
        }
    }

    /// Returns the time at which the first batch is due.
    #[must_use]
    pub fn next_due(&self) -> Option<Instant> {
        self.queue.first().map(|(due_at, _)| *due_at)
    }

    /// Removes the first batch that is due at `now`. Returns its partition and ordinal.
    pub fn pop_due(&mut self, now: Instant) -> Option<(P, u64)> {
        let (due_at, partition) = *self.queue.first()?;
        if due_at > now {
            return None;
        }
        self.queue.pop_first();
        self.open.remove(&partition).map(|open| (partition, open.ordinal))
    }

    /// Returns whether no batch is open.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.open.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn newest_batches_are_due_by_deadline() {
        let now = Instant::now();
        let after = |seconds| now + Duration::from_secs(seconds);
        let mut queue = LingerQueue::default();
        queue.opened(0, 0, after(3));
        queue.opened(1, 0, after(2));
        queue.opened(0, 1, after(4));
        assert_eq!(queue.next_due(), Some(after(2)));
        assert_eq!(queue.pop_due(after(3)), Some((1, 0)));
        assert_eq!(queue.pop_due(after(3)), None);
        assert_eq!(queue.pop_due(after(4)), Some((0, 1)));
        assert!(queue.is_empty());
    }

    #[test]
    fn only_the_newest_batch_is_queued() {
        let now = Instant::now();
        let mut queue = LingerQueue::default();
        for ordinal in 0..1000 {
            queue.opened(0, ordinal, now);
        }
        queue.sealed(0, 998);
        assert_eq!(queue.queue.len(), 1);
        queue.sealed(0, 999);
        assert!(queue.is_empty() && queue.next_due().is_none());
    }

    #[test]
    fn awaited_batch_is_due_when_free() {
        let now = Instant::now();
        let later = now + Duration::from_secs(60);
        let mut queue = LingerQueue::default();
        (0..2).for_each(|partition| queue.opened(partition, 5, later));
        queue.awaited(0, 4);
        assert!(!queue.expedite(0, now, |_| true), "batch 4 was sealed earlier");
        queue.awaited(0, 5);
        assert!(!queue.expedite(0, now, |_| false) && queue.pop_due(now).is_none());
        assert!(queue.expedite(0, now, |ordinal| ordinal == 5));
        assert!(!queue.expedite(1, now, |_| true), "no caller awaits it");
        assert_eq!((queue.pop_due(now), queue.pop_due(now)), (Some((0, 5)), None));
        queue.opened(0, 6, later);
        assert!(!queue.expedite(0, now, |_| true), "no caller awaits batch 6");
        assert_eq!(queue.queue.len(), 2);
    }

    #[test]
    fn all_open_batches_become_due() {
        let now = Instant::now();
        let mut queue = LingerQueue::default();
        queue.opened(0, 7, now + Duration::from_secs(60));
        queue.opened(1, 8, now + Duration::from_secs(90));
        queue.make_all_due(now);
        assert_eq!(queue.pop_due(now), Some((0, 7)));
        assert_eq!(queue.pop_due(now), Some((1, 8)));
    }

    /// An input, for a partition.
    #[derive(Clone, Copy, Debug)]
    enum Input {
        /// Opens the partition's next batch, with this linger in milliseconds.
        Open(u64),
        /// Seals the batch this many ordinals before the next one.
        Seal(u64),
        /// Awaits the batch this many ordinals before the next one.
        Await(u64),
        Expedite(bool),
        MakeAllDue,
        /// Passes milliseconds, and pops all that is due.
        Pass(u64),
    }

    fn input() -> impl Strategy<Value = (usize, Input)> {
        let inputs = prop_oneof![
            4 => (0_u64..50).prop_map(Input::Open),
            2 => (0_u64..3).prop_map(Input::Seal),
            2 => (0_u64..3).prop_map(Input::Await),
            2 => any::<bool>().prop_map(Input::Expedite),
            1 => Just(Input::MakeAllDue),
            4 => (0_u64..30).prop_map(Input::Pass),
        ];
        (0_usize..3, inputs)
    }

    proptest! {
        /// Compares the queue with a list of the newest open batches that is searched from end to end.
        #[test]
        fn batches_are_due_as_listed(inputs in proptest::collection::vec(input(), 0..200)) {
            let mut now = Instant::now();
            let mut queue = LingerQueue::default();
            let mut next = [0_u64; 3];
            let mut list: BTreeMap<usize, (Instant, u64, bool)> = BTreeMap::new();
            for (partition, input) in inputs {
                let before = |back: u64| next[partition].checked_sub(back + 1);
                match input {
                    Input::Open(linger) => {
                        let deadline = now + Duration::from_millis(linger);
                        queue.opened(partition, next[partition], deadline);
                        list.insert(partition, (deadline, next[partition], false));
                        next[partition] += 1;
                    }
                    Input::Seal(back) => if let Some(ordinal) = before(back) {
                        queue.sealed(partition, ordinal);
                        list.retain(|of, open| *of != partition || open.1 != ordinal);
                    },
                    Input::Await(back) => if let Some(ordinal) = before(back) {
                        queue.awaited(partition, ordinal);
                        list.get_mut(&partition).into_iter().for_each(|open| open.2 |= open.1 == ordinal);
                    },
                    Input::Expedite(is_free) => {
                        let open = list.get_mut(&partition).filter(|open| open.2 && is_free && open.0 > now);
                        prop_assert_eq!(queue.expedite(partition, now, |_| is_free), open.is_some());
                        open.into_iter().for_each(|open| open.0 = now);
                    }
                    Input::MakeAllDue => {
                        queue.make_all_due(now);
                        list.values_mut().for_each(|open| open.0 = now);
                    }
                    Input::Pass(time) => {
                        now += Duration::from_millis(time);
                        while let Some(popped) = queue.pop_due(now) {
                            let first = list.iter().min_by_key(|(of, open)| (open.0, **of)).map(|(of, open)| (*of, *open));
                            let (of, open) = first.unwrap();
                            prop_assert!(open.0 <= now);
                            prop_assert_eq!(popped, (of, open.1));
                            list.remove(&of);
                        }
                    }
                }
                prop_assert_eq!(queue.next_due(), list.values().map(|open| open.0).min());
                prop_assert_eq!((queue.is_empty(), queue.queue.len()), (list.is_empty(), list.len()));
            }
        }
    }
}

//! Which open batches are to be sealed, and when.
//!
//! Rules: one entry for each partition that has a batch open, however many batches pass through it; what is due
//! is handed out a few at a time, because sealing compresses; a batch that somebody waits for is due once nothing of its
//! partition is on its way, so that what is published meanwhile shares the next one; no clock here.

use std::collections::{BTreeSet, HashMap};
use std::time::Instant;

use crate::core::PartitionId;

/// Open batches and their deadlines.
#[derive(Debug, Default)]
pub(super) struct Lingering {
    open: HashMap<PartitionId, Open>,
    queue: BTreeSet<(Instant, PartitionId)>,
}

#[derive(Clone, Copy, Debug)]
struct Open {
    deadline: Instant,
    ordinal: u64,
    /// Somebody waits for a verdict on it.
    awaited: bool,
}

impl Lingering {
    /// A batch was opened. It is its partition's newest.
    pub(super) fn opened(&mut self, partition: PartitionId, ordinal: u64, deadline: Instant) {
        if let Some(before) = self.open.insert(partition, Open { deadline, ordinal, awaited: false }) {
            self.queue.remove(&(before.deadline, partition));
        }
        self.queue.insert((deadline, partition));
    }

    /// A batch was sealed without our doing.
    pub(super) fn sealed(&mut self, partition: PartitionId, ordinal: u64) {
        if let Some(open) = self.open.get(&partition).copied()
            && open.ordinal == ordinal
        {
            self.open.remove(&partition);
            self.queue.remove(&(open.deadline, partition));
        }
    }

    /// Somebody waits for a verdict on this batch.
    pub(super) fn awaited(&mut self, partition: PartitionId, ordinal: u64) {
        if let Some(open) = self.open.get_mut(&partition).filter(|open| open.ordinal == ordinal) {
            open.awaited = true;
        }
    }

    /// Makes the partition's open batch due at `now`, if somebody waits for it and, by its ordinal, it is `free` to leave.
    /// Returns whether it did.
    pub(super) fn expedite(&mut self, partition: PartitionId, now: Instant, free: impl FnOnce(u64) -> bool) -> bool {
        let Some(open) = self.open.get_mut(&partition) else { return false };
        if !open.awaited || open.deadline <= now || !free(open.ordinal) {
            return false;
        }
        self.queue.remove(&(open.deadline, partition));
        open.deadline = now;
        self.queue.insert((now, partition));
        true
    }

    /// Makes everything that is open now due at `now`.
    pub(super) fn hurry(&mut self, now: Instant) {
        self.queue.clear();
        for (partition, open) in &mut self.open {
            open.deadline = now;
            self.queue.insert((now, *partition));
        }
    }

    /// When the next is due.
    pub(super) fn next(&self) -> Option<Instant> {
        self.queue.first().map(|(deadline, _)| *deadline)
    }

    /// The next that is due at `now`: its partition and ordinal.
    pub(super) fn pop_due(&mut self, now: Instant) -> Option<(PartitionId, u64)> {
        let (deadline, partition) = *self.queue.first()?;
        if deadline > now {
            return None;
        }
        self.queue.pop_first();
        self.open.remove(&partition).map(|open| (partition, open.ordinal))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.open.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::core::TopicId;

    fn partition(index: i32) -> PartitionId {
        PartitionId { topic: TopicId(0), index }
    }

    #[test]
    fn batches_come_due_in_the_order_of_their_deadlines_and_only_the_newest_of_a_partition() {
        let now = Instant::now();
        let after = |seconds| now + Duration::from_secs(seconds);
        let mut lingering = Lingering::default();
        lingering.opened(partition(0), 0, after(3));
        lingering.opened(partition(1), 0, after(2));
        lingering.opened(partition(0), 1, after(4));
        assert_eq!(lingering.next(), Some(after(2)));
        assert_eq!(lingering.pop_due(after(3)), Some((partition(1), 0)));
        assert_eq!(lingering.pop_due(after(3)), None);
        assert_eq!(lingering.pop_due(after(4)), Some((partition(0), 1)));
        assert!(lingering.is_empty());
    }

    #[test]
    fn a_batch_that_was_sealed_meanwhile_is_forgotten_and_a_newer_one_is_not() {
        let now = Instant::now();
        let mut lingering = Lingering::default();
        for ordinal in 0..1000 {
            lingering.opened(partition(0), ordinal, now);
        }
        lingering.sealed(partition(0), 998);
        assert_eq!(lingering.queue.len(), 1);
        lingering.sealed(partition(0), 999);
        assert!(lingering.is_empty() && lingering.next().is_none());
    }

    #[test]
    fn a_batch_that_is_awaited_is_due_once_its_partition_is_free_and_no_other_is() {
        let now = Instant::now();
        let later = now + Duration::from_secs(60);
        let mut lingering = Lingering::default();
        (0..2).for_each(|index| lingering.opened(partition(index), 5, later));
        lingering.awaited(partition(0), 4);
        assert!(!lingering.expedite(partition(0), now, |_| true), "that one has left");
        lingering.awaited(partition(0), 5);
        assert!(!lingering.expedite(partition(0), now, |_| false) && lingering.pop_due(now).is_none());
        assert!(lingering.expedite(partition(0), now, |ordinal| ordinal == 5));
        assert!(!lingering.expedite(partition(1), now, |_| true), "nobody waits for it");
        assert_eq!((lingering.pop_due(now), lingering.pop_due(now)), (Some((partition(0), 5)), None));
        lingering.opened(partition(0), 6, later);
        assert!(!lingering.expedite(partition(0), now, |_| true), "nobody waits for the next one yet");
        assert_eq!(lingering.queue.len(), 2);
    }

    #[test]
    fn hurry_makes_all_that_is_open_due() {
        let now = Instant::now();
        let mut lingering = Lingering::default();
        lingering.opened(partition(0), 7, now + Duration::from_secs(60));
        lingering.opened(partition(1), 8, now + Duration::from_secs(90));
        lingering.hurry(now);
        assert_eq!(lingering.pop_due(now), Some((partition(0), 7)));
        assert_eq!(lingering.pop_due(now), Some((partition(1), 8)));
    }
}

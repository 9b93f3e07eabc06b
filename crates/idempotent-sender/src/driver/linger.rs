//! Decides which open batches are sealed, and when.
//!
//! Rules:
//! - Each partition with an open batch has one entry, however many batches it opens and closes.
//! - Due batches are popped one by one, because sealing compresses.
//! - An awaited batch is due once no earlier batch of its partition is in flight. Records that are published
//!   meanwhile share the next batch.
//! - No clock here.

use std::collections::{BTreeSet, HashMap};
use std::time::Instant;

use kafka_courier_client::PartitionId;

/// Open batches and their deadlines.
#[derive(Debug, Default)]
pub(super) struct LingerQueue {
    open: HashMap<PartitionId, OpenBatch>,
    queue: BTreeSet<(Instant, PartitionId)>,
}

#[derive(Clone, Copy, Debug)]
struct OpenBatch {
    deadline: Instant,
    ordinal: u64,
    /// A caller awaits a delivery of this batch.
    awaited: bool,
}

impl LingerQueue {
    /// Adds a batch that was opened. It is its partition's newest.
    pub(super) fn opened(&mut self, partition: PartitionId, ordinal: u64, deadline: Instant) {
        if let Some(before) = self.open.insert(partition, OpenBatch { deadline, ordinal, awaited: false }) {
            self.queue.remove(&(before.deadline, partition));
        }
        self.queue.insert((deadline, partition));
    }

    /// Removes a batch that the publisher sealed.
    pub(super) fn sealed(&mut self, partition: PartitionId, ordinal: u64) {
        if let Some(open) = self.open.get(&partition).copied()
            && open.ordinal == ordinal
        {
            self.open.remove(&partition);
            self.queue.remove(&(open.deadline, partition));
        }
    }

    /// Marks a batch as awaited.
    pub(super) fn awaited(&mut self, partition: PartitionId, ordinal: u64) {
        if let Some(open) = self.open.get_mut(&partition).filter(|open| open.ordinal == ordinal) {
            open.awaited = true;
        }
    }

    /// Makes the partition's open batch due at `now`, if it is awaited and, by its ordinal, `free` to leave. Returns
    /// whether it did.
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

    /// Makes all open batches due at `now`.
    pub(super) fn make_all_due(&mut self, now: Instant) {
        self.queue.clear();
        for (partition, open) in &mut self.open {
            open.deadline = now;
            self.queue.insert((now, *partition));
        }
    }

    /// Returns the earliest deadline.
    pub(super) fn next(&self) -> Option<Instant> {
        self.queue.first().map(|(deadline, _)| *deadline)
    }

    /// Pops the next batch that is due at `now`. Returns its partition and ordinal.
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
    use kafka_courier_client::TopicId;

    fn partition(index: i32) -> PartitionId {
        PartitionId { topic: TopicId(0), index }
    }

    #[test]
    fn newest_batches_are_due_by_deadline() {
        let now = Instant::now();
        let after = |seconds| now + Duration::from_secs(seconds);
        let mut queue = LingerQueue::default();
        queue.opened(partition(0), 0, after(3));
        queue.opened(partition(1), 0, after(2));
        queue.opened(partition(0), 1, after(4));
        assert_eq!(queue.next(), Some(after(2)));
        assert_eq!(queue.pop_due(after(3)), Some((partition(1), 0)));
        assert_eq!(queue.pop_due(after(3)), None);
        assert_eq!(queue.pop_due(after(4)), Some((partition(0), 1)));
        assert!(queue.is_empty());
    }

    #[test]
    fn only_the_newest_batch_is_queued() {
        let now = Instant::now();
        let mut queue = LingerQueue::default();
        for ordinal in 0..1000 {
            queue.opened(partition(0), ordinal, now);
        }
        queue.sealed(partition(0), 998);
        assert_eq!(queue.queue.len(), 1);
        queue.sealed(partition(0), 999);
        assert!(queue.is_empty() && queue.next().is_none());
    }

    #[test]
    fn awaited_batch_is_due_when_free() {
        let now = Instant::now();
        let later = now + Duration::from_secs(60);
        let mut queue = LingerQueue::default();
        (0..2).for_each(|index| queue.opened(partition(index), 5, later));
        queue.awaited(partition(0), 4);
        assert!(!queue.expedite(partition(0), now, |_| true), "batch 4 was sealed earlier");
        queue.awaited(partition(0), 5);
        assert!(!queue.expedite(partition(0), now, |_| false) && queue.pop_due(now).is_none());
        assert!(queue.expedite(partition(0), now, |ordinal| ordinal == 5));
        assert!(!queue.expedite(partition(1), now, |_| true), "no caller awaits it");
        assert_eq!((queue.pop_due(now), queue.pop_due(now)), (Some((partition(0), 5)), None));
        queue.opened(partition(0), 6, later);
        assert!(!queue.expedite(partition(0), now, |_| true), "no caller awaits batch 6");
        assert_eq!(queue.queue.len(), 2);
    }

    #[test]
    fn all_open_batches_become_due() {
        let now = Instant::now();
        let mut queue = LingerQueue::default();
        queue.opened(partition(0), 7, now + Duration::from_secs(60));
        queue.opened(partition(1), 8, now + Duration::from_secs(90));
        queue.make_all_due(now);
        assert_eq!(queue.pop_due(now), Some((partition(0), 7)));
        assert_eq!(queue.pop_due(now), Some((partition(1), 8)));
    }
}

//! The bound on memory: bytes of batches that have no verdict yet.
//!
//! The rules of this module:
//!  - The reserved bytes equal the bytes that buffers hold.
//!  - Publishers wait in turn at the bound. Releasing memory wakes no task while none waits.
//!  - A partition beyond its share leaves the last quarter to the others. A partition whose leader is away can't starve
//!    the others.

use std::time::Duration;

use tokio::sync::Notify;

use crate::sync::{AtomicUsize, Ordering};

/// The divisor of all memory that gives a partition's share.
const SHARE: usize = 8;

#[derive(Debug)]
pub(crate) struct Memory {
    limit: usize,
    used: AtomicUsize,
    /// The waiting publishers: those within their share, and those beyond it.
    queues: [Queue; 2],
}

#[derive(Debug, Default)]
struct Queue {
    waiting: AtomicUsize,
    freed: Notify,
}

/// Whether a partition is within its share of memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum MemoryShare {
    /// The partition may use all memory.
    Within,
    /// The partition must leave the last quarter of all memory free.
    Beyond,
}

impl Memory {
    pub(crate) fn new(limit: usize) -> Self {
        Self { limit, used: AtomicUsize::new(0), queues: Default::default() }
    }

    pub(crate) fn limit(&self) -> usize {
        self.limit
    }

    pub(crate) fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }

    /// Returns the share of a partition that holds `held` bytes and needs `more`.
    pub(crate) fn share(&self, held: usize, more: usize) -> MemoryShare {
        // A partition's first bytes, and a request above the lower ceiling, are within the share. The partition could
        // not publish otherwise.
        let fits_below_ceiling = more <= self.limit - self.limit / 4;
        let beyond = held > 0 && fits_below_ceiling && held.saturating_add(more) > self.limit / SHARE;
        if beyond { MemoryShare::Beyond } else { MemoryShare::Within }
    }

    fn ceiling(&self, share: MemoryShare) -> usize {
        match share {
            MemoryShare::Within => self.limit,
            MemoryShare::Beyond => self.limit - self.limit / 4,
        }
    }

    /// Returns whether there is room for `bytes` now.
    pub(crate) fn has_room(&self, bytes: usize, share: MemoryShare) -> bool {
        self.used.load(Ordering::SeqCst).saturating_add(bytes) <= self.ceiling(share)
    }

    /// Reserves `bytes`. Returns whether there was room.
    pub(crate) fn reserve(&self, bytes: usize, share: MemoryShare) -> bool {
        let ceiling = self.ceiling(share);
        let grown = |used: usize| used.checked_add(bytes).filter(|sum| *sum <= ceiling);
        self.used.try_update(Ordering::Relaxed, Ordering::Relaxed, grown).is_ok()
    }

    /// Charges `bytes` that are held already, beyond the limit where needed.
    pub(crate) fn charge(&self, bytes: usize) {
        self.used.fetch_add(bytes, Ordering::SeqCst);
    }

    /// Releases `bytes`.
    pub(crate) fn release(&self, bytes: usize) {
        if bytes > 0 {
            // SeqCst, as in `room_for`: either the waiter sees the free memory, or this thread sees the waiter.
            self.used.fetch_sub(bytes, Ordering::SeqCst);
            self.queues.iter().for_each(Queue::wake_one);
        }
    }

    /// Waits at most `timeout` until there is room for `needed` bytes. Returns whether there is.
    ///
    /// # Cancel safety
    ///
    /// The wait reserves nothing, so a dropped future loses nothing.
    pub(crate) async fn wait_for(&self, needed: usize, share: MemoryShare, timeout: Duration) -> bool {
        tokio::time::timeout(timeout, self.room_for(needed, share)).await.is_ok()
    }

    /// Waits until there is room for `needed` bytes.
    pub(crate) async fn room_for(&self, needed: usize, share: MemoryShare) {
        let queue = &self.queues[usize::from(share == MemoryShare::Beyond)];
        queue.waiting.fetch_add(1, Ordering::SeqCst);
        let _guard = QueueGuard(queue);
        loop {
            let mut freed = std::pin::pin!(queue.freed.notified());
            freed.as_mut().enable();
            if self.has_room(needed, share) {
                return;
            }
            freed.await;
        }
    }
}

impl Queue {
    /// Wakes the next waiting publisher, which checks for room again.
    fn wake_one(&self) {
        if self.waiting.load(Ordering::SeqCst) > 0 {
            self.freed.notify_one();
        }
    }
}

/// Leaves the queue on drop, and passes a wake-up on that this waiter may have received.
struct QueueGuard<'a>(&'a Queue);

impl Drop for QueueGuard<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::SeqCst);
        self.0.wake_one();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::MemoryShare::{Beyond, Within};
    use super::*;

    #[test]
    fn reservations_stay_within_the_limit() {
        let memory = Memory::new(100);
        assert!(memory.reserve(60, Within) && memory.reserve(40, Within) && !memory.reserve(1, Within));
        memory.release(40);
        assert!(!memory.reserve(usize::MAX, Within) && memory.reserve(40, Within));
    }

    #[tokio::test(start_paused = true)]
    async fn released_memory_wakes_a_waiter() {
        let memory = Arc::new(Memory::new(100));
        assert!(memory.reserve(100, Within));
        let waiter = tokio::spawn({
            let memory = memory.clone();
            async move { memory.wait_for(50, Within, Duration::from_secs(10)).await }
        });
        tokio::task::yield_now().await;
        memory.release(20);
        tokio::task::yield_now().await;
        assert!(!waiter.is_finished());
        memory.release(30);
        assert!(waiter.await.unwrap());
    }

    #[tokio::test(start_paused = true)]
    async fn wait_ends_at_timeout() {
        let memory = Memory::new(10);
        assert!(memory.reserve(10, Within));
        assert!(!memory.wait_for(1, Within, Duration::from_secs(10)).await);
    }

    #[tokio::test(start_paused = true)]
    async fn cancelled_waiter_passes_its_turn() {
        let memory = Arc::new(Memory::new(10));
        assert!(memory.reserve(10, Within));
        let wait = |timeout| {
            let memory = memory.clone();
            tokio::spawn(async move { memory.wait_for(5, Within, Duration::from_secs(timeout)).await })
        };
        let (cancelled, waiting) = (wait(1), wait(60));
        tokio::task::yield_now().await;
        cancelled.abort();
        assert!(cancelled.await.is_err());
        memory.release(5);
        assert!(waiting.await.unwrap());
    }

    #[test]
    fn large_partition_leaves_last_quarter() {
        let memory = Memory::new(800);
        assert_eq!((memory.share(0, 500), memory.share(50, 50), memory.share(60, 50)), (Within, Within, Beyond));
        assert!(memory.reserve(600, Beyond) && !memory.reserve(1, Beyond));
        assert!(memory.reserve(200, Within) && !memory.reserve(1, Within));
    }

    #[tokio::test(start_paused = true)]
    async fn large_partition_does_not_block_others() {
        let memory = Arc::new(Memory::new(800));
        assert!(memory.reserve(800, Within));
        let wait = |share| {
            let memory = memory.clone();
            tokio::spawn(async move { memory.wait_for(100, share, Duration::from_secs(60)).await })
        };
        let (beyond, within) = (wait(Beyond), wait(Within));
        tokio::task::yield_now().await;
        memory.release(100);
        assert!(within.await.unwrap());
        assert!(!beyond.is_finished());
        memory.release(200);
        assert!(beyond.await.unwrap());
    }
}

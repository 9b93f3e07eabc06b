//! The bound on memory: bytes of batches that have no verdict yet.
//!
//! Rules: what is reserved is what buffers hold; at the bound publishers wait, in turn; nobody is woken while nobody waits;
//! a partition that holds more than its share leaves the last quarter to those that hold less, so that one whose leader is
//! away cannot starve the others.

use std::time::Duration;

use tokio::sync::Notify;

use crate::sync::{AtomicUsize, Ordering};

/// A partition holds more than its share beyond this part of all memory.
const SHARE: usize = 8;

#[derive(Debug)]
pub(crate) struct Memory {
    limit: usize,
    used: AtomicUsize,
    /// Those who may take all there is, and those who have to leave the last quarter.
    queues: [Queue; 2],
}

#[derive(Debug, Default)]
struct Queue {
    waiting: AtomicUsize,
    freed: Notify,
}

/// Who asks for memory: a partition within its share of it, or one beyond it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Asker {
    Within,
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

    /// What a partition is that holds `held` bytes and wants `more`.
    pub(crate) fn asker(&self, held: usize, more: usize) -> Asker {
        // What a partition has to be given for it to publish at all is never beyond its share.
        let possible = more <= self.limit - self.limit / 4;
        let beyond = held > 0 && possible && held.saturating_add(more) > self.limit / SHARE;
        if beyond { Asker::Beyond } else { Asker::Within }
    }

    fn ceiling(&self, asker: Asker) -> usize {
        match asker {
            Asker::Within => self.limit,
            Asker::Beyond => self.limit - self.limit / 4,
        }
    }

    /// Whether `bytes` may be had now.
    pub(crate) fn has_room(&self, bytes: usize, asker: Asker) -> bool {
        self.used.load(Ordering::SeqCst).saturating_add(bytes) <= self.ceiling(asker)
    }

    /// Takes `bytes`, if there is room for them.
    pub(crate) fn reserve(&self, bytes: usize, asker: Asker) -> bool {
        let ceiling = self.ceiling(asker);
        let grown = |used: usize| used.checked_add(bytes).filter(|sum| *sum <= ceiling);
        self.used.try_update(Ordering::Relaxed, Ordering::Relaxed, grown).is_ok()
    }

    /// Gives `bytes` back.
    pub(crate) fn release(&self, bytes: usize) {
        if bytes > 0 {
            // SeqCst, as below: either the waiter sees the memory, or we see the waiter.
            self.used.fetch_sub(bytes, Ordering::SeqCst);
            self.queues.iter().for_each(Queue::wake_one);
        }
    }

    /// Waits until `needed` bytes may be had, at most `patience`; whether they may.
    ///
    /// Cancel safety: nothing is taken, so nothing is lost.
    pub(crate) async fn wait_for(&self, needed: usize, asker: Asker, patience: Duration) -> bool {
        tokio::time::timeout(patience, self.room_for(needed, asker)).await.is_ok()
    }

    /// Ready when `needed` bytes may be had.
    pub(crate) async fn room_for(&self, needed: usize, asker: Asker) {
        let queue = &self.queues[usize::from(asker == Asker::Beyond)];
        queue.waiting.fetch_add(1, Ordering::SeqCst);
        let _leaving = Leaving(queue);
        loop {
            let mut freed = std::pin::pin!(queue.freed.notified());
            freed.as_mut().enable();
            if self.has_room(needed, asker) {
                return;
            }
            freed.await;
        }
    }
}

impl Queue {
    /// Lets the next who waits look again.
    fn wake_one(&self) {
        if self.waiting.load(Ordering::SeqCst) > 0 {
            self.freed.notify_one();
        }
    }
}

/// Whoever leaves the queue hands on the wake-up that may have been meant for it.
struct Leaving<'a>(&'a Queue);

impl Drop for Leaving<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::SeqCst);
        self.0.wake_one();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::Asker::{Beyond, Within};
    use super::*;

    #[test]
    fn no_more_is_given_out_than_there_is() {
        let memory = Memory::new(100);
        assert!(memory.reserve(60, Within) && memory.reserve(40, Within) && !memory.reserve(1, Within));
        memory.release(40);
        assert!(!memory.reserve(usize::MAX, Within) && memory.reserve(40, Within));
    }

    #[tokio::test(start_paused = true)]
    async fn a_waiter_goes_on_when_enough_was_given_back() {
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
    async fn patience_ends() {
        let memory = Memory::new(10);
        assert!(memory.reserve(10, Within));
        assert!(!memory.wait_for(1, Within, Duration::from_secs(10)).await);
    }

    #[tokio::test(start_paused = true)]
    async fn a_waiter_that_gives_up_hands_its_turn_on() {
        let memory = Arc::new(Memory::new(10));
        assert!(memory.reserve(10, Within));
        let wait = |patience| {
            let memory = memory.clone();
            tokio::spawn(async move { memory.wait_for(5, Within, Duration::from_secs(patience)).await })
        };
        let (impatient, patient) = (wait(1), wait(60));
        tokio::task::yield_now().await;
        impatient.abort();
        assert!(impatient.await.is_err());
        memory.release(5);
        assert!(patient.await.unwrap());
    }

    #[test]
    fn a_partition_beyond_its_share_leaves_the_last_quarter_to_the_others() {
        let memory = Memory::new(800);
        assert_eq!((memory.asker(0, 500), memory.asker(50, 50), memory.asker(60, 50)), (Within, Within, Beyond));
        assert!(memory.reserve(600, Beyond) && !memory.reserve(1, Beyond));
        assert!(memory.reserve(200, Within) && !memory.reserve(1, Within));
    }

    #[tokio::test(start_paused = true)]
    async fn who_is_beyond_its_share_does_not_hold_up_who_is_within() {
        let memory = Arc::new(Memory::new(800));
        assert!(memory.reserve(800, Within));
        let wait = |asker| {
            let memory = memory.clone();
            tokio::spawn(async move { memory.wait_for(100, asker, Duration::from_secs(60)).await })
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

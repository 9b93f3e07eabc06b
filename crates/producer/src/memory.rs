//! The bound on memory: bytes of batches that have no verdict yet.
//!
//! Rules: what is reserved is what buffers hold; at the bound publishers wait, in turn; nobody is woken
//! while nobody waits.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::Notify;

#[derive(Debug)]
pub(crate) struct Memory {
    limit: usize,
    used: AtomicUsize,
    waiting: AtomicUsize,
    freed: Notify,
}

impl Memory {
    pub(crate) fn new(limit: usize) -> Self {
        Self { limit, used: AtomicUsize::new(0), waiting: AtomicUsize::new(0), freed: Notify::new() }
    }

    pub(crate) fn limit(&self) -> usize {
        self.limit
    }

    pub(crate) fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }

    /// Takes `bytes`, if there is room for them.
    pub(crate) fn reserve(&self, bytes: usize) -> bool {
        let grown = |used: usize| used.checked_add(bytes).filter(|sum| *sum <= self.limit);
        self.used.try_update(Ordering::Relaxed, Ordering::Relaxed, grown).is_ok()
    }

    /// Gives `bytes` back.
    pub(crate) fn release(&self, bytes: usize) {
        if bytes > 0 {
            // SeqCst, as below: either the waiter sees the memory, or we see the waiter.
            self.used.fetch_sub(bytes, Ordering::SeqCst);
            self.wake_one();
        }
    }

    /// Lets the next who waits look again.
    pub(crate) fn wake_one(&self) {
        if self.waiting.load(Ordering::SeqCst) > 0 {
            self.freed.notify_one();
        }
    }

    /// Waits until `needed` bytes may be had, at most `patience`; whether they may.
    ///
    /// Cancel safety: nothing is taken, so nothing is lost.
    pub(crate) async fn wait_for(&self, needed: usize, patience: Duration) -> bool {
        self.waiting.fetch_add(1, Ordering::SeqCst);
        let _leaving = Leaving(self);
        let look = async {
            loop {
                let freed = self.freed.notified();
                if self.used.load(Ordering::SeqCst).saturating_add(needed) <= self.limit {
                    return;
                }
                freed.await;
            }
        };
        tokio::time::timeout(patience, look).await.is_ok()
    }
}

/// Whoever leaves the queue hands on the wake-up that may have been meant for it.
struct Leaving<'a>(&'a Memory);

impl Drop for Leaving<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::SeqCst);
        self.0.wake_one();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn no_more_is_given_out_than_there_is() {
        let memory = Memory::new(100);
        assert!(memory.reserve(60) && memory.reserve(40) && !memory.reserve(1));
        memory.release(40);
        assert!(!memory.reserve(usize::MAX) && memory.reserve(40));
    }

    #[tokio::test(start_paused = true)]
    async fn a_waiter_goes_on_when_enough_was_given_back() {
        let memory = Arc::new(Memory::new(100));
        assert!(memory.reserve(100));
        let waiter = tokio::spawn({
            let memory = memory.clone();
            async move { memory.wait_for(50, Duration::from_secs(10)).await }
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
        assert!(memory.reserve(10));
        assert!(!memory.wait_for(1, Duration::from_secs(10)).await);
    }

    #[tokio::test(start_paused = true)]
    async fn a_waiter_that_gives_up_hands_its_turn_on() {
        let memory = Arc::new(Memory::new(10));
        assert!(memory.reserve(10));
        let wait = |patience| {
            let memory = memory.clone();
            tokio::spawn(async move { memory.wait_for(5, Duration::from_secs(patience)).await })
        };
        let (impatient, patient) = (wait(1), wait(60));
        tokio::task::yield_now().await;
        impatient.abort();
        assert!(impatient.await.is_err());
        memory.release(5);
        assert!(patient.await.unwrap());
    }
}

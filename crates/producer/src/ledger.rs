//! Which batches have no verdict yet: what flush and close wait for.
//!
//! Rules: a batch is entered when it is opened and struck out once its last verdict was told; in between it may be
//! decided, while its dead letters are still being written. One lock, taken two or three times per batch and never per
//! record.

use std::collections::BTreeSet;

use tokio::sync::Notify;

use crate::sync::Mutex;

#[derive(Debug, Default)]
pub(crate) struct Ledger {
    open: Mutex<Open>,
    struck: Notify,
}

#[derive(Debug, Default)]
struct Open {
    next: u64,
    numbers: BTreeSet<u64>,
    /// How many of them the sender has still to decide.
    undecided: usize,
}

impl Ledger {
    /// Enters a batch; returns its number.
    pub(crate) fn enter(&self) -> u64 {
        let mut open = self.open.lock();
        let number = open.next;
        open.next += 1;
        open.undecided += 1;
        open.numbers.insert(number);
        number
    }

    /// Strikes a batch out.
    pub(crate) fn strike(&self, number: u64) {
        let mut open = self.open.lock();
        let first = open.numbers.first() == Some(&number);
        open.numbers.remove(&number);
        drop(open);
        if first {
            self.struck.notify_waiters();
        }
    }

    /// The sender has given its last verdict on a batch.
    pub(crate) fn decide(&self) {
        let mut open = self.open.lock();
        open.undecided = open.undecided.saturating_sub(1);
    }

    /// Whether the sender owes no verdict.
    pub(crate) fn is_decided(&self) -> bool {
        self.open.lock().undecided == 0
    }

    /// Waits until every batch that is entered now is struck out.
    ///
    /// Cancel safety: it only looks.
    pub(crate) async fn settled(&self) {
        let until = self.open.lock().next;
        loop {
            let mut struck = std::pin::pin!(self.struck.notified());
            struck.as_mut().enable();
            if self.open.lock().numbers.first().is_none_or(|first| *first >= until) {
                return;
            }
            struck.await;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[tokio::test]
    async fn a_flush_waits_for_what_was_there_before_it_and_for_nothing_later() {
        let ledger = Arc::new(Ledger::default());
        let (a, b) = (ledger.enter(), ledger.enter());
        let flush = tokio::spawn({
            let ledger = ledger.clone();
            async move { ledger.settled().await }
        });
        tokio::task::yield_now().await;
        ledger.enter();
        ledger.strike(b);
        tokio::task::yield_now().await;
        assert!(!flush.is_finished());
        ledger.strike(a);
        flush.await.unwrap();
        assert_eq!(ledger.open.lock().numbers.len(), 1);
    }

    #[test]
    fn a_batch_whose_letters_are_being_written_is_decided_and_yet_not_settled() {
        let ledger = Ledger::default();
        let number = ledger.enter();
        assert!(!ledger.is_decided());
        ledger.decide();
        assert!(ledger.is_decided());
        assert_eq!(ledger.open.lock().numbers.first(), Some(&number));
    }
}

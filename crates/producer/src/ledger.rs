//! [`BatchLedger`], the set of batches without a verdict. `flush` and `close` wait for it.
//!
//! The rules of this module:
//!  - A batch is entered when it is opened, and removed after its last verdict. A batch is decided earlier than removed
//!    while the failure sink holds its records.
//!  - The lock is taken two or three times per batch, and never per record.

use std::collections::BTreeSet;

use tokio::sync::Notify;

use crate::sync::Mutex;

#[derive(Debug, Default)]
pub(crate) struct BatchLedger {
    open: Mutex<OpenBatches>,
    removed: Notify,
}

#[derive(Debug, Default)]
struct OpenBatches {
    next: u64,
    numbers: BTreeSet<u64>,
    /// Batches that the sender has not decided on completely.
    undecided: usize,
}

impl BatchLedger {
    /// Enters a batch and returns its number.
    pub(crate) fn enter(&self) -> u64 {
        let mut open = self.open.lock();
        let number = open.next;
        open.next += 1;
        open.undecided += 1;
        open.numbers.insert(number);
        number
    }

    /// Removes a batch.
    pub(crate) fn remove(&self, number: u64) {
        let mut open = self.open.lock();
        let first = open.numbers.first() == Some(&number);
        open.numbers.remove(&number);
        drop(open);
        if first {
            self.removed.notify_waiters();
        }
    }

    /// Notes that the sender has decided on every record of a batch.
    pub(crate) fn decide(&self) {
        let mut open = self.open.lock();
        open.undecided = open.undecided.saturating_sub(1);
    }

    /// Returns whether the sender has decided on every batch.
    pub(crate) fn is_decided(&self) -> bool {
        self.open.lock().undecided == 0
    }

    /// Waits until every batch that is entered now is removed.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future changes nothing.
    pub(crate) async fn wait_until_settled(&self) {
        let until = self.open.lock().next;
        loop {
            let mut removed = std::pin::pin!(self.removed.notified());
            removed.as_mut().enable();
            if self.open.lock().numbers.first().is_none_or(|first| *first >= until) {
                return;
            }
            removed.await;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[tokio::test]
    async fn flush_waits_for_earlier_batches_only() {
        let ledger = Arc::new(BatchLedger::default());
        let (a, b) = (ledger.enter(), ledger.enter());
        let flush = tokio::spawn({
            let ledger = ledger.clone();
            async move { ledger.wait_until_settled().await }
        });
        tokio::task::yield_now().await;
        ledger.enter();
        ledger.remove(b);
        tokio::task::yield_now().await;
        assert!(!flush.is_finished());
        ledger.remove(a);
        flush.await.unwrap();
        assert_eq!(ledger.open.lock().numbers.len(), 1);
    }

    #[test]
    fn decided_batch_stays_until_settled() {
        let ledger = BatchLedger::default();
        let number = ledger.enter();
        assert!(!ledger.is_decided());
        ledger.decide();
        assert!(ledger.is_decided());
        assert_eq!(ledger.open.lock().numbers.first(), Some(&number));
    }
}

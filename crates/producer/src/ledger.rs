//! [`BatchLedger`], the set of batches without a verdict. `flush` and `close` wait for it.
//!
//! The rules of this module:
//!  - A batch is entered when it is opened, and removed after its last verdict. A batch is decided earlier than removed
//!    while the failure sink holds its records.
//!  - One number may stand for several batches of a spool.
//!  - The lock is taken two or three times per batch, and never per record.

use std::collections::BTreeMap;

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
    /// The batches that each number stands for.
    numbers: BTreeMap<u64, u64>,
    /// Batches that the sender has not decided on completely.
    undecided: u64,
}

impl OpenBatches {
    /// Takes batches from a number, which ends with its last batch.
    fn take(&mut self, number: u64, batches: u64) {
        if let Some(count) = self.numbers.get_mut(&number) {
            *count = count.saturating_sub(batches);
            if *count == 0 {
                self.numbers.remove(&number);
            }
        }
    }
}

impl BatchLedger {
    /// Enters a batch and returns its number.
    pub(crate) fn enter(&self) -> u64 {
        self.enter_many(1)
    }

    /// Enters batches under one number, which it returns.
    pub(crate) fn enter_many(&self, batches: u64) -> u64 {
        let mut open = self.open.lock();
        let number = open.next;
        open.next += 1;
        open.undecided += batches;
        open.numbers.insert(number, batches);
        number
    }

    /// Removes a batch.
    pub(crate) fn remove(&self, number: u64) {
        self.remove_many(number, 1);
    }

    /// Removes some batches of a number.
    pub(crate) fn remove_many(&self, number: u64, batches: u64) {
        let mut open = self.open.lock();
        let is_first = open.numbers.first_key_value().is_some_and(|(first, _)| *first == number);
        open.take(number, batches);
        drop(open);
        if is_first {
            self.removed.notify_waiters();
        }
    }

    /// Lets `other` stand for a batch of `number` too. `other` is not newer, so that no flush ends too early.
    pub(crate) fn merge(&self, number: u64, other: u64) {
        let mut open = self.open.lock();
        open.take(number, 1);
        *open.numbers.entry(other).or_default() += 1;
    }

    /// Notes that the sender has decided on every record of a batch.
    pub(crate) fn decide(&self) {
        self.decide_many(1);
    }

    /// Notes that some batches are decided.
    pub(crate) fn decide_many(&self, batches: u64) {
        let mut open = self.open.lock();
        open.undecided = open.undecided.saturating_sub(batches);
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
            if self.open.lock().numbers.first_key_value().is_none_or(|(first, _)| *first >= until) {
                return;
            }
            removed.await;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

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
        assert_eq!(ledger.open.lock().numbers.first_key_value(), Some((&number, &1)));
    }

    #[tokio::test]
    async fn flush_waits_for_merged_batches() {
        let ledger = BatchLedger::default();
        let (ticket, merged) = (ledger.enter_many(2), ledger.enter());
        ledger.merge(merged, ticket);
        for left in (0..3).rev() {
            assert!(
                tokio::time::timeout(Duration::ZERO, ledger.wait_until_settled()).await.is_err(),
                "{left} are left"
            );
            ledger.remove(ticket);
            ledger.decide();
        }
        ledger.wait_until_settled().await;
        assert!(ledger.is_decided());
    }
}

//! One replay at a time per store: two would send the same letters twice.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use jiff::Timestamp;

use crate::store::StoreError;

/// The right to replay a store's letters, until it is dropped.
#[must_use = "dropped at once, it guards nothing"]
pub struct ReplayGuard {
    release: Option<Box<dyn FnOnce() + Send + Sync>>,
    holds: Option<Box<dyn Fn() -> Result<(), StoreError> + Send + Sync>>,
}

impl ReplayGuard {
    /// A guard that calls `release` when it is dropped, for stores of one's own.
    pub fn new(release: impl FnOnce() + Send + Sync + 'static) -> Self {
        Self { release: Some(Box::new(release)), holds: None }
    }

    /// As [`new`](Self::new), of a right that can be lost: `holds` says whether it was, and why.
    pub fn leased(
        release: impl FnOnce() + Send + Sync + 'static,
        holds: impl Fn() -> Result<(), StoreError> + Send + Sync + 'static,
    ) -> Self {
        Self { release: Some(Box::new(release)), holds: Some(Box::new(holds)) }
    }

    /// Whether nobody else can have the right now; to be asked before each letter, or group of letters, leaves.
    pub fn holds(&self) -> Result<(), StoreError> {
        self.holds.as_ref().map_or(Ok(()), |holds| holds())
    }
}

impl Drop for ReplayGuard {
    fn drop(&mut self) {
        if let Some(release) = self.release.take() {
            release();
        }
    }
}

impl fmt::Debug for ReplayGuard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ReplayGuard")
    }
}

/// Why no replay can begin.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BeginReplayError {
    /// Another one runs.
    #[error("a replay of the dead letters in {store} is running: wait for its end")]
    Busy {
        /// The store.
        store: String,
    },
    /// Another process has claimed the store.
    #[error(
        "the dead letters in {store} are being replayed by {holder}: wait for its end, or, if it has crashed, until its \
         claim runs out at {until:.0}"
    )]
    Claimed {
        /// The store.
        store: String,
        /// Who has it: its process id and host.
        holder: String,
        /// When its claim runs out unless it is renewed, as its clock, or the broker's, has it.
        until: Timestamp,
    },
    /// The store can't be asked.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// A store's one right to replay.
#[derive(Clone, Debug, Default)]
pub(crate) struct ReplaySlot(Arc<AtomicBool>);

impl ReplaySlot {
    pub(crate) fn claim(&self, store: &str) -> Result<ReplayGuard, BeginReplayError> {
        if self.0.swap(true, Ordering::AcqRel) {
            return Err(BeginReplayError::Busy { store: store.to_owned() });
        }
        let taken = self.0.clone();
        Ok(ReplayGuard::new(move || taken.store(false, Ordering::Release)))
    }
}

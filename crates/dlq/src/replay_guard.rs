//! The claim of a replay on a store. Two replays at a time would send the same letters twice.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use jiff::Timestamp;

use crate::store_error::StoreError;

/// The claim on a store for a replay, held until it is dropped.
#[must_use = "the claim ends when the guard is dropped"]
pub struct ReplayGuard {
    release: Option<Box<dyn FnOnce() + Send + Sync>>,
    holds: Option<Box<dyn Fn() -> Result<(), StoreError> + Send + Sync>>,
}

impl ReplayGuard {
    /// Creates a guard that calls `release` when it is dropped. Implementations of a store use this function.
    pub fn new(release: impl FnOnce() + Send + Sync + 'static) -> Self {
        Self { release: Some(Box::new(release)), holds: None }
    }

    /// Creates a guard of a claim that can be lost. `holds` returns an error with the reason if it was lost.
    pub fn leased(
        release: impl FnOnce() + Send + Sync + 'static,
        holds: impl Fn() -> Result<(), StoreError> + Send + Sync + 'static,
    ) -> Self {
        Self { release: Some(Box::new(release)), holds: Some(Box::new(holds)) }
    }

    /// Checks that no other process can have the claim now. A replay checks this before each group of letters leaves.
    ///
    /// # Errors
    /// Returns an error if the claim was lost.
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

/// Why a replay cannot begin.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BeginReplayError {
    /// Another replay is running.
    #[error("a replay of the dead letters in {store} is running: wait until it finishes")]
    Busy {
        /// The store.
        store: String,
    },
    /// Another process has claimed the store.
    #[error(
        "the dead letters in {store} are being replayed by {holder}: wait until it finishes, or, if it has crashed, until its \
         claim runs out at {until:.0}"
    )]
    Claimed {
        /// The store.
        store: String,
        /// The process id and the host of the other process.
        holder: String,
        /// End of the claim if it is not renewed, by the clock of that process or of the broker.
        until: Timestamp,
    },
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// The claim of a store that is open in this process.
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

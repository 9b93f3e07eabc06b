//! The claim on a store: the right to replay its letters.
//!
//! Rule: the claim is released on a thread that may block, also if the replay is dropped.

use std::time::{Duration, Instant};

use kafka_courier_dlq::{ReplayGuard, StoreError};

/// Interval between two checks of the claim while the letters of a page leave. A store behind a service takes a round trip
/// for each check.
const CHECK_INTERVAL: Duration = Duration::from_millis(50);

pub(super) struct Claim {
    guard: Option<ReplayGuard>,
    runtime: tokio::runtime::Handle,
    /// Time of the last successful check.
    checked_at: Option<Instant>,
}

impl Claim {
    pub(super) fn new(guard: ReplayGuard) -> Self {
        Self { guard: Some(guard), runtime: tokio::runtime::Handle::current(), checked_at: None }
    }

    /// Releases the claim, and waits until other processes can take it.
    pub(super) async fn release(mut self) {
        let guard = self.guard.take();
        // If the runtime ends, the claim ends as well.
        let _ = tokio::task::spawn_blocking(move || drop(guard)).await;
    }

    /// Returns an error if another process may have the claim now. Asks the process that holds a shared file, so it may
    /// block for a moment.
    pub(super) fn ensure_held(&self) -> Result<(), StoreError> {
        self.guard.as_ref().map_or(Ok(()), ReplayGuard::holds)
    }

    /// Does the same as [`ensure_held`](Self::ensure_held), with a result that may be [`CHECK_INTERVAL`] old.
    pub(super) fn check_recently(&mut self) -> Result<(), StoreError> {
        if self.checked_at.is_none_or(|at| at.elapsed() > CHECK_INTERVAL) {
            self.ensure_held()?;
            self.checked_at = Some(Instant::now());
        }
        Ok(())
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        if let Some(guard) = self.guard.take() {
            self.runtime.spawn_blocking(move || drop(guard));
        }
    }
}

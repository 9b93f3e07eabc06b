//! The right to replay a store.
//!
//! - It is given back where that may block, also if the replay is dropped half-way.

use std::time::{Duration, Instant};

use kafka_courier_dlq::{ReplayGuard, StoreError};

/// While the letters of a page leave: a store behind a service is asked by a round trip.
const ASKED_EVERY: Duration = Duration::from_millis(50);

pub(super) struct Claim {
    guard: Option<ReplayGuard>,
    runtime: tokio::runtime::Handle,
    /// When it was last found to hold.
    held_at: Option<Instant>,
}

impl Claim {
    pub(super) fn new(guard: ReplayGuard) -> Self {
        Self { guard: Some(guard), runtime: tokio::runtime::Handle::current(), held_at: None }
    }

    /// Gives it back, and waits until others can have it.
    pub(super) async fn release(mut self) {
        let guard = self.guard.take();
        // Where the runtime ends the claim ends by itself.
        let _ = tokio::task::spawn_blocking(move || drop(guard)).await;
    }

    /// Whether nobody else can have it.
    pub(super) fn holds(&self) -> Result<(), StoreError> {
        self.guard.as_ref().map_or(Ok(()), ReplayGuard::holds)
    }

    /// Whether it holds, or did a moment ago.
    pub(super) fn holds_lately(&mut self) -> Result<(), StoreError> {
        if self.held_at.is_none_or(|at| at.elapsed() > ASKED_EVERY) {
            self.holds()?;
            self.held_at = Some(Instant::now());
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

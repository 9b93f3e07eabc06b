//! [`RequestGuard`], which keeps the clock of a connection from its deadlines.

use std::time::Instant;

use super::watched::SharedClock;

/// A request that has no answer yet. An answer that is sent while it becomes known keeps a clone.
pub(super) struct RequestGuard(SharedClock);

impl RequestGuard {
    pub(super) fn new(clock: &SharedClock) -> Self {
        clock.lock().request_began();
        Self(clock.clone())
    }
}

impl Drop for RequestGuard {
    fn drop(&mut self) {
        self.0.lock().request_ended(Instant::now());
    }
}

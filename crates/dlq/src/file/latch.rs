//! The pause after a failure. A disk that is full or absent fails slowly, and at every attempt.
//!
//! Rules:
//!  - No attempt is made during a pause. Each failure doubles the pause, up to [`MAX_FACTOR`] times the first.
//!  - A pause of zero means no pause. A pause beyond the clock's range never ends.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;

use crate::store_error::StoreError;

/// The longest pause, as a multiple of the first one.
const MAX_FACTOR: u32 = 32;

/// A failure, and the time of the next attempt.
#[derive(Debug)]
pub(super) struct Latch {
    reason: Arc<str>,
    since: Timestamp,
    pause: Duration,
    /// End of the pause. `None`: the pause never ends.
    until: Option<Instant>,
    /// Whether the file cannot be read either.
    pub(super) cannot_open: bool,
}

impl Latch {
    /// Creates the latch after a failure. `before` is the latch of the previous failure.
    pub(super) fn after(before: Option<Self>, reason: String, first: Duration, cannot_open: bool) -> Self {
        let (since, pause) = match before {
            Some(before) => (before.since, before.pause.saturating_mul(2).min(first.saturating_mul(MAX_FACTOR))),
            None => (Timestamp::now(), first),
        };
        Self { reason: reason.into(), since, pause, until: Instant::now().checked_add(pause), cannot_open }
    }

    pub(super) fn is_over(&self) -> bool {
        self.until.is_some_and(|until| Instant::now() >= until)
    }

    pub(super) fn pause(&self) -> Duration {
        self.pause
    }

    pub(super) fn error(&self, path: &Path) -> StoreError {
        StoreError::Latched { path: path.to_owned(), reason: self.reason.clone(), since: self.since }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pause_doubles_up_to_32_times() {
        let first = Duration::from_millis(10);
        let mut latch = Latch::after(None, "full".into(), first, false);
        let mut pauses = vec![latch.pause()];
        for _ in 0..7 {
            latch = Latch::after(Some(latch), "full".into(), first, false);
            pauses.push(latch.pause());
        }
        assert_eq!(pauses.iter().map(Duration::as_millis).collect::<Vec<_>>(), [10, 20, 40, 80, 160, 320, 320, 320]);
    }

    #[test]
    fn infinite_pause_never_ends() {
        assert!(!Latch::after(None, "full".into(), Duration::MAX, false).is_over());
        assert!(Latch::after(None, "full".into(), Duration::ZERO, false).is_over());
    }
}

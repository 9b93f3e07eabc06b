//! After a failure nothing is tried for a while, for a disk that is full or gone fails slowly, and again and again.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;

use crate::store::StoreError;

/// The longest pause, in first pauses.
const MOST: u32 = 32;

/// A failure, and when to try again.
#[derive(Debug)]
pub(super) struct Latch {
    reason: Arc<str>,
    since: Timestamp,
    pause: Duration,
    /// None: never.
    until: Option<Instant>,
    /// Not even reading is possible.
    pub(super) cannot_open: bool,
}

impl Latch {
    /// The latch after a failure, which may have come while `before` was on.
    pub(super) fn after(before: Option<Self>, reason: String, first: Duration, cannot_open: bool) -> Self {
        let (since, pause) = match before {
            Some(before) => (before.since, before.pause.saturating_mul(2).min(first.saturating_mul(MOST))),
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
    fn the_pause_doubles_up_to_thirty_two_times_the_first() {
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
    fn a_pause_without_end_is_never_over() {
        assert!(!Latch::after(None, "full".into(), Duration::MAX, false).is_over());
        assert!(Latch::after(None, "full".into(), Duration::ZERO, false).is_over());
    }
}

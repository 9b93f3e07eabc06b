//! The limits of a store, and the decision at a limit. Pure.
//!
//! Rules:
//! - A letter that alone exceeds the limit is refused by either policy: dropping all others would not make room.
//! - Age counts from the letter's arrival in the store. Letters that are too old are dropped by either policy.

use std::time::Duration;

use jiff::Timestamp;

use crate::letter::LetterId;
use crate::store_error::AppendError;

/// The limits of a store. The default is no limit.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Limits {
    /// Most letters in the store.
    pub max_letters: Option<u64>,
    /// Most bytes of letters, as the store counts them.
    pub max_bytes: Option<u64>,
    /// Longest time since a letter's arrival. Older letters are dropped.
    pub max_age: Option<Duration>,
    /// The policy at the limit of letters or bytes.
    pub overflow: Overflow,
}

/// The policy of a full store.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub enum Overflow {
    /// Refuses letters. The next store of the chain takes them.
    #[default]
    Refuse,
    /// Drops the oldest letters. Each one is counted, and logged whole as an error.
    DropOldest,
}

/// Letters and their bytes.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(crate) struct Totals {
    pub(crate) letters: u64,
    pub(crate) bytes: u64,
}

impl Totals {
    pub(crate) fn add(&mut self, bytes: u64) {
        self.letters += 1;
        self.bytes += bytes;
    }

    pub(crate) fn take(&mut self, bytes: u64) {
        self.letters = self.letters.saturating_sub(1);
        self.bytes = self.bytes.saturating_sub(bytes);
    }
}

/// Why a store takes no more letters.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Excess {
    /// This letter alone exceeds the limit of bytes.
    TooLarge { id: LetterId, bytes: u64, limit: u64 },
    /// The store is full, and its policy is to refuse.
    Full,
}

impl Excess {
    /// Returns the error for the caller of an append. `held` is the store's content.
    pub(crate) fn explain(self, store: &str, held: Totals) -> AppendError {
        let store = store.to_owned();
        match self {
            Self::TooLarge { id, bytes, limit } => AppendError::TooLarge { store, id, bytes, limit },
            Self::Full => AppendError::Full { store, letters: held.letters, bytes: held.bytes },
        }
    }
}

impl Limits {
    /// Returns whether `total` exceeds a limit.
    pub(crate) fn exceeded(&self, total: Totals) -> bool {
        self.max_letters.is_some_and(|most| total.letters > most)
            || self.max_bytes.is_some_and(|most| total.bytes > most)
    }

    /// Decides whether letters of these sizes are taken in addition to `held`. The caller drops the oldest letters
    /// afterwards under [`Overflow::DropOldest`].
    pub(crate) fn admit(
        &self,
        held: Totals,
        incoming: impl IntoIterator<Item = (LetterId, u64)>,
    ) -> Result<(), Excess> {
        let mut total = held;
        for (id, bytes) in incoming {
            match self.max_bytes {
                Some(limit) if bytes > limit => return Err(Excess::TooLarge { id, bytes, limit }),
                _ => total.add(bytes),
            }
        }
        let full = self.overflow == Overflow::Refuse && self.exceeded(total);
        // An append without a new letter succeeds, even if the content exceeds a limit that was lowered.
        if full && total != held { Err(Excess::Full) } else { Ok(()) }
    }

    /// Returns the arrival time up to which letters are too old.
    pub(crate) fn expired_at(&self, now: Timestamp) -> Option<Timestamp> {
        now.checked_sub(self.max_age?).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn totals(letters: u64, bytes: u64) -> Totals {
        Totals { letters, bytes }
    }

    fn sizes<const N: usize>(bytes: [u64; N]) -> [(LetterId, u64); N] {
        bytes.map(|bytes| (LetterId::from(uuid::Uuid::from_u128(bytes.into())), bytes))
    }

    #[test]
    fn full_store_refuses_all() {
        let limits = Limits { max_letters: Some(3), ..Limits::default() };
        assert_eq!(limits.admit(totals(2, 0), sizes([1])), Ok(()));
        assert_eq!(limits.admit(totals(2, 0), sizes([1, 1])), Err(Excess::Full));
        let limits = Limits { max_bytes: Some(10), ..Limits::default() };
        assert_eq!(limits.admit(totals(1, 5), sizes([5])), Ok(()));
        assert_eq!(limits.admit(totals(1, 5), sizes([6])), Err(Excess::Full));
    }

    #[test]
    fn ring_takes_fitting_letters() {
        let limits =
            Limits { max_letters: Some(1), max_bytes: Some(10), overflow: Overflow::DropOldest, max_age: None };
        assert_eq!(limits.admit(totals(1, 10), sizes([10, 10])), Ok(()));
        assert_eq!(
            limits.admit(totals(0, 0), sizes([1, 11])),
            Err(Excess::TooLarge { id: sizes([11])[0].0, bytes: 11, limit: 10 })
        );
    }

    #[test]
    fn lowered_limit_accepts_empty_append() {
        let limits = Limits { max_letters: Some(1), ..Limits::default() };
        assert_eq!(limits.admit(totals(5, 0), sizes([])), Ok(()));
        assert_eq!(limits.admit(totals(5, 0), sizes([1])), Err(Excess::Full));
    }

    #[test]
    fn no_age_limit_keeps_letters() {
        let now: Timestamp = "2024-01-15T10:00:00Z".parse().unwrap();
        assert_eq!(Limits::default().expired_at(now), None);
        let limits = Limits { max_age: Some(Duration::from_secs(60)), ..Limits::default() };
        assert_eq!(limits.expired_at(now), Some("2024-01-15T09:59:00Z".parse().unwrap()));
        let limits = Limits { max_age: Some(Duration::MAX), ..Limits::default() };
        assert_eq!(limits.expired_at(now), None, "longer than all time");
    }
}

//! How much a store may hold, and what happens beyond: decided here, by numbers alone.
//!
//! - A letter that alone is over the limit is refused by either policy: dropping all others would not make room for it.
//! - Age counts from the letter's arrival in the store, and drops by either policy.

use std::time::Duration;

use jiff::Timestamp;

use crate::letter::LetterId;
use crate::store::AppendError;

/// What a store may hold. The default is no limit.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Limits {
    /// At most so many letters.
    pub max_letters: Option<u64>,
    /// At most so many bytes, as the store counts them.
    pub max_bytes: Option<u64>,
    /// Letters that arrived longer ago are dropped.
    pub max_age: Option<Duration>,
    /// What happens at the limit of letters or bytes.
    pub overflow: Overflow,
}

/// What a full store does.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub enum Overflow {
    /// Takes no more: the letter goes to the next store.
    #[default]
    Refuse,
    /// Drops its oldest letters: each is counted, and said whole in an error log line.
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

/// What stands against taking more.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Excess {
    /// This letter's bytes alone are over the limit.
    TooLarge { id: LetterId, bytes: u64, limit: u64 },
    /// The store is full, and refuses.
    Full,
}

impl Excess {
    /// The error for the caller who wanted to append to what is `held`.
    pub(crate) fn explain(self, store: &str, held: Totals) -> AppendError {
        let store = store.to_owned();
        match self {
            Self::TooLarge { id, bytes, limit } => AppendError::TooLarge { store, id, bytes, limit },
            Self::Full => AppendError::Full { store, letters: held.letters, bytes: held.bytes },
        }
    }
}

impl Limits {
    /// Whether `total`, once taken, is more than may be held.
    pub(crate) fn exceeded(&self, total: Totals) -> bool {
        self.max_letters.is_some_and(|most| total.letters > most)
            || self.max_bytes.is_some_and(|most| total.bytes > most)
    }

    /// Whether letters of these sizes may come to what is `held`; under [`Overflow::DropOldest`] the oldest go afterwards.
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
        // Nothing comes: what is held may be over a limit that was lowered since.
        if full && total != held { Err(Excess::Full) } else { Ok(()) }
    }

    /// The moment of arrival up to which letters are too old.
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
    fn a_full_store_that_refuses_takes_none_of_several() {
        let limits = Limits { max_letters: Some(3), ..Limits::default() };
        assert_eq!(limits.admit(totals(2, 0), sizes([1])), Ok(()));
        assert_eq!(limits.admit(totals(2, 0), sizes([1, 1])), Err(Excess::Full));
        let limits = Limits { max_bytes: Some(10), ..Limits::default() };
        assert_eq!(limits.admit(totals(1, 5), sizes([5])), Ok(()));
        assert_eq!(limits.admit(totals(1, 5), sizes([6])), Err(Excess::Full));
    }

    #[test]
    fn a_ring_takes_whatever_fits_alone() {
        let limits =
            Limits { max_letters: Some(1), max_bytes: Some(10), overflow: Overflow::DropOldest, max_age: None };
        assert_eq!(limits.admit(totals(1, 10), sizes([10, 10])), Ok(()));
        assert_eq!(
            limits.admit(totals(0, 0), sizes([1, 11])),
            Err(Excess::TooLarge { id: sizes([11])[0].0, bytes: 11, limit: 10 })
        );
    }

    #[test]
    fn a_store_over_a_limit_that_was_lowered_takes_nothing_gladly() {
        let limits = Limits { max_letters: Some(1), ..Limits::default() };
        assert_eq!(limits.admit(totals(5, 0), sizes([])), Ok(()));
        assert_eq!(limits.admit(totals(5, 0), sizes([1])), Err(Excess::Full));
    }

    #[test]
    fn without_a_limit_of_age_nothing_expires() {
        let now: Timestamp = "2024-01-15T10:00:00Z".parse().unwrap();
        assert_eq!(Limits::default().expired_at(now), None);
        let limits = Limits { max_age: Some(Duration::from_secs(60)), ..Limits::default() };
        assert_eq!(limits.expired_at(now), Some("2024-01-15T09:59:00Z".parse().unwrap()));
        let limits = Limits { max_age: Some(Duration::MAX), ..Limits::default() };
        assert_eq!(limits.expired_at(now), None, "longer than time has been");
    }
}

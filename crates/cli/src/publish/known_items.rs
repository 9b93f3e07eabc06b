//! The items of an input that an earlier run dealt with, and the checks of items.
//!
//! Rule: an item's check covers its number and its bytes. The spool has the sum of the checks of all items that are dealt with,
//! so a changed, removed or moved item shows, whatever the order in which they became durable.

use kafka_courier::spool::SpooledInput;
use sha2::{Digest, Sha256};

use super::position::InputPlace;

/// Returns the check of an item: the first 8 bytes of a SHA-256 of its number and its text.
pub(super) fn check_of(place: InputPlace, text: &[u8]) -> u64 {
    let digest = Sha256::new().chain_update(place.number().to_le_bytes()).chain_update(text).finalize();
    digest.first_chunk().copied().map(u64::from_le_bytes).unwrap_or_default()
}

/// The items of an input with a durable position that need no work.
#[derive(Clone, Debug, Default)]
pub(super) struct KnownItems(Option<SpooledInput>);

impl KnownItems {
    pub(super) fn of(input: SpooledInput) -> Self {
        Self(Some(input))
    }

    /// Returns the check of an item, or `None` if the item is dealt with.
    pub(super) fn check(&self, place: InputPlace, text: &[u8]) -> Option<u64> {
        let is_known = self.0.as_ref().is_some_and(|input| input.has(place.number()));
        (!is_known).then(|| check_of(place, text))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn check_covers_number_and_text() {
        let check = |number, text: &str| check_of(InputPlace::Line(number), text.as_bytes());
        assert_eq!(check(1, "a"), check_of(InputPlace::Element(1), b"a"));
        assert!(check(1, "a") != check(2, "a") && check(1, "a") != check(1, "b"));
        // The spool's files hold these values.
        assert_eq!(check(1, "a"), 0xf655_a58b_c821_61ae);
    }
}

//! Pages of dead letters, for readers that continue where an earlier page ended.

use std::fmt;
use std::str::FromStr;

use kafka_courier_dlq::{Held, Position, SCAN_BYTES, Selection, StoreError, letters_after};

use super::chain::StoreChain;

/// The place behind the last dead letter of a page: the number of its store, and its position there.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LetterCursor {
    store: usize,
    position: Position,
}

/// A text is no cursor.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("not a cursor: use the one of an earlier page")]
pub struct CursorError;

/// A page of dead letters.
#[derive(Clone, Default, Debug)]
#[non_exhaustive]
pub struct LetterPage {
    /// The dead letters, store by store, in the order of their arrival.
    pub letters: Vec<Held>,
    /// The place where the next page begins. `None` if there is no further dead letter.
    pub next: Option<LetterCursor>,
    /// The names and errors of stores that could not be read to their end.
    pub unread: Vec<(String, StoreError)>,
}

impl fmt::Display for LetterCursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.store, self.position)
    }
}

impl FromStr for LetterCursor {
    type Err = CursorError;

    fn from_str(text: &str) -> Result<Self, CursorError> {
        let (store, position) = text.split_once('.').ok_or(CursorError)?;
        let store = store.parse().map_err(|_| CursorError)?;
        Ok(Self { store, position: Position(position.parse().map_err(|_| CursorError)?) })
    }
}

impl StoreChain {
    /// Returns up to `limit` selected letters behind `after`, and fewer if they reach [`SCAN_BYTES`].
    pub(super) fn page(&self, selection: &Selection, after: Option<LetterCursor>, limit: usize) -> LetterPage {
        let (mut page, mut bytes) = (LetterPage::default(), 0);
        for (store, link) in self.local_links().enumerate() {
            let from = match after {
                Some(after) if store < after.store => continue,
                Some(after) if store == after.store => Some(after.position),
                _ => None,
            };
            for held in letters_after(&*link.store, selection, from) {
                match held {
                    Ok(_) if page.letters.len() >= limit || bytes >= SCAN_BYTES => return page,
                    Ok(held) => {
                        bytes += held.letter.value.as_ref().map_or(0, |value| value.len() as u64);
                        page.next = Some(LetterCursor { store, position: held.position });
                        page.letters.push(held);
                    }
                    Err(error) => page.unread.push((link.store.name().to_owned(), error)),
                }
            }
        }
        page.next = None;
        page
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use kafka_courier_dlq::{DeadLetterStore, Letter, MemoryStore, Timestamp};

    use super::super::chain::{StoreKind, StoreLink};
    use super::*;

    fn store(values: &[&str]) -> StoreLink {
        let store = MemoryStore::new(100);
        for value in values {
            let mut letter = Letter::new("t", None, "refused", Timestamp::UNIX_EPOCH);
            letter.value = Some(kafka_courier_dlq::Bytes::copy_from_slice(value.as_bytes()));
            store.append(&[letter]).unwrap();
        }
        StoreLink::local(Arc::new(store), StoreKind::Custom)
    }

    #[test]
    fn pages_continue_over_stores() {
        let chain = StoreChain::new(vec![store(&["a", "b", "c"]), store(&[]), store(&["d"])]);
        for limit in 1..6 {
            let (mut values, mut after) = (Vec::new(), None);
            loop {
                let page = chain.page(&Selection::all(), after, limit);
                assert!(page.letters.len() <= limit && page.unread.is_empty());
                values.extend(page.letters.into_iter().flat_map(|held| held.letter.value));
                let Some(next) = page.next else { break };
                after = Some(next.to_string().parse().unwrap());
            }
            assert_eq!(values, ["a", "b", "c", "d"], "{limit}");
        }
    }

    #[test]
    fn page_is_bounded_in_bytes() {
        let large = "x".repeat(3 << 20);
        let chain = StoreChain::new(vec![store(&[&large, &large, &large])]);
        let page = chain.page(&Selection::all(), None, 100);
        assert_eq!((page.letters.len(), page.next.map(|next| next.store)), (2, Some(0)));
    }

    #[test]
    fn other_texts_are_no_cursor() {
        for text in ["", "1", "a.1", "1.", "1.2.3", "-1.2"] {
            assert_eq!(text.parse::<LetterCursor>(), Err(CursorError), "{text}");
        }
    }
}

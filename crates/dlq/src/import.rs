//! Decides on imported letters whose ids may be in the store already.
//!
//! Rules:
//! - Pure. A letter of one id is kept once. The newer state wins, so a letter that was replayed after its export is never
//!   set back.
//! - The state with the settled outcome is the newer one of two states of one attempt.
//! - An edited letter replaces the stored one only if the caller wants it. The data about attempts is never set back.

use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash, Hasher};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::letter::{Letter, LetterId, Outcome};

/// The treatment of letters that differ from the store's letters of the same ids.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Edited {
    /// Keeps the store's letter, and reports its id.
    #[default]
    Leave,
    /// Replaces the store's letter by the imported one.
    Replace,
}

/// The result of an import.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
pub struct Imported {
    /// Letters that are new in the store.
    pub taken: u64,
    /// Letters that the store has in the same or in a newer state.
    pub known: u64,
    /// Letters that the store had in an older state, which the newer one replaced.
    pub updated: u64,
    /// Edited letters that replaced the store's letters.
    pub replaced: u64,
    /// Letters that differ from the store's letters of the same ids, and were not taken.
    pub different: Vec<LetterId>,
    /// Older letters that were dropped to make room, or because of their age.
    pub dropped: u64,
}

impl Imported {
    /// Adds the result for more letters.
    pub fn add(&mut self, more: Self) {
        self.taken += more.taken;
        self.known += more.known;
        self.updated += more.updated;
        self.replaced += more.replaced;
        self.different.extend(more.different);
        self.dropped += more.dropped;
    }
}

/// The state of the attempts to send a letter. It grows with each attempt, and when an outcome is settled. The derived order
/// compares the fields from first to last.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct AttemptState {
    last_attempt: Timestamp,
    attempts: u32,
    /// Compared after the attempts: a replay that an outage ended is not counted, so this number may shrink.
    replays: u32,
    /// Whether the record was certainly not written. An unknown outcome may be settled, and only an attempt makes it unknown
    /// again.
    is_certain: bool,
}

/// A digest for comparing two versions of a letter.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Digest {
    state: AttemptState,
    /// Hash of the record.
    record: u64,
    /// Hash of the other fields without the place.
    rest: u64,
    /// Hash of the place: where the record may be in a log. `None` if nothing is known.
    place: Option<u64>,
}

/// How an imported letter differs from the store's of the same id.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Compared {
    /// Both are equal.
    Same,
    /// The same record in an older state.
    Older,
    /// The same record in a newer state.
    Newer,
    /// Another record, or another state that no attempt explains: the letter was edited.
    Different,
}

impl Digest {
    /// Returns the letter's digest. Digests of different processes cannot be compared.
    pub fn of(letter: &Letter) -> Self {
        let mut record = DefaultHasher::new();
        (&letter.topic, &letter.key, &letter.value, letter.timestamp_ms).hash(&mut record);
        letter.headers.iter().for_each(|header| (&header.name, &header.value).hash(&mut record));
        (&letter.event_id, &letter.event_type, &letter.correlation_id).hash(&mut record);
        let mut rest = DefaultHasher::new();
        (&letter.failure_reason, &letter.error_code, letter.outcome).hash(&mut rest);
        (letter.retriable, letter.first_attempt, letter.replay.is_idle()).hash(&mut rest);
        let mut place = DefaultHasher::new();
        let known = (letter.partition, letter.topic_id, letter.search_from);
        let stamp = (letter.producer_id, letter.producer_epoch, letter.sequence);
        (known, stamp, letter.replay).hash(&mut place);
        Self {
            state: AttemptState {
                last_attempt: letter.last_attempt,
                attempts: letter.attempt_count,
                replays: letter.replay_count,
                is_certain: letter.outcome == Outcome::NotWritten,
            },
            record: record.finish(),
            rest: rest.finish(),
            place: (known != (None, None, None) || stamp != (None, None, None)).then(|| place.finish()),
        }
    }

    /// Returns how an imported letter differs from this one, the store's.
    pub fn compare(&self, imported: &Self) -> Compared {
        use std::cmp::Ordering::{Equal, Greater, Less};
        // A rerouted letter has lost its place here, and its export may still have the place.
        let same_place = self.place.is_none() || self.place == imported.place;
        match imported.state.cmp(&self.state) {
            _ if self.record != imported.record => Compared::Different,
            Less => Compared::Older,
            Greater => Compared::Newer,
            Equal if self.rest == imported.rest && same_place => Compared::Same,
            Equal => Compared::Different,
        }
    }
}

/// The decision on an imported letter whose id is in the store.
#[derive(Debug)]
pub(crate) enum ImportDecision {
    /// The store's letter is the same, or newer.
    Known,
    /// The store's letter differs, and stays.
    Different,
    /// The imported letter is newer, and replaces the store's.
    Updated(Letter),
    /// The letter was edited, and replaces the store's.
    Replaced {
        letter: Letter,
        /// Whether the data about attempts is the imported letter's.
        has_own_state: bool,
    },
}

pub(crate) fn decide(stored: &Letter, imported: &Letter, treatment: Edited) -> ImportDecision {
    match (Digest::of(stored).compare(&Digest::of(imported)), treatment) {
        (Compared::Same | Compared::Older, _) => ImportDecision::Known,
        (Compared::Newer, _) => ImportDecision::Updated(imported.clone()),
        (Compared::Different, Edited::Leave) => ImportDecision::Different,
        (Compared::Different, Edited::Replace) => {
            let (letter, has_own_state) = edited(stored, imported);
            ImportDecision::Replaced { letter, has_own_state }
        }
    }
}

impl Imported {
    /// Counts a decision. Returns the letter that replaces the store's, and whether it counts as imported.
    pub(crate) fn count(&mut self, id: LetterId, decision: ImportDecision) -> Option<(Letter, bool)> {
        match decision {
            ImportDecision::Known => {
                self.known += 1;
                None
            }
            ImportDecision::Different => {
                self.different.push(id);
                None
            }
            ImportDecision::Updated(letter) => {
                self.updated += 1;
                Some((letter, true))
            }
            ImportDecision::Replaced { letter, has_own_state } => {
                self.replaced += 1;
                Some((letter, has_own_state))
            }
        }
    }
}

/// Returns the edited letter that replaces `stored`, and whether its data about attempts is the imported letter's. An older
/// state never replaces the store's. A letter for another topic loses its place.
pub fn edited(stored: &Letter, imported: &Letter) -> (Letter, bool) {
    let has_own_state = Digest::of(imported).state >= Digest::of(stored).state;
    let record = imported.clone();
    let mut letter = match has_own_state {
        true => record,
        false => Letter {
            topic: record.topic,
            key: record.key,
            headers: record.headers,
            value: record.value,
            timestamp_ms: record.timestamp_ms,
            event_id: record.event_id,
            event_type: record.event_type,
            correlation_id: record.correlation_id,
            ..stored.clone()
        },
    };
    if letter.topic != stored.topic {
        letter.forget_place();
    }
    (letter, has_own_state)
}

/// Splits the letters into runs without a repeated id, so that a later letter is compared with the earlier one of its id.
pub fn runs(letters: &[Letter]) -> Vec<&[Letter]> {
    let (mut runs, mut from, mut ids) = (Vec::new(), 0, HashSet::new());
    for (index, letter) in letters.iter().enumerate() {
        if !ids.insert(letter.id) {
            runs.extend(letters.get(from..index));
            from = index;
            ids = HashSet::from([letter.id]);
        }
    }
    runs.extend(letters.get(from..).filter(|last| !last.is_empty()));
    runs
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{DeadLetterStore, FileStore, MemoryStore};

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn letter() -> Letter {
        Letter::new("t", None, "why", at(100))
    }

    /// The letter after one more attempt.
    fn later(letter: &Letter) -> Letter {
        Letter { replay_count: letter.replay_count + 1, last_attempt: at(200), ..letter.clone() }
    }

    fn with_stores(test: impl Fn(&dyn DeadLetterStore)) {
        let folder = tempfile::tempdir().unwrap();
        test(&MemoryStore::new(9));
        test(&FileStore::open(folder.path().join("letters")).unwrap());
    }

    fn only(store: &dyn DeadLetterStore) -> Letter {
        let mut held = store.scan(None, 9).unwrap();
        assert_eq!(held.len(), 1, "{held:?}");
        held.remove(0).letter
    }

    #[test]
    fn newer_state_wins() {
        with_stores(|store| {
            let old = letter();
            let new = later(&old);
            assert_eq!(store.import(std::slice::from_ref(&old)).unwrap().taken, 1);
            assert_eq!(store.import(std::slice::from_ref(&new)).unwrap().updated, 1);
            assert_eq!(only(store), new);
            let again = store.import_with(&[old, new.clone()], Edited::Replace).unwrap();
            assert_eq!((again.known, again.taken, again.replaced), (2, 0, 0));
            assert_eq!(only(store), new);
        });
    }

    #[test]
    fn edited_letter_is_reported() {
        with_stores(|store| {
            let stored = letter();
            store.import(std::slice::from_ref(&stored)).unwrap();
            let record = Letter { topic: "other".into(), ..stored.clone() };
            let state = Letter { failure_reason: "because".into(), ..stored.clone() };
            for edited in [record, state] {
                let left = store.import(std::slice::from_ref(&edited)).unwrap();
                assert_eq!((left.different, only(store)), (vec![stored.id], stored.clone()));
                let put = store.import_with(std::slice::from_ref(&edited), Edited::Replace).unwrap();
                assert_eq!((put.replaced, put.different.len(), only(store)), (1, 0, edited));
                store.import_with(std::slice::from_ref(&stored), Edited::Replace).unwrap();
            }
        });
    }

    #[test]
    fn edit_keeps_newer_state() {
        with_stores(|store| {
            let exported = letter();
            let mut stored = later(&exported);
            (stored.outcome, stored.partition, stored.producer_id) = (Outcome::Unknown, Some(3), Some(7));
            store.import(std::slice::from_ref(&stored)).unwrap();
            let edited = Letter { topic: "other".into(), ..exported };
            store.import_with(std::slice::from_ref(&edited), Edited::Replace).unwrap();
            let held = only(store);
            assert_eq!((held.topic.as_str(), held.replay_count, held.outcome), ("other", 1, stored.outcome));
            // Both belong to the former topic.
            assert_eq!((held.partition, held.producer_id), (None, None));
        });
    }

    #[test]
    fn settled_attempt_is_newer() {
        let marked = Letter { partition: Some(0), producer_id: Some(7), ..later(&letter()) };
        // An attempt that an outage ended is no replay.
        let back = Letter { replay_count: 0, attempt_count: 2, outcome: Outcome::NotWritten, ..marked.clone() };
        let absent = Letter { outcome: Outcome::NotWritten, producer_id: None, ..marked.clone() };
        for newer in [back, absent] {
            with_stores(|store| {
                store.import(std::slice::from_ref(&newer)).unwrap();
                let done = store.import_with(std::slice::from_ref(&marked), Edited::Replace).unwrap();
                assert_eq!((done.known, done.updated, done.replaced), (1, 0, 0));
                assert_eq!(only(store), newer);
            });
            with_stores(|store| {
                store.import(std::slice::from_ref(&marked)).unwrap();
                assert_eq!(store.import(std::slice::from_ref(&newer)).unwrap().updated, 1);
                assert_eq!(store.import(std::slice::from_ref(&newer)).unwrap().known, 1);
                assert_eq!(only(store), newer);
            });
        }
    }

    #[test]
    fn repeated_id_is_one_letter() {
        with_stores(|store| {
            let old = letter();
            let new = later(&old);
            let done = store.import(&[old.clone(), letter(), new.clone(), old]).unwrap();
            assert_eq!((done.taken, done.updated, done.known), (2, 1, 1));
            assert_eq!(store.scan(None, 9).unwrap()[0].letter, new);
        });
    }

    #[test]
    fn every_field_counts() {
        let mut stored = letter();
        (stored.partition, stored.sequence) = (Some(0), Some(0));
        let changes: [fn(&mut Letter); 23] = [
            |l| l.topic.push('x'),
            |l| l.partition = Some(1),
            |l| l.key = Some("k".into()),
            |l| l.headers.push(crate::Header { name: "h".into(), value: None }),
            |l| l.value = Some("v".into()),
            |l| l.timestamp_ms += 1,
            |l| l.event_id = Some("e".into()),
            |l| l.event_type = Some("e".into()),
            |l| l.correlation_id = Some("c".into()),
            |l| l.failure_reason.push('x'),
            |l| l.error_code = Some("E".into()),
            |l| l.outcome = Outcome::NotWritten,
            |l| l.retriable = true,
            |l| l.attempt_count += 1,
            |l| l.first_attempt = at(1),
            |l| l.last_attempt = at(900),
            |l| l.replay_count += 1,
            |l| l.topic_id = Some(crate::Uuid::from_u128(1)),
            |l| l.producer_id = Some(1),
            |l| l.producer_epoch = Some(1),
            |l| l.sequence = Some(1),
            |l| l.search_from = Some(1),
            |l| l.replay = crate::ReplayState::InProgress,
        ];
        for (index, change) in changes.into_iter().enumerate() {
            let mut changed = stored.clone();
            change(&mut changed);
            assert_ne!(Digest::of(&stored).compare(&Digest::of(&changed)), Compared::Same, "change {index}");
        }
        assert_eq!(Digest::of(&stored).compare(&Digest::of(&stored.clone())), Compared::Same);
        let mut placeless = stored.clone();
        placeless.forget_place();
        assert_eq!(Digest::of(&placeless).compare(&Digest::of(&stored)), Compared::Same);
    }
}

//! What becomes of letters that are imported where letters of the same ids may be already.
//!
//! Rules:
//! - Pure. A letter of one id is kept once, and its newer state wins, whichever side has it: a letter that was sent again
//!   since it was exported is never set back.
//! - Of one attempt, the state in which its doubt is settled is the newer one.
//! - A letter that was edited is taken only if the caller wants it. What is known of attempts to send it stays even then.

use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash, Hasher};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::letter::{Letter, LetterId, Outcome};
use crate::store::{AppendError, DeadLetterStore, Held, Position};

/// What to do with letters that are not what the store has under the same id.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Edited {
    /// Leaves the store's letter as it is, and names it.
    #[default]
    Leave,
    /// Puts the imported letter in the place of the store's.
    Replace,
}

/// What became of letters that were imported.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
pub struct Imported {
    /// Letters that are new here.
    pub taken: u64,
    /// Letters that were here already, in the same or in a newer state.
    pub known: u64,
    /// Letters that were here in an older state, and have the newer one now.
    pub updated: u64,
    /// Edited letters that are in the place of what was here.
    pub replaced: u64,
    /// Letters that are not what is here under the same id, and were not taken.
    pub different: Vec<LetterId>,
    /// Older letters that were dropped to make room, or because of their age.
    pub dropped: u64,
}

impl Imported {
    /// Adds what became of further letters.
    pub fn add(&mut self, more: Self) {
        self.taken += more.taken;
        self.known += more.known;
        self.updated += more.updated;
        self.replaced += more.replaced;
        self.different.extend(more.different);
        self.dropped += more.dropped;
    }
}

/// What is known of the attempts to send a letter: grows with each of them, and with its proof. The derived order compares
/// the fields from the first to the last.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct State {
    last_attempt: Timestamp,
    attempts: u32,
    /// Behind the attempts: a replay that an outage ended is not counted, so this may shrink.
    replays: u32,
    /// Whether it is certain that the record was not written: a doubt may be settled, and none comes without an attempt.
    is_certain: bool,
}

/// What it takes to compare a letter with another version of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Digest {
    state: State,
    /// Hash of the record alone.
    record: u64,
    /// Hash of the rest, but for the place.
    rest: u64,
    /// Hash of where the record may be in a log; none if nothing is known of that.
    place: Option<u64>,
}

/// How an imported letter differs from the store's of the same id.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Compared {
    /// In nothing.
    Same,
    /// The same record, in an older state.
    Older,
    /// The same record, in a newer state.
    Newer,
    /// Another record, or another state that no attempt explains: somebody edited it.
    Different,
}

impl Digest {
    /// The letter's digest. It holds for this process alone.
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
            state: State {
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

    /// How an imported letter differs from this one, which the store has.
    pub fn compare(&self, imported: &Self) -> Compared {
        use std::cmp::Ordering::{Equal, Greater, Less};
        // The place of a record that was rerouted here is forgotten, and its export may still have it.
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

/// What becomes of an imported letter whose id the store has already.
#[derive(Debug)]
pub(crate) enum Fate {
    /// The store's letter is the same, or newer.
    Known,
    /// The store's letter stays, though it is another.
    Different,
    /// The imported letter is newer and takes its place.
    Updated(Letter),
    /// This letter takes its place: it was edited.
    Replaced {
        letter: Letter,
        /// Whether what it says of attempts is the imported letter's.
        own: bool,
    },
}

pub(crate) fn fate(there: &Letter, imported: &Letter, how: Edited) -> Fate {
    match (Digest::of(there).compare(&Digest::of(imported)), how) {
        (Compared::Same | Compared::Older, _) => Fate::Known,
        (Compared::Newer, _) => Fate::Updated(imported.clone()),
        (Compared::Different, Edited::Leave) => Fate::Different,
        (Compared::Different, Edited::Replace) => {
            let (letter, own) = edited(there, imported);
            Fate::Replaced { letter, own }
        }
    }
}

impl Imported {
    /// Counts a letter's fate; returns the letter that takes the store's place, and whether it counts as imported.
    pub(crate) fn count(&mut self, id: LetterId, fate: Fate) -> Option<(Letter, bool)> {
        match fate {
            Fate::Known => {
                self.known += 1;
                None
            }
            Fate::Different => {
                self.different.push(id);
                None
            }
            Fate::Updated(letter) => {
                self.updated += 1;
                Some((letter, true))
            }
            Fate::Replaced { letter, own } => {
                self.replaced += 1;
                Some((letter, own))
            }
        }
    }
}

/// The edited letter as it stands in the place of `there`, and whether what it says of attempts is its own: an older state
/// than the store's is never taken. What was known of the place of a record for another topic is left out.
pub fn edited(there: &Letter, imported: &Letter) -> (Letter, bool) {
    let own = Digest::of(imported).state >= Digest::of(there).state;
    let record = imported.clone();
    let mut letter = match own {
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
            ..there.clone()
        },
    };
    if letter.topic != there.topic {
        letter.forget_place();
    }
    (letter, own)
}

/// The letters in runs within which no id repeats: what comes later is compared with what came before.
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

/// Imports through a store's other methods.
pub(crate) fn through(
    store: &(impl DeadLetterStore + ?Sized),
    letters: &[Letter],
    how: Edited,
) -> Result<Imported, AppendError> {
    let mut imported = Imported::default();
    for run in runs(letters) {
        let ids: Vec<LetterId> = run.iter().map(|letter| letter.id).collect();
        let (mut fresh, mut changed) = (Vec::new(), Vec::new());
        for (letter, position) in run.iter().zip(store.find(&ids)?) {
            let there = match position {
                Some(position) => store.scan(position.0.checked_sub(1).map(Position), 1)?,
                None => Vec::new(),
            };
            let Some(there) = there.into_iter().find(|held| held.letter.id == letter.id) else {
                fresh.push(letter.clone());
                continue;
            };
            let taken = imported.count(letter.id, fate(&there.letter, letter, how));
            changed.extend(taken.map(|(letter, own)| Held { letter, imported: own || there.imported, ..there }));
        }
        if !changed.is_empty() {
            store.update(&changed)?;
        }
        let appended = store.append(&fresh)?;
        imported.taken += appended.taken;
        imported.known += appended.known;
        imported.dropped += appended.dropped;
    }
    Ok(imported)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{FileStore, MemoryStore};

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn letter() -> Letter {
        Letter::new("t", None, "why", at(100))
    }

    /// After one more attempt.
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
    fn the_newer_state_wins() {
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
    fn an_edited_letter_is_named() {
        with_stores(|store| {
            let there = letter();
            store.import(std::slice::from_ref(&there)).unwrap();
            let record = Letter { topic: "other".into(), ..there.clone() };
            let state = Letter { failure_reason: "because".into(), ..there.clone() };
            for edited in [record, state] {
                let left = store.import(std::slice::from_ref(&edited)).unwrap();
                assert_eq!((left.different, only(store)), (vec![there.id], there.clone()));
                let put = store.import_with(std::slice::from_ref(&edited), Edited::Replace).unwrap();
                assert_eq!((put.replaced, put.different.len(), only(store)), (1, 0, edited));
                store.import_with(std::slice::from_ref(&there), Edited::Replace).unwrap();
            }
        });
    }

    #[test]
    fn an_edit_sets_no_state_back() {
        with_stores(|store| {
            let exported = letter();
            let mut there = later(&exported);
            (there.outcome, there.partition, there.producer_id) = (Outcome::Unknown, Some(3), Some(7));
            store.import(std::slice::from_ref(&there)).unwrap();
            let edited = Letter { topic: "other".into(), ..exported };
            store.import_with(std::slice::from_ref(&edited), Edited::Replace).unwrap();
            let held = only(store);
            assert_eq!((held.topic.as_str(), held.replay_count, held.outcome), ("other", 1, there.outcome));
            // Both are of the former topic.
            assert_eq!((held.partition, held.producer_id), (None, None));
        });
    }

    #[test]
    fn a_settled_attempt_is_newer() {
        let marked = Letter { partition: Some(0), producer_id: Some(7), ..later(&letter()) };
        // After an outage the attempt is no replay.
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
    fn an_id_twice_in_an_import_is_one_letter() {
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
        let mut there = letter();
        (there.partition, there.sequence) = (Some(0), Some(0));
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
            let mut changed = there.clone();
            change(&mut changed);
            assert_ne!(Digest::of(&there).compare(&Digest::of(&changed)), Compared::Same, "change {index}");
        }
        assert_eq!(Digest::of(&there).compare(&Digest::of(&there.clone())), Compared::Same);
        let mut placeless = there.clone();
        placeless.forget_place();
        assert_eq!(Digest::of(&placeless).compare(&Digest::of(&there)), Compared::Same);
    }
}

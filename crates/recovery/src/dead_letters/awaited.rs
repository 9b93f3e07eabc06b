//! [`AwaitedRecord`], a record whose caller waits for the verdict and publishes the record again itself.
//!
//! Rules:
//! - A record that is certainly not written returns to its caller, and has no dead letter. A retry of the caller and a replay
//!   of the dead letter would otherwise write the record twice.
//! - The caller and the dead-letter thread agree once: either the caller has the failure, or a dead letter keeps the record.
//! - A failure that returns to a caller that has left becomes a dead letter at that moment, so that it does not vanish.
//! - A record that is possibly written, or that a spool has, always has a dead letter.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, OnceLock};

use kafka_courier_dlq::{Letter, LetterId};
use kafka_courier_idempotent_sender::core::FailedOutcome;
use kafka_courier_producer::Undelivered;
use parking_lot::Mutex;

use super::batch_letters::BatchLetter;

const WAITING: u8 = 0;
/// The caller no longer waits. A failure becomes a dead letter.
const DETACHED: u8 = 1;
/// The record is certainly not written, and its failure returns to the caller.
const RETURNED: u8 = 2;

/// The tag of a record whose caller waits.
#[derive(Debug)]
pub struct AwaitedRecord {
    state: AtomicU8,
    letter: OnceLock<LetterId>,
    /// The dead letter of a record that has returned, in case its caller leaves.
    returned: Mutex<Option<ReturnedLetter>>,
    /// Whether a spool chooses the id of the dead letter.
    is_spooled: bool,
}

/// Keeps the letter of a record whose caller has left.
pub(super) type KeepLetter = Arc<dyn Fn(Letter) + Send + Sync>;

/// The dead letter of a record that has returned to its caller, and the way to keep it.
struct ReturnedLetter {
    letter: Letter,
    keep: KeepLetter,
}

impl fmt::Debug for ReturnedLetter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ReturnedLetter").field(&self.letter.id).finish()
    }
}

impl AwaitedRecord {
    /// Creates the tag. `is_spooled` says whether the producer has a spool.
    pub fn new(is_spooled: bool) -> Self {
        Self { state: AtomicU8::new(WAITING), letter: OnceLock::new(), returned: Mutex::new(None), is_spooled }
    }

    /// Ends the wait, so that a later failure becomes a dead letter. Returns `false` if the failure returns to the caller,
    /// who gets the verdict soon.
    pub fn detach(&self) -> bool {
        if !self.is_spooled {
            let _ = self.letter.get_or_init(LetterId::new);
        }
        let changed = self.state.compare_exchange(WAITING, DETACHED, Ordering::AcqRel, Ordering::Acquire);
        changed != Err(RETURNED)
    }

    /// Ends the wait as [`detach`](Self::detach) does. A failure that has returned to the caller becomes a dead letter now: the
    /// caller does not keep the record.
    pub fn leave(&self) {
        if self.detach() {
            return;
        }
        let returned = self.returned.lock().take();
        if let Some(ReturnedLetter { mut letter, keep }) = returned {
            letter.id = *self.letter.get_or_init(|| letter.id);
            self.state.store(DETACHED, Ordering::Release);
            keep(letter);
        }
    }

    /// Returns the id of the record's dead letter, or the id that the dead letter will have if the record fails. `None` if
    /// the record has none, or if a spool chooses the id later.
    pub fn letter(&self) -> Option<LetterId> {
        match self.state.load(Ordering::Acquire) {
            RETURNED => None,
            _ => self.letter.get().copied(),
        }
    }

    /// Returns a failure to the caller, unless the caller no longer waits. The dead-letter thread calls it for a record that
    /// is certainly not written.
    fn give_back(&self, letter: &Letter, keep: &KeepLetter) -> bool {
        // A caller that leaves sees the state, and then waits for the letter.
        let mut returned = self.returned.lock();
        let has_changed = self.state.compare_exchange(WAITING, RETURNED, Ordering::AcqRel, Ordering::Acquire).is_ok();
        if has_changed {
            *returned = Some(ReturnedLetter { letter: letter.clone(), keep: keep.clone() });
        }
        has_changed
    }

    /// Notes the id of the record's dead letter, and returns the id that the dead letter must have. `stored` is the id that
    /// the spool demands.
    fn name_letter(&self, stored: Option<LetterId>, new: LetterId) -> LetterId {
        *self.letter.get_or_init(|| stored.unwrap_or(new))
    }
}

/// Returns the letters of failed records, without those whose failure returns to a waiting caller. The others have the ids
/// that their callers know. `keep` keeps the letter of a record whose caller leaves.
pub(super) fn without_returned(
    failed: &Undelivered,
    mut letters: Vec<BatchLetter>,
    keep: &KeepLetter,
) -> Vec<BatchLetter> {
    let tags = failed.tags().into_iter();
    let awaited: HashMap<u32, Arc<AwaitedRecord>> =
        tags.filter_map(|(index, tag)| tag.downcast().ok().map(|awaited| (index, awaited))).collect();
    // One letter stands for all records of a batch that could not be decoded.
    if awaited.is_empty() || u32::try_from(letters.len()) != Ok(failed.records().len()) {
        return letters;
    }
    let is_certain = failed.failure().outcome == FailedOutcome::NotWritten;
    letters.retain_mut(|one| {
        let Some(awaited) = awaited.get(&one.index) else { return true };
        let is_stored = failed.stored_record(one.index).is_some();
        if is_certain && !is_stored && awaited.give_back(&one.letter, keep) {
            return false;
        }
        one.letter.id = awaited.name_letter(is_stored.then_some(one.letter.id), one.letter.id);
        true
    });
    letters
}

#[cfg(test)]
mod tests {
    use super::*;

    fn letter() -> Letter {
        Letter::new("t", None, "rejected", kafka_courier_dlq::Timestamp::UNIX_EPOCH)
    }

    /// Returns the way to keep letters, and the kept ones.
    fn keeper() -> (KeepLetter, Arc<Mutex<Vec<LetterId>>>) {
        let kept = Arc::new(Mutex::new(Vec::new()));
        let letters = kept.clone();
        (Arc::new(move |letter: Letter| letters.lock().push(letter.id)), kept)
    }

    #[test]
    fn failure_of_left_caller_is_kept() {
        let (awaited, (keep, kept)) = (AwaitedRecord::new(false), keeper());
        assert!(awaited.give_back(&letter(), &keep) && awaited.letter().is_none());
        awaited.leave();
        awaited.leave();
        assert_eq!(*kept.lock(), [awaited.letter().unwrap()], "one dead letter keeps the record");
    }

    #[test]
    fn promised_letter_is_kept() {
        let (awaited, (keep, kept)) = (AwaitedRecord::new(false), keeper());
        awaited.give_back(&letter(), &keep);
        assert!(!awaited.detach(), "the verdict is ready soon");
        awaited.leave();
        assert_eq!(*kept.lock(), [awaited.letter().unwrap()]);
    }

    #[test]
    fn failure_has_one_owner() {
        let awaited = AwaitedRecord::new(false);
        assert!(awaited.give_back(&letter(), &keeper().0));
        assert!(!awaited.detach(), "the caller has the failure");
        assert_eq!(awaited.letter(), None);
        let detached = AwaitedRecord::new(false);
        assert!(detached.detach() && detached.detach());
        assert!(!detached.give_back(&letter(), &keeper().0), "a dead letter keeps the record");
    }

    #[test]
    fn detached_record_knows_its_letter() {
        let awaited = AwaitedRecord::new(false);
        assert_eq!(awaited.letter(), None);
        awaited.detach();
        let promised = awaited.letter().unwrap();
        assert_eq!(awaited.name_letter(None, LetterId::new()), promised);
    }

    #[test]
    fn spool_chooses_the_id() {
        let (awaited, stored) = (AwaitedRecord::new(true), LetterId::new());
        awaited.detach();
        assert_eq!(awaited.letter(), None);
        assert_eq!(awaited.name_letter(Some(stored), LetterId::new()), stored);
        assert_eq!(awaited.letter(), Some(stored));
    }
}

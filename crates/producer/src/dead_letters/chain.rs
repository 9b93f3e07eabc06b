//! Where letters go: the topic, else the file, else memory, else the log.
//!
//! Rules:
//! - A letter that a store does not take goes to the next one; the last resort is an error line with the whole letter.
//! - A letter that the cluster's absence has caused skips the topic.
//! - A letter that was being sent again is put in its own place, where it still is.
//! - Each store is asked by itself: one that can't be read hides no letter of another.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use kafka_courier_dlq::{AppendError, DeadLetterStore, Held, Letter, LetterId, Outcome, Selection, StoreError};

use super::topic::DeadLetterTopic;
use super::{DeadLetterStats, Listed};
use crate::metrics;

/// A letter to keep.
#[derive(Debug)]
pub(crate) struct ToKeep {
    pub(crate) letter: Letter,
    /// It was a letter before, and was sent again.
    pub(crate) again: bool,
    /// The cluster could not be had.
    pub(crate) cluster_absent: bool,
}

impl ToKeep {
    /// The letter as a copy beside one that may be sent meanwhile.
    fn in_doubt(mut self) -> Self {
        self.letter.outcome = Outcome::Unknown;
        self
    }
}

/// One store of the chain, and whether it took the last letters.
#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) store: Arc<dyn DeadLetterStore>,
    /// The same, where it is a topic: it takes each letter for itself.
    topic: Option<Arc<DeadLetterTopic>>,
    kind: &'static str,
    /// It is a topic of the very cluster whose absence may be the cause.
    in_cluster: bool,
    failing: AtomicBool,
    /// Letters that it took.
    pub(crate) kept: AtomicU64,
}

impl Link {
    /// A store of this process; `kind` is what metrics call it.
    pub(crate) fn own(store: Arc<dyn DeadLetterStore>, kind: &'static str) -> Self {
        Self::new(store, kind, false)
    }

    /// A topic of the cluster.
    pub(crate) fn in_cluster(topic: Arc<DeadLetterTopic>) -> Self {
        Self { topic: Some(topic.clone()), ..Self::new(topic, "topic", true) }
    }

    fn new(store: Arc<dyn DeadLetterStore>, kind: &'static str, in_cluster: bool) -> Self {
        Self { store, topic: None, kind, in_cluster, failing: AtomicBool::new(false), kept: AtomicU64::new(0) }
    }

    /// The topic, if it is one.
    pub(crate) fn topic(&self) -> Option<Arc<DeadLetterTopic>> {
        self.topic.clone()
    }

    /// Whether its letters end with the process.
    pub(crate) fn is_memory(&self) -> bool {
        self.kind == "memory"
    }

    /// Letters that it holds now.
    pub(crate) fn held(&self) -> u64 {
        self.store.stats().map_or(0, |stats| stats.letters)
    }

    /// What it holds and did, or why that is unknown.
    pub(crate) fn stats(&self) -> DeadLetterStats {
        let (stats, error) = match self.store.stats() {
            Ok(stats) => (stats, None),
            Err(error) => (Default::default(), Some(error)),
        };
        let (store, kept) = (self.store.name().to_owned(), self.kept.load(Ordering::Relaxed));
        DeadLetterStats { store, kept, stats, error }
    }

    /// Tries to keep the letters; returns those that it does not take, in their order.
    fn keep(&self, letters: Vec<ToKeep>) -> Vec<ToKeep> {
        let (offered, mut refused): (Vec<_>, Vec<_>) =
            (0..).zip(letters).partition(|(_, keep): &(usize, _)| !(self.in_cluster && keep.cluster_absent));
        let letters: Vec<Letter> = offered.iter().map(|(_, keep)| keep.letter.clone()).collect();
        let taken = self.offer(&letters);
        let left = offered.into_iter().zip(&taken).filter(|(_, taken)| !**taken).map(|(offered, _)| offered);
        refused.extend(left);
        refused.sort_by_key(|(place, _)| *place);
        refused.into_iter().map(|(_, keep)| keep).collect()
    }

    /// Which of the letters it has taken.
    fn offer(&self, letters: &[Letter]) -> Vec<bool> {
        let Some(topic) = &self.topic else { return self.offer_all(letters) };
        if letters.is_empty() {
            return Vec::new();
        }
        match topic.append_each(letters) {
            Ok(taken) => {
                let these: Vec<Letter> =
                    letters.iter().zip(&taken).filter(|(_, taken)| **taken).map(|(letter, _)| letter.clone()).collect();
                self.took(&these);
                taken
            }
            Err(error) => {
                self.fails(&error.into());
                vec![false; letters.len()]
            }
        }
    }

    fn took(&self, letters: &[Letter]) {
        if self.failing.swap(false, Ordering::Relaxed) {
            tracing::info!(store = self.store.name(), "the dead-letter store takes letters again");
        }
        metrics::letters_kept(self.kind, letters);
        self.kept.fetch_add(letters.len() as u64, Ordering::Relaxed);
    }

    /// As [`offer`](Self::offer), for stores that take all letters or none.
    fn offer_all(&self, letters: &[Letter]) -> Vec<bool> {
        let mut taken = vec![false; letters.len()];
        let mut left: Vec<usize> = (0..letters.len()).collect();
        while !left.is_empty() {
            let these: Vec<Letter> = left.iter().filter_map(|place| letters.get(*place).cloned()).collect();
            match guarded(|| self.store.append(&these)) {
                Ok(_) => {
                    self.took(&these);
                    for place in left {
                        if let Some(taken) = taken.get_mut(place) {
                            *taken = true;
                        }
                    }
                    break;
                }
                Err(AppendError::TooLarge { id, .. }) if these.iter().any(|letter| letter.id == id) => {
                    left.retain(|place| letters.get(*place).is_some_and(|letter| letter.id != id));
                }
                Err(error) => {
                    self.fails(&error);
                    break;
                }
            }
        }
        taken
    }

    /// Said once, not with every letter.
    fn fails(&self, error: &AppendError) {
        if !self.failing.swap(true, Ordering::Relaxed) {
            tracing::error!(
                store = self.store.name(),
                %error,
                "the dead-letter store takes no letters: they go to the next one"
            );
        }
    }

    /// Puts letters that it holds already in their own places; returns the others. Where only that fails, what the store
    /// holds of them stays as it is: it says that they may be written, which is still true. Where it is unknown whether it
    /// holds them (its file is gone, say), they are kept elsewhere too. What the store has of them, if it comes back, may be
    /// sent by another replay: so those copies say that they may be written.
    fn replace(&self, letters: Vec<ToKeep>) -> Vec<ToKeep> {
        let ids: Vec<LetterId> = letters.iter().map(|keep| keep.letter.id).collect();
        let positions = match guarded(|| self.store.find(&ids).map_err(AppendError::from)) {
            Ok(positions) => positions,
            Err(error) => {
                tracing::error!(store = self.store.name(), %error, "letters that failed again could not be looked up");
                return if self.in_cluster { letters } else { letters.into_iter().map(ToKeep::in_doubt).collect() };
            }
        };
        let (mut known, mut others) = (Vec::new(), Vec::new());
        for (keep, position) in letters.into_iter().zip(positions) {
            match position {
                Some(position) => known.push(Held::new(position, keep.letter)),
                None => others.push(keep),
            }
        }
        if !known.is_empty()
            && let Err(error) = guarded(|| self.store.update(&known).map_err(AppendError::from))
        {
            tracing::error!(store = self.store.name(), %error, "letters that failed again could not be updated");
        }
        others
    }
}

/// Runs a store, which may be anybody's: its panic is its failure, not the end of all letters.
fn guarded<R>(store: impl FnOnce() -> Result<R, AppendError>) -> Result<R, AppendError> {
    std::panic::catch_unwind(AssertUnwindSafe(store)).unwrap_or_else(|_| {
        let reason = "the store panicked".to_owned();
        Err(StoreError::Service { store: "dead letters".to_owned(), reason }.into())
    })
}

/// The last resort: the whole letter in an error line.
pub(super) fn log_whole(letter: &Letter) {
    let whole = serde_json::to_string(letter).unwrap_or_else(|_| format!("{letter:?}"));
    tracing::error!(letter = whole, "no dead-letter store took this letter");
}

/// The stores in their order.
#[derive(Debug)]
pub(crate) struct Chain {
    pub(crate) links: Vec<Link>,
    /// Letters that no store took, and that stand in the log.
    pub(crate) logged: AtomicU64,
}

impl Chain {
    pub(crate) fn new(links: Vec<Link>) -> Self {
        Self { links, logged: AtomicU64::new(0) }
    }

    /// Letters held now, in memory and on disk.
    pub(crate) fn held(&self) -> u64 {
        self.own().map(Link::held).sum()
    }

    /// The stores of this process alone.
    pub(crate) fn own(&self) -> impl Iterator<Item = &Link> {
        self.links.iter().filter(|link| !link.in_cluster)
    }

    /// The selected letters of the stores of this process, as far as those can be read; at most `limit`.
    pub(crate) fn list(&self, selection: &Selection, limit: usize) -> Listed {
        let mut listed = Listed::default();
        for link in self.own() {
            let left = limit - listed.letters.len();
            for held in kafka_courier_dlq::letters(&*link.store, selection).take(left) {
                match held {
                    Ok(held) => listed.letters.push(held),
                    Err(error) => {
                        tracing::warn!(store = link.store.name(), %error, "dead letters can't be read");
                        listed.unread.push((link.store.name().to_owned(), error));
                    }
                }
            }
        }
        listed
    }

    /// Removes the selected letters from the stores of this process; the error is that of the first store that failed.
    pub(crate) fn purge(&self, selection: &Selection) -> Result<usize, StoreError> {
        let purged: Vec<_> = self.own().map(|link| kafka_courier_dlq::purge(&*link.store, selection)).collect();
        purged.into_iter().sum()
    }

    /// Keeps the letters: returns when each is where it stays. Those that go to one store stand there in this order.
    pub(crate) fn keep(&self, letters: Vec<ToKeep>) {
        let mut left = self.replace(letters);
        for link in &self.links {
            if left.is_empty() {
                return;
            }
            left = link.keep(left);
        }
        let left: Vec<Letter> = left.into_iter().map(|keep| keep.letter).collect();
        metrics::letters_kept("log", &left);
        self.logged.fetch_add(left.len() as u64, Ordering::Relaxed);
        left.iter().for_each(log_whole);
    }

    /// Puts those that were letters before in their own places; returns what is to be kept anew.
    fn replace(&self, letters: Vec<ToKeep>) -> Vec<ToKeep> {
        if !letters.iter().any(|keep| keep.again) {
            return letters;
        }
        let (again, new): (Vec<_>, Vec<_>) = letters.into_iter().partition(|keep| keep.again);
        let held_nowhere = self.links.iter().fold(again, |again, link| link.replace(again));
        held_nowhere.into_iter().chain(new).collect()
    }

    /// Drops what is too old.
    pub(crate) fn expire(&self) {
        for link in self.own() {
            if let Err(error) = link.store.expire() {
                tracing::debug!(store = link.store.name(), %error, "letters that are too old could not be dropped");
            }
        }
    }

    /// Letters that turned out to be in the log after all: they are no longer dead.
    pub(crate) fn landed(&self, ids: &[LetterId]) -> usize {
        let mut removed = 0;
        for link in &self.links {
            let found = link.store.find(ids).map(|positions| positions.into_iter().flatten().collect::<Vec<_>>());
            match found.and_then(|positions| if positions.is_empty() { Ok(0) } else { link.store.remove(&positions) }) {
                Ok(count) => removed += count,
                Err(error) => {
                    tracing::error!(store = link.store.name(), %error, "letters of delivered records could not be removed");
                }
            }
        }
        removed
    }
}

#[cfg(test)]
mod tests {
    use kafka_courier_dlq::{FileStore, Limits, MemoryStore, Overflow, Timestamp};

    use super::*;

    fn letter(replay_count: u32) -> Letter {
        let mut letter = Letter::new("t", None, "why", Timestamp::UNIX_EPOCH);
        letter.replay_count = replay_count;
        letter
    }

    fn group(letters: &[Letter], cluster_absent: bool) -> Vec<ToKeep> {
        let keep = |letter: &Letter| ToKeep { letter: letter.clone(), again: letter.replay_count > 0, cluster_absent };
        letters.iter().map(keep).collect()
    }

    fn store(letters: u64) -> Arc<MemoryStore> {
        let limits = Limits { max_letters: Some(letters), overflow: Overflow::Refuse, ..Limits::default() };
        Arc::new(MemoryStore::with_limits(limits))
    }

    #[test]
    fn what_a_store_does_not_take_goes_to_the_next_and_at_last_to_the_log() {
        let (first, second) = (store(2), store(1));
        let chain = Chain::new(vec![Link::own(first.clone(), "memory"), Link::own(second.clone(), "memory")]);
        for _ in 0..4 {
            chain.keep(group(&[letter(0)], false));
        }
        assert_eq!((first.len(), second.len(), chain.logged.load(Ordering::Relaxed)), (2, 1, 1));
    }

    #[test]
    fn letters_of_an_absent_cluster_skip_the_topic() {
        let (topic, file) = (store(9), store(9));
        let chain = Chain::new(vec![Link::new(topic.clone(), "topic", true), Link::own(file.clone(), "memory")]);
        chain.keep(group(&[letter(0)], true));
        chain.keep(group(&[letter(0), letter(0)], false));
        assert_eq!((topic.len(), file.len()), (2, 1));
    }

    #[test]
    fn a_letter_that_fails_again_is_put_in_its_own_place() {
        let file = store(9);
        let chain = Chain::new(vec![Link::own(file.clone(), "memory")]);
        let (a, b) = (letter(0), letter(0));
        chain.keep(group(&[a.clone(), b.clone()], false));
        let mut again = a.clone();
        (again.replay_count, again.outcome) = (1, Outcome::NotWritten);
        chain.keep(group(std::slice::from_ref(&again), true));
        let held: Vec<Letter> = file.scan(None, 9).unwrap().into_iter().map(|held| held.letter).collect();
        assert_eq!(held, [again, b]);
    }

    #[test]
    fn a_letter_that_fails_again_and_is_held_nowhere_is_kept_as_a_new_one() {
        let file = store(9);
        Chain::new(vec![Link::own(file.clone(), "memory")]).keep(group(&[letter(1)], false));
        assert_eq!(file.len(), 1);
    }

    /// A file whose folder is gone.
    fn gone() -> Arc<FileStore> {
        let folder = tempfile::tempdir().unwrap();
        let file = Arc::new(FileStore::open(folder.path().join("letters")).unwrap());
        file.append(&[letter(0)]).unwrap();
        drop(folder);
        file
    }

    #[test]
    fn an_unreadable_store_hides_no_other() {
        let (file, memory) = (gone(), store(9));
        let chain = Chain::new(vec![Link::own(file, "file"), Link::own(memory.clone(), "memory")]);
        chain.keep(group(&[letter(0)], false));
        let listed = chain.list(&Selection::all(), 9);
        assert_eq!((listed.letters.len(), listed.unread.len()), (1, 1), "{listed:?}");
        let stats: Vec<_> = chain.links.iter().map(Link::stats).collect();
        assert!(stats[0].error.is_some() && stats[1].stats.letters == 1, "{stats:?}");
        chain.purge(&Selection::all()).unwrap_err();
        assert_eq!(memory.len(), 0);
    }

    #[test]
    fn a_letter_whose_store_is_gone_is_kept_elsewhere() {
        let (file, memory) = (gone(), store(9));
        let chain = Chain::new(vec![Link::own(file, "file"), Link::own(memory.clone(), "memory")]);
        // The store learns of it with the next write.
        chain.keep(group(&[letter(0)], false));
        let mut again = letter(1);
        again.outcome = Outcome::NotWritten;
        chain.keep(group(std::slice::from_ref(&again), false));
        let held = memory.scan(None, 9).unwrap().pop().unwrap().letter;
        assert_eq!((held.id, held.outcome), (again.id, Outcome::Unknown));
    }

    #[test]
    fn letters_of_records_that_landed_are_removed_wherever_they_are() {
        let (first, second) = (store(1), store(9));
        let chain = Chain::new(vec![Link::own(first.clone(), "memory"), Link::own(second.clone(), "memory")]);
        let letters = [letter(0), letter(0), letter(0)];
        letters.iter().for_each(|letter| chain.keep(group(std::slice::from_ref(letter), false)));
        assert_eq!(chain.landed(&[letters[0].id, letters[2].id]), 2);
        assert_eq!((first.len(), second.len()), (0, 1));
    }

    #[test]
    fn letters_of_different_causes_stay_in_their_order() {
        let (topic, file) = (store(0), store(9));
        let chain = Chain::new(vec![Link::new(topic.clone(), "topic", true), Link::own(file.clone(), "memory")]);
        let letters = [letter(0), letter(0), letter(0)];
        let keep =
            |(letter, cluster_absent): (&Letter, bool)| ToKeep { letter: letter.clone(), again: false, cluster_absent };
        chain.keep(letters.iter().zip([true, false, true]).map(keep).collect());
        let held: Vec<Letter> = file.scan(None, 9).unwrap().into_iter().map(|held| held.letter).collect();
        assert_eq!(held, letters);
    }
}

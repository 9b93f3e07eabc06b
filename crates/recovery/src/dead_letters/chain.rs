//! The chain of dead-letter stores: the topic, the file, memory, and the log as the last resort.
//!
//! Rules:
//! - A letter that one store refuses is offered to the next. A letter that all stores refuse is written whole to an
//!   error line of the log.
//! - A letter that an unreachable cluster caused skips the topic.
//! - A replayed letter that fails again replaces its former version in the store that still holds it.
//! - Each store is read separately. An unreadable store hides no letter of another store.

use std::collections::HashSet;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use kafka_courier_dlq::{
    AppendError, DeadLetterStore, Held, Letter, LetterId, Outcome, Position, Selection, StoreError,
};

use super::topic::DeadLetterTopic;
use super::{DeadLetterStats, Listed};
use crate::metrics;

/// A letter that no store holds yet in this version.
#[derive(Debug)]
pub(crate) struct PendingLetter {
    pub(crate) letter: Letter,
    /// Whether the record was a dead letter before, and its replay failed.
    pub(crate) is_replayed: bool,
    /// Whether an unreachable cluster caused the failure.
    pub(crate) is_cluster_absent: bool,
}

impl PendingLetter {
    /// Sets the outcome to unknown, for a copy of a letter that another replay may send meanwhile.
    fn with_unknown_outcome(mut self) -> Self {
        self.letter.outcome = Outcome::Unknown;
        self
    }
}

/// The kind of a store.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum StoreKind {
    Topic,
    /// The application's own store.
    Custom,
    File,
    Memory,
}

impl StoreKind {
    /// Returns the store's label in metrics.
    fn label(self) -> &'static str {
        match self {
            Self::Topic => "topic",
            Self::Custom => "custom",
            Self::File => "file",
            Self::Memory => "memory",
        }
    }
}

/// One store of the chain.
#[derive(Debug)]
pub(crate) struct StoreLink {
    pub(crate) store: Arc<dyn DeadLetterStore>,
    /// The same store if it is a topic, which accepts or refuses each letter separately.
    topic: Option<Arc<DeadLetterTopic>>,
    kind: StoreKind,
    /// Whether the store is a topic of the producer's own cluster, which may be unreachable.
    in_cluster: bool,
    /// Whether the store refused the last letters.
    failing: AtomicBool,
    /// Letters that the store accepted.
    pub(crate) kept: AtomicU64,
}

impl StoreLink {
    /// Creates a link for a store of this process.
    pub(crate) fn local(store: Arc<dyn DeadLetterStore>, kind: StoreKind) -> Self {
        Self::new(store, kind, false)
    }

    /// Creates a link for a topic of the cluster.
    pub(crate) fn in_cluster(topic: Arc<DeadLetterTopic>) -> Self {
        Self { topic: Some(topic.clone()), ..Self::new(topic, StoreKind::Topic, true) }
    }

    fn new(store: Arc<dyn DeadLetterStore>, kind: StoreKind, in_cluster: bool) -> Self {
        Self { store, topic: None, kind, in_cluster, failing: AtomicBool::new(false), kept: AtomicU64::new(0) }
    }

    /// Returns the store if it is a topic.
    pub(crate) fn topic(&self) -> Option<Arc<DeadLetterTopic>> {
        self.topic.clone()
    }

    /// Returns whether the letters are lost when the process ends.
    pub(crate) fn is_memory(&self) -> bool {
        self.kind == StoreKind::Memory
    }

    /// Returns the number of letters in the store.
    pub(crate) fn held(&self) -> u64 {
        self.store.stats().map_or(0, |stats| stats.letters)
    }

    /// Returns the store's counts, or the error that hides them.
    pub(crate) fn stats(&self) -> DeadLetterStats {
        let (stats, error) = match self.store.stats() {
            Ok(stats) => (stats, None),
            Err(error) => (Default::default(), Some(error)),
        };
        let (store, kept) = (self.store.name().to_owned(), self.kept.load(Ordering::Relaxed));
        DeadLetterStats { store, kept, stats, error }
    }

    /// Calls `offer`, which returns the letters that the store does not hold, and returns them. Adds the others to
    /// `volatile` if the store does not survive the process.
    fn noting_volatile(
        &self,
        letters: Vec<PendingLetter>,
        volatile: &mut HashSet<LetterId>,
        offer: impl FnOnce(&Self, Vec<PendingLetter>) -> Vec<PendingLetter>,
    ) -> Vec<PendingLetter> {
        if !self.is_memory() {
            return offer(self, letters);
        }
        let offered: Vec<LetterId> = letters.iter().map(|pending| pending.letter.id).collect();
        let left = offer(self, letters);
        let refused: HashSet<LetterId> = left.iter().map(|pending| pending.letter.id).collect();
        volatile.extend(offered.into_iter().filter(|id| !refused.contains(id)));
        left
    }

    /// Offers the letters to the store. Returns the refused letters in their order.
    fn keep(&self, letters: Vec<PendingLetter>) -> Vec<PendingLetter> {
        let (offered, mut refused): (Vec<_>, Vec<_>) =
            (0..).zip(letters).partition(|(_, keep): &(usize, _)| !(self.in_cluster && keep.is_cluster_absent));
        let letters: Vec<Letter> = offered.iter().map(|(_, keep)| keep.letter.clone()).collect();
        let taken = self.offer(&letters);
        let left = offered.into_iter().zip(&taken).filter(|(_, taken)| !**taken).map(|(offered, _)| offered);
        refused.extend(left);
        refused.sort_by_key(|(place, _)| *place);
        refused.into_iter().map(|(_, keep)| keep).collect()
    }

    /// Returns for each letter whether the store accepted it.
    fn offer(&self, letters: &[Letter]) -> Vec<bool> {
        let Some(topic) = &self.topic else { return self.offer_all(letters) };
        if letters.is_empty() {
            return Vec::new();
        }
        match topic.append_each(letters) {
            Ok(taken) => {
                let these: Vec<Letter> =
                    letters.iter().zip(&taken).filter(|(_, taken)| **taken).map(|(letter, _)| letter.clone()).collect();
                self.count_taken(&these);
                taken
            }
            Err(error) => {
                self.note_failure(&error.into());
                vec![false; letters.len()]
            }
        }
    }

    fn count_taken(&self, letters: &[Letter]) {
        if self.failing.swap(false, Ordering::Relaxed) {
            tracing::info!(store = self.store.name(), "dead-letter store accepts dead letters again");
        }
        metrics::letters_kept(self.kind.label(), letters);
        self.kept.fetch_add(letters.len() as u64, Ordering::Relaxed);
    }

    /// Offers letters as [`offer`](Self::offer) does, to a store that accepts all letters of a call or none.
    fn offer_all(&self, letters: &[Letter]) -> Vec<bool> {
        let mut taken = vec![false; letters.len()];
        let mut left: Vec<usize> = (0..letters.len()).collect();
        while !left.is_empty() {
            let these: Vec<Letter> = left.iter().filter_map(|place| letters.get(*place).cloned()).collect();
            match guarded(|| self.store.append(&these)) {
                Ok(_) => {
                    self.count_taken(&these);
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
                    self.note_failure(&error);
                    break;
                }
            }
        }
        taken
    }

    /// Logs the first failure after a success.
    fn note_failure(&self, error: &AppendError) {
        if !self.failing.swap(true, Ordering::Relaxed) {
            tracing::error!(
                store = self.store.name(),
                %error,
                "dead-letter store refuses dead letters, trying the next store"
            );
        }
    }

    fn store_outcomes(&self, letters: &[Letter]) -> Result<(), StoreError> {
        let ids: Vec<LetterId> = letters.iter().map(|letter| letter.id).collect();
        let mut changed = Vec::new();
        for (letter, position) in letters.iter().zip(self.store.find(&ids)?) {
            // Nothing reads a topic here: the producer may have no right to.
            if let Some(position) = position
                && (self.in_cluster || is_untouched(&*self.store, position, letter.id)?)
            {
                changed.push(Held::new(position, letter.clone()));
            }
        }
        if changed.is_empty() { Ok(()) } else { self.store.update(&changed).map(drop) }
    }

    /// Replaces the letters that the store already holds. Returns the other letters.
    ///
    /// If only the update fails, the store keeps the former versions. They have the outcome unknown, which is still
    /// true. If the lookup fails, for instance because the file is gone, the letters are kept elsewhere too. The
    /// store's versions may reappear and be replayed by another process, so the copies elsewhere get the outcome
    /// unknown.
    fn replace(&self, letters: Vec<PendingLetter>) -> Vec<PendingLetter> {
        let ids: Vec<LetterId> = letters.iter().map(|keep| keep.letter.id).collect();
        let positions = match guarded(|| self.store.find(&ids).map_err(AppendError::from)) {
            Ok(positions) => positions,
            Err(error) => {
                tracing::error!(store = self.store.name(), %error, "lookup of replayed dead letters failed");
                return match self.in_cluster {
                    true => letters,
                    false => letters.into_iter().map(PendingLetter::with_unknown_outcome).collect(),
                };
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
            tracing::error!(store = self.store.name(), %error, "update of replayed dead letters failed");
        }
        others
    }
}

/// Returns whether the letter at a position is as it was first stored.
fn is_untouched(store: &dyn DeadLetterStore, position: Position, id: LetterId) -> Result<bool, StoreError> {
    let held = store.scan(position.0.checked_sub(1).map(Position), 1)?;
    Ok(held.iter().any(|Held { letter, .. }| letter.id == id && letter.replay.is_idle() && letter.replay_count == 0))
}

/// Calls a store and turns a panic into an error. A store may be code of the application, and its panic must not end
/// the thread that keeps letters.
fn guarded<R>(store: impl FnOnce() -> Result<R, AppendError>) -> Result<R, AppendError> {
    std::panic::catch_unwind(AssertUnwindSafe(store)).unwrap_or_else(|_| {
        let reason = "the store panicked".to_owned();
        Err(StoreError::Service { store: "dead letters".to_owned(), reason }.into())
    })
}

/// Writes the whole letter to an error line, the last resort.
pub(super) fn log_whole(letter: &Letter) {
    let whole = serde_json::to_string(letter).unwrap_or_else(|_| format!("{letter:?}"));
    tracing::error!(letter = whole, "no dead-letter store accepted the dead letter");
}

/// The stores in the order in which they are tried.
#[derive(Debug)]
pub(crate) struct StoreChain {
    pub(crate) links: Vec<StoreLink>,
    /// Letters that no store accepted and that were written to the log.
    pub(crate) logged: AtomicU64,
}

impl StoreChain {
    pub(crate) fn new(links: Vec<StoreLink>) -> Self {
        Self { links, logged: AtomicU64::new(0) }
    }

    /// Returns the number of letters in the stores of this process.
    pub(crate) fn held(&self) -> u64 {
        self.local_links().map(StoreLink::held).sum()
    }

    /// Returns the stores of this process, without the topic.
    pub(crate) fn local_links(&self) -> impl Iterator<Item = &StoreLink> {
        self.links.iter().filter(|link| !link.in_cluster)
    }

    /// Returns up to `limit` selected letters of the readable stores of this process, and the unreadable stores.
    pub(crate) fn list(&self, selection: &Selection, limit: usize) -> Listed {
        let mut listed = Listed::default();
        for link in self.local_links() {
            let left = limit - listed.letters.len();
            for held in kafka_courier_dlq::letters(&*link.store, selection).take(left) {
                match held {
                    Ok(held) => listed.letters.push(held),
                    Err(error) => {
                        tracing::warn!(store = link.store.name(), %error, "dead-letter store is unreadable");
                        listed.unread.push((link.store.name().to_owned(), error));
                    }
                }
            }
        }
        listed
    }

    /// Removes the selected letters from the stores of this process, and returns their number. The error is that of the
    /// first store that failed.
    pub(crate) fn purge(&self, selection: &Selection) -> Result<usize, StoreError> {
        let purged: Vec<_> = self.local_links().map(|link| kafka_courier_dlq::purge(&*link.store, selection)).collect();
        purged.into_iter().sum()
    }

    /// Keeps the letters, and returns once each letter is in its final place. Letters in one store keep their order.
    /// Returns the ids of the letters that are lost with the process: only memory or the log took them.
    pub(crate) fn keep(&self, letters: Vec<PendingLetter>) -> HashSet<LetterId> {
        let mut volatile = HashSet::new();
        let mut left = self.replace(letters, &mut volatile);
        for link in &self.links {
            if left.is_empty() {
                return volatile;
            }
            left = link.noting_volatile(left, &mut volatile, |link, letters| link.keep(letters));
        }
        let left: Vec<Letter> = left.into_iter().map(|keep| keep.letter).collect();
        metrics::letters_kept("log", &left);
        self.logged.fetch_add(left.len() as u64, Ordering::Relaxed);
        left.iter().for_each(log_whole);
        volatile.extend(left.iter().map(|letter| letter.id));
        volatile
    }

    /// Replaces the letters that a store already holds. Returns the letters that a store must still accept.
    fn replace(&self, letters: Vec<PendingLetter>, volatile: &mut HashSet<LetterId>) -> Vec<PendingLetter> {
        if !letters.iter().any(|pending| pending.is_replayed) {
            return letters;
        }
        let (replayed, new): (Vec<_>, Vec<_>) = letters.into_iter().partition(|pending| pending.is_replayed);
        let mut held_nowhere = replayed;
        for link in &self.links {
            held_nowhere = link.noting_volatile(held_nowhere, volatile, |link, letters| link.replace(letters));
        }
        held_nowhere.into_iter().chain(new).collect()
    }

    /// Drops expired letters.
    pub(crate) fn expire(&self) {
        for link in self.local_links() {
            if let Err(error) = link.store.expire() {
                tracing::debug!(store = link.store.name(), %error, "expiry of dead letters failed");
            }
        }
    }

    /// Stores letters whose outcome is certain now. A letter that a replay has touched stays as it is.
    pub(crate) fn store_outcomes(&self, letters: &[Letter]) {
        for link in &self.links {
            if let Err(error) = guarded(|| link.store_outcomes(letters).map_err(AppendError::from)) {
                tracing::warn!(
                    store = link.store.name(),
                    %error,
                    "outcome of dead letters can't be stored, they stay unknown: replay them with --verify"
                );
            }
        }
    }

    /// Removes letters whose records turned out to be in the log. Returns the number of removed letters.
    pub(crate) fn remove_written(&self, ids: &[LetterId]) -> usize {
        let mut removed = 0;
        for link in &self.links {
            let found = link.store.find(ids).map(|positions| positions.into_iter().flatten().collect::<Vec<_>>());
            match found.and_then(|positions| if positions.is_empty() { Ok(0) } else { link.store.remove(&positions) }) {
                Ok(count) => removed += count,
                Err(error) => {
                    tracing::error!(store = link.store.name(), %error, "removal of delivered dead letters failed");
                }
            }
        }
        removed
    }
}

#[cfg(test)]
mod tests;

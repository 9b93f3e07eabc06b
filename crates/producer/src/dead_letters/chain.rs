//! Where letters go: the topic, else the file, else memory, else the log.
//!
//! Rules:
//! - A letter that a store does not take goes to the next one; the last resort is an error line with the whole letter.
//! - A letter that the cluster's absence has caused skips the topic.
//! - A letter that was being sent again is put in its own place, where it still is.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use kafka_courier_dlq::{AppendError, DeadLetterStore, Held, Letter, LetterId};

use crate::metrics;

/// Letters with a common cause.
#[derive(Debug)]
pub(crate) struct Group {
    pub(crate) letters: Vec<Letter>,
    /// The cluster could not be had.
    pub(crate) cluster_absent: bool,
}

/// One store of the chain, and whether it took the last letters.
#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) store: Arc<dyn DeadLetterStore>,
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
    pub(crate) fn in_cluster(store: Arc<dyn DeadLetterStore>) -> Self {
        Self::new(store, "topic", true)
    }

    fn new(store: Arc<dyn DeadLetterStore>, kind: &'static str, in_cluster: bool) -> Self {
        Self { store, kind, in_cluster, failing: AtomicBool::new(false), kept: AtomicU64::new(0) }
    }

    /// Tries to keep the letters; returns those that it does not take.
    fn keep(&self, mut letters: Vec<Letter>) -> Vec<Letter> {
        let mut refused = Vec::new();
        while !letters.is_empty() {
            match self.store.append(&letters) {
                Ok(_) => {
                    if self.failing.swap(false, Ordering::Relaxed) {
                        tracing::info!(store = self.store.name(), "the dead-letter store takes letters again");
                    }
                    metrics::letters_kept(self.kind, &letters);
                    self.kept.fetch_add(letters.len() as u64, Ordering::Relaxed);
                    return refused;
                }
                Err(AppendError::TooLarge { id, .. }) if letters.iter().any(|letter| letter.id == id) => {
                    refused.extend(letters.extract_if(.., |letter| letter.id == id));
                }
                Err(error) => {
                    self.fails(&error);
                    refused.append(&mut letters);
                }
            }
        }
        refused
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

    /// Puts letters that it holds already in their own places; returns the others.
    fn replace(&self, letters: Vec<Letter>) -> Vec<Letter> {
        let ids: Vec<LetterId> = letters.iter().map(|letter| letter.id).collect();
        let Ok(positions) = self.store.find(&ids) else { return letters };
        let (mut known, mut others) = (Vec::new(), Vec::new());
        for (letter, position) in letters.into_iter().zip(positions) {
            match position {
                Some(position) => known.push(Held { position, letter }),
                None => others.push(letter),
            }
        }
        if !known.is_empty()
            && let Err(error) = self.store.update(&known)
        {
            tracing::error!(store = self.store.name(), %error, "letters that failed again could not be updated");
        }
        others
    }
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
        self.own().map(|link| link.store.stats().map_or(0, |stats| stats.letters)).sum()
    }

    /// The stores of this process alone.
    pub(crate) fn own(&self) -> impl Iterator<Item = &Link> {
        self.links.iter().filter(|link| !link.in_cluster)
    }

    /// Keeps the letters: returns when each is where it stays.
    pub(crate) fn keep(&self, groups: Vec<Group>) {
        let (mut absent, mut others) = (Vec::new(), Vec::new());
        for group in groups {
            let (again, new): (Vec<_>, Vec<_>) = group.letters.into_iter().partition(|letter| letter.replay_count > 0);
            let lost =
                self.links.iter().fold(again, |again, link| if again.is_empty() { again } else { link.replace(again) });
            let pile = if group.cluster_absent { &mut absent } else { &mut others };
            pile.extend(lost);
            pile.extend(new);
        }
        for link in &self.links {
            if !link.in_cluster {
                // Both piles meet here; what the topic did not take comes before what skipped it.
                others.append(&mut absent);
            }
            if !others.is_empty() {
                others = link.keep(others);
            }
        }
        others.append(&mut absent);
        self.log(&others);
    }

    fn log(&self, letters: &[Letter]) {
        metrics::letters_kept("log", letters);
        self.logged.fetch_add(letters.len() as u64, Ordering::Relaxed);
        for letter in letters {
            let whole = serde_json::to_string(letter).unwrap_or_else(|_| format!("{letter:?}"));
            tracing::error!(letter = whole, "no dead-letter store took this letter");
        }
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
    use kafka_courier_dlq::{Limits, MemoryStore, Outcome, Overflow, Timestamp};

    use super::*;

    fn letter(replay_count: u32) -> Letter {
        let mut letter = Letter::new("t", None, "why", Timestamp::UNIX_EPOCH);
        letter.replay_count = replay_count;
        letter
    }

    fn group(letters: &[Letter], cluster_absent: bool) -> Vec<Group> {
        vec![Group { letters: letters.to_vec(), cluster_absent }]
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
        let chain = Chain::new(vec![Link::in_cluster(topic.clone()), Link::own(file.clone(), "memory")]);
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

    #[test]
    fn letters_of_records_that_landed_are_removed_wherever_they_are() {
        let (first, second) = (store(1), store(9));
        let chain = Chain::new(vec![Link::own(first.clone(), "memory"), Link::own(second.clone(), "memory")]);
        let letters = [letter(0), letter(0), letter(0)];
        letters.iter().for_each(|letter| chain.keep(group(std::slice::from_ref(letter), false)));
        assert_eq!(chain.landed(&[letters[0].id, letters[2].id]), 2);
        assert_eq!((first.len(), second.len()), (0, 1));
    }
}

//! The keys of requests (`idempotency-key`), and the answers that repeated requests get again.
//!
//! Rules:
//! - The first request with a key is published. Another one with the same key and payload gets the first one's answer.
//! - A request that certainly wrote nothing is forgotten, so that a retry is published. An answer that says "unknown" stays: a
//!   retry must not write the event twice.
//! - A full table forgets the oldest answers first, which shortens the window. Requests under way are never forgotten.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::shapes::answer::Answer;

/// The longest key in bytes.
pub(crate) const MAX_KEY: usize = 255;
/// The estimated memory of an entry beyond its key and its answer.
const ENTRY_BYTES: usize = 200;

/// The identity of a request: its client and its key.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) struct DedupeKey {
    pub(crate) client: Option<String>,
    pub(crate) key: String,
}

/// The digest of a payload.
pub(crate) type PayloadDigest = [u8; 32];

/// The bounds of a table.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct DedupeLimits {
    pub(crate) window: Duration,
    pub(crate) max_keys: usize,
    pub(crate) max_bytes: usize,
}

/// The keys of requests. `W` is the means to wait for a request under way.
#[derive(Debug)]
pub(crate) struct DedupeTable<W> {
    limits: DedupeLimits,
    entries: HashMap<DedupeKey, Entry<W>>,
    /// Answered requests, the oldest first. An entry that was removed or begun again is skipped by its number.
    order: VecDeque<(DedupeKey, u64)>,
    bytes: usize,
    next: u64,
}

#[derive(Debug)]
struct Entry<W> {
    number: u64,
    digest: PayloadDigest,
    state: State<W>,
}

#[derive(Debug)]
enum State<W> {
    UnderWay(W),
    Answered { answer: Arc<Answer>, at: Instant },
}

/// What a request with a key must do.
#[derive(Debug)]
pub(crate) enum Begun<W> {
    /// Publish. [`DedupeTable::finish`] must follow.
    New,
    /// Repeat this answer.
    Answered(Arc<Answer>),
    /// Wait for the first request.
    UnderWay(W),
    /// Refuse: the first request had another payload.
    OtherPayload,
}

impl<W: Clone> DedupeTable<W> {
    pub(crate) fn new(limits: DedupeLimits) -> Self {
        Self { limits, entries: HashMap::new(), order: VecDeque::new(), bytes: 0, next: 0 }
    }

    /// Begins a request.
    pub(crate) fn begin(&mut self, key: &DedupeKey, digest: PayloadDigest, now: Instant, waiter: W) -> Begun<W> {
        self.forget_old(now);
        if let Some(entry) = self.entries.get(key) {
            return match &entry.state {
                _ if entry.digest != digest => Begun::OtherPayload,
                State::Answered { answer, .. } => Begun::Answered(answer.clone()),
                State::UnderWay(waiter) => Begun::UnderWay(waiter.clone()),
            };
        }
        self.next += 1;
        let entry = Entry { number: self.next, digest, state: State::UnderWay(waiter) };
        self.bytes += cost(key, None);
        self.entries.insert(key.clone(), entry);
        Begun::New
    }

    /// Ends a request. `None` forgets the key.
    pub(crate) fn finish(&mut self, key: &DedupeKey, answer: Option<Arc<Answer>>, now: Instant) {
        let Some(answer) = answer else {
            self.remove(key);
            return;
        };
        if let Some(entry) = self.entries.get_mut(key) {
            self.bytes += answer.body.len();
            entry.state = State::Answered { answer, at: now };
            self.order.push_back((key.clone(), entry.number));
        }
        self.make_room();
    }

    /// Returns the age of the oldest answer that the table still has, if the table is full, else the whole window.
    pub(crate) fn window(&self, now: Instant) -> Duration {
        let oldest = self.order.front().and_then(|(key, _)| self.entries.get(key));
        match oldest.map(|entry| &entry.state) {
            Some(State::Answered { at, .. }) if self.is_full() => now.saturating_duration_since(*at),
            _ => self.limits.window,
        }
    }

    fn is_full(&self) -> bool {
        self.entries.len() >= self.limits.max_keys || self.bytes >= self.limits.max_bytes
    }

    fn forget_old(&mut self, now: Instant) {
        while let Some((key, number)) = self.order.front() {
            let is_old = match self.entries.get(key).filter(|entry| entry.number == *number) {
                Some(Entry { state: State::Answered { at, .. }, .. }) => {
                    now.saturating_duration_since(*at) >= self.limits.window
                }
                _ => true,
            };
            if !is_old {
                return;
            }
            self.forget_oldest();
        }
    }

    fn make_room(&mut self) {
        while (self.entries.len() > self.limits.max_keys || self.bytes > self.limits.max_bytes)
            && !self.order.is_empty()
        {
            self.forget_oldest();
        }
    }

    fn forget_oldest(&mut self) {
        if let Some((key, number)) = self.order.pop_front()
            && self.entries.get(&key).is_some_and(|entry| entry.number == number)
        {
            self.remove(&key);
        }
    }

    fn remove(&mut self, key: &DedupeKey) {
        if let Some(entry) = self.entries.remove(key) {
            let answer = match &entry.state {
                State::Answered { answer, .. } => Some(&**answer),
                State::UnderWay(_) => None,
            };
            self.bytes = self.bytes.saturating_sub(cost(key, answer));
        }
    }
}

fn cost(key: &DedupeKey, answer: Option<&Answer>) -> usize {
    // The key is in the table and in the order.
    let key = 2 * (key.key.len() + key.client.as_ref().map_or(0, String::len));
    ENTRY_BYTES + key + answer.map_or(0, |answer| answer.body.len())
}

/// Returns whether a repeated request gets this answer again. A request that certainly wrote nothing may be published again,
/// unless a dead letter keeps an event of it: a replay would write that event again.
pub(crate) fn is_remembered(answer: &Answer) -> bool {
    answer.status < 400 || answer.status == 504 || answer.has_dead_letter
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shapes::failure::Failure;
    use crate::shapes::problem::Problem;

    const WINDOW: Duration = Duration::from_secs(600);
    const ONE: PayloadDigest = [1; 32];

    fn table(max_keys: usize) -> DedupeTable<u8> {
        DedupeTable::new(DedupeLimits { window: WINDOW, max_keys, max_bytes: 10_000 })
    }

    fn key(name: &str) -> DedupeKey {
        DedupeKey { client: None, key: name.to_owned() }
    }

    fn answer(problem: Problem) -> Arc<Answer> {
        Arc::new(Answer::problem(&Failure::new(problem, "why"), "r"))
    }

    #[test]
    fn repeated_request_gets_first_answer() {
        let (mut table, now) = (table(10), Instant::now());
        assert!(matches!(table.begin(&key("a"), ONE, now, 7), Begun::New));
        assert!(matches!(table.begin(&key("a"), ONE, now, 8), Begun::UnderWay(7)));
        assert!(matches!(table.begin(&key("a"), [2; 32], now, 8), Begun::OtherPayload));
        table.finish(&key("a"), Some(answer(Problem::Unknown)), now);
        assert!(matches!(table.begin(&key("a"), ONE, now, 8), Begun::Answered(first) if first.status == 504));
        assert!(matches!(table.begin(&key("a"), [2; 32], now, 8), Begun::OtherPayload));
        let other = DedupeKey { client: Some("b".to_owned()), ..key("a") };
        assert!(matches!(table.begin(&other, [2; 32], now, 8), Begun::New), "keys belong to their client");
    }

    #[test]
    fn forgotten_request_is_published_again() {
        let (mut table, now) = (table(10), Instant::now());
        table.begin(&key("a"), ONE, now, 0);
        table.finish(&key("a"), None, now);
        assert!(matches!(table.begin(&key("a"), [2; 32], now, 0), Begun::New));
        table.finish(&key("a"), Some(answer(Problem::Unknown)), now);
        let later = now + WINDOW;
        assert!(matches!(table.begin(&key("a"), ONE, later, 0), Begun::New), "the window is over");
        table.finish(&key("a"), None, later);
        assert_eq!((table.bytes, table.entries.len()), (0, 0));
    }

    #[test]
    fn full_table_forgets_the_oldest() {
        let (mut table, now) = (table(2), Instant::now());
        for (name, after) in [("a", 0), ("b", 1), ("c", 2)] {
            let at = now + Duration::from_secs(after);
            table.begin(&key(name), ONE, at, 0);
            table.finish(&key(name), Some(answer(Problem::Unknown)), at);
        }
        let at = now + Duration::from_secs(5);
        assert_eq!(table.window(at), Duration::from_secs(4));
        assert!(matches!(table.begin(&key("b"), ONE, at, 0), Begun::Answered(_)));
        assert!(matches!(table.begin(&key("a"), ONE, at, 0), Begun::New));
        table.finish(
            &key("a"),
            Some(Arc::new(Answer { body: vec![0; 20_000], ..(*answer(Problem::Unknown)).clone() })),
            at,
        );
        assert_eq!((table.entries.len(), table.bytes), (0, 0), "an answer that is too large is not kept");
    }

    #[test]
    fn certain_failures_are_not_remembered() {
        for (problem, is_kept) in [(Problem::Unknown, true), (Problem::NotWritten, false), (Problem::NotAnEvent, false)]
        {
            assert_eq!(is_remembered(&answer(problem)), is_kept, "{problem:?}");
        }
        let kept = Failure::new(Problem::Rejected, "why").with_letter(Some("l-1"));
        assert!(is_remembered(&Answer::problem(&kept, "r")), "a replay would write the event again");
    }
}

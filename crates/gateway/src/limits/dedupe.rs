//! The keys of requests, and the answers that repeated requests get again.
//!
//! Rules:
//! - The first request with a key is published. Another one with the same key and payload gets the first one's answer.
//! - A request that certainly wrote nothing is forgotten, so that a retry is published. An answer that says "unknown" stays: a
//!   retry must not write the event twice.
//! - A request whose events an earlier process stored is published again without these events. Its answer is found each time,
//!   while the stored events are all of its events and wait for Kafka.
//! - A full table forgets the oldest answers first, which shortens the window. Requests under way are never forgotten.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use sha2::{Digest, Sha256};

use crate::shapes::answer::Answer;

/// The longest key in bytes.
pub(crate) const MAX_KEY: usize = 255;
/// The estimated memory of an entry beyond its answer.
const ENTRY_BYTES: usize = 240;
/// The estimated memory of an event that an earlier process stored.
const STORED_EVENT_BYTES: usize = 160;
/// The divisor of a table's bounds that gives the room of a table which is no longer full.
const ROOM_DIVISOR: usize = 10;

/// The identity of a request: a digest of its client and its key.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(crate) struct DedupeKey(pub(crate) [u8; 16]);

impl DedupeKey {
    /// Returns the identity of a request with the header `idempotency-key`.
    pub(crate) fn of_header(client: Option<&str>, key: &str) -> Self {
        Self::of_parts("key", client, &[key])
    }

    /// Returns the identity of a request with one event, to which its client gave an id.
    pub(crate) fn of_event(client: Option<&str>, source: &str, id: &str) -> Self {
        Self::of_parts("event", client, &[source, id])
    }

    fn of_parts(kind: &str, client: Option<&str>, parts: &[&str]) -> Self {
        let mut hash = Sha256::new();
        let client_kind = if client.is_some() { "client" } else { "any" };
        for part in [kind, client_kind, client.unwrap_or_default()].iter().chain(parts) {
            hash.update(u64::try_from(part.len()).unwrap_or(u64::MAX).to_be_bytes());
            hash.update(part);
        }
        Self(shortened(hash))
    }
}

/// The digest of a payload.
pub(crate) type PayloadDigest = [u8; 16];

/// Returns the first half of a SHA-256.
pub(crate) fn shortened(hash: Sha256) -> [u8; 16] {
    let mut half = [0; 16];
    half.iter_mut().zip(hash.finalize()).for_each(|(to, from)| *to = from);
    half
}

/// The bounds of a table.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct DedupeLimits {
    pub(crate) window: Duration,
    pub(crate) max_keys: usize,
    pub(crate) max_bytes: usize,
}

/// The keys of requests. `W` is the means to wait for a request under way, and `S` the events of a request that an earlier
/// process stored.
#[derive(Debug)]
pub(crate) struct DedupeTable<W, S> {
    limits: DedupeLimits,
    entries: HashMap<DedupeKey, Entry<W, S>>,
    /// Requests that are not under way, the oldest first. An entry that was removed or begun again is skipped by its number.
    order: VecDeque<(DedupeKey, u64)>,
    bytes: usize,
    next: u64,
    /// Whether a shortened window was reported.
    is_reported: bool,
}

#[derive(Debug)]
struct Entry<W, S> {
    number: u64,
    digest: PayloadDigest,
    state: State<W>,
    stored: Option<StoredEvents<S>>,
    bytes: usize,
}

#[derive(Debug)]
enum State<W> {
    UnderWay(W),
    Answered {
        answer: Arc<Answer>,
        at: Instant,
    },
    /// An earlier process stored events of the request.
    Stored,
}

/// The events of a request that an earlier process stored.
#[derive(Clone, Debug)]
pub(crate) struct StoredEvents<S> {
    /// The time of the request.
    pub(crate) at: Instant,
    /// The number of events.
    pub(crate) count: usize,
    /// Whether these are all events of the request.
    pub(crate) is_whole: bool,
    pub(crate) events: S,
}

/// What a request with a key must do.
#[derive(Debug)]
pub(crate) enum Begun<W, S> {
    /// Publish the events that are not stored. [`DedupeTable::finish`] must follow.
    New(Option<S>),
    /// Repeat this answer.
    Answered(Arc<Answer>),
    /// Wait for the first request.
    UnderWay(W),
    /// Refuse: the first request had another payload.
    OtherPayload,
}

impl<W: Clone, S: Clone> DedupeTable<W, S> {
    pub(crate) fn new(limits: DedupeLimits) -> Self {
        let (entries, order) = (HashMap::new(), VecDeque::new());
        Self { limits, entries, order, bytes: 0, next: 0, is_reported: false }
    }

    /// Adds a request whose events an earlier process stored. The oldest must be added first.
    pub(crate) fn recover(&mut self, key: DedupeKey, digest: PayloadDigest, stored: StoredEvents<S>) {
        let bytes = ENTRY_BYTES + STORED_EVENT_BYTES * stored.count;
        self.add(key, Entry { number: 0, digest, state: State::Stored, stored: Some(stored), bytes });
        self.remember(key);
        self.make_room();
    }

    /// Returns the events of a request that an earlier process stored.
    pub(crate) fn stored(&self, key: &DedupeKey) -> Option<&S> {
        Some(&self.entries.get(key)?.stored.as_ref()?.events)
    }

    /// Begins a request.
    pub(crate) fn begin(&mut self, key: &DedupeKey, digest: PayloadDigest, now: Instant, waiter: W) -> Begun<W, S> {
        self.forget_old(now);
        self.next += 1;
        if let Some(entry) = self.entries.get_mut(key) {
            return match &entry.state {
                _ if entry.digest != digest => Begun::OtherPayload,
                State::Answered { answer, .. } => Begun::Answered(answer.clone()),
                State::UnderWay(waiter) => Begun::UnderWay(waiter.clone()),
                State::Stored => {
                    // The former number must not forget a request under way.
                    (entry.state, entry.number) = (State::UnderWay(waiter), self.next);
                    Begun::New(entry.stored.as_ref().map(|stored| stored.events.clone()))
                }
            };
        }
        self.add(*key, Entry { number: 0, digest, state: State::UnderWay(waiter), stored: None, bytes: ENTRY_BYTES });
        Begun::New(None)
    }

    /// Ends a request. `None` forgets what the request did.
    pub(crate) fn finish(&mut self, key: &DedupeKey, answer: Option<Arc<Answer>>, now: Instant) {
        let Some(entry) = self.entries.get_mut(key) else { return };
        match answer {
            // The next request finds the events' offsets, or waits for them.
            Some(answer) if answer.status == 202 && entry.stored.as_ref().is_some_and(|stored| stored.is_whole) => {
                entry.state = State::Stored;
            }
            Some(answer) => {
                entry.bytes += answer.body.len();
                self.bytes += answer.body.len();
                (entry.state, entry.stored) = (State::Answered { answer, at: now }, None);
            }
            None if entry.stored.is_some() => entry.state = State::Stored,
            None => return self.remove(key),
        }
        self.remember(*key);
        self.make_room();
    }

    /// Returns the age of the oldest answer that the table still has, if the table is full, else the whole window.
    pub(crate) fn window(&self, now: Instant) -> Duration {
        let oldest = self.order.front().and_then(|(key, _)| self.entries.get(key)).and_then(Entry::at);
        match oldest {
            Some(at) if self.is_full(1) => now.saturating_duration_since(at).min(self.limits.window),
            _ => self.limits.window,
        }
    }

    /// Returns the window if it is shorter than it should be, once until the table has room again.
    pub(crate) fn shortened_window(&mut self, now: Instant) -> Option<Duration> {
        let window = self.window(now);
        if window < self.limits.window {
            return (!std::mem::replace(&mut self.is_reported, true)).then_some(window);
        }
        let has_room = self.entries.len() < self.limits.max_keys - self.limits.max_keys / ROOM_DIVISOR
            && self.bytes < self.limits.max_bytes - self.limits.max_bytes / ROOM_DIVISOR;
        self.is_reported &= !has_room;
        None
    }

    fn is_full(&self, more: usize) -> bool {
        self.entries.len() + more > self.limits.max_keys || self.bytes + more > self.limits.max_bytes
    }

    fn add(&mut self, key: DedupeKey, entry: Entry<W, S>) {
        self.remove(&key);
        self.next += 1;
        self.bytes += entry.bytes;
        self.entries.insert(key, Entry { number: self.next, ..entry });
    }

    /// Notes that a request is no longer under way.
    fn remember(&mut self, key: DedupeKey) {
        if let Some(entry) = self.entries.get(&key) {
            self.order.push_back((key, entry.number));
        }
    }

    fn forget_old(&mut self, now: Instant) {
        while let Some((key, number)) = self.order.front() {
            let entry = self.entries.get(key).filter(|entry| entry.number == *number);
            let at = entry.and_then(Entry::at);
            if at.is_some_and(|at| now.saturating_duration_since(at) < self.limits.window) {
                return;
            }
            self.forget_oldest();
        }
    }

    fn make_room(&mut self) {
        while self.is_full(0) && !self.order.is_empty() {
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
            self.bytes = self.bytes.saturating_sub(entry.bytes);
        }
    }
}

impl<W, S> Entry<W, S> {
    /// Returns the time from which the window counts. `None` while the request is under way.
    fn at(&self) -> Option<Instant> {
        match &self.state {
            State::UnderWay(_) => None,
            State::Answered { at, .. } => Some(*at),
            State::Stored => self.stored.as_ref().map(|stored| stored.at),
        }
    }
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
    const ONE: PayloadDigest = [1; 16];
    const TWO: PayloadDigest = [2; 16];

    fn table(max_keys: usize) -> DedupeTable<u8, u8> {
        DedupeTable::new(DedupeLimits { window: WINDOW, max_keys, max_bytes: 10_000 })
    }

    fn key(name: &str) -> DedupeKey {
        DedupeKey::of_header(None, name)
    }

    fn answer(problem: Problem) -> Arc<Answer> {
        Arc::new(Answer::problem(&Failure::new(problem, "why"), "r"))
    }

    fn with_status(status: u16) -> Arc<Answer> {
        Arc::new(Answer { status, ..(*answer(Problem::Unknown)).clone() })
    }

    fn stored(at: Instant, is_whole: bool) -> StoredEvents<u8> {
        StoredEvents { at, count: 1, is_whole, events: 9 }
    }

    fn is_new(begun: &Begun<u8, u8>) -> bool {
        matches!(begun, Begun::New(None))
    }

    #[test]
    fn keys_belong_to_client_and_kind() {
        let keys = [
            DedupeKey::of_header(None, "k"),
            DedupeKey::of_header(Some(""), "k"),
            DedupeKey::of_header(Some("a"), "k"),
            DedupeKey::of_event(Some("a"), "", "k"),
            DedupeKey::of_event(Some("a"), "k", ""),
            DedupeKey::of_event(None, "s", "k"),
        ];
        let distinct: std::collections::BTreeSet<_> = keys.into_iter().collect();
        assert_eq!(distinct.len(), keys.len());
    }

    #[test]
    fn repeated_request_gets_first_answer() {
        let (mut table, now) = (table(10), Instant::now());
        assert!(is_new(&table.begin(&key("a"), ONE, now, 7)));
        assert!(matches!(table.begin(&key("a"), ONE, now, 8), Begun::UnderWay(7)));
        assert!(matches!(table.begin(&key("a"), TWO, now, 8), Begun::OtherPayload));
        table.finish(&key("a"), Some(answer(Problem::Unknown)), now);
        assert!(matches!(table.begin(&key("a"), ONE, now, 8), Begun::Answered(first) if first.status == 504));
        assert!(matches!(table.begin(&key("a"), TWO, now, 8), Begun::OtherPayload));
        assert!(is_new(&table.begin(&DedupeKey::of_header(Some("b"), "a"), TWO, now, 8)));
    }

    #[test]
    fn forgotten_request_is_published_again() {
        let (mut table, now) = (table(10), Instant::now());
        table.begin(&key("a"), ONE, now, 0);
        table.finish(&key("a"), None, now);
        assert!(is_new(&table.begin(&key("a"), TWO, now, 0)));
        table.finish(&key("a"), Some(answer(Problem::Unknown)), now);
        let later = now + WINDOW;
        assert!(is_new(&table.begin(&key("a"), ONE, later, 0)), "the window is over");
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
        assert!(is_new(&table.begin(&key("a"), ONE, at, 0)));
        table.finish(
            &key("a"),
            Some(Arc::new(Answer { body: vec![0; 20_000], ..(*answer(Problem::Unknown)).clone() })),
            at,
        );
        assert_eq!((table.entries.len(), table.bytes), (0, 0), "an answer that is too large is not kept");
    }

    #[test]
    fn shortened_window_is_reported_once() {
        let (mut table, now) = (table(20), Instant::now());
        let fill = |table: &mut DedupeTable<u8, u8>, names: std::ops::Range<u32>, at| {
            for name in names {
                table.begin(&key(&name.to_string()), ONE, at, 0);
                table.finish(&key(&name.to_string()), Some(answer(Problem::Unknown)), at);
            }
        };
        fill(&mut table, 0..19, now);
        let later = now + Duration::from_secs(5);
        assert_eq!(table.shortened_window(later), None);
        fill(&mut table, 19..25, now);
        assert_eq!(table.shortened_window(later), Some(Duration::from_secs(5)));
        assert_eq!(table.shortened_window(later), None);
        let much_later = now + WINDOW;
        fill(&mut table, 25..26, much_later);
        assert_eq!(table.shortened_window(much_later), None);
        fill(&mut table, 26..50, much_later);
        assert_eq!(table.shortened_window(much_later), Some(Duration::ZERO), "the table had room in between");
    }

    #[test]
    fn stored_events_are_found_again() {
        let (mut table, now) = (table(10), Instant::now());
        table.recover(key("a"), ONE, stored(now, true));
        assert_eq!(table.stored(&key("a")), Some(&9));
        assert!(matches!(table.begin(&key("a"), TWO, now, 7), Begun::OtherPayload));
        assert!(matches!(table.begin(&key("a"), ONE, now, 7), Begun::New(Some(9))));
        assert!(matches!(table.begin(&key("a"), ONE, now, 8), Begun::UnderWay(7)));
        for unsettled in [None, Some(with_status(202))] {
            table.finish(&key("a"), unsettled, now);
            assert!(matches!(table.begin(&key("a"), ONE, now, 7), Begun::New(Some(9))));
        }
        table.finish(&key("a"), Some(with_status(200)), now);
        assert!(matches!(table.begin(&key("a"), ONE, now, 7), Begun::Answered(first) if first.status == 200));
    }

    /// The answer says where the events are that were published now. They must not be published again.
    #[test]
    fn completed_request_keeps_its_answer() {
        let (mut table, now) = (table(10), Instant::now());
        table.recover(key("a"), ONE, stored(now, false));
        assert!(matches!(table.begin(&key("a"), ONE, now, 7), Begun::New(Some(9))));
        table.finish(&key("a"), Some(with_status(202)), now);
        assert!(matches!(table.begin(&key("a"), ONE, now, 7), Begun::Answered(_)));
    }

    #[test]
    fn stored_request_is_forgotten_in_time() {
        let (mut table, now) = (table(10), Instant::now());
        table.recover(key("a"), ONE, stored(now, true));
        assert!(matches!(table.begin(&key("a"), ONE, now, 7), Begun::New(Some(9))));
        let later = now + WINDOW;
        assert!(matches!(table.begin(&key("a"), ONE, later, 8), Begun::UnderWay(7)), "a request under way stays");
        table.finish(&key("a"), None, later);
        assert!(is_new(&table.begin(&key("a"), ONE, later, 7)), "the window is over");
        table.finish(&key("a"), None, later);
        assert_eq!((table.bytes, table.entries.len()), (0, 0));
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

//! Looks for doubtful letters in the log, all of a store at once.
//!
//! Rules:
//! - What was found, and what is proved to be absent, is so whatever comes later; of the rest nothing is claimed.
//! - A fence is a letter of the replay's own that is certainly not in the log: it is sent all the same, only under another
//!   stamp. Before it leaves, its letter says so in the store.
//! - No producer that may live is fenced: not this one, none in a store that others write too, and none whose letters were
//!   imported.

use std::collections::{HashMap, HashSet, VecDeque};
use std::time::Duration;

use kafka_courier_dlq::{Held, LetterId, Outcome, Position, Timestamp};
use kafka_courier_idempotent_sender::core::FailedOutcome;
use kafka_courier_idempotent_sender::driver::DriverConfig;

use super::order::Lane;
use super::run::{Store, blocking, update};
use super::sort::Alone;
use super::{Replay, plan};
use crate::shared::wall_clock_ms;
use crate::verify::{FenceLetter, FenceOutcome, FencePlace, Fences, NotFenced, Question, Verdict, Verifier};

/// How long each question to the cluster may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// What became of the letters that were looked for, and of those that served as fences.
#[derive(Debug, Default)]
pub(super) struct Checked {
    pub(super) verdicts: HashMap<LetterId, Verdict>,
    pub(super) fences: HashMap<LetterId, FenceOutcome>,
}

/// A letter's partition.
type Place = (String, i32);

/// Letters that may serve as fences: certainly not in the log, and to be sent anyway.
pub(super) struct Candidates {
    store: Store,
    /// Those that are the first of their lane in the store.
    letters: HashMap<Place, VecDeque<Position>>,
    /// The first of each partition, whatever stays before them.
    others: HashMap<Place, VecDeque<Position>>,
    /// How letters are sent: out of order, all of them may serve; and where imported letters' producers may be fenced, they
    /// have ended.
    replay: Replay,
    /// What came by already.
    seen: HashSet<Lane>,
    /// The producers that must not be fenced: this one, by all ids that it ever had, and whoever wrote what was imported.
    living: HashSet<i64>,
    /// The topics of letters that left as fences.
    topics: HashMap<LetterId, String>,
}

impl Candidates {
    pub(super) fn new(store: Store, own: Vec<i64>, replay: &Replay) -> Self {
        Self {
            store,
            letters: HashMap::new(),
            others: HashMap::new(),
            replay: replay.clone(),
            seen: HashSet::new(),
            living: own.into_iter().collect(),
            topics: HashMap::new(),
        }
    }

    /// A letter comes by, in the store's order, selected or not; one that is to be sent may be sent before all others of
    /// its partition, if that overtakes none of its lane.
    pub(super) fn pass(&mut self, held: &Held, is_sent: bool) {
        let letter = &held.letter;
        if held.imported && letter.outcome == Outcome::Unknown && !self.replay.fence_imported {
            self.living.extend(letter.producer_id);
        }
        if !self.replay.out_of_order && plan::stamp_to_repeat(letter, wall_clock_ms()).is_some() {
            // It can go again under its stamp, which takes no proof, but a producer id that is not fenced.
            self.living.extend(letter.producer_id);
        }
        let Some(partition) = letter.partition else { return };
        let place = (letter.topic.clone(), partition);
        // Each lane counts as seen, whatever the others are.
        let lanes = Lane::all(letter, letter.partition, &self.replay);
        let new: Vec<bool> = lanes.map(|lane| self.seen.insert(lane)).collect();
        let first = !new.is_empty() && new.iter().all(|new| *new);
        if is_sent && letter.outcome == Outcome::NotWritten {
            if first {
                keep(self.letters.entry(place.clone()).or_default(), held.position);
            }
            if self.replay.out_of_order {
                keep(self.others.entry(place).or_default(), held.position);
            }
        }
    }

    /// The next candidate for this place; each serves once.
    async fn next(&mut self, there: &Place) -> Option<Held> {
        loop {
            let first = self.letters.get_mut(there).and_then(VecDeque::pop_front);
            let position = first.or_else(|| self.others.get_mut(there).and_then(VecDeque::pop_front))?;
            self.others.entry(there.clone()).or_default().retain(|other| *other != position);
            let (store, before) = (self.store.clone(), position.0.checked_sub(1).map(Position));
            let page = blocking(move || store.scan(before, 1)).await.ok()?;
            // It may have been removed, or settled, meanwhile.
            let is_it = |held: &Held| held.position == position && held.letter.outcome == Outcome::NotWritten;
            if let Some(held) = page.into_iter().find(is_it) {
                return Some(held);
            }
        }
    }
}

/// Keeps the first ones: each producer that is gone takes one.
fn keep(letters: &mut VecDeque<Position>, position: Position) {
    const KEPT: usize = 1000;
    if letters.len() < KEPT {
        letters.push_back(position);
    }
}

impl Fences for Candidates {
    async fn letter_for(&mut self, place: &FencePlace<'_>) -> Option<FenceLetter> {
        if !self.store.is_exclusive() || self.living.contains(&place.stamp.producer_id) {
            return None;
        }
        loop {
            let held = self.next(&(place.topic.to_owned(), place.partition)).await?;
            if let Some(letter) = self.mark(&held, place).await {
                self.topics.insert(held.letter.id, place.topic.to_owned());
                return Some(letter);
            }
        }
    }
}

impl Candidates {
    /// The letters that left as fences: their topics, and what became of them.
    pub(super) fn went<'c>(&'c self, checked: &'c Checked) -> impl Iterator<Item = (&'c str, Alone)> {
        checked.fences.iter().filter_map(|(id, outcome)| {
            let failed = |failure: &NotFenced, outcome| Err((failure.code, outcome));
            let result = match outcome {
                FenceOutcome::Written { .. } => Ok(()),
                FenceOutcome::NotWritten(failure) => failed(failure, FailedOutcome::NotWritten),
                FenceOutcome::Unknown(failure) => failed(failure, FailedOutcome::Unknown),
            };
            Some((self.topics.get(id)?.as_str(), result))
        })
    }

    /// Says in the store that a letter goes out as a fence. `None`: it can't, or is there no more.
    async fn mark(&self, held: &Held, place: &FencePlace<'_>) -> Option<FenceLetter> {
        let attempt = plan::ReplayAttempt {
            now: Timestamp::now(),
            partition: place.partition,
            // If the topic is another one by now, the letter's own id is what finds it.
            topic_id: held.letter.topic_id,
            producer_id: Some(place.stamp.producer_id),
            log_end: None,
        };
        let mut marked = plan::in_progress(&held.letter, &attempt);
        marked.producer_epoch = Some(place.stamp.epoch);
        marked.sequence = Some(place.stamp.base_sequence);
        let batch = plan::single_record_batch(&held.letter).ok()?;
        let marked = update(&self.store, vec![Held::new(held.position, marked)]).await.ok()?;
        (marked > 0).then(|| FenceLetter { letter_id: held.letter.id.to_string(), batch })
    }
}

/// Looks for all of them.
pub(super) async fn check(config: &DriverConfig, questions: Vec<Question>, fences: &mut Candidates) -> Checked {
    if questions.is_empty() {
        return Checked::default();
    }
    let verifier = Verifier::new(config, PATIENCE);
    let findings = verifier.verify(questions, fences, |progress| {
        tracing::debug!(
            topic = progress.topic,
            partition = progress.partition,
            read = progress.read,
            total = progress.total,
            "looking for letters in the log"
        );
    });
    let findings = findings.await;
    let id = |text: &str| text.parse::<LetterId>().ok();
    Checked {
        verdicts: findings.answers.into_iter().filter_map(|a| Some((id(&a.letter_id)?, a.verdict))).collect(),
        fences: findings.fences.into_iter().filter_map(|(letter, outcome)| Some((id(&letter)?, outcome))).collect(),
    }
}

//! Looks for a store's doubtful letters in the log, in one check.
//!
//! Rules:
//! - A letter that was found or proved absent stays so. Nothing is claimed about the others.
//! - A fence is a letter of this replay that is certainly not in the log. Its record is sent under another stamp, and the
//!   store says so before the record leaves.
//! - A producer that may be running is never fenced: this producer, the producers of a store that other processes write,
//!   and the producers of imported letters. Nor is an id that a spool holds (`spools`).

use std::collections::{HashMap, HashSet, VecDeque};
use std::time::Duration;

use kafka_courier_client::config::ClientConfig;
use kafka_courier_dlq::{Held, LetterId, Outcome, Position, Timestamp};
use kafka_courier_idempotent_sender::core::FailedOutcome;
use kafka_courier_producer::{SeparateResult, wall_clock_ms};

use super::order::{ReplayLane, TopicPartition};
use super::spools::HeldIds;
use super::store_io::{SharedStore, blocking, update};
use super::{Replay, plan};
use crate::verify::{FenceLetter, FenceOutcome, FencePlace, Fences, NotFenced, Question, Verdict, Verifier};

/// Timeout of each request to the cluster.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);

/// Results for the letters that were looked for, and for the letters that were sent as fences.
#[derive(Debug, Default)]
pub(super) struct CheckResults {
    pub(super) verdicts: HashMap<LetterId, Verdict>,
    pub(super) fences: HashMap<LetterId, FenceOutcome>,
}

/// Letters that may be sent as fences: they are certainly not in the log, and this replay sends them in any case.
pub(super) struct FenceCandidates {
    store: SharedStore,
    /// Letters that are the first of their lane in the store.
    firsts: HashMap<TopicPartition, VecDeque<Position>>,
    /// The first letters of each partition, although earlier ones of their lanes stay.
    others: HashMap<TopicPartition, VecDeque<Position>>,
    /// All letters may serve with `out_of_order`. The producers of imported letters have ended with `fence_imported`.
    replay: Replay,
    /// Lanes of the letters until now.
    seen: HashSet<ReplayLane>,
    /// Producer ids that must not be fenced: all ids of this producer, those of imported letters, and those of stamps that
    /// can be repeated.
    living: HashSet<i64>,
    /// The producer ids that spools hold.
    pub(super) held: HeldIds,
    /// The topics of letters that were sent as fences.
    topics: HashMap<LetterId, String>,
}

impl FenceCandidates {
    pub(super) fn new(store: SharedStore, own: Vec<i64>, replay: &Replay) -> Self {
        Self {
            store,
            firsts: HashMap::new(),
            others: HashMap::new(),
            replay: replay.clone(),
            seen: HashSet::new(),
            living: own.into_iter().collect(),
            held: HeldIds::default(),
            topics: HashMap::new(),
        }
    }

    /// Notes the next letter in the store's order, selected or not. A letter that is sent may be sent first of its
    /// partition if it overtakes no letter of its lane.
    pub(super) fn note(&mut self, held: &Held, is_sent: bool) {
        let letter = &held.letter;
        if held.imported && letter.outcome == Outcome::Unknown && !self.replay.fence_imported {
            self.living.extend(letter.producer_id);
        }
        if !self.replay.out_of_order
            && let Some(stamp) = plan::stamp_to_repeat(letter, wall_clock_ms())
        {
            // The letter can be repeated under its stamp without a proof, as long as its producer id is not fenced.
            self.living.insert(stamp.producer_id);
        }
        let Some(partition) = letter.partition else { return };
        let place = (letter.topic.clone(), partition);
        // Every lane is noted, also after the first one that was seen before.
        let lanes = ReplayLane::all(letter, letter.partition, &self.replay);
        let new: Vec<bool> = lanes.map(|lane| self.seen.insert(lane)).collect();
        let first = !new.is_empty() && new.iter().all(|new| *new);
        if is_sent && letter.outcome == Outcome::NotWritten {
            if first {
                push_bounded(self.firsts.entry(place.clone()).or_default(), held.position);
            }
            if self.replay.out_of_order {
                push_bounded(self.others.entry(place).or_default(), held.position);
            }
        }
    }

    /// Returns the next candidate for this partition. Each candidate is used once.
    async fn next(&mut self, target: &TopicPartition) -> Option<Held> {
        loop {
            let first = self.firsts.get_mut(target).and_then(VecDeque::pop_front);
            let position = first.or_else(|| self.others.get_mut(target).and_then(VecDeque::pop_front))?;
            self.others.entry(target.clone()).or_default().retain(|other| *other != position);
            let (store, before) = (self.store.clone(), position.0.checked_sub(1).map(Position));
            let page = blocking(move || store.scan(before, 1)).await.ok()?;
            // Another process may have removed or settled the letter.
            let is_it = |held: &Held| held.position == position && held.letter.outcome == Outcome::NotWritten;
            if let Some(held) = page.into_iter().find(is_it) {
                return Some(held);
            }
        }
    }
}

/// Keeps the first letters. Each producer id takes one.
fn push_bounded(letters: &mut VecDeque<Position>, position: Position) {
    const KEPT: usize = 1000;
    if letters.len() < KEPT {
        letters.push_back(position);
    }
}

impl Fences for FenceCandidates {
    async fn letter_for(&mut self, place: &FencePlace<'_>) -> Option<FenceLetter> {
        let id = place.stamp.producer_id;
        if !self.store.is_exclusive() || self.living.contains(&id) || self.held.contains(id) {
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

impl FenceCandidates {
    /// Returns the topics and results of the letters that were sent as fences.
    pub(super) fn fence_results<'c>(
        &'c self,
        checked: &'c CheckResults,
    ) -> impl Iterator<Item = (&'c str, SeparateResult)> {
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

    /// Stores that a letter is sent as a fence. `None` if the letter cannot be sent or is not in the store any more.
    async fn mark(&self, held: &Held, place: &FencePlace<'_>) -> Option<FenceLetter> {
        let attempt = plan::ReplayAttempt {
            now: Timestamp::now(),
            partition: place.partition,
            // The letter's own id finds the record in a recreated topic.
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

/// Looks for the records of all questions.
pub(super) async fn check(
    config: &ClientConfig,
    questions: Vec<Question>,
    fences: &mut FenceCandidates,
) -> CheckResults {
    if questions.is_empty() {
        return CheckResults::default();
    }
    let verifier = Verifier::new(config, REQUEST_TIMEOUT);
    let findings = verifier.verify(questions, fences, |progress| {
        tracing::debug!(
            topic = progress.topic,
            partition = progress.partition,
            read = progress.read,
            total = progress.total,
            "searching the log for dead letters"
        );
    });
    let findings = findings.await;
    let id = |text: &str| text.parse::<LetterId>().ok();
    CheckResults {
        verdicts: findings.answers.into_iter().filter_map(|a| Some((id(&a.letter_id)?, a.verdict))).collect(),
        fences: findings.fences.into_iter().filter_map(|(letter, outcome)| Some((id(&letter)?, outcome))).collect(),
    }
}

//! Looks for doubtful letters in the log, all of a store at once.
//!
//! Rules:
//! - What was found, and what is proved to be absent, is so whatever comes later; of the rest nothing is claimed.
//! - A fence is a letter of the replay's own that is certainly not in the log: it is sent all the same, only under another
//!   stamp. Before it leaves, its letter says so in the store.
//! - No producer that may live is fenced: not this one, and none in a store that others write too.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use kafka_courier_batcher::{EncodedBatch, Header, Record};
use kafka_courier_dlq::{Bytes, Held, LetterId, Outcome, Timestamp};
use kafka_courier_idempotent_sender::driver::DriverConfig;

use super::plan;
use super::run::{Store, update};
use crate::shared::wall_clock_ms;
use crate::verify::{FenceLetter, FenceOutcome, FencePlace, Fences, Question, Verdict, Verifier};

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

/// Letters that may serve as fences: one for each partition, certainly not in the log, and the first of its key there.
pub(super) struct Candidates {
    store: Store,
    letters: HashMap<Place, Vec<Held>>,
    /// The first of each partition whatever its key: it would overtake only letters in doubt.
    others: HashMap<Place, Vec<Held>>,
    /// Whether it may: somebody would rather have a proof than the order of letters in doubt.
    may_overtake: bool,
    /// What came by already.
    seen: HashSet<(Place, Option<Bytes>)>,
    /// The producer that must not be fenced: this one.
    living: Option<i64>,
}

impl Candidates {
    pub(super) fn new(store: Store, living: Option<i64>, may_overtake: bool) -> Self {
        let (letters, others) = (HashMap::new(), HashMap::new());
        Self { store, letters, others, may_overtake, seen: HashSet::new(), living }
    }

    /// A letter comes by, in the store's order; one that is to be sent may be sent before all others of its partition,
    /// if that overtakes none of its key.
    pub(super) fn pass(&mut self, held: &Held, is_sent: bool) {
        let letter = &held.letter;
        let Some(partition) = letter.partition else { return };
        let place = (letter.topic.clone(), partition);
        let first = self.seen.insert((place.clone(), letter.key.clone()));
        if is_sent && letter.outcome == Outcome::NotWritten {
            if first {
                keep(self.letters.entry(place.clone()).or_default(), held);
            }
            if self.may_overtake {
                keep(self.others.entry(place).or_default(), held);
            }
        }
    }
}

/// Keeps the first few: each producer that is gone takes one.
fn keep(letters: &mut Vec<Held>, held: &Held) {
    const KEPT: usize = 16;
    if letters.len() < KEPT {
        letters.push(held.clone());
    }
}

impl Fences for Candidates {
    async fn letter_for(&mut self, place: &FencePlace<'_>) -> Option<FenceLetter> {
        if !self.store.is_exclusive() || self.living == Some(place.stamp.producer_id) {
            return None;
        }
        let there = (place.topic.to_owned(), place.partition);
        let held = self.letters.get(&there).and_then(|letters| letters.first());
        let held = held.or_else(|| self.others.get(&there).and_then(|letters| letters.first()))?.clone();
        for letters in [&mut self.letters, &mut self.others] {
            letters.entry(there.clone()).or_default().retain(|other| other.position != held.position);
        }
        let attempt = plan::Attempt {
            now: Timestamp::now(),
            partition: place.partition,
            // If the topic is another one by now, the letter's own id is what finds it.
            topic_id: held.letter.topic_id,
            producer_id: Some(place.stamp.producer_id),
            log_end: None,
        };
        let mut marked = plan::in_hand(&held.letter, &attempt);
        marked.producer_epoch = Some(place.stamp.epoch);
        marked.sequence = Some(place.stamp.base_sequence);
        let headers = plan::headers(&held.letter);
        let headers: Vec<Header<'_>> =
            headers.iter().map(|(key, value)| Header { key, value: value.as_deref() }).collect();
        let record = Record {
            key: held.letter.key.as_deref(),
            value: held.letter.value.as_deref(),
            headers: &headers,
            timestamp: wall_clock_ms(),
        };
        let batch = EncodedBatch::single(&record).ok()?;
        let marked = update(&self.store, vec![Held { position: held.position, letter: marked }]).await.ok()?;
        if marked == 0 {
            return None; // somebody has removed it
        }
        Some(FenceLetter { letter_id: held.letter.id.to_string(), batch })
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

/// What a fence's letter says after it was not written.
pub(super) fn not_written(why: &Arc<str>) -> String {
    format!("it could not be sent again: {why}")
}

//! Carries a replay out: a page of letters after the other.
//!
//! Rules:
//! - A page is marked durably before the first of its records leaves, and everything of it has its verdict before the
//!   next one is read; but the last letter of each partition waits, unmarked, for those behind it.
//! - What waited to the end goes alone, so that its like is not needed to prove what became of it.
//! - Nothing leaves once the claim to the store is lost.

use std::collections::{BTreeMap, HashSet};
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::{Duration, Instant};

use kafka_courier_dlq::{Bytes, DeadLetterStore, Held, Letter, Position, StoreError, Timestamp};
use kafka_courier_idempotent_sender::driver::{Command, LogClient};

use super::check::{self, Candidates, Checked};
use super::claim::Claim;
use super::mark::Goes;
use super::plan::{self, Decision};
use super::{Doubtful, Replay, ReplayError, ReplayReport};
use crate::delivery::Delivery;
use crate::error::PublishError;
use crate::metrics;
use crate::producer::KafkaProducer;
use crate::record::{ProducerRecord, borrowed};
use crate::shared::wall_clock_ms;
use crate::verify::{FenceOutcome, Question, Verdict, WhyNot};

/// Letters of a page.
const PAGE: usize = 500;

pub(super) async fn run(
    producer: &KafkaProducer,
    replay: &Replay,
    progress: impl FnMut(&ReplayReport) -> ControlFlow<()> + Send,
) -> Result<ReplayReport, ReplayError> {
    let replay = replay.clone();
    let log = Arc::new(LogClient::new(&producer.inner.reach));
    let report = ReplayReport::default();
    let (checked, held_back, blocked) = (Checked::default(), Vec::new(), HashSet::new());
    let mut run =
        Run { producer, replay, log, report, progress, next_at: None, checked, held_back, blocked, claim: None };
    for store in producer.dead_letters().stores() {
        let claimed = store.clone();
        run.claim = Some(Claim::new(blocking(move || Ok(claimed.begin_replay())).await??));
        let done = run.store(&store).await;
        if let Some(claim) = run.claim.take() {
            claim.release().await;
        }
        if done?.is_break() {
            break;
        }
    }
    Ok(run.report)
}

pub(super) struct Run<'a, P> {
    pub(super) producer: &'a KafkaProducer,
    replay: Replay,
    pub(super) log: Arc<LogClient>,
    pub(super) report: ReplayReport,
    progress: P,
    /// When the next letter may be sent, where there is a rate.
    next_at: Option<Instant>,
    /// What was found of the present store's doubtful letters.
    checked: Checked,
    /// The last letter of each partition that waits, unmarked, until those before it have their verdicts: if this
    /// process ends meanwhile, it can serve as the fence that proves what became of them.
    held_back: Vec<Placed>,
    /// Keys of the present store of which a letter stays: those behind it stay too, or they would overtake it.
    blocked: HashSet<Queue>,
    /// The right to replay the present store.
    claim: Option<Claim>,
}

/// A letter, and the partition that it goes to.
pub(super) struct Placed {
    pub(super) held: Held,
    pub(super) partition: i32,
}

/// What is kept in order: a topic, a partition, a key.
type Queue = (String, i32, Option<Bytes>);

impl Placed {
    fn queue(&self) -> Queue {
        (self.held.letter.topic.clone(), self.partition, self.held.letter.key.clone())
    }
}

pub(super) type Store = Arc<dyn DeadLetterStore>;

impl<P: FnMut(&ReplayReport) -> ControlFlow<()> + Send> Run<'_, P> {
    async fn store(&mut self, store: &Store) -> Result<ControlFlow<()>, ReplayError> {
        if self.left() == 0 {
            return Ok(ControlFlow::Continue(()));
        }
        self.checked = Checked::default();
        self.blocked.clear();
        let Some(end) = self.look(store).await? else { return Ok(ControlFlow::Continue(())) };
        // What is to end soon after it was told to must not sit out a page at a low rate.
        let at_once = self.together(PAGE);
        let mut after = None;
        while let Some((last, mut selected)) = self.selected(store, after, at_once).await? {
            after = Some(last);
            // What arrives meanwhile is for the next one: a replay has an end.
            selected.retain(|held| held.position <= end);
            if !selected.is_empty() && self.page(store, selected).await?.is_break() {
                // Those that wait are as they were: nothing leaves once it was told to end.
                self.held_back.clear();
                return Ok(ControlFlow::Break(()));
            }
            if last >= end || self.left() == 0 {
                break;
            }
        }
        self.finish(store).await?;
        Ok(ControlFlow::Continue(()))
    }

    /// Sends what was held back: one letter for each partition.
    async fn finish(&mut self, store: &Store) -> Result<(), ReplayError> {
        let mut last = std::mem::take(&mut self.held_back);
        if !last.is_empty() {
            let before = self.report.results();
            last.retain(|placed| !self.is_blocked(&placed.queue()));
            self.send_alone(store, last).await?;
            // That was all of this store: there is nothing to end.
            let _ = self.tell(before);
        }
        Ok(())
    }

    /// The next letters that are selected, and the last position that was looked at.
    async fn selected(
        &self,
        store: &Store,
        after: Option<Position>,
        limit: usize,
    ) -> Result<Option<(Position, Vec<Held>)>, ReplayError> {
        let reading = store.clone();
        let page = blocking(move || reading.scan(after, limit)).await?;
        let Some(last) = page.last().map(|held| held.position) else { return Ok(None) };
        // What was just sent as a fence bears the marks of that, and is still one of those that were selected.
        let is_fence = |held: &Held| self.checked.fences.contains_key(&held.letter.id);
        let selected = page.into_iter().filter(|held| self.replay.selection.matches(&held.letter) || is_fence(held));
        Ok(Some((last, selected.collect())))
    }

    /// Looks for all doubtful letters of the store, before any is sent: the log is read once. Returns the last position
    /// that there is.
    async fn look(&mut self, store: &Store) -> Result<Option<Position>, ReplayError> {
        let (mut questions, mut after) = (Vec::new(), None);
        let mut fences = Candidates::new(store.clone(), self.producer.identities(), &self.replay);
        let mut left = self.left();
        while let Some((last, mut selected)) = self.selected(store, after, PAGE).await? {
            after = Some(last);
            selected.truncate(usize::try_from(left).unwrap_or(usize::MAX));
            left -= selected.len() as u64;
            for held in selected {
                let decision = plan::decide(&held.letter, &self.replay);
                if decision == Decision::Check {
                    questions.extend(Question::of(&held.letter));
                }
                // A fence is written to the letter's own topic.
                let goes_there = !self.replay.dry_run && !self.replay.reroutes(&held.letter);
                fences.pass(&held, decision == Decision::Send && goes_there);
            }
        }
        self.checked = check::check(&self.producer.inner.reach, questions, &mut fences).await;
        Ok(after)
    }

    /// How many more may be selected.
    fn left(&self) -> u64 {
        self.replay.limit.unwrap_or(u64::MAX).saturating_sub(self.report.selected)
    }

    /// Returns whether to go on: nobody said to end it.
    async fn page(&mut self, store: &Store, mut selected: Vec<Held>) -> Result<ControlFlow<()>, ReplayError> {
        selected.truncate(usize::try_from(self.left()).unwrap_or(usize::MAX));
        self.report.selected += selected.len() as u64;
        let before = self.report.results();
        let Sorted { send, gone, changed, repeat } = self.sort(selected);
        for held in send.iter().chain(&repeat) {
            *self.report.by_topic.entry(self.replay.topic_of(&held.letter).to_owned()).or_default() += 1;
        }
        if !self.replay.dry_run {
            remove(store, gone).await?;
            self.put_back(store, changed).await?;
            self.repeat(store, repeat).await?;
            let ready = self.place(store, send).await?;
            if !ready.is_empty() {
                self.send(store, ready).await?;
            }
        }
        Ok(self.tell(before))
    }

    /// Tells of a page, and what whoever was told says.
    fn tell(&mut self, before: [(&'static str, u64); 6]) -> ControlFlow<()> {
        if !self.replay.dry_run {
            for ((result, now), (_, was)) in self.report.results().into_iter().zip(before) {
                metrics::replayed(result, now - was);
            }
            metrics::dead_letters(self.producer.dead_letters().len());
        }
        (self.progress)(&self.report)
    }

    /// Settles which partition each letter goes to: its own, while there is such, else its key's. What is ready to be
    /// sent comes back, in order; the last one of each partition is held back.
    async fn place(&mut self, store: &Store, letters: Vec<Held>) -> Result<Vec<Placed>, ReplayError> {
        let (mut ready, mut refused) = (std::mem::take(&mut self.held_back), Vec::new());
        for held in letters {
            match self.producer.partition_count(self.replay.topic_of(&held.letter)).await {
                Ok(count) => {
                    let held = Held { letter: plan::rerouted(held.letter, &self.replay), ..held };
                    let partition = plan::partition(&held.letter, count, || fastrand::i32(0..count.max(1)));
                    ready.push(Placed { held, partition });
                }
                Err(PublishError::Closed) => return Err(ReplayError::Closed),
                Err(error) => refused.push(self.was_refused(held, &error)),
            }
        }
        self.put_back(store, refused).await?;
        let mut last = BTreeMap::new();
        for (index, placed) in ready.iter().enumerate() {
            last.insert((placed.held.letter.topic.clone(), placed.partition), index);
        }
        let last: HashSet<usize> = last.into_values().collect();
        let mut index = 0;
        self.held_back = ready
            .extract_if(.., |_| {
                index += 1;
                last.contains(&(index - 1))
            })
            .collect();
        Ok(ready)
    }

    /// A letter whose record was not accepted: it stays, with the reason.
    fn was_refused(&mut self, held: Held, error: &PublishError) -> Held {
        self.report.failed += 1;
        self.report.reason(error.to_string());
        Held { letter: plan::put_back(&held.letter, Timestamp::now(), error.to_string()), ..held }
    }

    /// What becomes of each letter of a page.
    fn sort(&mut self, selected: Vec<Held>) -> Sorted {
        let mut sorted = Sorted::default();
        for held in selected {
            if let Some(outcome) = self.checked.fences.remove(&held.letter.id) {
                self.was_fence(held, outcome, &mut sorted);
                continue;
            }
            match plan::decide(&held.letter, &self.replay) {
                Decision::Send => sorted.send.push(held),
                Decision::Check => self.was_looked_for(held, &mut sorted),
                Decision::LeaveOut => self.report.left_out += 1,
                Decision::TooOften => self.report.too_often += 1,
            }
        }
        sorted
    }

    fn was_looked_for(&mut self, held: Held, sorted: &mut Sorted) {
        let force = matches!(self.replay.doubtful, Doubtful::Verify { force: true });
        let why = match self.checked.verdicts.remove(&held.letter.id) {
            Some(Verdict::Landed { offset }) => {
                tracing::debug!(letter = %held.letter.id, offset, "a dead letter's record is in the log");
                self.report.landed += 1;
                return sorted.gone.push(held.position);
            }
            Some(Verdict::Absent) => return sorted.send.push(Held { letter: plan::certain(held.letter), ..held }),
            Some(Verdict::NotFound { why: WhyNot::NoFence }) => {
                let is_known = plan::stamp_to_repeat(&held.letter, wall_clock_ms()).is_some();
                if is_known && !self.replay.reroutes(&held.letter) {
                    return sorted.repeat.push(held);
                }
                no_fence(held.imported)
            }
            Some(Verdict::NotFound { why }) => why.to_string(),
            None => "it was not looked for".to_owned(),
        };
        if force {
            return sorted.send.push(held);
        }
        self.report.not_found += 1;
        self.report.reason(why);
    }

    /// A letter that has been sent as a fence already.
    fn was_fence(&mut self, held: Held, outcome: FenceOutcome, sorted: &mut Sorted) {
        *self.report.by_topic.entry(held.letter.topic.clone()).or_default() += 1;
        match outcome {
            FenceOutcome::Written { .. } => {
                self.report.delivered += 1;
                sorted.gone.push(held.position);
            }
            FenceOutcome::NotWritten(why) => {
                self.report.failed += 1;
                self.report.reason(why.to_string());
                // Its mark has counted this replay already.
                let mut letter = plan::certain(held.letter);
                letter.failure_reason = check::not_written(&why);
                sorted.changed.push(Held { letter, ..held });
            }
            FenceOutcome::Unknown(why) => {
                self.report.failed += 1;
                self.report.reason(why.to_string());
            }
        }
    }

    /// Nothing leaves, or is said of letters, once somebody else may replay them.
    pub(super) fn still_claimed(&self) -> Result<(), ReplayError> {
        Ok(self.claim.as_ref().map_or(Ok(()), Claim::holds)?)
    }

    /// As [`still_claimed`](Self::still_claimed), before each of many letters.
    fn claimed_lately(&mut self) -> Result<(), ReplayError> {
        Ok(self.claim.as_mut().map_or(Ok(()), Claim::holds_lately)?)
    }

    /// Says more of letters than their marks do, such as that they were certainly not written: only as long as nobody
    /// else can have sent them since.
    pub(super) async fn put_back(&self, store: &Store, letters: Vec<Held>) -> Result<(), ReplayError> {
        if !letters.is_empty() {
            self.still_claimed()?;
            update(store, letters).await?;
        }
        Ok(())
    }

    /// Marks letters, sends their records, and removes those that were delivered.
    pub(super) async fn send(&mut self, store: &Store, letters: Vec<Placed>) -> Result<(), ReplayError> {
        // A letter is not said to be under way while it only waits for its turn.
        self.keep_to_the_rate(1).await;
        self.still_claimed()?;
        let letters = self.mark(store, letters, Goes::WithOthers).await?;
        self.still_claimed()?;
        let (mut under_way, mut back) = (Vec::with_capacity(letters.len()), Vec::new());
        let mut ended = Ok(());
        for (index, placed) in letters.into_iter().enumerate() {
            let queue = placed.queue();
            let Placed { held, partition } = placed;
            if self.is_blocked(&queue) {
                back.push(held);
                continue;
            }
            if index > 0 {
                self.keep_to_the_rate(1).await;
                // The rest stays, as it is marked.
                ended = ended.and(self.claimed_lately());
                if ended.is_err() {
                    break;
                }
            }
            match self.publish(&held.letter, partition).await {
                Ok(delivery) => under_way.push((held.position, queue, delivery)),
                Err(error) => {
                    if matches!(error, PublishError::Closed) {
                        ended = Err(ReplayError::Closed);
                    }
                    self.blocked.insert(queue);
                    back.push(self.was_refused(held, &error));
                }
            }
        }
        self.producer.inner.intake.tell(Command::SealOpen);
        let mut delivered = Vec::new();
        for (position, queue, delivery) in under_way {
            match delivery.await {
                Ok(_) => delivered.push(position),
                Err(error) => {
                    // Its letter says so already, in its place.
                    self.blocked.insert(queue);
                    self.report.failed += 1;
                    self.report.reason(error.reason().to_string());
                }
            }
        }
        self.report.delivered += delivered.len() as u64;
        remove(store, delivered).await?;
        self.put_back(store, back).await?;
        ended
    }

    /// Whether a letter before those of this key stays; one more that stays is counted.
    fn is_blocked(&mut self, queue: &Queue) -> bool {
        let is_blocked = self.blocked.contains(queue);
        if is_blocked {
            self.report.failed += 1;
            self.report.reason("an earlier letter of its key was not accepted".to_owned());
        }
        is_blocked
    }

    async fn publish(&self, letter: &Letter, partition: i32) -> Result<Delivery, PublishError> {
        let headers = plan::headers(letter);
        let record = ProducerRecord {
            topic: &letter.topic,
            partition: Some(partition),
            key: letter.key.as_deref(),
            value: letter.value.as_deref(),
            headers: &borrowed(&headers),
            timestamp: None,
        };
        self.producer.send_as(&record, Some(&Arc::new(letter.clone()))).await
    }

    /// How many may leave together: not more than may leave in a second.
    pub(super) fn together(&self, most: usize) -> usize {
        self.replay.rate.and_then(|rate| usize::try_from(rate.get()).ok()).map_or(most, |rate| rate.min(most))
    }

    /// Waits until so many letters more may leave.
    pub(super) async fn keep_to_the_rate(&mut self, letters: usize) {
        let Some(rate) = self.replay.rate else { return };
        let letters = u32::try_from(letters).unwrap_or(u32::MAX);
        let now = Instant::now();
        let at = self.next_at.map_or(now, |at| at.max(now));
        tokio::time::sleep_until(at.into()).await;
        self.next_at = Some(at + Duration::from_secs(1) * letters / rate.get());
    }
}

/// Why an imported letter, or one of this store's own, is neither found nor proved absent.
fn no_fence(imported: bool) -> String {
    let why = WhyNot::NoFence;
    if imported { format!("{why}; it was imported, so its producer may live elsewhere") } else { why.to_string() }
}

/// What becomes of a page's letters.
#[derive(Default)]
struct Sorted {
    send: Vec<Held>,
    /// Delivered, or found in the log.
    gone: Vec<Position>,
    changed: Vec<Held>,
    /// Goes once more under the stamp that it went alone with.
    repeat: Vec<Held>,
}

pub(super) async fn remove(store: &Store, positions: Vec<Position>) -> Result<(), ReplayError> {
    if positions.is_empty() {
        return Ok(());
    }
    let store = store.clone();
    blocking(move || store.remove(&positions)).await.map(|_| ())
}

pub(super) async fn update(store: &Store, changed: Vec<Held>) -> Result<usize, ReplayError> {
    if changed.is_empty() {
        return Ok(0);
    }
    let store = store.clone();
    blocking(move || store.update(&changed)).await
}

/// Runs what blocks where that is allowed.
pub(super) async fn blocking<R: Send + 'static>(
    what: impl FnOnce() -> Result<R, StoreError> + Send + 'static,
) -> Result<R, ReplayError> {
    match tokio::task::spawn_blocking(what).await {
        Ok(result) => Ok(result?),
        Err(_) => Err(ReplayError::Closed),
    }
}

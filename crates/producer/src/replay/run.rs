//! Carries a replay out: a page of letters after the other.
//!
//! Rules:
//! - A page is marked durably before the first of its records leaves, and everything of it has its verdict before the
//!   next one is read.
//! - Every letter of the store is passed in its order, selected or not: one that stays holds back those behind it.
//! - Nothing leaves once the claim to the store is lost.

use std::collections::HashMap;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Instant;

use kafka_courier_dlq::{DeadLetterStore, Held, Letter, Position, StoreError};
use kafka_courier_idempotent_sender::driver::LogClient;

use super::check::{self, Candidates};
use super::claim::Claim;
use super::order::Lane;
use super::plan::{self, Decision};
use super::sort::{Desk, Sorted};
use super::stamps::Ids;
use super::{Replay, ReplayError, ReplayReport};
use crate::error::PublishError;
use crate::metrics;
use crate::producer::KafkaProducer;
use crate::shared::wall_clock_ms;
use crate::verify::Question;

/// Letters of a page.
const PAGE: usize = 500;

pub(super) async fn run(
    producer: &KafkaProducer,
    replay: &Replay,
    progress: impl FnMut(&ReplayReport) -> ControlFlow<()> + Send,
) -> Result<ReplayReport, ReplayError> {
    let mut run = Run {
        producer,
        log: Arc::new(LogClient::new(&producer.inner.reach)),
        desk: Desk::new(replay.clone()),
        progress,
        next_at: None,
        ids: Ids::default(),
        no_topic: HashMap::new(),
        claim: None,
    };
    let stores = producer.dead_letters().stores();
    for (index, store) in stores.iter().enumerate() {
        let claimed = store.clone();
        run.claim = Some(Claim::new(blocking(move || Ok(claimed.begin_replay())).await??));
        run.desk.order.begin();
        let done = run.store(store, stores.get(index + 1..).unwrap_or_default()).await;
        if let Some(claim) = run.claim.take() {
            claim.release().await;
        }
        if done?.is_break() {
            break;
        }
    }
    Ok(run.desk.report)
}

pub(super) struct Run<'a, P> {
    pub(super) producer: &'a KafkaProducer,
    /// What is decided, and what came of it.
    pub(super) desk: Desk,
    pub(super) log: Arc<LogClient>,
    progress: P,
    /// When the next letter may be sent, where there is a rate.
    pub(super) next_at: Option<Instant>,
    /// The producer ids that letters leave under.
    pub(super) ids: Ids,
    /// Topics that could not be had, and why: their letters stay until the next replay.
    pub(super) no_topic: HashMap<String, PublishError>,
    /// The right to replay the present store.
    pub(super) claim: Option<Claim>,
}

/// A letter, and the partition that it goes to.
pub(super) struct Placed {
    /// As it is sent: where a replay sends it to another topic, a letter of that one.
    pub(super) held: Held,
    pub(super) partition: i32,
    /// As it was in its store, where that is another topic's letter.
    pub(super) before: Option<Box<Letter>>,
}

impl Placed {
    /// The letter as it was in its store.
    pub(super) fn before(&self) -> Held {
        let before = self.before.as_deref();
        before.map_or_else(|| self.held.clone(), |letter| Held { letter: letter.clone(), ..self.held })
    }

    pub(super) fn lane(&self) -> Option<Lane> {
        Lane::at(&self.held.letter, Some(self.partition))
    }
}

pub(super) type Store = Arc<dyn DeadLetterStore>;

impl<P: FnMut(&ReplayReport) -> ControlFlow<()> + Send> Run<'_, P> {
    /// Replays a store; `behind` are those whose turn comes later.
    async fn store(&mut self, store: &Store, behind: &[Store]) -> Result<ControlFlow<()>, ReplayError> {
        if self.desk.left() == 0 {
            return Ok(ControlFlow::Continue(()));
        }
        self.pass_behind(behind).await;
        let Some((first, end)) = self.look(store).await? else { return Ok(ControlFlow::Continue(())) };
        // What is to end soon after it was told to must not sit out a page at a low rate.
        let at_once = self.together(PAGE);
        // A store that is read from its very beginning may look for letters again: this replay has seen its letters.
        let mut after = first.0.checked_sub(1).map(Position);
        while let Some((last, mut page)) = scan(store, after, at_once).await? {
            after = Some(last);
            // What arrives meanwhile is for the next one: a replay has an end.
            page.retain(|held| held.position <= end);
            if self.page(store, page).await?.is_break() {
                return Ok(ControlFlow::Break(()));
            }
            if last >= end || self.desk.left() == 0 {
                break;
            }
        }
        Ok(ControlFlow::Continue(()))
    }

    /// Notes what the stores behind this one hold: it may be earlier than what this one does.
    async fn pass_behind(&mut self, behind: &[Store]) {
        for store in behind {
            let mut after = None;
            loop {
                match scan(store, after, PAGE).await {
                    Ok(Some((last, page))) => {
                        after = Some(last);
                        page.iter().for_each(|held| self.desk.order.is_behind(&held.letter));
                    }
                    Ok(None) => break,
                    Err(error) => {
                        let store = store.name();
                        tracing::warn!(store, %error, "dead letters of another store can't be read: those here may overtake them");
                        break;
                    }
                }
            }
        }
    }

    /// Looks for all doubtful letters of the store, before any is sent: the log is read once. Returns the first and the
    /// last position that there is.
    async fn look(&mut self, store: &Store) -> Result<Option<(Position, Position)>, ReplayError> {
        let (mut questions, mut ends, mut after) = (Vec::new(), None, None);
        let mut fences = Candidates::new(store.clone(), self.producer.identities(), &self.desk.replay);
        let mut left = self.desk.left();
        while let Some((last, page)) = scan(store, after, PAGE).await? {
            after = Some(last);
            for held in page {
                let (first, _) = ends.unwrap_or((held.position, held.position));
                ends = Some((first, held.position));
                let is_selected = left > 0 && self.desk.replay.selection.matches(&held.letter);
                left -= u64::from(is_selected);
                let decision = is_selected.then(|| plan::decide(&held.letter, &self.desk.replay));
                if decision == Some(Decision::Check) {
                    questions.extend(Question::of(&held.letter));
                }
                let is_sent = decision == Some(Decision::Send)
                    && !self.desk.replay.dry_run
                    // A fence is written to the letter's own topic.
                    && !self.desk.replay.reroutes(&held.letter)
                    && !self.desk.order.is_held_back(&held, held.letter.partition);
                fences.pass(&held, is_sent);
            }
        }
        self.desk.checked = check::check(&self.producer.inner.reach, questions, &mut fences).await;
        // Their page may never be sorted.
        fences.went(&self.desk.checked).for_each(|(topic, result)| self.count_alone(topic, result));
        Ok(ends)
    }

    /// Returns whether to go on: nobody said to end it.
    async fn page(&mut self, store: &Store, page: Vec<Held>) -> Result<ControlFlow<()>, ReplayError> {
        let (before, selected) = (self.desk.report.results(), self.desk.report.selected);
        let Sorted { send, gone, changed, repeat, .. } = self.desk.sort(page, wall_clock_ms());
        if self.desk.report.selected == selected {
            return Ok(ControlFlow::Continue(()));
        }
        if self.desk.replay.dry_run {
            for held in send.iter().chain(&repeat) {
                self.desk.report.count_sent(self.desk.replay.topic_of(&held.letter));
            }
        } else {
            remove(store, gone).await?;
            self.put_back(store, changed).await?;
            self.repeat(store, repeat).await?;
            let ready = self.place(store, send).await?;
            self.send(store, ready).await?;
        }
        Ok(self.tell(before))
    }

    /// Tells of a page, and what whoever was told says.
    fn tell(&mut self, before: [(&'static str, u64); 7]) -> ControlFlow<()> {
        if !self.desk.replay.dry_run {
            for ((result, now), (_, was)) in self.desk.report.results().into_iter().zip(before) {
                metrics::replayed(result, now - was);
            }
            metrics::dead_letters(self.producer.dead_letters().len());
        }
        (self.progress)(&self.desk.report)
    }

    /// Those of which no earlier letter stays.
    pub(super) fn without_held_back(&mut self, mut letters: Vec<Placed>) -> Vec<Placed> {
        letters.retain(|placed| !self.desk.is_held_back(&placed.held, Some(placed.partition)));
        letters
    }

    /// Nothing leaves, or is said of letters, once somebody else may replay them.
    pub(super) fn still_claimed(&self) -> Result<(), ReplayError> {
        Ok(self.claim.as_ref().map_or(Ok(()), Claim::holds)?)
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
}

/// The next letters, and the last position that was looked at.
async fn scan(
    store: &Store,
    after: Option<Position>,
    limit: usize,
) -> Result<Option<(Position, Vec<Held>)>, ReplayError> {
    let reading = store.clone();
    let page = blocking(move || reading.scan(after, limit)).await?;
    Ok(page.last().map(|held| held.position).map(|last| (last, page)))
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

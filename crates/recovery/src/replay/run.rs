//! Runs a replay: one page of letters after the other.
//!
//! Rules:
//! - The letters of a page are marked durably before the first record leaves. Every record has its verdict before the next
//!   page is read.
//! - Every letter of the store is visited in order, selected or not: a letter that stays holds back the later ones.
//! - No record leaves after the claim on the store is lost.

use std::collections::HashMap;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Instant;

use kafka_courier_client::log_client::LogClient;
use kafka_courier_dlq::{Held, Position};
use kafka_courier_producer::{Engine, PublishError, wall_clock_ms};

use super::check::{self, FenceCandidates};
use super::claim::Claim;
use super::placed::PlacedLetter;
use super::plan::{self, Decision};
use super::sort::{Sorted, Sorter};
use super::spools::HeldIds;
use super::stamps::StampIds;
use super::store_io::{SharedStore, blocking, remove, scan, update};
use super::{Replay, ReplayError, ReplayReport};
use crate::dead_letters::DeadLetters;
use crate::metrics;
use crate::verify::Question;

/// Most letters in a page.
const PAGE_LETTERS: usize = 500;

pub(crate) async fn run(
    engine: &Engine,
    letters: &DeadLetters,
    replay: &Replay,
    progress: impl FnMut(&ReplayReport) -> ControlFlow<()> + Send,
) -> Result<ReplayReport, ReplayError> {
    let mut run = ReplayRun {
        engine,
        letters,
        log: Arc::new(LogClient::new(engine.client_config())),
        sorter: Sorter::new(replay.clone()),
        progress,
        next_at: None,
        ids: StampIds::default(),
        no_topic: HashMap::new(),
        claim: None,
    };
    let stores = letters.stores();
    for (index, store) in stores.iter().enumerate() {
        let claimed = store.clone();
        run.claim = Some(Claim::new(blocking(move || Ok(claimed.begin_replay())).await??));
        run.sorter.order.begin_store();
        let done = run.replay_store(store, stores.get(index + 1..).unwrap_or_default()).await;
        if let Some(claim) = run.claim.take() {
            claim.release().await;
        }
        if done?.is_break() {
            break;
        }
    }
    Ok(run.sorter.report)
}

pub(super) struct ReplayRun<'a, P> {
    pub(super) engine: &'a Engine,
    letters: &'a DeadLetters,
    /// Decides on letters, and has the report.
    pub(super) sorter: Sorter,
    pub(super) log: Arc<LogClient>,
    progress: P,
    /// Time at which the next letter may be sent, if there is a rate.
    pub(super) next_at: Option<Instant>,
    /// The producer ids for letters in their own batches.
    pub(super) ids: StampIds,
    /// Topics that are unavailable, and why. Their letters stay until the next replay.
    pub(super) no_topic: HashMap<String, PublishError>,
    /// The claim on the present store.
    pub(super) claim: Option<Claim>,
}

impl<P: FnMut(&ReplayReport) -> ControlFlow<()> + Send> ReplayRun<'_, P> {
    /// Replays a store. `later` are the stores that follow.
    async fn replay_store(
        &mut self,
        store: &SharedStore,
        later: &[SharedStore],
    ) -> Result<ControlFlow<()>, ReplayError> {
        if self.sorter.remaining() == 0 {
            return Ok(ControlFlow::Continue(()));
        }
        self.note_later_stores(later).await;
        let Some((first, end)) = self.check_letters(store).await? else { return Ok(ControlFlow::Continue(())) };
        // A replay that should end must not wait for a whole page at a low rate.
        let page_size = self.group_size(PAGE_LETTERS);
        // A store that is read from its start may search again for its letters, which this replay has seen.
        let mut after = first.0.checked_sub(1).map(Position);
        while let Some((last, mut page)) = scan(store, after, page_size).await? {
            after = Some(last);
            // Letters that arrive during the replay are for the next one, so that a replay ends.
            page.retain(|held| held.position <= end);
            if self.replay_page(store, page).await?.is_break() {
                return Ok(ControlFlow::Break(()));
            }
            if last >= end || self.sorter.remaining() == 0 {
                break;
            }
        }
        Ok(ControlFlow::Continue(()))
    }

    /// Notes the letters of the later stores. They may have arrived earlier than those of this store.
    async fn note_later_stores(&mut self, later: &[SharedStore]) {
        for store in later {
            let mut after = None;
            loop {
                match scan(store, after, PAGE_LETTERS).await {
                    Ok(Some((last, page))) => {
                        after = Some(last);
                        page.iter().for_each(|held| self.sorter.order.note_later_store(&held.letter));
                    }
                    Ok(None) => break,
                    Err(error) => {
                        let store = store.name();
                        tracing::warn!(store, %error, "dead letters of a later store cannot be read, and may be overtaken");
                        break;
                    }
                }
            }
        }
    }

    /// Reads which producer ids spools hold.
    async fn held_ids(&self) -> Result<HeldIds, ReplayError> {
        let held = HeldIds::of_own(self.engine.inherited_producer_ids());
        let folders = self.sorter.replay.spools.clone();
        tokio::task::spawn_blocking(move || held.read(&folders)).await.map_err(|_| ReplayError::Closed)?
    }

    /// Looks for all doubtful letters of the store before any letter is sent, so that the log is read once. Returns the
    /// first and the last position of the store.
    async fn check_letters(&mut self, store: &SharedStore) -> Result<Option<(Position, Position)>, ReplayError> {
        let (mut questions, mut ends, mut after) = (Vec::new(), None, None);
        let mut fences = FenceCandidates::new(store.clone(), self.engine.producer_ids(), &self.sorter.replay);
        let mut left = self.sorter.remaining();
        while let Some((last, page)) = scan(store, after, PAGE_LETTERS).await? {
            after = Some(last);
            for held in page {
                let (first, _) = ends.unwrap_or((held.position, held.position));
                ends = Some((first, held.position));
                let is_selected = left > 0 && self.sorter.replay.selection.matches(&held.letter);
                left -= u64::from(is_selected);
                let decision = is_selected.then(|| plan::decide(&held.letter, &self.sorter.replay));
                if decision == Some(Decision::Check) {
                    questions.extend(Question::of(&held.letter));
                }
                let is_sent = decision == Some(Decision::Send)
                    && !self.sorter.replay.dry_run
                    // A fence is written to the letter's own topic.
                    && !self.sorter.replay.reroutes(&held.letter)
                    && !self.sorter.order.is_held_back(&held, held.letter.partition);
                fences.note(&held, is_sent);
            }
        }
        if !questions.is_empty() {
            // A process that ends meanwhile leaves its letters first, and its ids stay in the spool.
            self.sorter.held_ids = self.held_ids().await?;
            fences.held = self.sorter.held_ids.clone();
        }
        self.sorter.checked = check::check(self.engine.client_config(), questions, &mut fences).await;
        // The page of a fence may never be sorted.
        fences.fence_results(&self.sorter.checked).for_each(|(topic, result)| self.count_stamped(topic, result));
        Ok(ends)
    }

    /// Replays a page. Returns `Break` if `progress` ended the replay.
    async fn replay_page(&mut self, store: &SharedStore, page: Vec<Held>) -> Result<ControlFlow<()>, ReplayError> {
        let (before, selected) = (self.sorter.report.results(), self.sorter.report.selected);
        let Sorted { send, settled, changed, repeat, .. } = self.sorter.sort(page, wall_clock_ms());
        if self.sorter.report.selected == selected {
            return Ok(ControlFlow::Continue(()));
        }
        if self.sorter.replay.dry_run {
            for held in send.iter().chain(&repeat) {
                self.sorter.report.count_sent(self.sorter.replay.topic_of(&held.letter));
            }
        } else {
            remove(store, settled).await?;
            self.update_if_claimed(store, changed).await?;
            self.repeat(store, repeat).await?;
            let ready = self.place(store, send).await?;
            self.send(store, ready).await?;
        }
        Ok(self.report_page(before))
    }

    /// Reports the progress after a page, and returns the answer of `progress`.
    fn report_page(&mut self, before: [(&'static str, u64); 7]) -> ControlFlow<()> {
        if !self.sorter.replay.dry_run {
            for ((result, now), (_, was)) in self.sorter.report.results().into_iter().zip(before) {
                metrics::replayed(result, now - was);
            }
            metrics::dead_letters(self.letters.len());
        }
        (self.progress)(&self.sorter.report)
    }

    /// Returns the letters that are not held back.
    pub(super) fn without_held_back(&mut self, mut letters: Vec<PlacedLetter>) -> Vec<PlacedLetter> {
        letters.retain(|placed| !self.sorter.is_held_back(&placed.held, Some(placed.partition)));
        letters
    }

    /// Returns an error if another process may replay the store now.
    pub(super) fn check_claim(&self) -> Result<(), ReplayError> {
        Ok(self.claim.as_ref().map_or(Ok(()), Claim::ensure_held)?)
    }

    /// Replaces marks by the final states, such as that a record was certainly not written. Requires the claim, because
    /// another process may have sent the letters otherwise.
    pub(super) async fn update_if_claimed(&self, store: &SharedStore, letters: Vec<Held>) -> Result<(), ReplayError> {
        if !letters.is_empty() {
            self.check_claim()?;
            update(store, letters).await?;
        }
        Ok(())
    }
}

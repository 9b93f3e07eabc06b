//! Dead letters sent again.
//!
//! Rules:
//! - A letter is removed only after its record was acknowledged; one that fails again stays, in its place.
//! - Before a record leaves, its letter says so in the store: whoever comes after a crash knows what may be written.
//! - One replay at a time for each store.
//! - The letters of one key leave a store in the order in which they arrived: one that stays holds back those behind it.
//! - A failure that is the cluster's does not count as a replay of the letter.

mod auto;
mod check;
mod claim;
mod mark;
#[cfg(test)]
mod model_tests;
mod order;
mod plan;
mod run;
mod send;
mod sort;
mod stamped;
mod stamps;

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::ops::ControlFlow;

use kafka_courier_dlq::{BeginReplayError, Letter, Selection, StoreError};

use crate::producer::KafkaProducer;

/// What is to be sent again, and how.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Replay {
    /// Which letters. Those that arrive in a store after the replay has begun there are never among them.
    pub selection: Selection,
    /// What to do with letters whose records may be in the log already.
    pub doubtful: Doubtful,
    /// A letter that was sent again so often stays: the guard against loops.
    pub max_replays: u32,
    /// At most so many letters a second.
    pub rate: Option<NonZeroU32>,
    /// At most so many letters.
    pub limit: Option<u64>,
    /// Only counts.
    pub dry_run: bool,
    /// Takes it that whoever wrote letters that were [imported](kafka_courier_dlq::DeadLetterStore::import) has ended. A
    /// check may end their producers' ids then, where that proves what became of them; without it those producers may
    /// live, and only what is in the log already proves anything.
    pub fence_imported: bool,
    /// The topic that all letters are sent to, instead of their own. What may be in the log is looked for in the letter's own
    /// topic. A letter that fails there once it was under way is a letter for that topic from then on.
    pub to_topic: Option<String>,
    /// Sends letters though earlier ones of their key are left where they are: not selected, left out, not found, or sent
    /// again too often. A check may then also take such a letter as its fence. Without it those letters are held back. One
    /// that fails holds back those behind it either way.
    pub out_of_order: bool,
}

impl Replay {
    /// The topic that this letter is sent to.
    fn topic_of<'l>(&'l self, letter: &'l Letter) -> &'l str {
        self.to_topic.as_deref().unwrap_or(&letter.topic)
    }

    /// Whether a letter is sent to another topic than its own.
    fn reroutes(&self, letter: &Letter) -> bool {
        self.topic_of(letter) != letter.topic
    }
}

impl Default for Replay {
    /// Everything that is certainly not in the log, as fast as it goes, each letter at most five times.
    fn default() -> Self {
        Self {
            selection: Selection::all(),
            doubtful: Doubtful::LeaveOut,
            max_replays: 5,
            rate: None,
            limit: None,
            dry_run: false,
            fence_imported: false,
            to_topic: None,
            out_of_order: false,
        }
    }
}

/// What a replay does with letters whose outcome is unknown.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub enum Doubtful {
    /// Leaves them where they are; but those that an earlier replay had in hand when it was interrupted are looked for.
    #[default]
    LeaveOut,
    /// Looks for them in the log: those that are there are removed, those that are proved not to be there are sent. Where the
    /// proof takes a letter that goes first, that is the first of another key, or with
    /// [`out_of_order`](Replay::out_of_order) a later one of their own.
    Verify {
        /// Sends those too of which neither could be proved: they may be there twice afterwards.
        force: bool,
    },
    /// Sends them: they may be there twice afterwards.
    Send,
}

/// What a replay has done so far, in letters.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct ReplayReport {
    /// Selected.
    pub selected: u64,
    /// Delivered, and removed.
    pub delivered: u64,
    /// Found in the log, and removed.
    pub landed: u64,
    /// Failed again: they stay, with the new reason.
    pub failed: u64,
    /// Left out because their records may be in the log.
    pub left_out: u64,
    /// Looked for, neither found nor proved to be absent, and left out.
    pub not_found: u64,
    /// Left out because they were sent again too often.
    pub too_often: u64,
    /// Held back behind an earlier letter of their key that stays.
    pub held_back: u64,
    /// What a dry run would send, by topic; otherwise what was sent.
    pub by_topic: BTreeMap<String, u64>,
    /// The first few reasons for which letters failed again or were not found.
    pub reasons: BTreeMap<String, u64>,
}

impl ReplayReport {
    /// How many letters came to which end.
    fn results(&self) -> [(&'static str, u64); 7] {
        [
            ("delivered", self.delivered),
            ("landed", self.landed),
            ("failed", self.failed),
            ("left_out", self.left_out),
            ("not_found", self.not_found),
            ("too_often", self.too_often),
            ("held_back", self.held_back),
        ]
    }

    /// Counts a letter that is sent, or would be, to this topic.
    fn count_sent(&mut self, topic: &str) {
        *self.by_topic.entry(topic.to_owned()).or_default() += 1;
    }

    /// Notes why a letter stays.
    fn reason(&mut self, reason: String) {
        const KEPT: usize = 20;
        if self.reasons.len() < KEPT || self.reasons.contains_key(&reason) {
            *self.reasons.entry(reason).or_default() += 1;
        }
    }
}

/// Why a replay ended early. What it did stands in the stores.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReplayError {
    /// It could not begin.
    #[error(transparent)]
    Begin(#[from] BeginReplayError),
    /// A store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The producer was closed.
    #[error("the producer was closed during a replay")]
    Closed,
}

impl KafkaProducer {
    /// Sends dead letters again, store by store: those in memory and on disk. `progress` is told after each group of letters
    /// (at most 500, and with a rate about a second's), and may end it there: all that was sent has its verdict then.
    ///
    /// Cancel safety: what was sent is delivered all the same, and its letters say that they may be written; a
    /// later replay looks for them.
    pub async fn replay(
        &self,
        replay: &Replay,
        progress: impl FnMut(&ReplayReport) -> ControlFlow<()> + Send,
    ) -> Result<ReplayReport, ReplayError> {
        run::run(self, replay, progress).await
    }
}

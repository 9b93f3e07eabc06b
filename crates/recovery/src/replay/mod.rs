//! Replays dead letters: publishes their records again.
//!
//! Rules:
//! - A letter is removed only after its record was acknowledged. A letter that fails again keeps its position.
//! - The store says that a record is in progress before the record leaves. The next replay after a crash knows which
//!   records may be in the log.
//! - Each store has one replay at a time.
//! - The letters of one key leave a store in the order of their arrival. A letter that stays holds back the later ones.
//! - A failure that the cluster caused does not count as a replay of the letter.

mod check;
mod claim;
mod mark;
#[cfg(test)]
mod model_tests;
mod order;
mod placed;
mod plan;
mod report_json;
pub(crate) mod run;
mod send;
mod sort;
mod spools;
mod stamped;
mod stamps;
mod store_io;

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::sync::Arc;

use kafka_courier_dlq::{BeginReplayError, Letter, Selection, StoreError};
use kafka_courier_producer::SpoolViewError;

/// The options of a replay: which letters it sends, and how.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Replay {
    /// The letters to replay. Letters that arrive in a store after the replay has begun there are not included.
    pub selection: Selection,
    /// The treatment of letters whose records may be in the log already.
    pub doubtful: Doubtful,
    /// Number of replays after which a letter stays. This prevents loops.
    pub max_replays: u32,
    /// Most letters a second.
    pub rate: Option<NonZeroU32>,
    /// Most letters in all.
    pub limit: Option<u64>,
    /// Counts the letters, and sends none.
    pub dry_run: bool,
    /// Assumes that the producers of letters that were [imported](kafka_courier_dlq::DeadLetterStore::import) have ended.
    /// A check may then fence their producer ids to prove that a record is absent. Those producers may otherwise be
    /// running, and a check relies on the present log alone.
    pub fence_imported: bool,
    /// The folders of spools, of this or of other processes. A check never fences a producer id under which a spool may
    /// still send events. A folder without a spool holds no id. The spool of the replaying producer is always included.
    pub spools: Vec<PathBuf>,
    /// The topic that all letters are sent to, instead of the letter's topic. A check searches the letter's own topic. A letter
    /// whose record was in progress and failed in this topic belongs to this topic from then on.
    pub to_topic: Option<String>,
    /// Sends a letter although an earlier one of its key stays: not selected, left out, not found, or replayed too often. A
    /// check may then use such a letter as its fence. The letter is otherwise held back. A letter that fails in
    /// this replay holds back the later ones in either case.
    pub out_of_order: bool,
}

impl Replay {
    /// Returns the topic that this letter is sent to.
    fn topic_of<'l>(&'l self, letter: &'l Letter) -> &'l str {
        self.to_topic.as_deref().unwrap_or(&letter.topic)
    }

    /// Returns whether a letter is sent to another topic than its own.
    fn reroutes(&self, letter: &Letter) -> bool {
        self.topic_of(letter) != letter.topic
    }
}

impl Default for Replay {
    /// Returns the options for all letters that are certainly not in the log, without a rate, each replayed at most five
    /// times.
    fn default() -> Self {
        Self {
            selection: Selection::all(),
            doubtful: Doubtful::LeaveOut,
            max_replays: 5,
            rate: None,
            limit: None,
            dry_run: false,
            fence_imported: false,
            spools: Vec::new(),
            to_topic: None,
            out_of_order: false,
        }
    }
}

/// The treatment of letters with an unknown outcome.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub enum Doubtful {
    /// Leaves them where they are, except letters of an unfinished replay: these are looked for in the log.
    #[default]
    LeaveOut,
    /// Looks for them in the log. Letters that are found are removed, and letters that are proved absent are sent. A proof
    /// may need a letter as its fence: the first letter of another key, or with [`out_of_order`](Replay::out_of_order) a
    /// later one of the same key.
    Verify {
        /// Sends letters with neither result as well. Their records may be in the log twice afterwards.
        force: bool,
    },
    /// Sends them. Their records may be in the log twice afterwards.
    Send,
}

/// The progress of a replay, in letters.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct ReplayReport {
    /// Letters that were selected.
    pub selected: u64,
    /// Letters that were delivered and removed.
    pub delivered: u64,
    /// Letters that were found in the log and removed.
    pub landed: u64,
    /// Letters that failed again. They stay with the new reason.
    pub failed: u64,
    /// Letters that were left out because their records may be in the log.
    pub left_out: u64,
    /// Letters that were neither found nor proved absent, and were left out.
    pub not_found: u64,
    /// Letters that were left out because they were replayed too often.
    pub too_often: u64,
    /// Letters that were held back behind an earlier letter of their key.
    pub held_back: u64,
    /// Letters sent by topic, or in a dry run the letters that would be sent.
    pub by_topic: BTreeMap<String, u64>,
    /// The first 20 reasons why letters failed again or were not found, with their counts.
    pub reasons: BTreeMap<String, u64>,
}

impl ReplayReport {
    /// Returns the counts by result.
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

    /// Counts a letter that is sent to this topic, or would be in a dry run.
    fn count_sent(&mut self, topic: &str) {
        *self.by_topic.entry(topic.to_owned()).or_default() += 1;
    }

    /// Counts the reason why a letter stays.
    fn count_reason(&mut self, reason: String) {
        const KEPT: usize = 20;
        if self.reasons.len() < KEPT || self.reasons.contains_key(&reason) {
            *self.reasons.entry(reason).or_default() += 1;
        }
    }
}

/// Why a replay ended early. The stores have its results until then.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReplayError {
    /// The replay could not begin.
    #[error(transparent)]
    Begin(#[from] BeginReplayError),
    /// A store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A spool can't be read, so the producer ids that it holds are unknown.
    #[error("the spool of a producer can't be read: {0}")]
    Spool(Arc<SpoolViewError>),
    /// The producer was closed.
    #[error("the producer was closed during a replay: run the replay again with an open producer")]
    Closed,
}

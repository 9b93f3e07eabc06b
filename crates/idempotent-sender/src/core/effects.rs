//! What a partition's decisions ask of the rest of the core, and what the core counts.
//!
//! Rules: a partition never reaches outside itself; it writes here, and the core acts on it.

use std::collections::VecDeque;
use std::time::Instant;

use super::backoff::Chance;
use super::config::Config;
use super::look::Wanted;
use super::outcome::Treatment;
use super::types::{Action, BatchUid, LookId, PartitionId};

/// A look at the leader that a partition wants.
#[derive(Debug)]
pub(crate) struct WantedLook {
    pub(crate) partition: PartitionId,
    pub(crate) look: LookId,
    pub(crate) at: LookAt,
}

/// What a look is at.
#[derive(Debug)]
pub(crate) enum LookAt {
    /// The leader's state of this producer id.
    Producer(i64),
    /// The log.
    Log(Wanted),
}

/// What came of a partition's decisions.
#[derive(Debug)]
pub(crate) struct Effects<T> {
    pub(crate) actions: VecDeque<Action<T>>,
    pub(crate) looks: Vec<WantedLook>,
    pub(crate) refresh_metadata: bool,
    /// This producer id's epochs are nearly used up somewhere: another is wanted.
    pub(crate) retiring_id: Option<i64>,
    pub(crate) counters: Counters,
    next_uid: u64,
    next_look: u64,
}

impl<T> Effects<T> {
    pub(crate) fn new() -> Self {
        Self {
            actions: VecDeque::new(),
            looks: Vec::new(),
            refresh_metadata: false,
            retiring_id: None,
            counters: Counters::default(),
            next_uid: 0,
            next_look: 0,
        }
    }

    /// Whether a partition asks for something beyond itself.
    pub(crate) fn has_wishes(&self) -> bool {
        self.refresh_metadata || self.retiring_id.is_some() || !self.looks.is_empty()
    }

    pub(crate) fn uid(&mut self) -> BatchUid {
        self.next_uid += 1;
        BatchUid(self.next_uid)
    }

    pub(crate) fn look_id(&mut self) -> LookId {
        self.next_look += 1;
        LookId(self.next_look)
    }
}

/// What a partition may know of the world while it decides.
pub(crate) struct Context<'a, T> {
    pub(crate) now: Instant,
    pub(crate) config: &'a Config,
    pub(crate) chance: &'a mut Chance,
    pub(crate) out: &'a mut Effects<T>,
    /// The producer id that new stamps begin with, if there is one.
    pub(crate) producer_id: Option<i64>,
}

/// How often things happened since the start.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Records in the log.
    pub records_delivered: u64,
    /// Records with a failed verdict.
    pub records_failed: u64,
    /// Batches that were sent again.
    pub batch_retries: u64,
    /// Records in them.
    pub record_retries: u64,
    /// Batches split because they were too large.
    pub splits: u64,
    /// Epochs raised.
    pub epoch_raises: u64,
    /// Producer ids used up.
    pub ids_exhausted: u64,
    /// Producer ids left because somebody else had fenced them.
    pub fenced_ids_left: u64,
    /// Connections replaced before their session with the broker ended (KIP-368).
    pub sessions_replaced: u64,
    /// Batches whose sequences wrap from `i32::MAX` to 0.
    pub sequence_wraps: u64,
    /// Times that a leader had lost acknowledged records (it expected a sequence number that was acknowledged).
    pub acknowledged_lost: u64,
    /// Batches from which guilty records were singled out.
    pub singled_out: u64,
    /// Looks at a leader's producer state.
    pub looks: u64,
    /// Searches of a log for batches that the leader's state covers.
    pub searches: u64,
    /// Batches that such a search found.
    pub found_in_log: u64,
    /// Verdicts of `Unknown` that a later answer corrected.
    pub corrections: u64,
    /// Requests sent.
    pub requests: u64,
    /// Answers that asked us to wait (KIP-219), and for how long.
    pub throttled: std::time::Duration,
    /// How often an answer with each of Kafka's codes (0: success) decided about a batch.
    pub answers: std::collections::BTreeMap<i16, u64>,
    /// Epochs raised and ids used up, by cause.
    pub epoch_moves: std::collections::BTreeMap<&'static str, u64>,
    /// How often each treatment of the outcome table was applied to a head batch.
    pub treatments: std::collections::BTreeMap<&'static str, u64>,
}

impl Counters {
    /// An answer decided about a batch.
    pub(crate) fn answered(&mut self, code: i16, treatment: Treatment) {
        *self.answers.entry(code).or_default() += 1;
        let name = match treatment {
            Treatment::Delivered => "delivered",
            Treatment::Duplicate => "duplicate",
            Treatment::Wait => "wait",
            Treatment::WaitForLeader => "wait_for_leader",
            Treatment::Retry => "retry",
            Treatment::Split => "split",
            Treatment::Sequence => "sequence",
            Treatment::NewTopicId => "new_topic_id",
            Treatment::Reject => "reject",
        };
        *self.treatments.entry(name).or_default() += 1;
    }
}

//! Effects of a partition's decisions on the rest of the core, and the counters.
//!
//! Rules:
//!  - A partition reads and changes only its own state. It records effects here, and the sender applies them.
//!  - The ids of batches and lookups are never used twice. A batch that gets another stamp gets another id too.

use std::collections::VecDeque;
use std::time::Instant;

use kafka_courier_client::PartitionId;

use super::backoff::JitterRng;
use super::config::Config;
use super::ids::{BatchUid, LookupId, MoveId};
use super::lookup::LogSearchTarget;
use super::outcome::Treatment;
use super::types::Action;

/// A lookup that a partition requests.
#[derive(Debug)]
pub(crate) struct LookupRequest {
    pub(crate) partition: PartitionId,
    pub(crate) id: LookupId,
    pub(crate) target: LookupTarget,
}

/// The target of a lookup.
#[derive(Debug)]
pub(crate) enum LookupTarget {
    /// The leader's state of this producer id.
    Producer(i64),
    /// The log of the partition.
    Log(LogSearchTarget),
}

/// Effects that the sender must apply.
#[derive(Debug)]
pub(crate) struct Effects<T> {
    pub(crate) actions: VecDeque<Action<T>>,
    pub(crate) lookups: Vec<LookupRequest>,
    pub(crate) refresh_metadata: bool,
    /// The producer id whose epochs are nearly used up in a partition. The sender requests another id.
    pub(crate) retiring_id: Option<i64>,
    pub(crate) counters: Counters,
    next_uid: u64,
    next_lookup: u64,
    next_move: u64,
}

impl<T> Effects<T> {
    pub(crate) fn new() -> Self {
        Self {
            actions: VecDeque::new(),
            lookups: Vec::new(),
            refresh_metadata: false,
            retiring_id: None,
            counters: Counters::default(),
            next_uid: 0,
            next_lookup: 0,
            next_move: 0,
        }
    }

    /// Begins all ids at `first`.
    pub(crate) fn start_ids_at(&mut self, first: u64) {
        (self.next_uid, self.next_lookup, self.next_move) = (first, first, first);
    }

    /// Returns whether a partition requests something from the sender.
    pub(crate) fn has_requests(&self) -> bool {
        self.refresh_metadata || self.retiring_id.is_some() || !self.lookups.is_empty()
    }

    /// Returns an id for a batch with a new stamp.
    pub(crate) fn new_uid(&mut self) -> BatchUid {
        self.next_uid += 1;
        BatchUid(self.next_uid)
    }

    /// Returns an id by which the answer to a request for durable stamps is matched to the request.
    pub(crate) fn new_move_id(&mut self) -> MoveId {
        self.next_move += 1;
        MoveId(self.next_move)
    }

    /// Returns an id by which a lookup's answer is matched to its question.
    pub(crate) fn new_lookup_id(&mut self) -> LookupId {
        self.next_lookup += 1;
        LookupId(self.next_lookup)
    }
}

/// Inputs of a decision that come from outside the partition.
pub(crate) struct Context<'a, T> {
    pub(crate) now: Instant,
    /// The wall clock in milliseconds since the Unix epoch. `None` unless some batch is stored.
    pub(crate) wall_clock: Option<i64>,
    pub(crate) config: &'a Config,
    pub(crate) jitter: &'a mut JitterRng,
    pub(crate) out: &'a mut Effects<T>,
    /// The producer id of new stamps, if the cluster assigned one.
    pub(crate) producer_id: Option<i64>,
}

/// Counters since the start.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Records that were delivered.
    pub records_delivered: u64,
    /// Records that failed.
    pub records_failed: u64,
    /// Records without a verdict that a durable log holds for a later process.
    pub records_stored: u64,
    /// Batches that were sent again.
    pub batch_retries: u64,
    /// Records in batches that were sent again.
    pub record_retries: u64,
    /// Batches that were split because they were too large.
    pub splits: u64,
    /// Epoch raises.
    pub epoch_raises: u64,
    /// Producer ids whose epochs were used up.
    pub ids_exhausted: u64,
    /// Producer ids that were replaced because another process had fenced them.
    pub fenced_ids_left: u64,
    /// Connections that were replaced before their session with the broker ended (KIP-368).
    pub sessions_replaced: u64,
    /// Batches whose sequence numbers wrap from `i32::MAX` to 0.
    pub sequence_wraps: u64,
    /// Times that a leader lost acknowledged records: it expected a sequence number that was acknowledged.
    pub acknowledged_lost: u64,
    /// Batches with some rejected records, whose other records were sent again.
    pub singled_out: u64,
    /// Lookups of a leader's producer state.
    pub state_lookups: u64,
    /// Searches of a log for batches that the leader's state covers.
    pub searches: u64,
    /// Batches that a log search found.
    pub found_in_log: u64,
    /// Batches of an earlier process whose leader was asked before they were sent.
    pub resumed: u64,
    /// Stored batches that were sent again although they may be written (`DoubtPolicy::Resend`).
    pub resent_in_doubt: u64,
    /// Batches with the outcome `Unknown` that a later answer proved to be in the log.
    pub corrections: u64,
    /// Produce requests.
    pub requests: u64,
    /// The sum of the throttle times in answers (KIP-219).
    pub throttled: std::time::Duration,
    /// Answers that decided about a batch, by Kafka error code. 0 is success.
    pub answers: std::collections::BTreeMap<i16, u64>,
    /// Epoch raises and replaced producer ids, by cause.
    pub epoch_moves: std::collections::BTreeMap<&'static str, u64>,
    /// Answers that decided about a batch, by treatment.
    pub treatments: std::collections::BTreeMap<&'static str, u64>,
}

impl Counters {
    /// Counts an answer that decided about a batch.
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

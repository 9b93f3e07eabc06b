//! The stamps of a partition: producer id, epoch and next sequence number.
//!
//! Rules:
//!  - A stamp always means the same records. An epoch is raised only if every batch without a verdict has lost its
//!    stamp.
//!  - A new producer id fences nothing, so it is taken only if no batch of the former id can be appended any more. This
//!    holds in two cases: every batch is settled and fenced by an acceptance, or the leader answered that the id is
//!    fenced (INVALID_PRODUCER_EPOCH). Such a leader knows an epoch above all epochs of this client and appends none of
//!    its batches.
//!  - A gap and fences concern an assigned producer id, so they end with it.

use kafka_courier_batcher::{Sequence, Stamp};

use super::super::config::Config;
use super::super::effects::Counters;
use super::super::ids::MoveId;
use super::super::types::StoredBatch;

/// The first epoch at which a partition changes to another producer id as soon as this is safe.
const RETIRING_EPOCH: i16 = i16::MAX - 1000;
/// After this many answers in a row that the id is fenced, one more makes the partition leave the id. Each earlier one
/// only raises the epoch. A proof of absence fences an id a thousand epochs above all epochs it saw. Raising the epoch that
/// far takes longer than `delivery_timeout`.
const FENCED_MAX: u32 = 5;

/// Why a partition raises its epoch or changes its producer id.
#[derive(Clone, Copy, Debug)]
pub(super) enum EpochMove {
    /// A batch failed as not written, which blocks later batches.
    Blocked,
    /// Some records of a batch were rejected.
    SingledOut,
    /// No batch in the window follows a batch that failed as unknown.
    GapEnded,
    /// The batch after one that failed as unknown is certainly not written.
    GapBlocked,
    /// The leader lost acknowledged records, or forgot the id.
    AcknowledgedLost,
    /// The leader repeatedly answered with a higher epoch: another process uses the id, or fenced it.
    Fenced,
    /// Batches in doubt are sent again.
    InDoubt,
    /// The topic was recreated.
    TopicRecreated,
    /// All batches failed.
    AllFailed,
}

impl EpochMove {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Blocked => "blocked",
            Self::SingledOut => "singled_out",
            Self::GapEnded => "gap_ended",
            Self::GapBlocked => "gap_blocked",
            Self::AcknowledgedLost => "acknowledged_lost",
            Self::Fenced => "fenced",
            Self::InDoubt => "in_doubt",
            Self::TopicRecreated => "topic_recreated",
            Self::AllFailed => "all_failed",
        }
    }
}

/// The next stamp.
#[derive(Clone, Copy, Debug)]
struct NextStamp {
    producer_id: i64,
    epoch: i16,
    sequence: Sequence,
    /// Whether a batch of this epoch failed as unknown. Nothing new is stamped until the result of the later batches is
    /// clear.
    gap: bool,
    /// Answers in a row that another process fenced the producer id.
    fenced_answers: u32,
    durability: StampDurability,
}

/// The records of a durable log that can share a run of stamps: those of one life, under one number of their topic.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct RunScope {
    topic: u32,
    life: u64,
}

impl RunScope {
    /// Returns the scope of a batch.
    pub(super) fn of(place: &StoredBatch) -> Self {
        Self { topic: place.topic, life: place.life }
    }
}

/// Whether the stamps from the next one on are durable, for records of one scope.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum StampDurability {
    None,
    Requested(MoveId, RunScope),
    Durable(RunScope),
}

/// The source of stamps.
#[derive(Clone, Copy, Debug)]
enum StampSource {
    /// The producer id that the partition left, if it left one. It is never used again here.
    Unassigned(Option<i64>),
    Assigned(NextStamp),
}

/// The stamps of a partition.
#[derive(Debug)]
pub(super) struct PartitionStamps {
    source: StampSource,
}

impl PartitionStamps {
    pub(super) fn new() -> Self {
        Self { source: StampSource::Unassigned(None) }
    }

    fn next(&self) -> Option<&NextStamp> {
        match &self.source {
            StampSource::Unassigned(_) => None,
            StampSource::Assigned(next) => Some(next),
        }
    }

    fn next_mut(&mut self) -> Option<&mut NextStamp> {
        match &mut self.source {
            StampSource::Unassigned(_) => None,
            StampSource::Assigned(next) => Some(next),
        }
    }

    /// Returns the producer id and epoch of the next stamp. `None` if no producer id is assigned.
    pub(super) fn id_and_epoch(&self) -> Option<(i64, i16)> {
        self.next().map(|next| (next.producer_id, next.epoch))
    }

    pub(super) fn is_assigned(&self) -> bool {
        self.next().is_some()
    }

    /// Returns whether all epochs of this producer id are used up.
    pub(super) fn has_used_up(&self, producer_id: i64) -> bool {
        matches!(self.source, StampSource::Unassigned(Some(left)) if left == producer_id)
    }

    /// Takes the producer id of the cluster, if none is assigned. Returns whether one is assigned now. The first id
    /// starts where the configuration says.
    pub(super) fn assign(&mut self, available: Option<i64>, config: &Config) -> bool {
        let StampSource::Unassigned(left) = self.source else { return true };
        let Some(producer_id) = available.filter(|id| Some(*id) != left) else { return false };
        let (epoch, sequence) = match left {
            None => (config.first_epoch, Sequence::wrapping(config.first_sequence)),
            Some(_) => (0, Sequence::FIRST),
        };
        let durability = StampDurability::None;
        self.source = StampSource::Assigned(NextStamp {
            producer_id,
            epoch,
            sequence,
            gap: false,
            fenced_answers: 0,
            durability,
        });
        true
    }

    /// Returns the stamp for a batch of `records` records, and whether the sequence number after it wraps.
    pub(super) fn take(&mut self, records: u32) -> Option<(Stamp, bool)> {
        let next = self.next_mut()?;
        let base_sequence = next.sequence.number();
        let stamp = Stamp { producer_id: next.producer_id, epoch: next.epoch, base_sequence };
        next.sequence = next.sequence.advance(records);
        Some((stamp, next.sequence.number() < base_sequence))
    }

    /// Returns whether the next stamp is durable for records of this scope.
    pub(super) fn is_durable(&self, scope: RunScope) -> bool {
        self.next().is_some_and(|next| next.durability == StampDurability::Durable(scope))
    }

    /// Returns whether durable stamps for records of this scope were requested.
    pub(super) fn is_move_requested(&self, scope: RunScope) -> bool {
        let requested = self.next().map(|next| next.durability);
        matches!(requested, Some(StampDurability::Requested(_, of)) if of == scope)
    }

    /// Notes that the next stamp is being made durable, for records of this scope. Returns the stamp.
    pub(super) fn request_move(&mut self, id: MoveId, scope: RunScope) -> Option<Stamp> {
        let next = self.next_mut()?;
        next.durability = StampDurability::Requested(id, scope);
        let NextStamp { producer_id, epoch, sequence, .. } = *next;
        Some(Stamp { producer_id, epoch, base_sequence: sequence.number() })
    }

    /// Notes that requested stamps are durable.
    pub(super) fn persisted(&mut self, id: MoveId) {
        if let Some(next) = self.next_mut()
            && let StampDurability::Requested(requested, scope) = next.durability
            && requested == id
        {
            next.durability = StampDurability::Durable(scope);
        }
    }

    /// Returns the producer id that is close to its last epoch, and the epoch.
    pub(super) fn retiring(&self) -> Option<(i64, i16)> {
        self.id_and_epoch().filter(|(_, epoch)| *epoch >= RETIRING_EPOCH)
    }

    /// Leaves the producer id permanently.
    pub(super) fn leave_id(&mut self) {
        if let Some((producer_id, _)) = self.id_and_epoch() {
            self.source = StampSource::Unassigned(Some(producer_id));
        }
    }

    /// Raises the epoch and restarts the sequence at 0. Leaves the producer id after the last epoch, and if the id was
    /// fenced.
    pub(super) fn raise_epoch(&mut self, cause: EpochMove, counters: &mut Counters) {
        let moves = counters.epoch_moves.entry(cause.as_str()).or_default();
        let Some(next) = self.next_mut() else { return };
        *moves += 1;
        next.gap = false;
        if matches!(cause, EpochMove::Fenced) {
            counters.fenced_ids_left += 1;
            self.leave_id();
        } else if next.epoch == i16::MAX {
            // The partition had no quiet moment during a thousand epochs, or its id would have changed. The order of
            // batches that failed as unknown cannot be kept here. Everything else can.
            counters.ids_exhausted += 1;
            self.leave_id();
        } else {
            counters.epoch_raises += 1;
            next.epoch += 1;
            next.sequence = Sequence::FIRST;
            next.durability = StampDurability::None;
        }
    }

    pub(super) fn has_gap(&self) -> bool {
        self.next().is_some_and(|next| next.gap)
    }

    /// Notes that a batch of this epoch failed as unknown. Nothing new is stamped until the gap is closed.
    pub(super) fn open_gap(&mut self) {
        if let Some(next) = self.next_mut() {
            next.gap = true;
        }
    }

    /// Notes that all failed batches of this epoch proved to be written, or that the next acceptance proves them.
    pub(super) fn close_gap(&mut self) {
        if let Some(next) = self.next_mut() {
            next.gap = false;
        }
    }

    /// Counts an answer that the id is fenced.
    pub(super) fn count_fenced_answer(&mut self) {
        if let Some(next) = self.next_mut() {
            next.fenced_answers += 1;
        }
    }

    /// Notes an answer that shows that the id is not fenced.
    pub(super) fn reset_fenced_answers(&mut self) {
        if let Some(next) = self.next_mut() {
            next.fenced_answers = 0;
        }
    }

    /// Returns whether the last answers were that the id is fenced.
    pub(super) fn is_fenced(&self) -> bool {
        self.next().is_some_and(|next| next.fenced_answers > 0)
    }

    /// Returns whether no other epoch helps, because the id was fenced too often.
    pub(super) fn must_leave_id(&self) -> bool {
        self.next().is_some_and(|next| next.fenced_answers > FENCED_MAX)
    }
}

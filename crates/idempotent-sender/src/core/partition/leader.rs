//! The leader of a partition, and how far it is known to know the stamp.
//!
//! Rules:
//!  - A leader is adopted only if its epoch is newer than the known epoch (KIP-320), because answers can be stale. Any
//!    leader is better than none: a former leader denies its leadership.
//!  - Epochs only grow during the life of a topic. A recreated topic starts again at 0, and some brokers send no topic
//!    ids. The epoch of a former topic must not hide the leader permanently, so a doubted epoch is dropped after some
//!    failures.
//!  - Only an acceptance raises the trust. Everything else lowers it or leaves it.
//!  - A stored batch is sent to a leader only once the durable log has its epoch. A later process then adopts no former
//!    leader, whose log lacks records of the later epoch. No doubt lowers this bound.

use std::time::{Duration, Instant};

use kafka_courier_batcher::Stamp;
use kafka_courier_client::BrokerId;

use super::super::ids::MoveId;

/// A leader that received nothing for this long may have forgotten the producer id.
const IDLE_REARM: Duration = Duration::from_secs(60);
/// The number of failures of the known leader after which any leader in metadata is adopted.
const DOUBTS_MAX: u32 = 4;

/// The last accepted batch.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Acceptance {
    producer_id: i64,
    epoch: i16,
    at: Instant,
}

impl Acceptance {
    fn is_recent(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.at) < IDLE_REARM
    }
}

/// How far the leader is known to know the stamp.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum LeaderTrust {
    /// The leader may not know the producer id. It then accepts any sequence number.
    None,
    /// The leader's state or a refusal shows that it knows the id. The replicas may not, and the next leader may be one of
    /// them.
    Shown(Acceptance),
    /// The leader knew the id, so the next acceptance proves all earlier batches. One batch is in flight.
    Accepted(Acceptance),
    /// The leader knew the id, and nothing went wrong since. Several batches are in flight.
    Pipelining(Acceptance),
}

impl LeaderTrust {
    fn acceptance(self) -> Option<Acceptance> {
        match self {
            Self::None => None,
            Self::Shown(last) | Self::Accepted(last) | Self::Pipelining(last) => Some(last),
        }
    }
}

/// The newest leader epoch that the durable log has.
#[derive(Clone, Copy, Default, Debug)]
struct DurableEpoch {
    epoch: Option<i32>,
    requested: Option<(MoveId, i32)>,
}

/// The leader that metadata or a broker named.
#[derive(Debug)]
pub(super) struct KnownLeader {
    broker: Option<BrokerId>,
    /// `None` if the epoch is unknown or in doubt.
    epoch: Option<i32>,
    /// Failures in a row of the known leader.
    doubts: u32,
    trust: LeaderTrust,
    durable: DurableEpoch,
}

impl KnownLeader {
    pub(super) fn new() -> Self {
        Self { broker: None, epoch: None, doubts: 0, trust: LeaderTrust::None, durable: DurableEpoch::default() }
    }

    pub(super) fn broker(&self) -> Option<BrokerId> {
        self.broker
    }

    /// Returns the leader epoch. `None` if it is unknown or in doubt.
    pub(super) fn epoch(&self) -> Option<i32> {
        self.epoch
    }

    /// Adopts a leader, if it is newer than the known leader. Returns whether it was adopted.
    pub(super) fn adopt(&mut self, broker: Option<BrokerId>, epoch: Option<i32>) -> bool {
        let newer = epoch > self.epoch
            || (self.broker.is_none() && broker.is_some())
            || (epoch.is_none() && self.epoch.is_none());
        let is_former = epoch < self.durable.epoch;
        if !newer || is_former || (broker == self.broker && epoch == self.epoch) {
            return false;
        }
        (self.broker, self.epoch) = (broker, epoch);
        self.doubts = 0;
        self.stop_pipelining();
        if matches!(self.trust, LeaderTrust::Shown(_)) {
            self.forget_acceptance();
        }
        true
    }

    /// Forgets the leader of a former topic, and takes the leader that metadata named for the recreated topic.
    pub(super) fn replace(&mut self, broker: Option<BrokerId>, epoch: Option<i32>) {
        *self = Self { broker, epoch, ..Self::new() };
    }

    /// Notes the leader epoch that an earlier process made durable. A leader of an earlier epoch is forgotten.
    pub(super) fn inherit_epoch(&mut self, epoch: Option<i32>) {
        if epoch <= self.durable.epoch {
            return;
        }
        self.durable.epoch = epoch;
        if self.broker.is_some() && self.epoch < epoch {
            *self = Self { durable: self.durable, ..Self::new() };
        }
    }

    /// Returns whether the durable log has the leader's epoch, or the epoch is unknown.
    pub(super) fn has_durable_epoch(&self) -> bool {
        self.epoch <= self.durable.epoch
    }

    /// Returns whether the leader's epoch is being made durable.
    pub(super) fn is_epoch_requested(&self) -> bool {
        self.durable.requested.is_some_and(|(_, epoch)| Some(epoch) == self.epoch)
    }

    /// Notes that the newest known leader epoch is being made durable. Returns the epoch, if there is one.
    pub(super) fn request_epoch(&mut self, id: MoveId) -> Option<i32> {
        let newest = self.epoch.max(self.durable.epoch)?;
        self.durable.requested = Some((id, newest));
        Some(newest)
    }

    /// Notes that a requested epoch is durable.
    pub(super) fn epoch_persisted(&mut self, id: MoveId) {
        if let Some((_, epoch)) = self.durable.requested.take_if(|(requested, _)| *requested == id) {
            self.durable.epoch = self.durable.epoch.max(Some(epoch));
        }
    }

    /// Counts a failure of the known leader: it denied its leadership or could not be reached.
    pub(super) fn doubt(&mut self) {
        self.doubts += 1;
        if self.doubts >= DOUBTS_MAX {
            self.doubts = 0;
            self.epoch = None;
        }
    }

    /// Notes an acceptance. `knows_stamp` is whether the leader certainly keeps the producer id after it.
    pub(super) fn accepted(&mut self, stamp: Stamp, knows_stamp: bool, now: Instant) {
        self.doubts = 0;
        let last = Acceptance { producer_id: stamp.producer_id, epoch: stamp.epoch, at: now };
        self.trust = if knows_stamp { LeaderTrust::Pipelining(last) } else { LeaderTrust::None };
    }

    /// Notes that the leader knows this producer id: its state or its answer shows it. The next acceptance of this leader proves
    /// earlier batches.
    pub(super) fn knows(&mut self, stamp: Stamp, now: Instant) {
        self.trust = LeaderTrust::Shown(Acceptance { producer_id: stamp.producer_id, epoch: stamp.epoch, at: now });
    }

    /// Returns to one batch in flight. Acceptances still prove earlier batches.
    pub(super) fn stop_pipelining(&mut self) {
        if let LeaderTrust::Pipelining(last) = self.trust {
            self.trust = LeaderTrust::Accepted(last);
        }
    }

    /// Notes that the leader may forget the producer id, or that an acceptance proves nothing any more.
    pub(super) fn forget_acceptance(&mut self) {
        self.trust = LeaderTrust::None;
    }

    /// Returns whether several batches may be in flight.
    pub(super) fn is_pipelining(&self, now: Instant) -> bool {
        matches!(self.trust, LeaderTrust::Pipelining(last) if last.is_recent(now))
    }

    /// Returns whether the last acceptance was under another producer id than this one.
    pub(super) fn trusts_another_id(&self, producer_id: Option<i64>) -> bool {
        self.trust.acceptance().is_some_and(|last| Some(last.producer_id) != producer_id)
    }

    /// Returns whether the last acceptance was under this producer id and epoch.
    pub(super) fn has_accepted(&self, producer_id: i64, epoch: i16) -> bool {
        self.trust.acceptance().is_some_and(|last| last.producer_id == producer_id && last.epoch == epoch)
    }

    /// Returns whether the leader knew this producer id before. It then accepts only the expected sequence number, so
    /// an acceptance proves all earlier batches. A leader that does not know the id, or forgot it while nothing was
    /// sent, accepts any sequence number.
    pub(super) fn knew(&self, producer_id: i64, now: Instant) -> bool {
        self.trust.acceptance().is_some_and(|last| last.producer_id == producer_id && last.is_recent(now))
    }

    /// Returns whether the leader knew this producer id before, and its acceptances show it.
    pub(super) fn knew_at_acceptance(&self, producer_id: i64, now: Instant) -> bool {
        self.knew(producer_id, now) && !matches!(self.trust, LeaderTrust::Shown(_))
    }

    /// Returns whether several batches may be in flight, unless the last acceptance is too old.
    pub(super) fn is_pipelining_at_all(&self) -> bool {
        matches!(self.trust, LeaderTrust::Pipelining(_))
    }

    /// Returns whether the leader is trusted at all.
    pub(super) fn is_trusted(&self) -> bool {
        self.trust != LeaderTrust::None
    }
}

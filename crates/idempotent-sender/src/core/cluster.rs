//! Brokers, connections, and the requests in flight on them.
//!
//! Rules:
//!  - This module holds plain state.
//!  - `schedule` decides which batch is sent on which connection. `connections` and `sender` react to answers and
//!    failures.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use kafka_courier_client::{BrokerAddress, BrokerId, PartitionId, Reason};

use super::outage::Outage;
use super::partition::PartitionSender;
use super::types::{ConnId, RequestId};

/// An entry of a partition in a ready list. The entry is valid only while the generation of the partition is the same.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ReadyPartition {
    pub(crate) partition: PartitionId,
    pub(crate) generation: u32,
    /// Bytes of the next batch when the entry was made. The entry adds these bytes to the load of a connection.
    pub(crate) len: usize,
}

/// A request that waits for its answer.
#[derive(Debug)]
pub(crate) struct InFlightRequest {
    pub(crate) id: RequestId,
    pub(crate) sent_at: Instant,
    /// The time at which the socket took the last byte of the request.
    pub(crate) written_at: Option<Instant>,
    pub(crate) bytes: usize,
    /// The partitions with a batch in the request.
    pub(crate) parts: Vec<ReadyPartition>,
}

/// A connection to a broker.
#[derive(Debug)]
pub(crate) struct BrokerConn {
    pub(crate) broker: BrokerId,
    pub(crate) up: bool,
    pub(crate) inflight: VecDeque<InFlightRequest>,
    /// Partitions that are bound to this connection and have something to send.
    pub(crate) ready: VecDeque<ReadyPartition>,
    /// Bytes in flight, plus the bytes of the batches that wait on this connection.
    pub(crate) load: usize,
    pub(crate) last_answer: Option<Instant>,
    pub(crate) last_used: Instant,
    /// The time to replace the connection, shortly before the session with the broker ends.
    pub(crate) replace_at: Option<Instant>,
    /// Whether the connection takes no new requests. It is closed once nothing is in flight on it.
    pub(crate) retiring: bool,
    /// The earliest timer that is set.
    pub(crate) armed: Option<Instant>,
}

/// A broker that the cluster named.
#[derive(Debug)]
pub(crate) struct KnownBroker {
    pub(crate) address: BrokerAddress,
    pub(crate) conns: Vec<ConnId>,
    /// Partitions that have something to send and nothing in flight.
    pub(crate) ready: VecDeque<ReadyPartition>,
    pub(crate) failures: u32,
    pub(crate) retry_at: Option<Instant>,
    /// The refusal that ended the last connection, by the broker or by this client, and its end. No connection is
    /// opened before that end, whatever else happens.
    pub(crate) refusal: Option<(Instant, Reason)>,
    pub(crate) throttled_until: Option<Instant>,
    /// The last throttle time that was not zero.
    pub(crate) last_throttle: Duration,
    pub(crate) dirty: bool,
    /// Whether the last connection was lost or could not be opened, and none has been opened since.
    pub(crate) is_lost: bool,
    /// The first failure since the broker was last reached. An outage counts from this time.
    pub(crate) failing_since: Option<Instant>,
    pub(crate) outage: Option<Outage>,
}

impl KnownBroker {
    pub(crate) fn new(address: BrokerAddress) -> Self {
        Self {
            address,
            conns: Vec::new(),
            ready: VecDeque::new(),
            failures: 0,
            retry_at: None,
            refusal: None,
            throttled_until: None,
            last_throttle: Duration::ZERO,
            dirty: false,
            is_lost: false,
            failing_since: None,
            outage: None,
        }
    }

    /// Returns why no batch may wait for the broker now.
    pub(crate) fn refusal_at(&self, now: Instant) -> Option<&Reason> {
        self.refusal.as_ref().filter(|(until, _)| *until > now).map(|(_, reason)| reason)
    }
}

impl BrokerConn {
    /// Returns whether the connection takes requests.
    pub(crate) fn is_open(&self) -> bool {
        self.up && !self.retiring
    }

    /// Appends a partition to the ready list of this connection.
    pub(crate) fn push_ready(&mut self, ready: ReadyPartition) {
        self.load += ready.len;
        self.ready.push_back(ready);
    }

    pub(crate) fn pop_ready(&mut self) -> Option<ReadyPartition> {
        let ready = self.ready.pop_front()?;
        self.load = self.load.saturating_sub(ready.len);
        Some(ready)
    }

    /// Puts back the entry that was popped last.
    pub(crate) fn unpop_ready(&mut self, ready: ReadyPartition) {
        self.load += ready.len;
        self.ready.push_front(ready);
    }

    pub(crate) fn push_request(&mut self, request: InFlightRequest) {
        self.load += request.bytes;
        self.inflight.push_back(request);
    }

    pub(crate) fn take_request(&mut self, id: RequestId) -> Option<InFlightRequest> {
        let position = self.inflight.iter().position(|request| request.id == id)?;
        let request = self.inflight.remove(position)?;
        self.load = self.load.saturating_sub(request.bytes);
        Some(request)
    }
}

pub(crate) type KnownBrokers = BTreeMap<BrokerId, KnownBroker>;
pub(crate) type BrokerConns = BTreeMap<ConnId, BrokerConn>;

/// A partition and its binding to a connection.
#[derive(Debug)]
pub(crate) struct PartitionLane<T> {
    pub(crate) partition: PartitionSender<T>,
    /// The connection to which the partition is bound while any of its batches is unanswered there.
    pub(crate) conn: Option<ConnId>,
    /// A counter that grows when the leader moves or the connection ends. Entries and answers of an older generation do
    /// not count.
    pub(crate) generation: u32,
    /// Unanswered batches on the bound connection.
    pub(crate) unanswered: u32,
    /// Whether the partition is in a ready list.
    pub(crate) queued: bool,
    /// Whether the partition sends nothing until all its batches are answered, to move to another connection.
    pub(crate) drain: bool,
    /// The earliest timer that is set.
    pub(crate) armed: Option<Instant>,
}

impl<T: Clone> PartitionLane<T> {
    pub(crate) fn new(id: PartitionId) -> Self {
        Self {
            partition: PartitionSender::new(id),
            conn: None,
            generation: 0,
            unanswered: 0,
            queued: false,
            drain: false,
            armed: None,
        }
    }

    /// Unbinds the partition from its connection. Unanswered batches there no longer count.
    pub(crate) fn unbind(&mut self) {
        self.conn = None;
        self.generation = self.generation.wrapping_add(1);
        self.unanswered = 0;
        self.queued = false;
        self.drain = false;
    }

    pub(crate) fn ready(&self) -> ReadyPartition {
        ReadyPartition { partition: self.partition.id, generation: self.generation, len: self.partition.next_len() }
    }
}

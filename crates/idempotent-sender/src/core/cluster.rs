//! Brokers, connections, and what is under way on them.
//!
//! Rules: plain state; `schedule` decides what is sent where, `sender` what happens when something ends.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use super::outage::Outage;
use super::partition::Partition;
use super::types::{BrokerAddress, BrokerId, ConnId, PartitionId, Reason, RequestId};

/// A partition's place in a ready list. It counts only while the partition's generation is the same.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ready {
    pub(crate) partition: PartitionId,
    pub(crate) generation: u32,
    /// Bytes of the batch that went next when it came into the list: what it adds to a connection's load.
    pub(crate) len: usize,
}

/// A request that waits for its answer.
#[derive(Debug)]
pub(crate) struct Request {
    pub(crate) id: RequestId,
    pub(crate) sent_at: Instant,
    /// When the socket took its last byte.
    pub(crate) written_at: Option<Instant>,
    pub(crate) bytes: usize,
    /// The partitions that it holds a batch of.
    pub(crate) parts: Vec<Ready>,
}

#[derive(Debug)]
pub(crate) struct Conn {
    pub(crate) broker: BrokerId,
    pub(crate) up: bool,
    pub(crate) inflight: VecDeque<Request>,
    /// Partitions that are bound to this connection and have something to send.
    pub(crate) ready: VecDeque<Ready>,
    /// Bytes in flight, and of the batches that wait here.
    pub(crate) load: usize,
    pub(crate) last_answer: Option<Instant>,
    pub(crate) last_used: Instant,
    /// When its session with the broker is nearly over.
    pub(crate) replace_at: Option<Instant>,
    /// It takes nothing new: it is closed once it is unused.
    pub(crate) retiring: bool,
    /// The earliest timer that is set for it.
    pub(crate) armed: Option<Instant>,
}

#[derive(Debug)]
pub(crate) struct Broker {
    pub(crate) address: BrokerAddress,
    pub(crate) conns: Vec<ConnId>,
    /// Partitions that have something to send and nothing in flight.
    pub(crate) ready: VecDeque<Ready>,
    pub(crate) failures: u32,
    pub(crate) retry_at: Option<Instant>,
    /// Why it, or we, refused the last connection, and until when it is left alone, whatever else happens.
    pub(crate) refusal: Option<(Instant, Reason)>,
    pub(crate) throttled_until: Option<Instant>,
    /// The last throttle time that was not zero.
    pub(crate) last_throttle: Duration,
    pub(crate) dirty: bool,
    /// Its last connection was lost, or could not be opened, and no connection was opened since.
    pub(crate) is_lost: bool,
    /// Its first failure since it was last reached: its outage counts from here.
    pub(crate) failing_since: Option<Instant>,
    pub(crate) outage: Option<Outage>,
}

impl Broker {
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

    /// Why nobody may wait for it now.
    pub(crate) fn refusal_at(&self, now: Instant) -> Option<&Reason> {
        self.refusal.as_ref().filter(|(until, _)| *until > now).map(|(_, reason)| reason)
    }
}

impl Conn {
    /// Whether it takes requests.
    pub(crate) fn is_open(&self) -> bool {
        self.up && !self.retiring
    }

    /// Puts a partition last among those that have something to send here.
    pub(crate) fn push_ready(&mut self, ready: Ready) {
        self.load += ready.len;
        self.ready.push_back(ready);
    }

    pub(crate) fn pop_ready(&mut self) -> Option<Ready> {
        let ready = self.ready.pop_front()?;
        self.load = self.load.saturating_sub(ready.len);
        Some(ready)
    }

    /// Gives back what was popped last.
    pub(crate) fn unpop_ready(&mut self, ready: Ready) {
        self.load += ready.len;
        self.ready.push_front(ready);
    }

    pub(crate) fn push_request(&mut self, request: Request) {
        self.load += request.bytes;
        self.inflight.push_back(request);
    }

    pub(crate) fn take_request(&mut self, id: RequestId) -> Option<Request> {
        let position = self.inflight.iter().position(|request| request.id == id)?;
        let request = self.inflight.remove(position)?;
        self.load = self.load.saturating_sub(request.bytes);
        Some(request)
    }
}

pub(crate) type Brokers = BTreeMap<BrokerId, Broker>;
pub(crate) type Conns = BTreeMap<ConnId, Conn>;

/// A partition, and how it stands to the connections.
#[derive(Debug)]
pub(crate) struct Lane<T> {
    pub(crate) partition: Partition<T>,
    /// The connection that it is bound to while anything of it is unanswered there.
    pub(crate) conn: Option<ConnId>,
    /// Raised when the leader moves or the connection ends: older bindings no longer count.
    pub(crate) generation: u32,
    /// Parts unanswered on the bound connection.
    pub(crate) unanswered: u32,
    /// It stands in a ready list.
    pub(crate) queued: bool,
    /// It sends nothing until nothing of it is unanswered, to move to another connection.
    pub(crate) drain: bool,
    /// The earliest timer that is set for it.
    pub(crate) armed: Option<Instant>,
}

impl<T: Clone> Lane<T> {
    pub(crate) fn new(id: PartitionId) -> Self {
        Self {
            partition: Partition::new(id),
            conn: None,
            generation: 0,
            unanswered: 0,
            queued: false,
            drain: false,
            armed: None,
        }
    }

    /// Frees it from its connection; what is unanswered there no longer counts.
    pub(crate) fn unbind(&mut self) {
        self.conn = None;
        self.generation = self.generation.wrapping_add(1);
        self.unanswered = 0;
        self.queued = false;
        self.drain = false;
    }

    pub(crate) fn ready(&self) -> Ready {
        Ready { partition: self.partition.id, generation: self.generation, len: self.partition.next_len() }
    }
}

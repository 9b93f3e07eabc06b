//! A connection to a broker: its requests in flight, its ready list, and its deadlines.

use std::collections::VecDeque;
use std::time::Instant;

use kafka_courier_client::BrokerId;

use super::super::config::Config;
use super::super::ids::RequestId;
use super::super::lane::ReadyPartition;

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
    broker: BrokerId,
    up: bool,
    inflight: VecDeque<InFlightRequest>,
    /// Partitions that are bound to this connection and have something to send.
    ready: VecDeque<ReadyPartition>,
    /// Bytes in flight, plus the bytes of the batches that wait on this connection.
    load: usize,
    last_answer: Option<Instant>,
    last_used: Instant,
    /// The time to replace the connection, shortly before the session with the broker ends.
    replace_at: Option<Instant>,
    /// Whether the connection takes no new requests. It is closed once nothing is in flight on it.
    retiring: bool,
    /// The earliest timer that is set.
    armed: Option<Instant>,
}

impl BrokerConn {
    pub(super) fn new(broker: BrokerId, now: Instant) -> Self {
        Self {
            broker,
            up: false,
            inflight: VecDeque::new(),
            ready: VecDeque::new(),
            load: 0,
            last_answer: None,
            last_used: now,
            replace_at: None,
            retiring: false,
            armed: None,
        }
    }

    pub(crate) fn broker(&self) -> BrokerId {
        self.broker
    }

    pub(crate) fn opened(&mut self, now: Instant) {
        self.up = true;
        self.last_used = now;
    }

    /// Returns whether the connection was opened.
    pub(crate) fn is_up(&self) -> bool {
        self.up
    }

    /// Returns whether the connection takes requests.
    pub(crate) fn is_open(&self) -> bool {
        self.up && !self.retiring
    }

    pub(crate) fn is_retiring(&self) -> bool {
        self.retiring
    }

    /// Takes no new requests.
    pub(crate) fn retire(&mut self) {
        self.retiring = true;
    }

    /// Replaces the connection at this time.
    pub(crate) fn replace_at(&mut self, at: Instant) {
        self.replace_at = Some(at);
    }

    /// Returns whether the connection must be replaced now.
    pub(crate) fn is_old(&self, now: Instant) -> bool {
        !self.retiring && self.replace_at.is_some_and(|at| at <= now)
    }

    pub(crate) fn load(&self) -> usize {
        self.load
    }

    pub(crate) fn ready(&self) -> &VecDeque<ReadyPartition> {
        &self.ready
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

    pub(crate) fn inflight(&self) -> &VecDeque<InFlightRequest> {
        &self.inflight
    }

    pub(crate) fn push_request(&mut self, request: InFlightRequest, now: Instant) {
        self.load += request.bytes;
        self.inflight.push_back(request);
        self.last_used = now;
    }

    /// Notes that the socket took the last byte of a request.
    pub(crate) fn written(&mut self, id: RequestId, now: Instant) {
        if let Some(request) = self.inflight.iter_mut().find(|request| request.id == id) {
            request.written_at = Some(now);
        }
    }

    /// Removes a request that was answered.
    pub(crate) fn answered(&mut self, id: RequestId, now: Instant) -> Option<InFlightRequest> {
        let position = self.inflight.iter().position(|request| request.id == id)?;
        let request = self.inflight.remove(position)?;
        self.load = self.load.saturating_sub(request.bytes);
        self.last_answer = Some(now);
        self.last_used = now;
        Some(request)
    }

    /// Returns the time of the next check: the timeout of the oldest request, the idle timeout, or the end of the
    /// session.
    ///
    /// The timeout of a request counts from its last byte or the previous answer, whichever is later, because a broker
    /// answers one request of a connection at a time. It does not run until `throttled`. The end of the session is
    /// fixed.
    pub(super) fn deadline(&self, throttled: Option<Instant>, config: &Config) -> Instant {
        let answered = match self.inflight.front() {
            Some(request) => {
                let written = request.written_at.unwrap_or(request.sent_at);
                let from = [Some(written), self.last_answer, throttled].into_iter().flatten().max().unwrap_or(written);
                from + config.request_timeout
            }
            None => self.last_used + config.idle_timeout,
        };
        self.replace_at.filter(|_| !self.retiring).map_or(answered, |at| at.min(answered))
    }

    /// Notes a timer for this time. Returns whether no earlier timer is set.
    pub(super) fn arm(&mut self, at: Instant) -> bool {
        let is_earlier = self.armed.is_none_or(|armed| at < armed);
        if is_earlier {
            self.armed = Some(at);
        }
        is_earlier
    }

    /// Notes that a timer fired.
    pub(crate) fn disarm(&mut self, now: Instant) {
        self.armed = self.armed.filter(|at| *at > now);
    }
}

//! A broker: its address, its connections, and the pauses after failures, refusals and throttling.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use kafka_courier_client::{BrokerAddress, Reason};

use super::super::ids::ConnId;
use super::super::lane::ReadyPartition;
use super::super::outage::BrokerContact;

/// A broker that the cluster named.
#[derive(Debug)]
pub(crate) struct KnownBroker {
    address: BrokerAddress,
    conns: Vec<ConnId>,
    /// Partitions that have something to send and nothing in flight.
    pub(crate) ready: VecDeque<ReadyPartition>,
    /// Failures in a row.
    failures: u32,
    retry_at: Option<Instant>,
    /// The refusal that ended the last connection, by the broker or by this client, and its end. No connection is
    /// opened before that end, whatever else happens.
    refusal: Option<(Instant, Reason)>,
    throttled_until: Option<Instant>,
    /// The last throttle time that was not zero.
    last_throttle: Duration,
    dirty: bool,
    pub(crate) contact: BrokerContact,
}

impl KnownBroker {
    pub(super) fn new(address: BrokerAddress) -> Self {
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
            contact: BrokerContact::default(),
        }
    }

    pub(crate) fn address(&self) -> &BrokerAddress {
        &self.address
    }

    pub(super) fn learn_address(&mut self, address: &BrokerAddress) {
        if self.address != *address {
            // The broker listens on another address now. Waiting for the old one is pointless.
            self.address = address.clone();
            self.retry_at = None;
            self.failures = 0;
        }
    }

    pub(crate) fn conns(&self) -> &[ConnId] {
        &self.conns
    }

    pub(super) fn add_conn(&mut self, id: ConnId) {
        self.conns.push(id);
    }

    pub(super) fn remove_conn(&mut self, id: ConnId) {
        self.conns.retain(|other| *other != id);
    }

    pub(crate) fn failures(&self) -> u32 {
        self.failures
    }

    /// Counts a failed or lost connection. Returns the number of failures in a row.
    pub(crate) fn failed(&mut self) -> u32 {
        self.failures = self.failures.saturating_add(1);
        self.failures
    }

    /// Opens no connection before this time.
    pub(crate) fn retry_at(&mut self, at: Instant) {
        self.retry_at = Some(at);
    }

    /// Opens no connection before `until`, and fails batches meanwhile.
    pub(crate) fn refused(&mut self, until: Instant, reason: &Reason) {
        self.failed();
        self.refusal = Some((until, reason.clone()));
    }

    /// Returns why no batch may wait for the broker now.
    pub(crate) fn refusal_at(&self, now: Instant) -> Option<&Reason> {
        self.refusal.as_ref().filter(|(until, _)| *until > now).map(|(_, reason)| reason)
    }

    /// Returns whether a new connection must wait.
    pub(super) fn must_wait(&self, now: Instant) -> bool {
        self.retry_at.is_some_and(|at| at > now) || self.refusal_at(now).is_some()
    }

    /// Notes an answer. Returns the end of the pause that the broker asks for.
    pub(crate) fn answered(&mut self, now: Instant, throttle: Duration) -> Option<Instant> {
        self.failures = 0;
        self.retry_at = None;
        if throttle.is_zero() {
            return None;
        }
        let until = now + throttle;
        self.throttled_until = self.throttled_until.max(Some(until));
        self.last_throttle = throttle;
        Some(until)
    }

    pub(crate) fn throttled_until(&self) -> Option<Instant> {
        self.throttled_until
    }

    pub(crate) fn last_throttle(&self) -> Duration {
        self.last_throttle
    }

    /// Returns whether the broker was not marked before.
    pub(super) fn mark_dirty(&mut self) -> bool {
        !std::mem::replace(&mut self.dirty, true)
    }

    pub(crate) fn unmark_dirty(&mut self) {
        self.dirty = false;
    }

    /// Returns whether the broker is kept, although the cluster does not name it.
    pub(super) fn is_kept(&self, now: Instant) -> bool {
        let in_use = !self.conns.is_empty() || !self.ready.is_empty() || self.refusal_at(now).is_some();
        in_use || self.contact.is_remembered(now)
    }
}

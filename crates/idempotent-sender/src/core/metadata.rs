//! Metadata requests: when one is due.
//!
//! Rules:
//!  - One request is in flight at a time. A refresh of all topics waits for the backoff. Old metadata is refreshed
//!    automatically.
//!  - An unknown topic is requested as soon as no request is in flight, whatever the backoff of the refresh. All
//!    unknown topics share the request. A missing topic has its own backoff and delays no other topic.
//!  - While no broker answers, nothing is requested before the backoff ends.

use std::sync::Arc;
use std::time::{Duration, Instant};

/// The request in flight.
#[derive(Clone, Copy, Debug)]
pub(crate) struct InFlightMetadata {
    pub(crate) at: Instant,
    /// Whether the request names every topic, not only the unknown ones.
    pub(crate) all: bool,
}

/// The requests for metadata.
#[derive(Debug, Default)]
pub(crate) struct MetadataRequests {
    /// Whether a refresh of all topics is wanted.
    wanted: bool,
    in_flight: Option<InFlightMetadata>,
    /// The earliest time of the next refresh of all topics.
    not_before: Option<Instant>,
    /// Refreshes in a row that left a partition without a leader or a topic id.
    failures: u32,
    /// The end of the pause after no broker answered, or after a refusal. Nothing is requested before.
    held_until: Option<Instant>,
    /// Requests in a row that no broker answered.
    unanswered: u32,
    /// The earliest time of the next request for an unknown topic.
    next_topic: Option<Instant>,
    stale_at: Option<Instant>,
    /// Why the last request failed.
    last_failure: Option<Arc<str>>,
}

impl MetadataRequests {
    /// Wants a refresh of all topics, after the backoff. Returns the end of the backoff, if it must be awaited.
    pub(crate) fn want(&mut self, now: Instant) -> Option<Instant> {
        if std::mem::replace(&mut self.wanted, true) { None } else { self.not_before.filter(|at| *at > now) }
    }

    /// Wants an unknown topic at this time.
    pub(crate) fn want_topic(&mut self, at: Instant) {
        self.next_topic = Some(self.next_topic.map_or(at, |next| next.min(at)));
    }

    /// Wants a refresh if the metadata is old.
    pub(crate) fn on_timer(&mut self, now: Instant) {
        if self.stale_at.is_some_and(|at| at <= now) {
            self.stale_at = None;
            self.wanted = true;
        }
    }

    /// Returns the request that is due, if one is. The caller handles all other inputs first, so topics that are wanted
    /// together share a request.
    pub(crate) fn take_due(&mut self, now: Instant) -> Option<InFlightMetadata> {
        if self.in_flight.is_some() || self.held_until.is_some_and(|at| at > now) {
            return None;
        }
        let all = self.wanted && self.not_before.is_none_or(|at| at <= now);
        if !all && self.next_topic.is_none_or(|at| at > now) {
            return None;
        }
        self.wanted &= !all;
        self.next_topic = None;
        Some(InFlightMetadata { at: now, all })
    }

    pub(crate) fn sent(&mut self, request: InFlightMetadata) {
        self.in_flight = Some(request);
    }

    /// Returns the request in flight.
    pub(crate) fn in_flight(&self) -> Option<InFlightMetadata> {
        self.in_flight
    }

    /// Notes that a broker answered.
    pub(crate) fn answered(&mut self) {
        self.last_failure = None;
        (self.unanswered, self.held_until) = (0, None);
    }

    /// Ends the answered request. Returns the time at which the metadata is old, if that time is new.
    pub(crate) fn end(&mut self, request: InFlightMetadata, now: Instant, max_age: Duration) -> Option<Instant> {
        self.in_flight = None;
        if !request.all && self.stale_at.is_some() {
            return None;
        }
        self.stale_at = Some(now + max_age);
        self.stale_at
    }

    /// Notes whether a refresh of all topics left a partition without a leader or a topic id. Returns the number of
    /// such refreshes in a row.
    pub(crate) fn refreshed(&mut self, unresolved: bool) -> u32 {
        self.failures = if unresolved { self.failures.saturating_add(1) } else { 0 };
        self.wanted |= unresolved;
        self.failures
    }

    /// Refreshes all topics no earlier than this.
    pub(crate) fn pause(&mut self, until: Instant) {
        self.not_before = Some(until);
    }

    /// Notes that no broker answered. Returns the number of such requests in a row.
    pub(crate) fn unanswered(&mut self, why: Arc<str>) -> u32 {
        self.wanted |= self.in_flight.take().is_none_or(|request| request.all);
        self.unanswered = self.unanswered.saturating_add(1);
        self.last_failure = Some(why);
        self.unanswered
    }

    /// Requests nothing before this time.
    pub(crate) fn hold(&mut self, until: Instant) {
        self.held_until = Some(until);
    }

    /// Notes that the brokers refuse this client, or this client them.
    pub(crate) fn refused(&mut self, retry_at: Instant, stale_at: Instant) {
        self.in_flight = None;
        self.failures = self.failures.saturating_add(1);
        (self.held_until, self.stale_at) = (Some(retry_at), Some(stale_at));
    }

    /// Wants a refresh only if `wants` is true.
    pub(crate) fn set_wanted(&mut self, wants: bool) {
        self.wanted = wants;
    }

    /// Returns why the last request failed.
    pub(crate) fn last_failure(&self) -> Option<&Arc<str>> {
        self.last_failure.as_ref()
    }
}

//! Inputs about the producer id, and the batches that wait for it.
//!
//! Rule: `ProducerIds` decides when an id is requested.

use std::time::Instant;

use kafka_courier_client::refusals::REFUSED_PAUSE;
use kafka_courier_client::{ErrorCode, Reason};

use super::super::timers::Timer;
use super::super::types::Action;
use super::Sender;

impl<T: Clone> Sender<T> {
    /// Handles the producer id that the cluster assigned.
    pub fn on_producer_id(&mut self, now: Instant, producer_id: i64) {
        self.producer_ids.assign(producer_id);
        for id in self.topics.partitions() {
            if self.topics.lane(id).is_some_and(|lane| lane.partition.wants_producer_id()) {
                self.after_lane(id, now);
            }
        }
    }

    /// Handles a failed request for a producer id. `code` is the error of the broker, or `None` if no broker answered.
    pub fn on_producer_id_failed(&mut self, now: Instant, code: Option<ErrorCode>, why: &str) {
        let failures = self.producer_ids.failed();
        let until = now + self.config.backoff.wait(failures, &mut self.jitter);
        self.pause_producer_id(until);
        let reason = match code {
            Some(code) => Reason::Broker { code, message: Some(format!("no producer id: {why}").into()) },
            None => Reason::NoProducerId(why.into()),
        };
        let is_final = code.is_some_and(|code| !code.is_retriable() && code != ErrorCode::UNKNOWN_SERVER_ERROR);
        for id in self.topics.partitions() {
            self.with_lane(id, now, |lane, cx| match lane.partition.wants_producer_id() {
                true if is_final => lane.partition.fail_queue(&reason, cx),
                true => lane.partition.on_no_producer_id(cx.now, &reason),
                false => {}
            });
        }
    }

    /// Handles the refusal of this client by the brokers, or of the brokers by this client. Batches that wait for a
    /// producer id fail immediately with `reason`.
    pub fn on_producer_id_refused(&mut self, now: Instant, reason: &Reason) {
        self.pause_producer_id(now + REFUSED_PAUSE);
        for id in self.topics.partitions() {
            self.with_lane(id, now, |lane, cx| {
                if lane.partition.wants_producer_id() {
                    lane.partition.fail_queue(reason, cx);
                }
            });
        }
    }

    fn pause_producer_id(&mut self, until: Instant) {
        self.producer_ids.pause(until);
        self.timers.set(until, Timer::Identity);
    }

    /// Requests a producer id before the first batch needs one. Does nothing during the pause after a failed request.
    pub fn want_producer_id(&mut self) {
        self.request_producer_id();
    }

    pub(super) fn request_producer_id(&mut self) {
        if self.producer_ids.request() {
            self.out.actions.push_back(Action::InitProducerId);
        }
    }

    pub(super) fn on_producer_id_timer(&mut self, now: Instant) {
        if !self.producer_ids.end_pause(now) {
            return;
        }
        let wants_id =
            self.topics.iter().flat_map(|topic| topic.lanes()).any(|lane| lane.partition.wants_producer_id());
        if wants_id {
            self.request_producer_id();
        }
    }
}

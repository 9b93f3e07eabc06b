//! Events of connections: opened, written, answered, ended.
//!
//! Rules:
//!  - An attempt is open if its whole request was sent and not answered.
//!  - An attempt whose request was not sent whole was never sent.
//!  - The end of a connection proves nothing else.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use kafka_courier_client::refusals::REFUSED_PAUSE;
use kafka_courier_client::{BrokerId, PartitionId, ProduceAnswer, Reason};

use super::super::cluster::{BrokerConn, InFlightRequest};
use super::super::ids::{ConnId, RequestId};
use super::super::outage::OutageCause;
use super::super::timers::Timer;
use super::super::types::Action;
use super::Sender;

impl<T: Clone> Sender<T> {
    /// Handles a connection that is ready for requests.
    pub fn on_connected(&mut self, now: Instant, id: ConnId) {
        let Some(conn) = self.cluster.conn_mut(id) else { return };
        conn.opened(now);
        let broker = conn.broker();
        self.note_reached(now, broker, false);
        self.arm_conn(id);
        self.rebalance_partitions(broker);
        self.cluster.mark_dirty(broker);
    }

    /// Gives a new connection its share of the partitions. Partitions that only wait on older connections are
    /// distributed again. A fair share of the others moves as soon as all their batches are answered.
    fn rebalance_partitions(&mut self, id: BrokerId) {
        let up: Vec<ConnId> = self.cluster.conns_of(id).filter(|(_, conn)| conn.is_open()).map(|(id, _)| id).collect();
        if up.len() < 2 {
            return;
        }
        up.iter().for_each(|conn| self.release_waiting(id, *conn));
        let mut bound = 0usize;
        for partition in self.topics.partitions() {
            let Some(lane) = self.topics.lane_mut(partition) else { continue };
            if lane.conn().is_some_and(|conn| up.contains(&conn)) {
                lane.set_drain(bound.is_multiple_of(up.len()));
                bound += 1;
            }
        }
    }

    /// Releases the partitions that wait on a connection and have nothing unanswered there. Their order does not depend
    /// on that connection.
    fn release_waiting(&mut self, broker: BrokerId, id: ConnId) {
        let Some((broker, conn)) = self.cluster.broker_and_conn(broker, id) else { return };
        for _ in 0..conn.ready().len() {
            let Some(ready) = conn.pop_ready() else { return };
            let Some(lane) = self.topics.current_lane(&ready) else { continue };
            if lane.leave_conn() {
                broker.ready.push_back(ready);
            } else {
                conn.push_ready(ready);
            }
        }
    }

    /// Notes that the socket took the last byte of a request.
    pub fn on_written(&mut self, now: Instant, id: ConnId, request: RequestId) {
        if let Some(conn) = self.cluster.conn_mut(id) {
            conn.written(request, now);
        }
    }

    /// Handles the answer to a request.
    pub fn on_answer(&mut self, now: Instant, id: ConnId, request: RequestId, answer: ProduceAnswer) {
        let Some(conn) = self.cluster.conn_mut(id) else { return };
        let Some(sent) = conn.answered(request, now) else { return };
        let broker = conn.broker();
        self.learn_leaders(now, &answer);
        self.note_answered(broker, &answer, now);
        let mut answers = answer.parts.into_iter();
        for part in sent.parts {
            let answer = answers.next().flatten();
            self.with_lane(part.partition, now, |lane, cx| {
                let leader = lane.partition.leader();
                if lane.is_current(&part) {
                    lane.answered();
                }
                match &answer {
                    Some(answer) => lane.partition.on_answer(sent.id, answer, cx),
                    None => {
                        let why: Arc<str> = "the broker's answer omits the partition".into();
                        let current = lane.partition.on_lost(sent.id, true, &why);
                        lane.partition.after_loss(current, cx);
                    }
                }
                if lane.partition.leader() != leader || (lane.is_answered() && !lane.is_queued()) {
                    lane.unbind();
                }
            });
        }
        self.close_retired(now, id);
        self.cluster.mark_dirty(broker);
    }

    /// Adopts the addresses of the leaders that an answer names. Memory is kept for each broker, so addresses of other
    /// brokers are ignored.
    fn learn_leaders(&mut self, now: Instant, answer: &ProduceAnswer) {
        if answer.brokers.is_empty() {
            return;
        }
        let parts = answer.parts.iter().flatten();
        let named: Vec<BrokerId> = parts.filter_map(|part| part.leader).map(|(id, _)| id).collect();
        let leaders: Vec<_> = answer.brokers.iter().filter(|address| named.contains(&address.id)).cloned().collect();
        self.learn_brokers(now, &leaders, false);
    }

    fn note_answered(&mut self, id: BrokerId, answer: &ProduceAnswer, now: Instant) {
        let Some(broker) = self.cluster.broker_mut(id) else { return };
        if let Some(until) = broker.answered(now, answer.throttle) {
            self.out.counters.throttled += answer.throttle;
            self.timers.set(until, Timer::Broker(id));
        }
        if broker.contact.outage_since().is_some() {
            self.note_reached(now, id, true);
        }
    }

    /// Handles a connection that could not be opened, or that ended.
    pub fn on_disconnected(&mut self, now: Instant, id: ConnId, why: &str) {
        let Some(conn) = self.cluster.remove_conn(id) else { return };
        let why: Arc<str> = why.into();
        if let Some(broker) = self.cluster.broker_mut(conn.broker()) {
            let at = now + self.config.backoff.wait(broker.failed(), &mut self.jitter);
            broker.retry_at(at);
            self.timers.set(at, Timer::Broker(conn.broker()));
        }
        if conn.is_up() {
            self.release_lanes(&conn, now, &why);
        } else {
            self.note_unreachable(conn.broker(), now, why.clone());
        }
        self.note_disconnected(now, &conn, &why);
        self.want_metadata(now);
        self.cluster.mark_dirty(conn.broker());
    }

    /// Notes for the waiting partitions that their broker could not be reached.
    fn note_unreachable(&mut self, id: BrokerId, now: Instant, why: Arc<str>) {
        let Some(broker) = self.cluster.broker(id) else { return };
        let reason = Reason::NotAvailable(why);
        for ready in &broker.ready {
            if let Some(lane) = self.topics.current_lane(ready) {
                lane.partition.doubt_leader();
                lane.partition.on_unreachable(now, &reason);
            }
        }
    }

    /// Handles a connection that the broker or this client refused. A retry does not change that, so batches that wait
    /// for the broker fail immediately.
    pub fn on_refused(&mut self, now: Instant, id: ConnId, reason: &Reason) {
        let Some(conn) = self.cluster.remove_conn(id) else { return };
        let Some(broker) = self.cluster.broker_mut(conn.broker()) else { return };
        let at = now + REFUSED_PAUSE;
        broker.refused(at, reason);
        self.timers.set(at, Timer::Broker(conn.broker()));
        self.note_disconnected(now, &conn, &reason.to_string().into());
        self.cluster.mark_dirty(conn.broker());
    }

    /// Notes that the session of a connection ends soon after `at` (KIP-368). The connection is replaced then.
    pub fn on_session(&mut self, at: Instant, id: ConnId) {
        if let Some(conn) = self.cluster.conn_mut(id) {
            conn.replace_at(at);
            self.arm_conn(id);
        }
    }

    /// Retires a connection: it takes no new requests. Partitions leave it once nothing of theirs is unanswered there.
    fn retire(&mut self, now: Instant, id: ConnId) {
        let Some(conn) = self.cluster.conn_mut(id) else { return };
        conn.retire();
        self.out.counters.sessions_replaced += 1;
        let broker = conn.broker();
        for partition in self.topics.partitions() {
            let bound = self.topics.lane_mut(partition).filter(|lane| lane.conn() == Some(id) && lane.is_answered());
            if let Some(lane) = bound {
                lane.unbind();
                self.after_lane(partition, now);
            }
        }
        self.close_retired(now, id);
        self.arm_conn(id);
        self.cluster.mark_dirty(broker);
    }

    /// Closes a retired connection once nothing is in flight on it.
    fn close_retired(&mut self, now: Instant, id: ConnId) {
        if self.cluster.conn(id).is_some_and(|conn| conn.is_retiring() && conn.inflight().is_empty()) {
            self.close_idle(now, id);
        }
    }

    fn release_lanes(&mut self, conn: &BrokerConn, now: Instant, why: &Arc<str>) {
        // Whether the connection carried the outstanding attempt of a partition, or only abandoned ones.
        let mut touched: BTreeMap<PartitionId, bool> = BTreeMap::new();
        for InFlightRequest { id, written_at, parts, .. } in conn.inflight() {
            for part in parts {
                let Some(lane) = self.topics.lane_mut(part.partition) else { continue };
                *touched.entry(part.partition).or_default() |= lane.partition.on_lost(*id, written_at.is_some(), why);
                if lane.is_current(part) {
                    lane.unbind();
                }
            }
        }
        self.release_ready(conn, now);
        for (partition, current) in touched {
            self.with_lane(partition, now, |lane, cx| lane.partition.after_loss(current, cx));
        }
    }

    /// Checks whether the oldest request of a connection timed out, the session is about to end, or the connection has
    /// been idle for nearly as long as the broker allows.
    pub(super) fn check_conn(&mut self, now: Instant, id: ConnId) {
        let Some(conn) = self.cluster.conn_mut(id) else { return };
        conn.disarm(now);
        let Some(conn) = self.cluster.conn(id) else { return };
        let due = self.cluster.conn_deadline(conn, &self.config) <= now;
        if !due {
            self.arm_conn(id);
        } else if conn.is_old(now) {
            self.retire(now, id);
        } else if conn.inflight().is_empty() {
            self.close_idle(now, id);
        } else {
            let (broker, why) = (conn.broker(), format!("no answer within {:?}", self.config.request_timeout));
            self.out.actions.push_back(Action::Disconnect { conn: id });
            self.on_disconnected(now, id, &why);
            self.begin_outage(now, broker, OutageCause::NoAnswer, &why.into());
        }
    }

    /// Sets the timer of a connection.
    pub(super) fn arm_conn(&mut self, id: ConnId) {
        if let Some(at) = self.cluster.arm_conn(id, &self.config) {
            self.timers.set(at, Timer::Conn(id));
        }
    }

    fn close_idle(&mut self, now: Instant, id: ConnId) {
        let Some(conn) = self.cluster.remove_conn(id) else { return };
        self.release_ready(&conn, now);
        self.out.actions.push_back(Action::Disconnect { conn: id });
    }

    /// Releases the partitions that wait on a connection that ended.
    fn release_ready(&mut self, conn: &BrokerConn, now: Instant) {
        for ready in conn.ready() {
            if let Some(lane) = self.topics.current_lane(ready) {
                lane.unbind();
            }
            self.after_lane(ready.partition, now);
        }
    }
}

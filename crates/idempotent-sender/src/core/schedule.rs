//! The schedule: which batch is sent on which connection, and when.
//!
//! Rules:
//!  - A partition is bound to one connection while any of its batches is unanswered there. This keeps their order.
//!  - A request holds at most one batch of a partition (Produce v3 and newer), and at most `max_request_bytes`.
//!  - Another connection to a broker is opened while the least loaded one is busy. A partition with nothing in flight
//!    moves to the new connection immediately. Any other partition moves once its batches are answered.
//!  - The work is proportional to the number of ready partitions, not of all partitions.

#[cfg(test)]
mod tests;

use std::time::Instant;

use kafka_courier_client::{BrokerId, PartitionId, ProducePart, Reason};

use super::cluster::{BrokerConn, InFlightRequest, KnownBroker, ReadyPartition};
use super::effects::Context;
use super::sender::Sender;
use super::timers::Timer;
use super::types::{Action, ConnId, RequestId};

/// The load from which a connection is busy, so that another connection pays off. A whole request also makes it busy.
const BUSY_BYTES: usize = 512 << 10;

/// The next batch of a partition for the request that is being built.
enum NextPart {
    Part(ProducePart, PartFollowUp),
    Nothing,
    Full,
}

/// The next step after a batch was added to a request.
struct PartFollowUp {
    /// The partition has more to send.
    more: bool,
    /// The batch must be alone in its request.
    solo: bool,
}

impl<T: Clone> Sender<T> {
    pub(super) fn mark_dirty(&mut self, id: BrokerId) {
        if let Some(broker) = self.brokers.get_mut(&id)
            && !std::mem::replace(&mut broker.dirty, true)
        {
            self.dirty.push(id);
        }
    }

    /// Appends a partition that has something to send to the ready list of its connection or its leader.
    pub(super) fn make_ready(&mut self, id: PartitionId) {
        let Some(lane) = self.topics.lane_mut(id) else { return };
        let Some(leader) = lane.partition.leader() else { return };
        let ready = lane.ready();
        match lane.conn.and_then(|conn| self.conns.get_mut(&conn)) {
            Some(conn) => conn.push_ready(ready),
            None => {
                lane.conn = None;
                let Some(broker) = self.brokers.get_mut(&leader) else {
                    self.out.refresh_metadata = true;
                    return;
                };
                broker.ready.push_back(ready);
            }
        }
        lane.queued = true;
        self.mark_dirty(leader);
    }

    /// Sends everything that may be sent to a broker now.
    pub(super) fn pump(&mut self, id: BrokerId, now: Instant) {
        let Some(broker) = self.brokers.get_mut(&id) else { return };
        broker.dirty = false;
        if broker.throttled_until.is_some_and(|until| until > now) {
            return;
        }
        self.bind_ready(id, now);
        let conns = self.brokers.get(&id).map(|broker| broker.conns.clone()).unwrap_or_default();
        for conn in conns {
            while self.send_next(conn, now) {}
        }
    }

    /// Binds each free partition that is ready to the least loaded connection.
    fn bind_ready(&mut self, id: BrokerId, now: Instant) {
        loop {
            let Some(ready) = self.brokers.get_mut(&id).and_then(|broker| broker.ready.pop_front()) else { return };
            let Some(lane) = self.topics.lane_mut(ready.partition).filter(|l| l.generation == ready.generation) else {
                continue;
            };
            let Some(broker) = self.brokers.get_mut(&id) else { return };
            let up = broker.conns.iter().filter(|c| self.conns.get(c).is_some_and(BrokerConn::is_open));
            let Some(least) = up.min_by_key(|c| self.conns.get(c).map_or(usize::MAX, |conn| conn.load)).copied() else {
                if let Some(reason) = broker.refusal_at(now).cloned() {
                    self.refuse_lane(ready.partition, &reason, now);
                    continue;
                }
                broker.ready.push_front(ready);
                self.connect(id, now);
                return;
            };
            lane.conn = Some(least);
            if let Some(conn) = self.conns.get_mut(&least) {
                conn.push_ready(ready);
            }
        }
    }

    /// Fails the waiting batches of a partition whose leader refuses this client.
    pub(super) fn refuse_lane(&mut self, id: PartitionId, reason: &Reason, now: Instant) {
        self.with_lane(id, now, |lane, cx| {
            lane.unbind();
            lane.partition.refuse(reason, cx);
        });
    }

    /// Opens a connection, unless one is being opened, the limit is reached, or the pause has not ended.
    fn connect(&mut self, id: BrokerId, now: Instant) {
        let Some(broker) = self.brokers.get_mut(&id) else { return };
        let opening = broker.conns.iter().any(|c| self.conns.get(c).is_some_and(|conn| !conn.up));
        let kept = broker.conns.iter().filter(|c| self.conns.get(c).is_some_and(|conn| !conn.retiring)).count();
        let enough = kept >= self.config.connections_per_broker as usize;
        let too_early = broker.retry_at.is_some_and(|at| at > now) || broker.refusal_at(now).is_some();
        if opening || enough || too_early {
            return;
        }
        self.next_conn += 1;
        let conn = ConnId(self.next_conn);
        broker.conns.push(conn);
        let address = broker.address.clone();
        self.conns.insert(conn, BrokerConn::new(id, now));
        self.out.actions.push_back(Action::Connect { conn, address });
    }

    /// Builds one request for a connection and sends it. Returns whether a request was sent.
    fn send_next(&mut self, id: ConnId, now: Instant) -> bool {
        let max_in_flight = self.config.max_in_flight as usize;
        let Some(conn) = self.conns.get(&id) else { return false };
        if !conn.is_open() || conn.ready.is_empty() || conn.inflight.len() >= max_in_flight {
            return false;
        }
        self.next_request += 1;
        let request = RequestId(self.next_request);
        let (mut parts, mut sent, mut again, mut bytes) = (Vec::new(), Vec::new(), Vec::new(), 0);
        while let Some(ready) = self.conns.get_mut(&id).and_then(|conn| conn.pop_ready()) {
            match self.take_from(ready, request, bytes, now) {
                NextPart::Part(part, next) => {
                    bytes += part.batch.len();
                    parts.push(part);
                    sent.push(ready);
                    if next.more {
                        again.push(ready.partition);
                    }
                    if next.solo {
                        break;
                    }
                }
                NextPart::Nothing => {}
                NextPart::Full => {
                    if let Some(conn) = self.conns.get_mut(&id) {
                        conn.unpop_ready(ready);
                    }
                    break;
                }
            }
        }
        for partition in again {
            self.after_lane(partition, now);
        }
        let done = !parts.is_empty();
        if done {
            self.dispatch(
                id,
                InFlightRequest { id: request, sent_at: now, written_at: None, bytes, parts: sent },
                parts,
                now,
            );
        }
        done
    }

    /// Adds the next batch of a partition to the request that is being built, if the batch may be sent and fits.
    fn take_from(&mut self, ready: ReadyPartition, request: RequestId, bytes: usize, now: Instant) -> NextPart {
        let producer_id = self.producer_id();
        let Some(topic) = self.topics.get_mut(ready.partition.topic) else { return NextPart::Nothing };
        let (name, uuid) = (topic.name.clone(), topic.uuid);
        let index = usize::try_from(ready.partition.index).unwrap_or(usize::MAX);
        let Some(lane) = topic.lanes.get_mut(index).filter(|l| l.generation == ready.generation) else {
            return NextPart::Nothing;
        };
        let held = lane.unanswered >= self.config.max_in_flight || (lane.drain && lane.unanswered > 0);
        if held {
            lane.queued = false;
            return NextPart::Nothing;
        }
        if bytes > 0 && (lane.partition.is_solo() || bytes + lane.partition.next_len() > self.config.max_request_bytes)
        {
            return NextPart::Full;
        }
        lane.queued = false;
        let mut cx = Context { now, config: &self.config, jitter: &mut self.jitter, out: &mut self.out, producer_id };
        let Some(outgoing) = lane.partition.next_outgoing(request, &mut cx) else {
            if lane.unanswered == 0 {
                lane.unbind();
            }
            return NextPart::Nothing;
        };
        lane.unanswered += 1;
        let again = PartFollowUp { more: lane.partition.has_unsent(), solo: outgoing.solo };
        let part = ProducePart { partition: ready.partition, topic: name, topic_uuid: uuid, batch: outgoing.batch };
        NextPart::Part(part, again)
    }

    fn dispatch(&mut self, id: ConnId, request: InFlightRequest, parts: Vec<ProducePart>, now: Instant) {
        self.out.counters.requests += 1;
        let busy_bytes = self.busy_bytes();
        let Some(conn) = self.conns.get_mut(&id) else { return };
        self.out.actions.push_back(Action::Send { conn: id, request: request.id, parts });
        conn.push_request(request);
        conn.last_used = now;
        let (broker, busy) = (conn.broker, conn.load >= busy_bytes);
        self.arm_conn(id);
        if busy {
            self.connect_another(broker, now);
        }
    }

    fn busy_bytes(&self) -> usize {
        BUSY_BYTES.min(self.config.max_request_bytes)
    }

    /// Opens another connection if all connections are busy.
    fn connect_another(&mut self, id: BrokerId, now: Instant) {
        let busy_bytes = self.busy_bytes();
        let all_busy = self.brokers.get(&id).is_some_and(|broker| {
            broker.conns.iter().all(|c| self.conns.get(c).is_some_and(|conn| conn.load >= busy_bytes))
        });
        if all_busy {
            self.connect(id, now);
        }
    }

    /// Sets the timer of a connection: the timeout of its oldest request, its idle timeout, or the end of its session.
    pub(super) fn arm_conn(&mut self, id: ConnId) {
        let Some(conn) = self.conns.get(&id) else { return };
        let at = self.conn_deadline(conn);
        if let Some(conn) = self.conns.get_mut(&id).filter(|conn| conn.armed.is_none_or(|armed| at < armed)) {
            conn.armed = Some(at);
            self.timers.set(at, Timer::Conn(id));
        }
    }

    /// Returns the time of the next check of a connection.
    ///
    /// The timeout of a request counts from its last byte or the previous answer, whichever is later, because a broker
    /// answers one request of a connection at a time. It does not run while the broker throttles this client. The end
    /// of the session is fixed.
    pub(super) fn conn_deadline(&self, conn: &BrokerConn) -> Instant {
        let throttled = self.brokers.get(&conn.broker).and_then(|broker: &KnownBroker| broker.throttled_until);
        let answered = match conn.inflight.front() {
            Some(request) => {
                let written = request.written_at.unwrap_or(request.sent_at);
                let from = [Some(written), conn.last_answer, throttled].into_iter().flatten().max().unwrap_or(written);
                from + self.config.request_timeout
            }
            None => conn.last_used + self.config.idle_timeout,
        };
        conn.replace_at.filter(|_| !conn.retiring).map_or(answered, |at| at.min(answered))
    }
}

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

use super::super::cluster::{InFlightRequest, KnownCluster};
use super::super::effects::Context;
use super::super::ids::{ConnId, RequestId};
use super::super::lane::ReadyPartition;
use super::super::types::Action;
use super::Sender;

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
    /// Appends a partition that has something to send to the ready list of its connection or its leader.
    pub(super) fn make_ready(&mut self, id: PartitionId) {
        let Some(lane) = self.topics.lane_mut(id) else { return };
        let Some(leader) = lane.partition.leader() else { return };
        let ready = lane.ready();
        match lane.conn().and_then(|conn| self.cluster.conn_mut(conn)) {
            Some(conn) => conn.push_ready(ready),
            None => {
                lane.forget_conn();
                let Some(broker) = self.cluster.broker_mut(leader) else {
                    self.out.refresh_metadata = true;
                    return;
                };
                broker.ready.push_back(ready);
            }
        }
        lane.set_queued(true);
        self.cluster.mark_dirty(leader);
    }

    /// Sends everything that may be sent to a broker now.
    pub(super) fn pump(&mut self, id: BrokerId, now: Instant) {
        let Some(broker) = self.cluster.broker_mut(id) else { return };
        broker.unmark_dirty();
        if broker.throttled_until().is_some_and(|until| until > now) {
            return;
        }
        self.bind_ready(id, now);
        let conns = self.cluster.broker(id).map(|broker| broker.conns().to_vec()).unwrap_or_default();
        for conn in conns {
            while self.send_next(conn, now) {}
        }
    }

    /// Binds each free partition that is ready to the least loaded connection.
    fn bind_ready(&mut self, id: BrokerId, now: Instant) {
        loop {
            let Some(ready) = self.cluster.broker_mut(id).and_then(|broker| broker.ready.pop_front()) else { return };
            let Some(lane) = self.topics.current_lane(&ready) else { continue };
            let Some(least) = self.cluster.least_loaded(id) else {
                let Some(broker) = self.cluster.broker_mut(id) else { return };
                if let Some(reason) = broker.refusal_at(now).cloned() {
                    self.refuse_lane(ready.partition, &reason, now);
                    continue;
                }
                broker.ready.push_front(ready);
                self.connect(id, now);
                return;
            };
            lane.bind(least);
            if let Some(conn) = self.cluster.conn_mut(least) {
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
        let added = self.cluster.add_conn(id, self.config.connections_per_broker, now);
        self.out.actions.extend(added.map(|(conn, address)| Action::Connect { conn, address }));
    }

    /// Builds one request for a connection and sends it. Returns whether a request was sent.
    fn send_next(&mut self, id: ConnId, now: Instant) -> bool {
        let max_in_flight = self.config.max_in_flight as usize;
        let Some(conn) = self.cluster.conn(id) else { return false };
        if !conn.is_open() || conn.ready().is_empty() || conn.inflight().len() >= max_in_flight {
            return false;
        }
        let request = self.cluster.new_request();
        let (mut parts, mut sent, mut again, mut bytes) = (Vec::new(), Vec::new(), Vec::new(), 0);
        while let Some(ready) = self.cluster.conn_mut(id).and_then(|conn| conn.pop_ready()) {
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
                    if let Some(conn) = self.cluster.conn_mut(id) {
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
        let producer_id = self.producer_ids.assigned();
        let Some(topic) = self.topics.get_mut(ready.partition.topic) else { return NextPart::Nothing };
        let Some((lane, name, uuid)) =
            topic.lane_mut(ready.partition.index).filter(|(lane, ..)| lane.is_current(&ready))
        else {
            return NextPart::Nothing;
        };
        if lane.is_held(self.config.max_in_flight) {
            lane.set_queued(false);
            return NextPart::Nothing;
        }
        if bytes > 0 && (lane.partition.is_solo() || bytes + lane.partition.next_len() > self.config.max_request_bytes)
        {
            return NextPart::Full;
        }
        lane.set_queued(false);
        let (config, jitter, out) = (&self.config, &mut self.jitter, &mut self.out);
        let mut cx = Context { now, wall_clock: self.wall_clock, config, jitter, out, producer_id };
        let Some(outgoing) = lane.partition.next_outgoing(request, &mut cx) else {
            if lane.is_answered() {
                lane.unbind();
            }
            return NextPart::Nothing;
        };
        lane.sent();
        let again = PartFollowUp { more: lane.partition.has_unsent(), solo: outgoing.solo };
        let part =
            ProducePart { partition: ready.partition, topic: name.clone(), topic_uuid: uuid, batch: outgoing.batch };
        NextPart::Part(part, again)
    }

    fn dispatch(&mut self, id: ConnId, request: InFlightRequest, parts: Vec<ProducePart>, now: Instant) {
        self.out.counters.requests += 1;
        let Some(conn) = self.cluster.conn_mut(id) else { return };
        self.out.actions.push_back(Action::Send { conn: id, request: request.id, parts });
        conn.push_request(request, now);
        let (broker, busy) = (conn.broker(), KnownCluster::is_busy(conn, &self.config));
        self.arm_conn(id);
        if busy {
            self.connect_another(broker, now);
        }
    }

    /// Opens another connection if all connections are busy.
    fn connect_another(&mut self, id: BrokerId, now: Instant) {
        if self.cluster.is_all_busy(id, &self.config) {
            self.connect(id, now);
        }
    }
}

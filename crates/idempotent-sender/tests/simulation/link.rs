//! Connections between the sender and the model's brokers.
//!
//! Rules:
//! - A connection delivers in order in both directions. A loss affects all later messages too.
//! - The broker may still read completely written requests of a connection that the client has closed.
//! - A request never arrives if the connection ends before the socket took the request's last byte.

use std::collections::VecDeque;

use kafka_courier_client::{ProduceAnswer, ProducePart};
use kafka_courier_idempotent_sender::core::{ConnId, RequestId};

use crate::cluster::{MS, Micros, SECOND};
use crate::controller::refusal;
use crate::known_leaders::KnownLeaders;
use crate::world::{Event, World};

#[derive(Debug)]
struct Sent {
    id: RequestId,
    parts: Vec<ProducePart>,
    sent_at: Micros,
    written: bool,
    /// The request will not arrive.
    lost: bool,
}

#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) broker: usize,
    /// The broker's incarnation when the connection was opened.
    pub(crate) incarnation: u32,
    /// The client has neither closed the connection nor noticed its end.
    pub(crate) client_open: bool,
    /// The connection delivers nothing more.
    pub(crate) cut: bool,
    /// The requests on their way to the broker.
    in_transit: VecDeque<Sent>,
    /// The requests that have arrived and are not served, each with the time at which it was sent.
    pub(crate) inbox: VecDeque<(RequestId, Vec<ProducePart>, Micros)>,
    /// The broker serves a request. It serves one request of a connection at a time.
    pub(crate) busy: bool,
    pub(crate) muted_until: Micros,
    answers_lost: bool,
    last_written: Micros,
    last_arrival: Micros,
    last_answer: Micros,
    /// The time of the last request or answer at the broker.
    used_at: Micros,
}

impl World {
    pub(crate) fn latency(&mut self, broker: usize) -> Micros {
        let (least, most) = self.plan.rules.latency;
        let slow = if self.brokers[broker].slow_until > self.now { self.brokers[broker].added_latency } else { 0 };
        if slow > 0 {
            self.note_effect("slow_link", broker);
        }
        self.rng.range(least..most) + if slow > 0 { self.rng.range(slow / 2..slow) } else { 0 }
    }

    /// Opens a connection. Returns an error if the sender did not back off after refused credentials, or exceeds its
    /// limit of connections.
    pub(crate) fn connect(&mut self, conn: ConnId, broker: usize) -> Result<(), String> {
        let target = &self.brokers[broker];
        if target.credentials_refused_at.is_some_and(|at| self.now < at + Self::refusal_pause()) {
            return Err(format!("broker {broker} is connected to without backoff after refused credentials"));
        }
        let open = self.links.values().filter(|link| link.broker == broker && link.client_open).count();
        if self.plan.rules.session.is_none() && open >= self.plan.config.connections_per_broker as usize {
            return Err(format!("one connection more to broker {broker} than the allowed {open}"));
        }
        let target = &self.brokers[broker];
        let ok = target.runs() && target.refuses_until <= self.now && target.stalls_until <= self.now;
        let incarnation = target.incarnation;
        if target.refuses_until > self.now {
            self.note_effect("refused_connections", broker);
        }
        if self.brokers[broker].stalls_until > self.now {
            self.note_effect("stalled_requests", broker);
        }
        let target = &self.brokers[broker];
        let wait = if target.up && !ok { self.rng.range(MS..2000 * MS) } else { self.latency(broker) };
        self.trace(|| format!("connect {conn:?} to {broker}: {ok}"));
        let link = Link {
            broker,
            incarnation,
            client_open: true,
            cut: !ok,
            in_transit: VecDeque::new(),
            inbox: VecDeque::new(),
            busy: false,
            muted_until: 0,
            answers_lost: false,
            last_written: 0,
            last_arrival: 0,
            last_answer: 0,
            used_at: self.now,
        };
        self.links.insert(conn, link);
        self.schedule_after(self.plan.rules.idle_max, Event::IdleCheck(conn));
        self.schedule_after(wait, Event::Connected(conn, ok));
        Ok(())
    }

    pub(crate) fn finish_connect(&mut self, conn: ConnId, ok: bool) {
        let now = self.instant();
        let Some(link) = self.links.get(&conn) else { return };
        let broker = link.broker;
        let trusted = self.brokers[broker].refuses_credentials_until <= self.now;
        let reached = ok && !link.cut && link.client_open && self.brokers[broker].incarnation == link.incarnation;
        if reached && trusted {
            let open = |other: &&Link| other.client_open && !other.cut && other.broker == broker;
            let parallel = self.links.values().filter(open).count();
            self.history.parallel_connections = self.history.parallel_connections.max(parallel as u64);
            self.sender.on_connected(now, conn);
            if let Some(session) = self.plan.rules.session {
                self.sender.on_session(now + std::time::Duration::from_micros(session / 10 * 9), conn);
                self.schedule_after(session, Event::SessionOver(conn));
            }
        } else if reached {
            self.links.remove(&conn);
            self.note_effect("refused_credentials", broker);
            self.brokers[broker].credentials_refused_at = Some(self.now);
            self.sender.on_refused(now, conn, &refusal());
        } else {
            self.links.remove(&conn);
            self.history.known_leaders.iter_mut().for_each(KnownLeaders::doubt);
            self.sender.on_disconnected(now, conn, "connection refused");
        }
    }

    pub(crate) fn send(&mut self, conn: ConnId, request: RequestId, parts: Vec<ProducePart>) {
        let Some(broker) = self.links.get(&conn).map(|link| link.broker) else { return };
        let latency = self.latency(broker);
        let stall = self.brokers[broker].stalls_until;
        let is_blocked = stall > self.now && self.rng.percent(50);
        if stall > self.now {
            self.note_effect("stalled_requests", broker);
        }
        let now = self.now;
        let Some(link) = self.links.get_mut(&conn) else { return };
        let written = if is_blocked { stall } else { now }.max(link.last_written);
        let arrival = (written + latency).max(stall).max(link.last_arrival + 1);
        link.last_written = written;
        link.last_arrival = arrival;
        let cut = link.cut;
        link.in_transit.push_back(Sent { id: request, parts, sent_at: now, written: false, lost: cut });
        self.schedule_at(written, Event::Written(conn, request));
        self.schedule_at(arrival, Event::Arrive(conn, request));
    }

    pub(crate) fn finish_write(&mut self, conn: ConnId, request: RequestId) {
        let now = self.instant();
        let Some(link) = self.links.get_mut(&conn).filter(|link| link.client_open) else { return };
        if let Some(sent) = link.in_transit.iter_mut().find(|sent| sent.id == request) {
            sent.written = true;
            self.history.note_written(conn, request);
            self.sender.on_written(now, conn, request);
        }
    }

    /// Returns whether the last byte of a request has left.
    pub(crate) fn is_written(&self, conn: ConnId, request: RequestId) -> bool {
        let sent = self.links.get(&conn).and_then(|link| link.in_transit.iter().find(|sent| sent.id == request));
        sent.is_none_or(|sent| sent.written)
    }

    pub(crate) fn arrive(&mut self, conn: ConnId, request: RequestId) -> Result<(), String> {
        let Some(link) = self.links.get_mut(&conn) else { return Ok(()) };
        let Some(position) = link.in_transit.iter().position(|sent| sent.id == request) else { return Ok(()) };
        let Some(sent) = link.in_transit.remove(position) else { return Ok(()) };
        if sent.lost || link.incarnation != self.brokers[link.broker].incarnation {
            return Ok(());
        }
        link.used_at = self.now;
        link.inbox.push_back((sent.id, sent.parts, sent.sent_at));
        self.serve(conn)
    }

    /// Closes a connection on the client's side.
    pub(crate) fn disconnect(&mut self, conn: ConnId) {
        self.trace(|| format!("the client closes {conn:?}"));
        self.lose_random_suffix(conn);
        if let Some(link) = self.links.get_mut(&conn) {
            link.client_open = false;
        }
        self.history.note_closed(conn);
    }

    /// Closes a connection that was idle for `connections.max.idle.ms`.
    pub(crate) fn close_if_idle(&mut self, conn: ConnId) {
        let idle_max = self.plan.rules.idle_max;
        let Some(link) = self.links.get(&conn).filter(|link| link.client_open && !link.cut) else { return };
        let due = link.used_at + idle_max;
        if due > self.now || link.busy {
            return self.schedule_at(due.max(self.now + SECOND), Event::IdleCheck(conn));
        }
        self.trace(|| format!("broker {} closes the idle {conn:?}", link.broker));
        self.history.idle_closed += 1;
        self.cut(conn);
    }

    /// Ends a connection from the network's or the broker's side. The client notices the end a little later.
    pub(crate) fn cut(&mut self, conn: ConnId) {
        self.lose_random_suffix(conn);
        let Some(link) = self.links.get_mut(&conn) else { return };
        if !std::mem::replace(&mut link.cut, true) {
            let wait = self.rng.range(0..20 * MS);
            self.schedule_after(wait, Event::Closed(conn));
        }
    }

    /// Ends a connection whose session is over.
    pub(crate) fn end_session(&mut self, conn: ConnId) {
        if self.links.get(&conn).is_some_and(|link| link.client_open) {
            self.history.sessions_outlived += 1;
        }
        self.cut(conn);
    }

    pub(crate) fn finish_close(&mut self, conn: ConnId) {
        let now = self.instant();
        let Some(link) = self.links.get_mut(&conn).filter(|link| link.client_open) else { return };
        link.client_open = false;
        link.in_transit.iter_mut().filter(|sent| !sent.written).for_each(|sent| sent.lost = true);
        self.trace(|| format!("{conn:?} has ended"));
        self.history.note_closed(conn);
        self.sender.on_disconnected(now, conn, "connection reset");
    }

    /// Loses the requests in transit from a random one on. The requests before that one still arrive.
    fn lose_random_suffix(&mut self, conn: ConnId) {
        let late_arrival_percent = self.plan.rules.late_arrival_percent;
        let Some(link) = self.links.get_mut(&conn) else { return };
        let mut lost = false;
        for sent in &mut link.in_transit {
            lost |= sent.lost || !sent.written || !self.rng.percent(late_arrival_percent);
            sent.lost = lost;
        }
    }

    /// Answers a request, and schedules the connection's next one.
    pub(crate) fn answer(&mut self, conn: ConnId, request: RequestId, mut answer: ProduceAnswer) {
        let Some(broker) = self.links.get(&conn).map(|link| link.broker) else { return };
        let latency = self.latency(broker);
        let (lossy, throttles_until) = {
            let broker = &self.brokers[broker];
            (broker.answers_lost_until > self.now, broker.throttles_until)
        };
        let throttle = throttles_until.saturating_sub(self.now);
        if throttle > 0 {
            self.note_effect("throttle", broker);
            answer.throttle = std::time::Duration::from_micros(throttle);
        }
        if self.brokers[broker].omits_parts_until > self.now && !answer.parts.is_empty() {
            let index = self.rng.index(answer.parts.len());
            answer.parts[index] = None;
            self.note_effect("omitted_parts", broker);
        }
        let now = self.now;
        let Some(link) = self.links.get_mut(&conn) else { return };
        link.busy = false;
        link.used_at = now;
        link.muted_until = now + throttle;
        link.answers_lost |= lossy;
        let at = (now + latency).max(link.last_answer + 1);
        link.last_answer = at;
        let (lost, open) = (link.answers_lost, !link.cut && link.client_open);
        if open && lost {
            self.note_effect("lost_answers", broker);
        } else if open {
            self.schedule_at(at, Event::Answer(conn, request, answer));
        }
        self.schedule_after(throttle, Event::Serve(conn));
    }

    pub(crate) fn deliver_answer(&mut self, conn: ConnId, request: RequestId, answer: ProduceAnswer) {
        let now = self.instant();
        if !self.links.get(&conn).is_some_and(|link| link.client_open && !link.cut) {
            return;
        }
        self.trace(|| format!("answer to {request:?}: {answer:?}"));
        let broker = self.links[&conn].broker;
        let throttled_until = self.now + answer.throttle.as_micros() as Micros;
        self.history.throttled_until[broker] = self.history.throttled_until[broker].max(throttled_until);
        self.history.note_answer(conn, request, &answer);
        self.sender.on_answer(now, conn, request, answer);
    }

    pub(crate) fn links_of(&self, broker: usize) -> Vec<ConnId> {
        self.links.iter().filter(|(_, link)| link.broker == broker).map(|(conn, _)| *conn).collect()
    }
}

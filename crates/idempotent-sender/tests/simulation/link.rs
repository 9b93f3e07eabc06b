//! Connections between the sender and the model's brokers.
//!
//! Rules:
//! - A connection delivers in order, both ways. What it loses it loses from some point on.
//! - After the client has closed it, the broker may read on whatever was written whole.
//! - A request of which the socket has not taken the last byte when the connection ends never arrives.

use std::collections::VecDeque;

use kafka_courier_idempotent_sender::core::{ConnId, ProduceAnswer, ProducePart, RequestId};

use crate::cluster::{MS, Micros, SECOND};
use crate::controller::refusal;
use crate::told::ToldLeaders;
use crate::world::{Event, World};

#[derive(Debug)]
struct Sent {
    id: RequestId,
    parts: Vec<ProducePart>,
    written: bool,
    /// It will not arrive.
    lost: bool,
}

#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) broker: usize,
    /// The broker's life in which it was made.
    pub(crate) incarnation: u32,
    /// The client has not closed it, nor heard that it has ended.
    pub(crate) client_open: bool,
    /// Nothing gets through any more.
    pub(crate) cut: bool,
    /// On their way to the broker.
    under_way: VecDeque<Sent>,
    /// Arrived, not yet served.
    pub(crate) inbox: VecDeque<(RequestId, Vec<ProducePart>)>,
    /// The broker serves one request of a connection at a time.
    pub(crate) busy: bool,
    pub(crate) muted_until: Micros,
    answers_lost: bool,
    last_written: Micros,
    last_arrival: Micros,
    last_answer: Micros,
    /// When the broker last heard or said something on it.
    used_at: Micros,
}

impl World {
    pub(crate) fn latency(&mut self, broker: usize) -> Micros {
        let (least, most) = self.plan.rules.latency;
        let slow = if self.brokers[broker].slow_until > self.now { self.brokers[broker].slowness } else { 0 };
        if slow > 0 {
            self.felt("slow_link", broker);
        }
        self.rng.range(least..most) + if slow > 0 { self.rng.range(slow / 2..slow) } else { 0 }
    }

    /// Errors: the broker has refused us, and is to be left alone for a while.
    pub(crate) fn connect(&mut self, conn: ConnId, broker: usize) -> Result<(), String> {
        let target = &self.brokers[broker];
        if target.distrusted_at.is_some_and(|at| self.now < at + Self::refused_pause()) {
            return Err(format!("broker {broker} has refused us, and is dialled again too soon"));
        }
        let open = self.links.values().filter(|link| link.broker == broker && link.client_open).count();
        if self.plan.rules.session.is_none() && open >= self.plan.config.connections_per_broker as usize {
            return Err(format!("a connection more to broker {broker} than {open}"));
        }
        let target = &self.brokers[broker];
        let ok = target.runs() && target.refuses_until <= self.now && target.requests_stall_until <= self.now;
        let incarnation = target.incarnation;
        if target.refuses_until > self.now {
            self.felt("refused_connections", broker);
        }
        if self.brokers[broker].requests_stall_until > self.now {
            self.felt("stalled_requests", broker);
        }
        let target = &self.brokers[broker];
        let wait = if target.up && !ok { self.rng.range(MS..2000 * MS) } else { self.latency(broker) };
        self.trace(|| format!("connect {conn:?} to {broker}: {ok}"));
        let link = Link {
            broker,
            incarnation,
            client_open: true,
            cut: !ok,
            under_way: VecDeque::new(),
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
        self.after(self.plan.rules.idle_max, Event::IdleCheck(conn));
        self.after(wait, Event::Connected(conn, ok));
        Ok(())
    }

    pub(crate) fn connected(&mut self, conn: ConnId, ok: bool) {
        let now = self.instant();
        let Some(link) = self.links.get(&conn) else { return };
        let broker = link.broker;
        let trusted = self.brokers[broker].distrusts_until <= self.now;
        let reached = ok && !link.cut && link.client_open && self.brokers[broker].incarnation == link.incarnation;
        if reached && trusted {
            let open = |other: &&Link| other.client_open && !other.cut && other.broker == broker;
            let parallel = self.links.values().filter(open).count();
            self.history.parallel_connections = self.history.parallel_connections.max(parallel as u64);
            self.sender.on_connected(now, conn);
            if let Some(session) = self.plan.rules.session {
                self.sender.on_session(now + std::time::Duration::from_micros(session / 10 * 9), conn);
                self.after(session, Event::SessionOver(conn));
            }
        } else if reached {
            self.links.remove(&conn);
            self.felt("refused_credentials", broker);
            self.brokers[broker].distrusted_at = Some(self.now);
            self.sender.on_refused(now, conn, &refusal());
        } else {
            self.links.remove(&conn);
            self.history.told_leaders.iter_mut().for_each(ToldLeaders::doubt);
            self.sender.on_disconnected(now, conn, "connection refused");
        }
    }

    pub(crate) fn send(&mut self, conn: ConnId, request: RequestId, parts: Vec<ProducePart>) {
        let Some(broker) = self.links.get(&conn).map(|link| link.broker) else { return };
        let latency = self.latency(broker);
        let stall = self.brokers[broker].requests_stall_until;
        let stuffed = stall > self.now && self.rng.percent(50);
        if stall > self.now {
            self.felt("stalled_requests", broker);
        }
        let now = self.now;
        let Some(link) = self.links.get_mut(&conn) else { return };
        let written = if stuffed { stall } else { now }.max(link.last_written);
        let arrival = (written + latency).max(stall).max(link.last_arrival + 1);
        link.last_written = written;
        link.last_arrival = arrival;
        let cut = link.cut;
        link.under_way.push_back(Sent { id: request, parts, written: false, lost: cut });
        self.at(written, Event::Written(conn, request));
        self.at(arrival, Event::Arrive(conn, request));
    }

    pub(crate) fn written(&mut self, conn: ConnId, request: RequestId) {
        let now = self.instant();
        let Some(link) = self.links.get_mut(&conn).filter(|link| link.client_open) else { return };
        if let Some(sent) = link.under_way.iter_mut().find(|sent| sent.id == request) {
            sent.written = true;
            self.history.written(conn, request);
            self.sender.on_written(now, conn, request);
        }
    }

    pub(crate) fn arrive(&mut self, conn: ConnId, request: RequestId) -> Result<(), String> {
        let Some(link) = self.links.get_mut(&conn) else { return Ok(()) };
        let Some(position) = link.under_way.iter().position(|sent| sent.id == request) else { return Ok(()) };
        let Some(sent) = link.under_way.remove(position) else { return Ok(()) };
        if sent.lost || link.incarnation != self.brokers[link.broker].incarnation {
            return Ok(());
        }
        link.used_at = self.now;
        link.inbox.push_back((sent.id, sent.parts));
        self.serve(conn)
    }

    /// The client closes it.
    pub(crate) fn disconnect(&mut self, conn: ConnId) {
        self.trace(|| format!("the client closes {conn:?}"));
        self.lose_from_some_point(conn);
        if let Some(link) = self.links.get_mut(&conn) {
            link.client_open = false;
        }
        self.history.closed(conn);
    }

    /// A broker closes what nobody has used for `connections.max.idle.ms`.
    pub(crate) fn close_if_idle(&mut self, conn: ConnId) {
        let idle_max = self.plan.rules.idle_max;
        let Some(link) = self.links.get(&conn).filter(|link| link.client_open && !link.cut) else { return };
        let due = link.used_at + idle_max;
        if due > self.now || link.busy {
            return self.at(due.max(self.now + SECOND), Event::IdleCheck(conn));
        }
        self.trace(|| format!("broker {} closes {conn:?}, which is idle", link.broker));
        self.history.idle_closed += 1;
        self.cut(conn);
    }

    /// The network, or the broker, ends it: the client hears of it a little later.
    pub(crate) fn cut(&mut self, conn: ConnId) {
        self.lose_from_some_point(conn);
        let Some(link) = self.links.get_mut(&conn) else { return };
        if !std::mem::replace(&mut link.cut, true) {
            let wait = self.rng.range(0..20 * MS);
            self.after(wait, Event::Closed(conn));
        }
    }

    /// The broker ends what is still open when its session is over.
    pub(crate) fn session_over(&mut self, conn: ConnId) {
        if self.links.get(&conn).is_some_and(|link| link.client_open) {
            self.history.sessions_outlived += 1;
        }
        self.cut(conn);
    }

    pub(crate) fn closed(&mut self, conn: ConnId) {
        let now = self.instant();
        let Some(link) = self.links.get_mut(&conn).filter(|link| link.client_open) else { return };
        link.client_open = false;
        link.under_way.iter_mut().filter(|sent| !sent.written).for_each(|sent| sent.lost = true);
        self.trace(|| format!("{conn:?} has ended"));
        self.history.closed(conn);
        self.sender.on_disconnected(now, conn, "connection reset");
    }

    /// Of what is written and has not arrived yet, the first few requests may still do so.
    fn lose_from_some_point(&mut self, conn: ConnId) {
        let reads_on = self.plan.rules.reads_on;
        let Some(link) = self.links.get_mut(&conn) else { return };
        let mut lost = false;
        for sent in &mut link.under_way {
            lost |= sent.lost || !sent.written || !self.rng.percent(reads_on);
            sent.lost = lost;
        }
    }

    /// The broker answers a request and turns to the connection's next.
    pub(crate) fn answer(&mut self, conn: ConnId, request: RequestId, mut answer: ProduceAnswer) {
        let Some(broker) = self.links.get(&conn).map(|link| link.broker) else { return };
        let latency = self.latency(broker);
        let (lossy, throttles_until) = {
            let broker = &self.brokers[broker];
            (broker.answers_lost_until > self.now, broker.throttles_until)
        };
        let throttle = throttles_until.saturating_sub(self.now);
        if throttle > 0 {
            self.felt("throttle", broker);
            answer.throttle = std::time::Duration::from_micros(throttle);
        }
        if self.brokers[broker].forgets_parts_until > self.now && !answer.parts.is_empty() {
            let index = self.rng.index(answer.parts.len());
            answer.parts[index] = None;
            self.felt("left_out_parts", broker);
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
            self.felt("lost_answers", broker);
        } else if open {
            self.at(at, Event::Answer(conn, request, answer));
        }
        self.after(throttle, Event::Serve(conn));
    }

    pub(crate) fn answered(&mut self, conn: ConnId, request: RequestId, answer: ProduceAnswer) {
        let now = self.instant();
        if !self.links.get(&conn).is_some_and(|link| link.client_open && !link.cut) {
            return;
        }
        self.trace(|| format!("answer to {request:?}: {answer:?}"));
        let broker = self.links[&conn].broker;
        let throttled_until = self.now + answer.throttle.as_micros() as Micros;
        self.history.throttled_until[broker] = self.history.throttled_until[broker].max(throttled_until);
        self.history.answered(conn, request, &answer);
        self.sender.on_answer(now, conn, request, answer);
    }

    pub(crate) fn links_of(&self, broker: usize) -> Vec<ConnId> {
        self.links.iter().filter(|(_, link)| link.broker == broker).map(|(conn, _)| *conn).collect()
    }
}

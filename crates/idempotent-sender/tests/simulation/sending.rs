//! What must hold of everything that leaves, at the moment when it leaves.
//!
//! Rules:
//! - A request holds one batch of a partition, and no more bytes than allowed but for a single batch.
//! - It goes to a leader that the sender may believe in, never to a broker that asked to be sent nothing (KIP-219), and
//!   never under a topic id that was denied and not named since.
//! - A stamp stands for the same record always. At most `max_in_flight` batches of a partition are unanswered, on one
//!   connection of a broker.
//! - A batch is sent again after its backoff; metadata and producer ids are asked for one request at a time, after theirs.

use kafka_courier_idempotent_sender::core::{ConnId, ProducePart, RequestId};

use crate::cluster::{Micros, TOPICS, topic_of};
use crate::history::{Parts, Unanswered, show_parts};
use crate::world::{World, model_partition};

/// Answers that deny the topic's id.
pub(crate) const DENIALS: &[i16] = &[100, 103];
/// A batch may be sent this often before its backoff counts: the first time, after a look, and after others were given up.
const SENDS_FREE: u64 = 20;

/// How often a record has left.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Sends {
    pub(crate) count: u32,
    pub(crate) first: Micros,
    pub(crate) last: Micros,
}

impl Sends {
    pub(crate) fn note(&mut self, now: Micros) {
        if self.count == 0 {
            self.first = now;
        }
        self.count += 1;
        self.last = now;
    }
}

/// A request for a producer id: under way, or when its answer came.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Asked {
    under_way: bool,
    answered_at: Option<Micros>,
}

/// Requests for metadata, each for the topics that it names.
#[derive(Clone, Debug, Default)]
pub(crate) struct MetadataPace {
    under_way: Option<Vec<usize>>,
    /// When a broker last answered for each topic, since the topic was wanted or became known.
    answered_at: [Option<Micros>; TOPICS],
    /// Topics that are known.
    known: [bool; TOPICS],
    /// When no broker answered the last request.
    failed_at: Option<Micros>,
}

impl MetadataPace {
    /// Errors: a request is under way, or the last one failed less than `pause` ago, or each of its topics was answered for
    /// less than `pause` ago.
    pub(crate) fn ask(&mut self, topics: &[usize], now: Micros, pause: Micros) -> Result<(), &'static str> {
        let recent = |at: Option<Micros>| at.is_some_and(|at| now < at + pause);
        if self.under_way.is_some() {
            return Err("asked for while it is asked for");
        }
        if recent(self.failed_at) || topics.iter().all(|topic| recent(self.answered_at[*topic])) {
            return Err("asked for again without a pause");
        }
        self.under_way = Some(topics.to_vec());
        Ok(())
    }

    /// The answer has come.
    pub(crate) fn answered(&mut self, now: Micros) {
        self.failed_at = None;
        self.under_way.take().into_iter().flatten().for_each(|topic| self.answered_at[topic] = Some(now));
    }

    /// No broker answered.
    pub(crate) fn failed(&mut self, now: Micros) {
        (self.under_way, self.failed_at) = (None, Some(now));
    }

    /// The topic failed, and is wanted again.
    pub(crate) fn wanted(&mut self, topic: usize) {
        (self.answered_at[topic], self.known[topic]) = (None, false);
        // A request that left before is no answer to that.
        self.under_way.iter_mut().for_each(|topics| topics.retain(|other| *other != topic));
    }

    /// The topic is known: its first refresh waits for nothing.
    pub(crate) fn found(&mut self, topic: usize) {
        if !std::mem::replace(&mut self.known[topic], true) {
            self.answered_at[topic] = None;
        }
    }
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Pace {
    pub(crate) metadata: MetadataPace,
    pub(crate) producer_id: Asked,
}

impl Asked {
    /// Errors: one is under way already, or the last was answered less than `pause` ago.
    pub(crate) fn ask(&mut self, now: Micros, pause: Micros) -> Result<(), &'static str> {
        if self.under_way {
            return Err("asked for while it is asked for");
        }
        if self.answered_at.is_some_and(|at| now < at + pause) {
            return Err("asked for again without a pause");
        }
        self.under_way = true;
        Ok(())
    }

    /// The answer has come; `pauses` says whether a pause must follow.
    pub(crate) fn answered(&mut self, now: Micros, pauses: bool) {
        self.under_way = false;
        self.answered_at = pauses.then_some(now);
    }
}

impl World {
    /// The shortest wait after a failure.
    pub(crate) fn least_pause(&self) -> Micros {
        let backoff = self.plan.config.backoff;
        backoff.base.min(backoff.cap).as_micros() as Micros / 2
    }

    /// Checks what leaves, and notes it.
    pub(crate) fn note_sent(&mut self, conn: ConnId, request: RequestId, parts: &[ProducePart]) -> Result<(), String> {
        self.trace(|| format!("send {request:?} on {conn:?}: {}", show_parts(parts)));
        let broker = self.links.get(&conn).map(|link| link.broker).ok_or("sent on a connection that is not there")?;
        self.check_request(broker, parts)?;
        let mut sent: Parts = Vec::with_capacity(parts.len());
        for part in parts {
            let partition = model_partition(part.partition);
            if sent.iter().any(|(other, _)| *other == partition) {
                return Err(format!("{request:?} holds two batches of p{partition}"));
            }
            sent.push((partition, self.history.check_stamp(part, self.now)?));
        }
        for (partition, numbers) in &sent {
            self.check_leader(broker, *partition)?;
            self.check_connection(conn, broker, *partition)?;
            self.check_pace(*partition, numbers)?;
        }
        let partitions: Vec<usize> = sent.iter().map(|(partition, _)| *partition).collect();
        let moves = partitions.iter().map(|partition| self.history.told_leaders[*partition].moves).collect();
        let unanswered = Unanswered { id: request, written: false, parts: sent, moves };
        self.history.in_flight.entry(conn).or_default().push(unanswered);
        partitions.into_iter().try_for_each(|partition| self.check_window(broker, partition))
    }

    fn check_request(&self, broker: usize, parts: &[ProducePart]) -> Result<(), String> {
        let bytes: usize = parts.iter().map(|part| part.batch.len()).sum();
        if parts.len() > 1 && bytes > self.plan.config.max_request_bytes {
            return Err(format!("a request of {bytes} bytes"));
        }
        if self.now < self.history.throttled_until[broker] {
            return Err(format!("broker {broker} has asked to be sent nothing"));
        }
        Ok(())
    }

    fn check_leader(&self, broker: usize, partition: usize) -> Result<(), String> {
        let once = self.history.told[topic_of(partition)].changes <= 1;
        let told = &self.history.told_leaders[partition];
        if once && !told.may_be_sent_to(broker) {
            return Err(format!("p{partition}: sent to broker {broker}, whom only an older epoch names: {told:?}"));
        }
        if self.plan.rules.by_id && self.history.denials[partition] > self.plan.config.max_in_flight {
            return Err(format!("p{partition}: sent under an id that was denied, and not named since"));
        }
        Ok(())
    }

    /// While anything of a partition is unanswered at its leader it stays on that connection: so its order holds.
    fn check_connection(&self, conn: ConnId, broker: usize, partition: usize) -> Result<(), String> {
        let history = &self.history;
        let moves = history.told_leaders[partition].moves;
        let unsettled = |number: &u32| history.records[*number as usize].verdict.is_none();
        for (other, requests) in history.in_flight.iter().filter(|(other, _)| **other != conn) {
            let there = self.links.get(other).is_some_and(|link| link.broker == broker);
            let parts = requests.iter().flat_map(|request| request.parts.iter().zip(&request.moves));
            let mut same = parts.filter(|((p, _), then)| *p == partition && **then == moves);
            if there && same.any(|((_, numbers), _)| numbers.iter().any(unsettled)) {
                return Err(format!("p{partition} is sent on {conn:?}, and unanswered on {other:?}"));
            }
        }
        Ok(())
    }

    fn check_pace(&self, partition: usize, numbers: &[u32]) -> Result<(), String> {
        let moves = u64::from(self.history.told_leaders[partition].moves);
        for number in numbers {
            let sends = self.history.records[*number as usize].sends;
            let allowed = SENDS_FREE + 2 * moves + (self.now - sends.first) / self.least_pause().max(1);
            if u64::from(sends.count) > allowed {
                return Err(format!("p{partition}: record {number} was sent {} times, too soon", sends.count));
            }
        }
        Ok(())
    }

    /// At most `max_in_flight` batches of a partition are unanswered at one broker, over all connections.
    fn check_window(&self, broker: usize, partition: usize) -> Result<(), String> {
        let history = &self.history;
        let there = |conn: &ConnId| self.links.get(conn).is_some_and(|link| link.broker == broker);
        let all = history.in_flight.iter().filter(|(conn, _)| there(conn)).flat_map(|(_, requests)| requests);
        let unsettled = |number: &u32| history.records[*number as usize].verdict.is_none();
        let sent = all.flat_map(|request| &request.parts).filter(|sent| sent.0 == partition);
        let mut firsts: Vec<u32> = sent.filter_map(|sent| sent.1.first().copied()).filter(unsettled).collect();
        firsts.sort_unstable();
        firsts.dedup();
        if firsts.len() > self.plan.config.max_in_flight as usize {
            return Err(format!("p{partition}: the batches that begin with {firsts:?} are all unanswered"));
        }
        Ok(())
    }
}

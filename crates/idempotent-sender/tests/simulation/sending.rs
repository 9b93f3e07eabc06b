//! The checks of every request at the moment of sending.
//!
//! Rules:
//! - A request contains at most one batch of a partition. Only a single batch may exceed the maximum request size.
//! - The receiver is a leader that the sender may believe in, and never a throttling broker (KIP-219). The topic id
//!   must not be one that was denied and not named since.
//! - A stamp always means the same record. At most `max_in_flight` batches of a partition are unanswered, on one
//!   connection of a broker.
//! - A batch is sent again only after its backoff. One request for metadata and one for a producer id may be in flight,
//!   and each of them respects its backoff.

use kafka_courier_client::ProducePart;
use kafka_courier_idempotent_sender::core::{ConnId, RequestId};

use crate::cluster::{Micros, TOPICS, topic_of};
use crate::history::{InFlightRequest, PartRecords, format_parts};
use crate::world::{World, model_partition};

/// Codes that deny the topic's id.
pub(crate) const DENIALS: &[i16] = &[100, 103];
/// The attempts of a batch that need no backoff: the first one, and those after looks and after failures of other
/// batches.
const FREE_ATTEMPTS: u64 = 20;

/// The number of a record's attempts, and the times of the first and the last.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Attempts {
    pub(crate) count: u32,
    pub(crate) first: Micros,
    pub(crate) last: Micros,
}

impl Attempts {
    pub(crate) fn note(&mut self, now: Micros) {
        if self.count == 0 {
            self.first = now;
        }
        self.count += 1;
        self.last = now;
    }
}

/// The state of requests for a producer id.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct RequestPace {
    in_flight: bool,
    answered_at: Option<Micros>,
}

/// The state of requests for metadata.
#[derive(Clone, Debug, Default)]
pub(crate) struct MetadataPace {
    /// The topics of the request in flight.
    in_flight: Option<Vec<usize>>,
    /// The time of the last answer for each topic. `None`: no answer since the topic was requested or became known.
    answered_at: [Option<Micros>; TOPICS],
    /// Whether each topic is known.
    known: [bool; TOPICS],
    /// The time at which the last request failed.
    failed_at: Option<Micros>,
}

impl MetadataPace {
    /// Notes a request. Returns an error if another request is in flight, or the backoff `pause` has not passed since
    /// the last failure, or since the last answers for all of these topics.
    pub(crate) fn request(&mut self, topics: &[usize], now: Micros, pause: Micros) -> Result<(), &'static str> {
        let recent = |at: Option<Micros>| at.is_some_and(|at| now < at + pause);
        if self.in_flight.is_some() {
            return Err("requested while a request is in flight");
        }
        if recent(self.failed_at) || topics.iter().all(|topic| recent(self.answered_at[*topic])) {
            return Err("requested again without backoff");
        }
        self.in_flight = Some(topics.to_vec());
        Ok(())
    }

    /// Notes the answer to the request in flight.
    pub(crate) fn note_answer(&mut self, now: Micros) {
        self.failed_at = None;
        self.in_flight.take().into_iter().flatten().for_each(|topic| self.answered_at[topic] = Some(now));
    }

    /// Notes that no broker answered.
    pub(crate) fn note_failure(&mut self, now: Micros) {
        (self.in_flight, self.failed_at) = (None, Some(now));
    }

    /// Notes that a failed topic is requested again.
    pub(crate) fn note_wanted(&mut self, topic: usize) {
        (self.answered_at[topic], self.known[topic]) = (None, false);
        // The answer to an earlier request does not count for the topic.
        self.in_flight.iter_mut().for_each(|topics| topics.retain(|other| *other != topic));
    }

    /// Notes that a topic is known. Its first refresh needs no backoff.
    pub(crate) fn note_known(&mut self, topic: usize) {
        if !std::mem::replace(&mut self.known[topic], true) {
            self.answered_at[topic] = None;
        }
    }
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Pace {
    pub(crate) metadata: MetadataPace,
    pub(crate) producer_id: RequestPace,
}

impl RequestPace {
    /// Notes a request. Returns an error if another request is in flight, or the backoff `pause` has not passed since
    /// the last answer.
    pub(crate) fn request(&mut self, now: Micros, pause: Micros) -> Result<(), &'static str> {
        if self.in_flight {
            return Err("requested while a request is in flight");
        }
        if self.answered_at.is_some_and(|at| now < at + pause) {
            return Err("requested again without backoff");
        }
        self.in_flight = true;
        Ok(())
    }

    /// Notes the answer to the request in flight. If `needs_backoff`, the next request must wait.
    pub(crate) fn note_answer(&mut self, now: Micros, needs_backoff: bool) {
        self.in_flight = false;
        self.answered_at = needs_backoff.then_some(now);
    }
}

impl World {
    /// Returns the minimum backoff after a failure.
    pub(crate) fn min_backoff(&self) -> Micros {
        let backoff = self.plan.config.backoff;
        backoff.base.min(backoff.cap).as_micros() as Micros / 2
    }

    /// Checks and notes a request at the moment of sending.
    pub(crate) fn note_sent(&mut self, conn: ConnId, request: RequestId, parts: &[ProducePart]) -> Result<(), String> {
        self.trace(|| format!("send {request:?} on {conn:?}: {}", format_parts(parts)));
        let broker = self.links.get(&conn).map(|link| link.broker).ok_or("sent on a connection that does not exist")?;
        self.check_request(broker, parts)?;
        let mut sent: PartRecords = Vec::with_capacity(parts.len());
        for part in parts {
            let partition = model_partition(part.partition);
            if sent.iter().any(|(other, _)| *other == partition) {
                return Err(format!("{request:?} contains two batches of p{partition}"));
            }
            self.check_stored(part)?;
            if let Some(lives) = &mut self.lives {
                lives.renewed += u64::from(part.batch.moved_ms() > 0);
            }
            sent.push((partition, self.history.check_stamp(part, self.now)?));
        }
        for (partition, numbers) in &sent {
            self.check_leader(broker, *partition)?;
            self.check_connection(conn, broker, *partition)?;
            self.check_pace(*partition, numbers)?;
        }
        let partitions: Vec<usize> = sent.iter().map(|(partition, _)| *partition).collect();
        let moves = partitions.iter().map(|partition| self.history.known_leaders[*partition].moves).collect();
        let unanswered = InFlightRequest { id: request, written: false, parts: sent, moves };
        self.history.in_flight.entry(conn).or_default().push(unanswered);
        partitions.into_iter().try_for_each(|partition| self.check_window(broker, partition))
    }

    fn check_request(&self, broker: usize, parts: &[ProducePart]) -> Result<(), String> {
        let bytes: usize = parts.iter().map(|part| part.batch.len()).sum();
        if parts.len() > 1 && bytes > self.plan.config.max_request_bytes {
            return Err(format!("a request of {bytes} bytes exceeds max_request_bytes"));
        }
        if self.now < self.history.throttled_until[broker] {
            return Err(format!("sent to broker {broker}, which throttles"));
        }
        Ok(())
    }

    fn check_leader(&self, broker: usize, partition: usize) -> Result<(), String> {
        let once = self.history.known_topics[topic_of(partition)].changes <= 1;
        let known = &self.history.known_leaders[partition];
        if once && !known.may_be_sent_to(broker) {
            return Err(format!("p{partition}: sent to broker {broker}, a leader of an older epoch only: {known:?}"));
        }
        if self.plan.rules.by_id && self.history.denials[partition] > self.plan.config.max_in_flight {
            return Err(format!("p{partition}: sent under a topic id that was denied and not named since"));
        }
        Ok(())
    }

    /// Checks that a partition keeps its connection while a batch is unanswered at the leader. The connection keeps the
    /// partition's order.
    fn check_connection(&self, conn: ConnId, broker: usize, partition: usize) -> Result<(), String> {
        let history = &self.history;
        let moves = history.known_leaders[partition].moves;
        let unsettled = |number: &u32| history.records[*number as usize].verdict.is_none();
        for (other, requests) in history.in_flight.iter().filter(|(other, _)| **other != conn) {
            let there = self.links.get(other).is_some_and(|link| link.broker == broker);
            let parts = requests.iter().flat_map(|request| request.parts.iter().zip(&request.moves));
            let mut same = parts.filter(|((p, _), then)| *p == partition && **then == moves);
            if there && same.any(|((_, numbers), _)| numbers.iter().any(unsettled)) {
                return Err(format!("p{partition} is sent on {conn:?} while unanswered on {other:?}"));
            }
        }
        Ok(())
    }

    fn check_pace(&self, partition: usize, numbers: &[u32]) -> Result<(), String> {
        let moves = u64::from(self.history.known_leaders[partition].moves);
        for number in numbers {
            let attempts = self.history.records[*number as usize].attempts;
            let allowed = FREE_ATTEMPTS + 2 * moves + (self.now - attempts.first) / self.min_backoff().max(1);
            if u64::from(attempts.count) > allowed {
                return Err(format!("p{partition}: record {number} was sent {} times without backoff", attempts.count));
            }
        }
        Ok(())
    }

    /// Checks that at most `max_in_flight` batches of a partition are unanswered at one broker, over all connections.
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
            return Err(format!("p{partition}: too many unanswered batches, with the first records {firsts:?}"));
        }
        Ok(())
    }
}

//! What a schedule consists of: settings, batches, faults, and when all faults end.
//!
//! Rule: a plan is data; `random_plan` draws one, scenarios write theirs by hand.

use kafka_courier_idempotent_sender::core::Config;

use crate::cluster::Micros;
use crate::faults::Fault;
use crate::log::SequenceRules;

/// What the sender may read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Reading {
    /// Producer states and logs.
    Allowed,
    /// Producer states: no version of Fetch is in common.
    StateOnly,
    /// Nothing: it has no right to read.
    Forbidden,
}

/// What differs from cluster to cluster.
#[derive(Clone, Debug)]
pub(crate) struct Rules {
    pub(crate) sequence: SequenceRules,
    /// Produce v13: topics by id. Before: by name.
    pub(crate) by_id: bool,
    /// The leader appends batches and is silent for at most this long (`Produce.timeout_ms`).
    pub(crate) produce_timeout: Micros,
    /// Without a fetch at the log's end for this long a follower leaves the ISR.
    pub(crate) replica_lag_max: Micros,
    /// Without a heartbeat for this long a broker is fenced.
    pub(crate) session_timeout: Micros,
    /// `producer.id.expiration.ms`, if ids are forgotten at all in this schedule, in milliseconds.
    pub(crate) id_expiration_ms: Option<i64>,
    /// `producer.id.expiration.check.interval.ms`.
    pub(crate) id_check: Micros,
    /// Since Kafka 3.7 the high watermark stands still while the ISR is too small, and a write waits for its timeout (7).
    /// Before, it was answered with 20.
    pub(crate) waits_for_min_isr: bool,
    /// The topics' `message.timestamp.type`.
    pub(crate) log_append_time: bool,
    pub(crate) reading: Reading,
    /// How many batches in a hundred are handed over late, after batches that were opened later.
    pub(crate) sealed_late: u64,
    /// `socket.request.max.bytes`: a larger request ends its connection without an answer.
    pub(crate) request_max_bytes: usize,
    /// InitProducerId fails this often at first.
    pub(crate) failing_ids: u32,
    /// The least and the most that a message is under way.
    pub(crate) latency: (Micros, Micros),
    /// `connections.max.idle.ms`.
    pub(crate) idle_max: Micros,
    /// How likely a written request still arrives after its connection was closed, in percent.
    pub(crate) reads_on: u64,
    /// How long a connection lasts before the broker ends it (KIP-368).
    pub(crate) session: Option<Micros>,
}

impl Default for Rules {
    fn default() -> Self {
        Self {
            sequence: SequenceRules::default(),
            by_id: true,
            produce_timeout: 8_000_000,
            replica_lag_max: 10_000_000,
            session_timeout: 9_000_000,
            id_expiration_ms: None,
            id_check: 2_000_000,
            waits_for_min_isr: true,
            log_append_time: false,
            reading: Reading::Allowed,
            sealed_late: 0,
            request_max_bytes: usize::MAX,
            failing_ids: 0,
            latency: (200, 1500),
            idle_max: 600_000_000,
            reads_on: 60,
            session: None,
        }
    }
}

/// One batch that is handed to the sender.
#[derive(Clone, Debug)]
pub(crate) struct BatchPlan {
    pub(crate) at: Micros,
    pub(crate) partition: usize,
    pub(crate) records: Vec<RecordPlan>,
    /// How long before it was published its records say that they were made, in milliseconds.
    pub(crate) age_ms: i64,
    /// How long it was being filled.
    pub(crate) lingered: Micros,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct RecordPlan {
    pub(crate) has_key: bool,
    pub(crate) padding: u16,
}

#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) seed: u64,
    pub(crate) config: Config,
    pub(crate) rules: Rules,
    pub(crate) batches: Vec<BatchPlan>,
    pub(crate) faults: Vec<(Micros, Fault)>,
    /// When every fault is lifted.
    pub(crate) heal_at: Micros,
    /// When everything left is given up, if the producer is closed before the end.
    pub(crate) close_at: Option<Micros>,
}

impl BatchPlan {
    /// A batch of so many small records with a key, at the schedule's start.
    pub(crate) fn of(partition: usize, records: usize) -> Self {
        let record = RecordPlan { has_key: true, padding: 20 };
        Self { at: 0, partition, records: vec![record; records], age_ms: 0, lingered: 0 }
    }
}

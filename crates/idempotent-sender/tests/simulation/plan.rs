//! The contents of a schedule: settings, batches, faults, and the end of all faults.
//!
//! Rule: a plan is data. `random_plan` draws plans, and scenarios write them out.

use kafka_courier_idempotent_sender::core::Config;

use crate::cluster::Micros;
use crate::faults::Fault;
use crate::lives::LifeEnd;
use crate::log::SequenceRules;

/// The sender's rights to read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Reading {
    /// The sender may read producer states and logs.
    Allowed,
    /// The sender may read producer states only, because client and brokers have no version of Fetch in common.
    StateOnly,
    /// The sender has no right to read.
    Forbidden,
}

/// The settings of a cluster.
#[derive(Clone, Debug)]
pub(crate) struct Rules {
    pub(crate) sequence: SequenceRules,
    /// Produce requests name topics by id (v13), not by name.
    pub(crate) by_id: bool,
    /// The longest time between the append and the answer (`Produce.timeout_ms`).
    pub(crate) produce_timeout: Micros,
    /// A follower that does not reach the log's end for this time leaves the ISR.
    pub(crate) replica_lag_max: Micros,
    /// A broker without a heartbeat for this time is fenced.
    pub(crate) session_timeout: Micros,
    /// `producer.id.expiration.ms`. `None`: producer ids do not expire in this schedule.
    pub(crate) id_expiration_ms: Option<i64>,
    /// `producer.id.expiration.check.interval.ms`.
    pub(crate) id_check: Micros,
    /// The high watermark does not advance while the ISR is too small, and a write waits for its timeout, code 7 (Kafka
    /// 3.7 and newer). Older brokers answer with 20.
    pub(crate) waits_for_min_isr: bool,
    /// The topics' `message.timestamp.type`.
    pub(crate) log_append_time: bool,
    pub(crate) reading: Reading,
    /// The percentage of batches that reach the sender late, after batches that were opened later.
    pub(crate) sealed_late: u64,
    /// `socket.request.max.bytes`. A larger request ends its connection without an answer.
    pub(crate) request_max_bytes: usize,
    /// The number of InitProducerId requests that fail first.
    pub(crate) failing_ids: u32,
    /// The minimum and maximum latency of a message.
    pub(crate) latency: (Micros, Micros),
    /// `connections.max.idle.ms`.
    pub(crate) idle_max: Micros,
    /// The probability, in percent, that a written request arrives after the end of its connection.
    pub(crate) late_arrival_percent: u64,
    /// The time after which a broker ends an authenticated connection (KIP-368).
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
            late_arrival_percent: 60,
            session: None,
        }
    }
}

/// One batch for the sender.
#[derive(Clone, Debug)]
pub(crate) struct BatchPlan {
    pub(crate) at: Micros,
    pub(crate) partition: usize,
    pub(crate) records: Vec<RecordPlan>,
    /// The age of the records' timestamps at publication, in milliseconds.
    pub(crate) age_ms: i64,
    /// The time between the opening of the batch and its sealing.
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
    /// The time at which all faults end.
    pub(crate) heal_at: Micros,
    /// The time at which the producer is closed and fails all remaining records. `None`: the producer stays open.
    pub(crate) close_at: Option<Micros>,
    /// The ends of the processes. If there is one, batches are stored in a durable log.
    pub(crate) lives: Vec<LifeEnd>,
    /// The times at which the machine of the process is suspended, and for how long.
    pub(crate) suspensions: Vec<(Micros, Micros)>,
    /// Whether the clock of the machine is wrong when a process starts.
    pub(crate) starts_with_wrong_clock: bool,
    /// Whether the durable log gives topics other numbers, as if they were created again.
    pub(crate) renumbers: bool,
}

impl BatchPlan {
    /// Returns a batch of small records with a key, at the schedule's start.
    pub(crate) fn of(partition: usize, records: usize) -> Self {
        let record = RecordPlan { has_key: true, padding: 20 };
        Self { at: 0, partition, records: vec![record; records], age_ms: 0, lingered: 0 }
    }
}

//! The state of the model cluster: brokers, partitions, replicas, and each broker's view.
//!
//! Rules:
//! - The controller's truth and each broker's view of it are separate.
//! - A replica's log and its committed part are separate.
//! - Every broker has a replica of every partition.

use std::collections::{BTreeSet, VecDeque};

use crate::log::{LogEntry, Producers};

pub(crate) const BROKERS: usize = 3;
pub(crate) const TOPICS: usize = 2;
/// The initial number of a topic's partitions.
pub(crate) const PARTITIONS_AT_FIRST: usize = 3;
/// The maximum number of a topic's partitions.
pub(crate) const PARTITIONS_AT_MOST: usize = 4;
/// The maximum number of all partitions. Partitions 0 to 2 belong to the first topic, 3 to 5 to the second, then
/// follows one more of each topic.
pub(crate) const PARTITIONS: usize = TOPICS * PARTITIONS_AT_MOST;

/// Virtual time in microseconds since the schedule's start.
pub(crate) type Micros = u64;
pub(crate) const MS: Micros = 1000;
pub(crate) const SECOND: Micros = 1_000_000;

/// The state of a partition, as the controller or a broker knows it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct View {
    pub(crate) leader: Option<usize>,
    pub(crate) epoch: i32,
    /// One bit for each broker in the ISR.
    pub(crate) isr: u8,
    /// The number of the topic's incarnation. Raised when the topic is recreated.
    pub(crate) incarnation: u32,
    pub(crate) exists: bool,
}

impl View {
    pub(crate) fn in_isr(&self, broker: usize) -> bool {
        self.isr & (1 << broker) != 0
    }

    pub(crate) fn isr_len(&self) -> u32 {
        self.isr.count_ones()
    }
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Replica {
    pub(crate) incarnation: u32,
    pub(crate) log: Vec<LogEntry>,
    pub(crate) high_watermark: i64,
    pub(crate) producers: Producers,
    /// The offset up to which each broker has fetched. Valid on the leader.
    pub(crate) fetched: [i64; BROKERS],
    /// The last time when each broker was at the end of the log. Valid on the leader.
    pub(crate) caught_up: [Micros; BROKERS],
    /// The number of batches known to be committed. Valid on the leader.
    pub(crate) committed: usize,
    /// The replica's disk has failed.
    pub(crate) offline: bool,
}

impl Replica {
    pub(crate) fn end(&self) -> i64 {
        self.log.last().map_or(0, LogEntry::end)
    }
}

/// An error that a partition answers instead of the real result.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Forced {
    pub(crate) code: i16,
    /// `Some` if the error follows an append. The flag is true if the answer has the offset.
    pub(crate) appended: Option<bool>,
}

#[derive(Clone, Debug)]
pub(crate) struct Partition {
    pub(crate) truth: View,
    pub(crate) replicas: [Replica; BROKERS],
    pub(crate) min_isr: u32,
    pub(crate) max_bytes: usize,
    /// The segment size in bytes. A larger batch is refused (18).
    pub(crate) segment_bytes: usize,
    /// The partition refuses records without a key (87).
    pub(crate) compacted: bool,
    /// The refusal of records without a key names their indexes.
    pub(crate) names_rejected: bool,
    /// `message.timestamp.before.max.ms`. The partition refuses older records (32) and names their indexes.
    pub(crate) max_age_ms: i64,
    pub(crate) forced: VecDeque<Forced>,
    /// The code with which the partition refuses all batches, until the fault ends (rights, limits).
    pub(crate) refused: Option<i16>,
    /// The offset of the first record that is not deleted (DeleteRecords).
    pub(crate) log_start: i64,
    /// The time added to a follower's fetch.
    pub(crate) replication_delay: Micros,
    /// Whether each broker's fetch is scheduled.
    pub(crate) fetching: [bool; BROKERS],
    /// All batches that were ever committed, with their incarnation. A batch may occur more than once.
    pub(crate) committed: Vec<(u32, LogEntry)>,
    /// The number of unclean elections. The new leader may never have known a producer.
    pub(crate) forgets: u32,
    /// The number of times that a producer expired because of old record timestamps.
    pub(crate) expiries: u32,
    /// The number of starts at which a replica forgot its producers because all their records were deleted.
    pub(crate) purges: u32,
    /// The append numbers of committed batches that unclean elections removed from all logs.
    pub(crate) lost: BTreeSet<u64>,
    /// The incarnation and leader epoch of the last unclean election. Later commits of a former leader are lost.
    pub(crate) unclean: (u32, i32),
}

impl Partition {
    pub(crate) fn new(leader: Option<usize>) -> Self {
        let exists = leader.is_some();
        let truth = View { leader, epoch: i32::from(exists), isr: 0b111, incarnation: 1, exists };
        let replica = Replica { incarnation: 1, ..Replica::default() };
        Self {
            truth,
            replicas: [replica.clone(), replica.clone(), replica],
            min_isr: 2,
            max_bytes: usize::MAX,
            segment_bytes: usize::MAX,
            compacted: false,
            names_rejected: true,
            max_age_ms: i64::MAX,
            forced: VecDeque::new(),
            refused: None,
            log_start: 0,
            replication_delay: 0,
            fetching: [false; BROKERS],
            committed: Vec::new(),
            forgets: 0,
            expiries: 0,
            purges: 0,
            lost: BTreeSet::new(),
            unclean: (0, 0),
        }
    }
}

#[derive(Clone, Debug)]
pub(crate) struct Broker {
    pub(crate) up: bool,
    /// Raised at each start and stop.
    pub(crate) incarnation: u32,
    pub(crate) paused: bool,
    /// Raised at each pause and resumption, so that the end of a former pause is recognized.
    pub(crate) pauses: u32,
    pub(crate) fenced: bool,
    pub(crate) views: [View; PARTITIONS],
    pub(crate) throttles_until: Micros,
    pub(crate) refuses_until: Micros,
    /// The end of the time in which the broker refuses the sender's credentials.
    pub(crate) refuses_credentials_until: Micros,
    /// The time of the last refusal of credentials.
    pub(crate) credentials_refused_at: Option<Micros>,
    /// The time before which no request arrives.
    pub(crate) stalls_until: Micros,
    /// The time before which answers are lost, and with them all later answers of their connection.
    pub(crate) answers_lost_until: Micros,
    /// The end of `added_latency`.
    pub(crate) slow_until: Micros,
    /// The maximum latency added to each message.
    pub(crate) added_latency: Micros,
    /// The delay of updates from the controller.
    pub(crate) update_delay: Micros,
    /// The time before which answers omit parts.
    pub(crate) omits_parts_until: Micros,
}

impl Broker {
    pub(crate) fn new(views: [View; PARTITIONS]) -> Self {
        Self {
            up: true,
            incarnation: 0,
            paused: false,
            pauses: 0,
            fenced: false,
            views,
            throttles_until: 0,
            refuses_until: 0,
            refuses_credentials_until: 0,
            credentials_refused_at: None,
            stalls_until: 0,
            answers_lost_until: 0,
            slow_until: 0,
            added_latency: 0,
            update_delay: 0,
            omits_parts_until: 0,
        }
    }

    /// Returns whether the broker is up and not paused.
    pub(crate) fn runs(&self) -> bool {
        self.up && !self.paused
    }
}

/// Returns the topic id of an incarnation.
pub(crate) fn uuid(topic: usize, incarnation: u32) -> [u8; 16] {
    let mut uuid = [0; 16];
    uuid[0] = topic as u8 + 1;
    uuid[1..5].copy_from_slice(&incarnation.to_be_bytes());
    uuid
}

/// Returns a partition's topic, and its index in the topic.
pub(crate) fn topic_and_index(partition: usize) -> (usize, usize) {
    match partition.checked_sub(TOPICS * PARTITIONS_AT_FIRST) {
        None => (partition / PARTITIONS_AT_FIRST, partition % PARTITIONS_AT_FIRST),
        Some(further) => (further % TOPICS, PARTITIONS_AT_FIRST + further / TOPICS),
    }
}

pub(crate) fn topic_of(partition: usize) -> usize {
    topic_and_index(partition).0
}

pub(crate) fn partition_of(topic: usize, index: usize) -> usize {
    match index.checked_sub(PARTITIONS_AT_FIRST) {
        None => topic * PARTITIONS_AT_FIRST + index,
        Some(further) => TOPICS * PARTITIONS_AT_FIRST + further * TOPICS + topic,
    }
}

/// Returns the possible partitions of a topic, in the order of their indexes.
pub(crate) fn partitions_of(topic: usize) -> impl Iterator<Item = usize> {
    (0..PARTITIONS_AT_MOST).map(move |index| partition_of(topic, index))
}

const TOPIC_NAMES: [&str; TOPICS] = ["orders", "alerts"];

pub(crate) fn topic_name(topic: usize) -> &'static str {
    TOPIC_NAMES[topic]
}

/// Returns a topic by its name.
pub(crate) fn topic_by_name(name: &str) -> Option<usize> {
    TOPIC_NAMES.iter().position(|known| *known == name)
}

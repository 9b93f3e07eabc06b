//! The model cluster's state: brokers, partitions, replicas, and what each broker believes.
//!
//! Rules: the controller's truth and each broker's view of it are told apart, as are a replica's log and
//! what of it is committed; every broker holds a replica of every partition.

use std::collections::{BTreeSet, VecDeque};

use crate::log::{Entry, Producers};

pub(crate) const BROKERS: usize = 3;
pub(crate) const TOPICS: usize = 2;
/// A topic has so many partitions at first, and may grow to as many as `PARTITIONS_AT_MOST`.
pub(crate) const PARTITIONS_AT_FIRST: usize = 3;
pub(crate) const PARTITIONS_AT_MOST: usize = 4;
/// All that there can be: 0 to 2 are the first topic's, 3 to 5 the second's, and then one more of each.
pub(crate) const PARTITIONS: usize = TOPICS * PARTITIONS_AT_MOST;

/// Virtual time in microseconds since the schedule's start.
pub(crate) type Micros = u64;
pub(crate) const MS: Micros = 1000;
pub(crate) const SECOND: Micros = 1_000_000;

/// A partition as the controller has it, or as a broker believes it to be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct View {
    pub(crate) leader: Option<usize>,
    pub(crate) epoch: i32,
    /// A bit for each broker in the ISR.
    pub(crate) isr: u8,
    /// Raised when the topic is made anew.
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
    pub(crate) log: Vec<Entry>,
    pub(crate) high_watermark: i64,
    pub(crate) producers: Producers,
    /// As a leader: how far each broker has fetched.
    pub(crate) fetched: [i64; BROKERS],
    /// As a leader: when each broker was last seen at the end of the log.
    pub(crate) caught_up: [Micros; BROKERS],
    /// As a leader: how many batches are known to be committed.
    pub(crate) committed: usize,
    /// Its disk has failed.
    pub(crate) offline: bool,
}

impl Replica {
    pub(crate) fn end(&self) -> i64 {
        self.log.last().map_or(0, Entry::end)
    }
}

/// An answer that a partition gives in place of its own, for the next requests.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Forced {
    pub(crate) code: i16,
    /// After the append, and whether the answer says at which offset.
    pub(crate) appended: Option<bool>,
}

#[derive(Clone, Debug)]
pub(crate) struct Partition {
    pub(crate) truth: View,
    pub(crate) replicas: [Replica; BROKERS],
    pub(crate) min_isr: u32,
    pub(crate) max_bytes: usize,
    /// Batches over this many bytes are over the segment's size (18).
    pub(crate) segment_bytes: usize,
    /// Records without a key are refused (87), each by its index if `names_guilty`.
    pub(crate) compacted: bool,
    pub(crate) names_guilty: bool,
    /// `message.timestamp.before.max.ms`: older records are refused (32), each by its index.
    pub(crate) max_age_ms: i64,
    pub(crate) forced: VecDeque<Forced>,
    /// Every batch of this code is refused until it is lifted (rights, limits).
    pub(crate) refused: Option<i16>,
    /// Added to what a follower's fetch takes.
    pub(crate) replication_delay: Micros,
    /// A fetch of this follower is under way.
    pub(crate) fetching: [bool; BROKERS],
    /// Everything that was ever committed, by the topic's life, some of it more than once.
    pub(crate) committed: Vec<(u32, Entry)>,
    /// Unclean elections: their leaders may never have known a producer.
    pub(crate) forgets: u32,
    /// Producers forgotten because of old record times.
    pub(crate) expiries: u32,
    /// What was committed and is in no log any more, by the number of its append: elections were unclean.
    pub(crate) lost: BTreeSet<u64>,
    /// The topic's life and the leader epoch of the last unclean election: what a former leader still commits is lost.
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
            names_guilty: true,
            max_age_ms: i64::MAX,
            forced: VecDeque::new(),
            refused: None,
            replication_delay: 0,
            fetching: [false; BROKERS],
            committed: Vec::new(),
            forgets: 0,
            expiries: 0,
            lost: BTreeSet::new(),
            unclean: (0, 0),
        }
    }
}

#[derive(Clone, Debug)]
pub(crate) struct Broker {
    pub(crate) up: bool,
    /// Raised at each start.
    pub(crate) incarnation: u32,
    pub(crate) paused: bool,
    /// Raised at each pause, so that a former pause's end is told apart.
    pub(crate) pauses: u32,
    pub(crate) fenced: bool,
    pub(crate) views: [View; PARTITIONS],
    pub(crate) throttles_until: Micros,
    pub(crate) refuses_until: Micros,
    /// Until then it takes no credentials.
    pub(crate) distrusts_until: Micros,
    /// When it last refused them.
    pub(crate) distrusted_at: Option<Micros>,
    /// Nothing that was sent to it arrives before this.
    pub(crate) requests_stall_until: Micros,
    /// Answers sent before this are lost, and all that follow on their connection.
    pub(crate) answers_lost_until: Micros,
    /// Added to each way until `slow_until`.
    pub(crate) slow_until: Micros,
    pub(crate) slowness: Micros,
    /// News of the controller come this much later.
    pub(crate) news_delay: Micros,
    /// Parts of answers are left out until this.
    pub(crate) forgets_parts_until: Micros,
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
            distrusts_until: 0,
            distrusted_at: None,
            requests_stall_until: 0,
            answers_lost_until: 0,
            slow_until: 0,
            slowness: 0,
            news_delay: 0,
            forgets_parts_until: 0,
        }
    }

    /// Whether it does anything at all now.
    pub(crate) fn runs(&self) -> bool {
        self.up && !self.paused
    }
}

/// The id of a topic in one of its lives.
pub(crate) fn uuid(topic: usize, incarnation: u32) -> [u8; 16] {
    let mut uuid = [0; 16];
    uuid[0] = topic as u8 + 1;
    uuid[1..5].copy_from_slice(&incarnation.to_be_bytes());
    uuid
}

/// The topic of a partition, and its index in it.
pub(crate) fn place_of(partition: usize) -> (usize, usize) {
    match partition.checked_sub(TOPICS * PARTITIONS_AT_FIRST) {
        None => (partition / PARTITIONS_AT_FIRST, partition % PARTITIONS_AT_FIRST),
        Some(further) => (further % TOPICS, PARTITIONS_AT_FIRST + further / TOPICS),
    }
}

pub(crate) fn topic_of(partition: usize) -> usize {
    place_of(partition).0
}

pub(crate) fn partition_of(topic: usize, index: usize) -> usize {
    match index.checked_sub(PARTITIONS_AT_FIRST) {
        None => topic * PARTITIONS_AT_FIRST + index,
        Some(further) => TOPICS * PARTITIONS_AT_FIRST + further * TOPICS + topic,
    }
}

/// The partitions that a topic may have, in the order of their indexes.
pub(crate) fn partitions_of(topic: usize) -> impl Iterator<Item = usize> {
    (0..PARTITIONS_AT_MOST).map(move |index| partition_of(topic, index))
}

const TOPIC_NAMES: [&str; TOPICS] = ["orders", "alerts"];

pub(crate) fn topic_name(topic: usize) -> &'static str {
    TOPIC_NAMES[topic]
}

/// The topic of this name.
pub(crate) fn topic_named(name: &str) -> Option<usize> {
    TOPIC_NAMES.iter().position(|known| *known == name)
}

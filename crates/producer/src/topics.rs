//! The topics that were published to, and the open batches of their partitions.
//!
//! The rules of this module:
//!  - A lookup takes no lock. One lookup returns the topic and its partitions: they are one value, replaced as a whole.
//!  - A publisher that waited for a topic looks the topic up again.
//!  - The next publisher of a failed topic requests the topic again.
//!  - Only the sender's task calls `on_ready` and `on_limit`. Two concurrent calls would lose partitions.
//!  - Partitions are added, never removed. A topic that was recreated with fewer partitions keeps the slots of the
//!    removed partitions for their open batches, but gets no new records there.
//!  - A topic has Kafka's default limit until its own is known.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::Arc;
use std::time::Instant;

use arc_swap::ArcSwap;
use kafka_courier_batcher::{Accumulator, Compression, Limits};
use kafka_courier_client::{PartitionId, Reason, TopicId};
use tokio::sync::watch;

use crate::delivery::Token;
use crate::keyless_partitioner::KeylessPartitioner;
use crate::memory::Memory;
use crate::sync::{AtomicUsize, Mutex, Ordering};

/// Kafka's default of `max.message.bytes`: the size of a whole batch with its header, as on the wire.
const DEFAULT_TOPIC_LIMIT: usize = 1_048_588;

/// The open batch of one partition.
///
/// A slot has its own cache lines, so that threads that publish to different partitions do not slow each other down.
#[derive(Debug)]
#[repr(align(128))]
pub(crate) struct PartitionSlot {
    pub(crate) id: PartitionId,
    pub(crate) accumulator: Mutex<Accumulator<Token>>,
    /// Bytes held by the partition's batches without a verdict.
    pub(crate) held: AtomicUsize,
}

impl PartitionSlot {
    /// Returns the number of events that were ever accepted for this partition.
    pub(crate) fn accepted(&self) -> u64 {
        self.accumulator.lock().accepted_records()
    }

    /// Reserves memory for this partition. Returns whether there was room.
    pub(crate) fn reserve(&self, memory: &Memory, bytes: usize) -> bool {
        let reserved = memory.reserve(bytes, memory.share(self.held.load(Ordering::Relaxed), bytes));
        if reserved {
            self.held.fetch_add(bytes, Ordering::Relaxed);
        }
        reserved
    }

    /// Charges memory that this partition holds already.
    pub(crate) fn charge(&self, memory: &Memory, bytes: usize) {
        memory.charge(bytes);
        self.held.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Releases memory of this partition.
    pub(crate) fn release(&self, memory: &Memory, bytes: usize) {
        self.held.fetch_sub(bytes, Ordering::Relaxed);
        memory.release(bytes);
    }
}

/// The known partitions of a topic.
#[derive(Debug)]
pub(crate) struct Partitions {
    /// One slot for each partition that the topic ever had.
    pub(crate) slots: Vec<Arc<PartitionSlot>>,
    /// The number of partitions now. Keys are hashed over these.
    pub(crate) count: i32,
    /// The partitions that have a leader, in ascending order.
    pub(crate) available: Vec<i32>,
}

/// The state of a topic's metadata lookup.
#[derive(Clone, Debug)]
pub(crate) enum TopicLookup {
    NotRequested,
    Requested,
    Ready,
    /// The lookup failed for this reason, at this instant.
    Failed(Reason, Instant),
    /// The lookup failed for this reason, and was requested again at this instant.
    RequestedAgain(Reason, Instant),
}

/// A topic as known now.
#[derive(Debug)]
pub(crate) struct TopicEntry {
    pub(crate) name: Arc<str>,
    /// The partitions, or `None` while they are unknown.
    pub(crate) partitions: Option<Partitions>,
    pub(crate) state: Arc<SharedTopicState>,
}

/// The state that all versions of a topic's entry share, before and after its partitions are known.
#[derive(Debug)]
pub(crate) struct SharedTopicState {
    pub(crate) lookup: watch::Sender<TopicLookup>,
    /// The choice of partition for records without a key.
    pub(crate) keyless: KeylessPartitioner,
    /// The largest batch in bytes that the topic accepts.
    limit: AtomicUsize,
}

/// Topics by key. Read for every record, hence with a seeded hash that is faster than std's.
type TopicMap<K> = HashMap<K, Arc<TopicEntry>, foldhash::fast::RandomState>;

/// All topics, by name and by the sender's topic number.
#[derive(Debug)]
pub(crate) struct TopicTable {
    by_name: ArcSwap<TopicMap<Arc<str>>>,
    by_id: ArcSwap<TopicMap<TopicId>>,
    limits: Limits,
    compression: Compression,
}

impl TopicTable {
    pub(crate) fn new(limits: Limits, compression: Compression) -> Self {
        Self { by_name: ArcSwap::default(), by_id: ArcSwap::default(), limits, compression }
    }

    /// Returns the topic, if it was ever published to.
    pub(crate) fn get(&self, name: &str) -> Option<Arc<TopicEntry>> {
        self.by_name.load().get(name).cloned()
    }

    /// Calls `take` with the topic, if it was ever published to.
    ///
    /// Unlike [`get`](Self::get) it increments no reference count, for which threads of one topic would contend.
    pub(crate) fn with<R>(&self, name: &str, take: impl FnOnce(&TopicEntry) -> R) -> Option<R> {
        self.by_name.load().get(name).map(|topic| take(topic))
    }

    /// Returns the topic. A new topic is added.
    pub(crate) fn get_or_add(&self, name: &str) -> Arc<TopicEntry> {
        if let Some(topic) = self.get(name) {
            return topic;
        }
        let state = Arc::new(SharedTopicState {
            lookup: watch::Sender::new(TopicLookup::NotRequested),
            keyless: KeylessPartitioner::new(self.limits.max_bytes),
            limit: DEFAULT_TOPIC_LIMIT.into(),
        });
        let topic = Arc::new(TopicEntry { name: name.into(), partitions: None, state });
        self.by_name.rcu(|topics| {
            let mut topics = TopicMap::clone(topics);
            topics.entry(topic.name.clone()).or_insert_with(|| topic.clone());
            topics
        });
        self.get(name).unwrap_or(topic)
    }

    /// Notes that a batch of this partition left because its linger ended.
    pub(crate) fn on_lingered(&self, id: PartitionId) {
        if let Some(topic) = self.by_id.load().get(&id.topic) {
            topic.state.keyless.share_one();
        }
    }

    pub(crate) fn slot(&self, id: PartitionId) -> Option<Arc<PartitionSlot>> {
        let topics = self.by_id.load();
        topics.get(&id.topic)?.partitions.as_ref()?.slots.get(usize::try_from(id.index).ok()?).cloned()
    }

    /// Returns the name of a partition's topic.
    pub(crate) fn name(&self, id: PartitionId) -> Option<Arc<str>> {
        self.by_id.load().get(&id.topic).map(|topic| topic.name.clone())
    }

    /// Returns every partition of every topic.
    pub(crate) fn all_slots(&self) -> Vec<Arc<PartitionSlot>> {
        let topics = self.by_name.load();
        let partitions = topics.values().filter_map(|topic| topic.partitions.as_ref());
        partitions.flat_map(|partitions| partitions.slots.iter().cloned()).collect()
    }

    /// Stores the partitions of a topic. `available` says for each partition whether it has a leader.
    pub(crate) fn on_ready(&self, id: TopicId, name: &str, available: &[bool]) {
        self.add_partitions(id, name, available, |_| 0);
    }

    /// Stores the partitions of a topic as earlier processes knew them. `first_batch` gives the number of a partition's
    /// next batch.
    pub(crate) fn on_recovered(&self, id: TopicId, name: &str, partitions: usize, first_batch: impl Fn(i32) -> u64) {
        self.add_partitions(id, name, &vec![true; partitions], first_batch);
    }

    fn add_partitions(&self, id: TopicId, name: &str, available: &[bool], first_batch: impl Fn(i32) -> u64) {
        let before = self.get_or_add(name);
        let mut slots = before.partitions.as_ref().map_or_else(Vec::new, |partitions| partitions.slots.clone());
        for index in slots.len()..available.len() {
            let id = PartitionId { topic: id, index: i32::try_from(index).unwrap_or(i32::MAX) };
            let mut accumulator = Accumulator::new(self.limits, self.compression).starting_at(first_batch(id.index));
            self.limit(&mut accumulator, before.state.limit.load(Ordering::Relaxed));
            slots.push(Arc::new(PartitionSlot { id, accumulator: Mutex::new(accumulator), held: AtomicUsize::new(0) }));
        }
        let count = i32::try_from(available.len()).unwrap_or(i32::MAX);
        let available = (0..).zip(available).filter_map(|(index, has_leader)| has_leader.then_some(index)).collect();
        if slots.is_empty() {
            return; // a topic without partitions is not ready
        }
        let (name, state) = (before.name.clone(), before.state.clone());
        let topic = Arc::new(TopicEntry { name, partitions: Some(Partitions { slots, count, available }), state });
        self.by_id.rcu(|topics| with_entry(topics, id, &topic));
        self.by_name.rcu(|topics| with_entry(topics, topic.name.clone(), &topic));
        topic.state.lookup.send_replace(TopicLookup::Ready);
    }

    /// Stores the largest batch that a topic accepts. Open batches keep their limit.
    pub(crate) fn on_limit(&self, name: &str, bytes: usize) {
        let topic = self.get_or_add(name);
        if bytes < self.limits.max_bytes {
            tracing::info!(
                topic = &*topic.name,
                flush_bytes = self.limits.max_bytes,
                bytes,
                "flush_bytes capped by the topic's max.message.bytes"
            );
        }
        topic.state.limit.store(bytes, Ordering::Relaxed);
        if let Some(partitions) = &topic.partitions {
            for slot in &partitions.slots {
                self.limit(&mut slot.accumulator.lock(), bytes);
            }
        }
    }

    fn limit(&self, accumulator: &mut Accumulator<Token>, bytes: usize) {
        accumulator.set_limits(Limits { max_bytes: self.limits.max_bytes.min(bytes), ..self.limits });
        accumulator.allow_single(bytes);
    }

    pub(crate) fn on_failed(&self, name: &str, reason: &Reason) {
        if let Some(topic) = self.get(name) {
            topic.state.lookup.send_replace(TopicLookup::Failed(reason.clone(), Instant::now()));
        }
    }
}

/// Returns a copy of `topics` with one more entry.
fn with_entry<K: Clone + Eq + Hash>(topics: &TopicMap<K>, key: K, topic: &Arc<TopicEntry>) -> TopicMap<K> {
    let mut topics = topics.clone();
    topics.insert(key, topic.clone());
    topics
}

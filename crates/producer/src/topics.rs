//! The topics that were published to, and their partitions' open batches.
//!
//! Until a topic's own limit is known it is taken to be Kafka's default.
//!
//! Rules: looking up takes no lock, and once, for a topic and its partitions: what is known of them is one value that is
//! replaced as a whole. Who waits for a topic looks it up again afterwards. A topic that failed is asked for anew by whoever
//! publishes to it next. What the sender tells of topics (`on_ready`, `on_limit`) is taken in by its task alone: two at a
//! time would lose places of partitions.
//! Places of partitions are added, never taken away: a topic that was made anew with fewer partitions keeps
//! those that it has no more, for what is still in them, but nothing new is put there.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::Arc;
use std::time::Instant;

use arc_swap::ArcSwap;
use kafka_courier_batcher::{Accumulator, Compression, Limits};
use kafka_courier_idempotent_sender::core::{PartitionId, Reason, TopicId};
use tokio::sync::watch;

use crate::delivery::Token;
use crate::memory::Memory;
use crate::spread::Spread;
use crate::sync::{AtomicUsize, Mutex, Ordering};

/// Kafka's default of `max.message.bytes`: a whole batch with its header, as it is on the wire.
const DEFAULT_TOPIC_LIMIT: usize = 1_048_588;

/// One partition's open batch.
///
/// On cache lines of its own: partitions that different threads publish to do not hold each other up.
#[derive(Debug)]
#[repr(align(128))]
pub(crate) struct Slot {
    pub(crate) id: PartitionId,
    pub(crate) accumulator: Mutex<Accumulator<Token>>,
    /// Bytes that its batches without a verdict hold.
    pub(crate) held: AtomicUsize,
}

impl Slot {
    /// Events that were ever accepted for this partition.
    pub(crate) fn accepted(&self) -> u64 {
        self.accumulator.lock().accepted_records()
    }

    /// Takes memory for this partition, if there is some for it.
    pub(crate) fn reserve(&self, memory: &Memory, bytes: usize) -> bool {
        let reserved = memory.reserve(bytes, memory.asker(self.held.load(Ordering::Relaxed), bytes));
        if reserved {
            self.held.fetch_add(bytes, Ordering::Relaxed);
        }
        reserved
    }

    /// Gives this partition's memory back.
    pub(crate) fn release(&self, memory: &Memory, bytes: usize) {
        self.held.fetch_sub(bytes, Ordering::Relaxed);
        memory.release(bytes);
    }
}

/// A topic's partitions as they are known now.
#[derive(Debug)]
pub(crate) struct Partitions {
    /// One for each partition that the topic ever had.
    pub(crate) slots: Vec<Arc<Slot>>,
    /// How many partitions it has now: keys are spread over these.
    pub(crate) count: i32,
    /// Those that have a leader, in rising order.
    pub(crate) available: Vec<i32>,
}

/// How it stands with a topic.
#[derive(Clone, Debug)]
pub(crate) enum Standing {
    Unasked,
    Asked,
    Ready,
    /// It could not be had, then.
    Failed(Reason, Instant),
    /// It could not be had, for that reason, and was asked for again, then.
    AskedAgain(Reason, Instant),
}

/// A topic as it is known now.
#[derive(Debug)]
pub(crate) struct Topic {
    pub(crate) name: Arc<str>,
    /// None as long as they are not known.
    pub(crate) partitions: Option<Partitions>,
    pub(crate) lasting: Arc<Lasting>,
}

/// What stays of a topic while its partitions come to be known, and change.
#[derive(Debug)]
pub(crate) struct Lasting {
    pub(crate) standing: watch::Sender<Standing>,
    /// Where records without key go.
    pub(crate) spread: Spread,
    /// The largest batch that it takes.
    limit: AtomicUsize,
}

/// Looked up for every record: with a hash that costs less than std's, and is seeded too.
type Named<K> = HashMap<K, Arc<Topic>, foldhash::fast::RandomState>;

/// All topics, by name and by the sender's number.
#[derive(Debug)]
pub(crate) struct Topics {
    by_name: ArcSwap<Named<Arc<str>>>,
    by_id: ArcSwap<Named<TopicId>>,
    limits: Limits,
    compression: Compression,
}

impl Topics {
    pub(crate) fn new(limits: Limits, compression: Compression) -> Self {
        Self { by_name: ArcSwap::default(), by_id: ArcSwap::default(), limits, compression }
    }

    /// The topic as it is now, if it was ever published to.
    pub(crate) fn get(&self, name: &str) -> Option<Arc<Topic>> {
        self.by_name.load().get(name).cloned()
    }

    /// Calls `take` with the topic, if it was ever published to. Unlike [`get`](Self::get) it counts no reference: threads that
    /// publish to one topic would take that count from each other for every event.
    pub(crate) fn with<R>(&self, name: &str, take: impl FnOnce(&Topic) -> R) -> Option<R> {
        self.by_name.load().get(name).map(|topic| take(topic))
    }

    /// The topic; it is entered if it is new.
    pub(crate) fn get_or_add(&self, name: &str) -> Arc<Topic> {
        if let Some(topic) = self.get(name) {
            return topic;
        }
        let lasting = Arc::new(Lasting {
            standing: watch::Sender::new(Standing::Unasked),
            spread: Spread::new(self.limits.max_bytes),
            limit: DEFAULT_TOPIC_LIMIT.into(),
        });
        let topic = Arc::new(Topic { name: name.into(), partitions: None, lasting });
        self.by_name.rcu(|topics| {
            let mut topics = Named::clone(topics);
            topics.entry(topic.name.clone()).or_insert_with(|| topic.clone());
            topics
        });
        self.get(name).unwrap_or(topic)
    }

    /// A batch of that partition has left because of its age.
    pub(crate) fn aged(&self, id: PartitionId) {
        if let Some(topic) = self.by_id.load().get(&id.topic) {
            topic.lasting.spread.gather();
        }
    }

    pub(crate) fn slot(&self, id: PartitionId) -> Option<Arc<Slot>> {
        let topics = self.by_id.load();
        topics.get(&id.topic)?.partitions.as_ref()?.slots.get(usize::try_from(id.index).ok()?).cloned()
    }

    /// Every partition of every topic.
    pub(crate) fn all_slots(&self) -> Vec<Arc<Slot>> {
        let topics = self.by_name.load();
        let partitions = topics.values().filter_map(|topic| topic.partitions.as_ref());
        partitions.flat_map(|partitions| partitions.slots.iter().cloned()).collect()
    }

    /// Takes in what the sender says of a topic: a partition for each place, and whether it has a leader.
    pub(crate) fn on_ready(&self, id: TopicId, name: &str, available: &[bool]) {
        let before = self.get_or_add(name);
        let mut slots = before.partitions.as_ref().map_or_else(Vec::new, |partitions| partitions.slots.clone());
        for index in slots.len()..available.len() {
            let id = PartitionId { topic: id, index: i32::try_from(index).unwrap_or(i32::MAX) };
            let mut accumulator = Accumulator::new(self.limits, self.compression);
            self.limit(&mut accumulator, before.lasting.limit.load(Ordering::Relaxed));
            slots.push(Arc::new(Slot { id, accumulator: Mutex::new(accumulator), held: AtomicUsize::new(0) }));
        }
        let count = i32::try_from(available.len()).unwrap_or(i32::MAX);
        let available = (0..).zip(available).filter_map(|(index, has_leader)| has_leader.then_some(index)).collect();
        if slots.is_empty() {
            return; // there is nothing to publish to yet
        }
        let (name, lasting) = (before.name.clone(), before.lasting.clone());
        let topic = Arc::new(Topic { name, partitions: Some(Partitions { slots, count, available }), lasting });
        self.by_id.rcu(|topics| with_entry(topics, id, &topic));
        self.by_name.rcu(|topics| with_entry(topics, topic.name.clone(), &topic));
        topic.lasting.standing.send_replace(Standing::Ready);
    }

    /// Takes in how large a batch a topic takes; batches that are open already are kept as they are.
    pub(crate) fn on_limit(&self, name: &str, bytes: usize) {
        let topic = self.get_or_add(name);
        if bytes < self.limits.max_bytes {
            tracing::info!(
                topic = &*topic.name,
                flush_bytes = self.limits.max_bytes,
                bytes,
                "flush_bytes is capped by what the topic takes"
            );
        }
        topic.lasting.limit.store(bytes, Ordering::Relaxed);
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
            topic.lasting.standing.send_replace(Standing::Failed(reason.clone(), Instant::now()));
        }
    }
}

/// These topics, and this one.
fn with_entry<K: Clone + Eq + Hash>(topics: &Named<K>, key: K, topic: &Arc<Topic>) -> Named<K> {
    let mut topics = topics.clone();
    topics.insert(key, topic.clone());
    topics
}

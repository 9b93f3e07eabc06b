//! Topics: their partitions, ids and availability.
//!
//! Rules:
//!  - A topic is requested until the cluster knows it or `metadata_timeout` has passed. A ready topic stays ready.
//!  - A partition that the topic no longer has keeps its place in the list and accepts nothing.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Instant;

use kafka_courier_client::{ErrorCode, PartitionId, TopicId, TopicUuid};

use super::lane::{PartitionLane, ReadyPartition};

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum TopicState {
    /// Requested. The topic fails at this time.
    Pending(Instant),
    Ready,
    Failed,
}

/// The requests for a topic that is not known yet.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TopicDiscovery {
    /// The earliest time of the next request.
    pub(crate) next: Instant,
    /// Requests in a row that did not find the topic.
    pub(crate) failures: u32,
    /// Whether the request in flight names the topic.
    pub(crate) named: bool,
}

#[derive(Debug)]
pub(crate) struct KnownTopic<T> {
    pub(crate) name: Arc<str>,
    /// `None` if the brokers send no topic ids.
    uuid: Option<TopicUuid>,
    pub(crate) state: TopicState,
    pub(crate) discovery: TopicDiscovery,
    /// The error of the topic in the last Metadata answer.
    pub(crate) error: Option<ErrorCode>,
    /// One lane for each partition that the topic ever had.
    lanes: Vec<PartitionLane<T>>,
    /// The present number of partitions.
    count: usize,
    /// The last former ids. An answer that names one of them is out of date.
    former: VecDeque<TopicUuid>,
    /// Answers in a row that named a former id.
    former_named: u32,
}

/// The number of former ids that are kept for a topic.
const FORMER_IDS_MAX: usize = 16;
/// The number of answers in a row that must name a former id before that id counts as the present one.
const FORMER_ID_ANSWERS: u32 = 4;

/// The meaning of the id in an answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum TopicIdChange {
    Same,
    /// The topic was deleted and recreated.
    Recreated,
    /// A former id: the answer is out of date.
    Former,
}

impl<T: Clone> KnownTopic<T> {
    pub(crate) fn uuid(&self) -> Option<TopicUuid> {
        self.uuid
    }

    pub(crate) fn lanes(&self) -> &[PartitionLane<T>] {
        &self.lanes
    }

    /// Returns the lane of a partition, with the topic's name and id.
    pub(crate) fn lane_mut(&mut self, index: i32) -> Option<(&mut PartitionLane<T>, &Arc<str>, Option<TopicUuid>)> {
        Some((self.lanes.get_mut(usize::try_from(index).ok()?)?, &self.name, self.uuid))
    }

    /// Returns whether each present partition has a leader.
    pub(crate) fn available(&self) -> Vec<bool> {
        self.lanes.iter().take(self.count).map(|lane| lane.partition.leader().is_some()).collect()
    }

    /// Notes that the recreated topic has `count` partitions, if it has fewer than before.
    pub(crate) fn shrink(&mut self, count: usize) {
        self.count = count.min(self.lanes.len());
    }

    /// Adds partitions up to `count`. A topic never loses partitions unless it is recreated. Returns whether it has
    /// more partitions now.
    pub(crate) fn grow(&mut self, id: TopicId, count: usize) -> bool {
        for index in self.lanes.len()..count {
            let index = i32::try_from(index).unwrap_or(i32::MAX);
            self.lanes.push(PartitionLane::new(PartitionId { topic: id, index }));
        }
        for lane in self.lanes.iter_mut().take(count).skip(self.count) {
            lane.partition.on_partition_restored();
        }
        let more = count > self.count;
        self.count = self.count.max(count);
        more
    }

    /// Adopts the id in an answer. A recreated topic is not recognized if the brokers send no ids.
    pub(crate) fn learn_uuid(&mut self, uuid: Option<TopicUuid>) -> TopicIdChange {
        let Some(uuid) = uuid else { return TopicIdChange::Same };
        if Some(uuid) != self.uuid && self.former.contains(&uuid) {
            self.former_named += 1;
            if self.former_named < FORMER_ID_ANSWERS {
                return TopicIdChange::Former;
            }
            self.former.clear();
        }
        self.former_named = 0;
        if Some(uuid) == self.uuid {
            return TopicIdChange::Same;
        }
        let Some(before) = self.uuid.replace(uuid) else { return TopicIdChange::Same };
        if self.former.len() == FORMER_IDS_MAX {
            self.former.pop_front();
        }
        self.former.push_back(before);
        TopicIdChange::Recreated
    }
}

#[derive(Debug)]
pub(crate) struct KnownTopics<T> {
    list: Vec<KnownTopic<T>>,
    by_name: HashMap<Arc<str>, TopicId>,
}

impl<T: Clone> KnownTopics<T> {
    pub(crate) fn new() -> Self {
        Self { list: Vec::new(), by_name: HashMap::new() }
    }

    pub(crate) fn id(&self, name: &str) -> Option<TopicId> {
        self.by_name.get(name).copied()
    }

    pub(crate) fn add(&mut self, now: Instant, name: &str) -> TopicId {
        let id = TopicId(u32::try_from(self.list.len()).unwrap_or(u32::MAX));
        let name: Arc<str> = name.into();
        self.by_name.insert(name.clone(), id);
        self.list.push(KnownTopic {
            name,
            uuid: None,
            state: TopicState::Failed,
            discovery: TopicDiscovery { next: now, failures: 0, named: false },
            error: None,
            lanes: Vec::new(),
            count: 0,
            former: VecDeque::new(),
            former_named: 0,
        });
        id
    }

    pub(crate) fn get(&self, id: TopicId) -> Option<&KnownTopic<T>> {
        self.list.get(id.0 as usize)
    }

    pub(crate) fn get_mut(&mut self, id: TopicId) -> Option<&mut KnownTopic<T>> {
        self.list.get_mut(id.0 as usize)
    }

    pub(crate) fn lane(&self, id: PartitionId) -> Option<&PartitionLane<T>> {
        self.get(id.topic)?.lanes.get(usize::try_from(id.index).ok()?)
    }

    pub(crate) fn lane_mut(&mut self, id: PartitionId) -> Option<&mut PartitionLane<T>> {
        self.get_mut(id.topic)?.lanes.get_mut(usize::try_from(id.index).ok()?)
    }

    /// Returns the lane of an entry in a ready list, if the entry is valid.
    pub(crate) fn current_lane(&mut self, ready: &ReadyPartition) -> Option<&mut PartitionLane<T>> {
        self.lane_mut(ready.partition).filter(|lane| lane.is_current(ready))
    }

    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = &mut KnownTopic<T>> {
        self.list.iter_mut()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &KnownTopic<T>> {
        self.list.iter()
    }

    /// Returns the topics that the cluster is not known to have.
    pub(crate) fn pending(&self) -> Vec<TopicId> {
        let ids = (0..).map(TopicId).zip(&self.list);
        ids.filter(|(_, topic)| matches!(topic.state, TopicState::Pending(_))).map(|(id, _)| id).collect()
    }

    /// Returns the ids of all partitions.
    pub(crate) fn partitions(&self) -> Vec<PartitionId> {
        self.list.iter().flat_map(|topic| topic.lanes.iter().map(|lane| lane.partition.id)).collect()
    }
}

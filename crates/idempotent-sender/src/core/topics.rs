//! Topics as the core knows them: their partitions, their ids, and whether they can be had at all.
//!
//! Rules: a topic is asked for until it is there or `metadata_timeout` has passed; once there, it stays;
//! a partition that it has no more keeps its place, and takes nothing.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Instant;

use super::cluster::Lane;
use super::types::{PartitionId, TopicId, TopicUuid};

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum TopicState {
    /// Asked for, and given up at this time.
    Pending(Instant),
    Ready,
    Failed,
}

/// How a topic that is not known yet is asked for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Asking {
    /// The earliest time of the next request.
    pub(crate) next: Instant,
    /// Requests in a row that did not find it.
    pub(crate) failures: u32,
    /// The request on its way names it.
    pub(crate) named: bool,
}

#[derive(Debug)]
pub(crate) struct Topic<T> {
    pub(crate) name: Arc<str>,
    pub(crate) uuid: TopicUuid,
    pub(crate) state: TopicState,
    pub(crate) asking: Asking,
    /// The last error that metadata gave for it.
    pub(crate) code: i16,
    /// One for each partition that it ever had.
    pub(crate) lanes: Vec<Lane<T>>,
    /// How many partitions it has now.
    pub(crate) count: usize,
    /// Its former ids, the last ones: an answer that names one of them is older than what we know.
    former: VecDeque<TopicUuid>,
    /// How many answers in a row have named a former id.
    former_named: u32,
}

/// How many former ids of a topic are remembered.
const FORMER_REMEMBERED: usize = 16;
/// After so many answers in a row that name a former id it is the one that we know that is out of date.
const FORMER_BELIEVED: u32 = 4;

/// What the id that an answer names says of a topic.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Life {
    Same,
    /// It was deleted and made anew.
    Anew,
    /// A former one: the answer is out of date.
    Former,
}

impl<T> Topic<T> {
    /// Takes in the id that an answer names. Brokers that give no ids tell no lives apart.
    pub(crate) fn learn_uuid(&mut self, uuid: TopicUuid) -> Life {
        if uuid == [0; 16] {
            return Life::Same;
        }
        if uuid != self.uuid && self.former.contains(&uuid) {
            self.former_named += 1;
            if self.former_named < FORMER_BELIEVED {
                return Life::Former;
            }
            self.former.clear();
        }
        self.former_named = 0;
        if uuid == self.uuid {
            return Life::Same;
        }
        let before = std::mem::replace(&mut self.uuid, uuid);
        if before == [0; 16] {
            return Life::Same;
        }
        if self.former.len() == FORMER_REMEMBERED {
            self.former.pop_front();
        }
        self.former.push_back(before);
        Life::Anew
    }
}

#[derive(Debug)]
pub(crate) struct Topics<T> {
    list: Vec<Topic<T>>,
    by_name: HashMap<Arc<str>, TopicId>,
}

impl<T: Clone> Topics<T> {
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
        self.list.push(Topic {
            name,
            uuid: [0; 16],
            state: TopicState::Failed,
            asking: Asking { next: now, failures: 0, named: false },
            code: 0,
            lanes: Vec::new(),
            count: 0,
            former: VecDeque::new(),
            former_named: 0,
        });
        id
    }

    pub(crate) fn get(&self, id: TopicId) -> Option<&Topic<T>> {
        self.list.get(id.0 as usize)
    }

    pub(crate) fn get_mut(&mut self, id: TopicId) -> Option<&mut Topic<T>> {
        self.list.get_mut(id.0 as usize)
    }

    pub(crate) fn lane(&self, id: PartitionId) -> Option<&Lane<T>> {
        self.get(id.topic)?.lanes.get(usize::try_from(id.index).ok()?)
    }

    pub(crate) fn lane_mut(&mut self, id: PartitionId) -> Option<&mut Lane<T>> {
        self.get_mut(id.topic)?.lanes.get_mut(usize::try_from(id.index).ok()?)
    }

    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Topic<T>> {
        self.list.iter_mut()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Topic<T>> {
        self.list.iter()
    }

    /// The ids of all partitions.
    pub(crate) fn partitions(&self) -> Vec<PartitionId> {
        self.list.iter().flat_map(|topic| topic.lanes.iter().map(|lane| lane.partition.id)).collect()
    }
}

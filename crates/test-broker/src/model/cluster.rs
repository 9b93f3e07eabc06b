//! The cluster: brokers and topics.
//!
//! Rules:
//! - The number of topics, partitions and producer ids is bounded, and so are the bytes of all logs.
//! - Ids and replicas are deterministic: ids count up, and replicas rotate over the brokers.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use kafka_protocol::ResponseError;
use uuid::Uuid;

use super::check::AppendTarget;
use super::partition::AppendContext;
use super::topic::name_is_valid;
use super::{CheckedBatch, LogAppendInfo, PartitionModel, ProduceError, TopicConfig, TopicModel};

/// The first producer id. Any value except 0 reveals a client that leaves the field unset.
const FIRST_PRODUCER_ID: i64 = 4000;
/// The upper 64 bits of every topic id.
const TOPIC_ID: u64 = 0x6b63_7462_0000_4000;

/// The bounds and defaults of a cluster.
#[derive(Clone, Debug)]
pub(crate) struct ClusterLimits {
    /// Partitions of all topics together.
    pub(crate) max_partitions: usize,
    /// Producer ids that the leader of one partition remembers.
    pub(crate) max_producers: usize,
    /// Bytes of all logs together.
    pub(crate) max_log_bytes: usize,
    /// A partition that was never written accepts only sequence 0 from an unknown id (KAFKA-15591).
    pub(crate) strict_first_sequence: bool,
    /// A metadata request creates the topics that it names.
    pub(crate) auto_create: bool,
    pub(crate) default_partitions: i32,
    pub(crate) default_replication: i16,
}

/// A broker, as metadata describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct BrokerInfo {
    pub(crate) id: i32,
    pub(crate) host: String,
    pub(crate) port: u16,
    pub(crate) alive: bool,
}

/// A topic to create.
#[derive(Clone, Debug, Default)]
pub(crate) struct TopicCreation {
    pub(crate) name: String,
    /// `None`: the cluster's default.
    pub(crate) partitions: Option<i32>,
    /// `None`: the cluster's default.
    pub(crate) replication: Option<i16>,
    /// The replicas of each partition, the leader first. Empty: the replicas rotate over the brokers.
    pub(crate) assignment: Vec<Vec<i32>>,
    pub(crate) config: TopicConfig,
}

/// A topic that was created, or validated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct CreatedTopic {
    /// Nil if the topic was only validated.
    pub(crate) id: Uuid,
    pub(crate) partitions: usize,
    pub(crate) replication: usize,
}

/// Why a topic could not be created.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CreateError {
    pub(crate) code: ResponseError,
    pub(crate) message: String,
}

/// The brokers and topics of a cluster.
#[derive(Debug)]
pub(crate) struct ClusterModel {
    pub(crate) limits: ClusterLimits,
    pub(crate) brokers: Vec<BrokerInfo>,
    topics: BTreeMap<String, TopicModel>,
    names: HashMap<Uuid, String>,
    /// Topics that clients must not write.
    denied: BTreeSet<String>,
    /// Bytes charged for all logs.
    charged: usize,
    next_topic: u64,
    next_producer_id: i64,
}

impl ClusterModel {
    pub(crate) fn new(brokers: Vec<BrokerInfo>, limits: ClusterLimits) -> Self {
        Self {
            limits,
            brokers,
            topics: BTreeMap::new(),
            names: HashMap::new(),
            denied: BTreeSet::new(),
            charged: 0,
            next_topic: 1,
            next_producer_id: FIRST_PRODUCER_ID,
        }
    }

    /// Denies clients the right to write a topic, or allows it again.
    pub(crate) fn deny(&mut self, topic: &str, denied: bool) {
        match denied {
            true => self.denied.insert(topic.to_owned()),
            false => self.denied.remove(topic),
        };
    }

    pub(crate) fn is_denied(&self, topic: &str) -> bool {
        self.denied.contains(topic)
    }

    pub(crate) fn broker(&self, id: i32) -> Option<&BrokerInfo> {
        self.brokers.iter().find(|broker| broker.id == id)
    }

    /// Returns the ids of the brokers that are alive.
    pub(crate) fn alive(&self) -> Vec<i32> {
        self.brokers.iter().filter(|broker| broker.alive).map(|broker| broker.id).collect()
    }

    pub(crate) fn topics(&self) -> impl Iterator<Item = (&str, &TopicModel)> {
        self.topics.iter().map(|(name, topic)| (name.as_str(), topic))
    }

    pub(crate) fn topic(&self, name: &str) -> Option<&TopicModel> {
        self.topics.get(name)
    }

    pub(crate) fn topic_mut(&mut self, name: &str) -> Option<&mut TopicModel> {
        self.topics.get_mut(name)
    }

    /// Returns a topic's name by its id.
    pub(crate) fn name_of(&self, id: Uuid) -> Option<&str> {
        self.names.get(&id).map(String::as_str)
    }

    /// Returns a partition by topic and index.
    pub(crate) fn partition(&self, topic: &str, index: i32) -> Option<&PartitionModel> {
        self.topics.get(topic)?.partition(index)
    }

    /// Returns every partition of every topic, mutably.
    pub(crate) fn partitions_mut(&mut self) -> impl Iterator<Item = &mut PartitionModel> {
        self.topics.values_mut().flat_map(|topic| &mut topic.partitions)
    }

    /// Returns a new producer id.
    pub(crate) fn new_producer_id(&mut self) -> i64 {
        let id = self.next_producer_id;
        self.next_producer_id += 1;
        id
    }

    /// Creates a topic, or only validates it.
    pub(crate) fn create(&mut self, new: &TopicCreation, validate_only: bool) -> Result<CreatedTopic, CreateError> {
        let replicas = self.replicas_for(new)?;
        let replication = replicas.first().map_or(0, Vec::len);
        let created = CreatedTopic { id: Uuid::nil(), partitions: replicas.len(), replication };
        if validate_only {
            return Ok(created);
        }
        let id = Uuid::from_u64_pair(TOPIC_ID, self.next_topic);
        self.next_topic += 1;
        let limit = self.limits.max_producers;
        let mut partitions: Vec<PartitionModel> =
            replicas.into_iter().map(|ids| PartitionModel::new(ids, limit)).collect();
        for broker in self.brokers.iter().filter(|broker| !broker.alive) {
            partitions.iter_mut().for_each(|partition| partition.broker_down(broker.id));
        }
        self.names.insert(id, new.name.clone());
        self.topics.insert(new.name.clone(), TopicModel { id, config: new.config.clone(), partitions });
        Ok(CreatedTopic { id, ..created })
    }

    /// Raises the number of a topic's partitions. Returns false if the topic does not exist, the number is not higher,
    /// or the limit would be exceeded.
    pub(crate) fn raise_partitions(&mut self, name: &str, count: usize) -> bool {
        let existing: usize = self.topics.values().map(|topic| topic.partitions.len()).sum();
        let limits = (self.limits.max_partitions, self.limits.max_producers);
        let down: Vec<i32> = self.brokers.iter().filter(|broker| !broker.alive).map(|broker| broker.id).collect();
        let Some(topic) = self.topics.get_mut(name) else { return false };
        let more = count.saturating_sub(topic.partitions.len());
        let Some(replicas) = topic.partitions.first().map(|partition| partition.replicas.clone()) else { return false };
        if more == 0 || more > limits.0.saturating_sub(existing) {
            return false;
        }
        for _ in 0..more {
            let mut partition = PartitionModel::new(replicas.clone(), limits.1);
            down.iter().for_each(|id| partition.broker_down(*id));
            topic.partitions.push(partition);
        }
        true
    }

    fn replicas_for(&self, new: &TopicCreation) -> Result<Vec<Vec<i32>>, CreateError> {
        let refuse = |code, message: String| Err(CreateError { code, message });
        if !name_is_valid(&new.name) {
            return refuse(ResponseError::InvalidTopicException, format!("The topic name {:?} is illegal", new.name));
        }
        if self.topics.contains_key(&new.name) {
            return refuse(ResponseError::TopicAlreadyExists, format!("Topic '{}' already exists.", new.name));
        }
        let count = match new.assignment.len() {
            0 => new.partitions.unwrap_or(self.limits.default_partitions),
            assigned => i32::try_from(assigned).unwrap_or(i32::MAX),
        };
        let count = usize::try_from(count).unwrap_or(0);
        let existing: usize = self.topics.values().map(|topic| topic.partitions.len()).sum();
        if count == 0 || count > self.limits.max_partitions.saturating_sub(existing) {
            return refuse(
                ResponseError::InvalidPartitions,
                format!("The number of partitions {count} is not allowed"),
            );
        }
        if !new.assignment.is_empty() {
            return self.assigned(&new.assignment);
        }
        let replication = new.replication.unwrap_or(self.limits.default_replication);
        let replication = usize::try_from(replication).unwrap_or(0);
        if replication == 0 || replication > self.brokers.len() {
            let message = format!("The replication factor {replication} is not between 1 and the number of brokers");
            return refuse(ResponseError::InvalidReplicationFactor, message);
        }
        let ids = || self.brokers.iter().map(|broker| broker.id).cycle();
        Ok((0..count).map(|index| ids().skip(index % self.brokers.len()).take(replication).collect()).collect())
    }

    fn assigned(&self, assignment: &[Vec<i32>]) -> Result<Vec<Vec<i32>>, CreateError> {
        let distinct =
            |ids: &Vec<i32>| ids.iter().enumerate().all(|(at, id)| !ids.iter().take(at).any(|before| before == id));
        let known = |ids: &Vec<i32>| ids.len() <= self.brokers.len() && ids.iter().all(|id| self.broker(*id).is_some());
        if assignment.iter().all(|ids| !ids.is_empty() && known(ids) && distinct(ids)) {
            return Ok(assignment.to_vec());
        }
        let message = "Each partition must be assigned to distinct brokers of the cluster".to_owned();
        Err(CreateError { code: ResponseError::InvalidReplicaAssignment, message })
    }

    /// Deletes a topic and its records. Returns whether the topic existed.
    pub(crate) fn delete(&mut self, name: &str) -> bool {
        let Some(topic) = self.topics.remove(name) else { return false };
        self.names.remove(&topic.id);
        self.charged = self.charged.saturating_sub(topic.charged());
        true
    }

    /// Appends a checked batch to a partition. `None` means that the partition does not exist.
    pub(crate) fn append(
        &mut self,
        broker: i32,
        to: AppendTarget<'_>,
        checked: Result<CheckedBatch, ProduceError>,
        acks: i16,
        now_ms: i64,
    ) -> Option<Result<LogAppendInfo, ProduceError>> {
        let room = self.limits.max_log_bytes.saturating_sub(self.charged);
        let strict_first_sequence = self.limits.strict_first_sequence;
        let topic = self.topics.get_mut(to.topic)?;
        let config = topic.config.clone();
        let at = AppendContext { broker, acks, now_ms, config: &config, strict_first_sequence, room };
        let appended = topic.partition_mut(to.partition)?.append(checked, at);
        if let Ok(appended) = &appended {
            self.charged = self.charged.saturating_add_signed(appended.grown as isize);
        }
        Some(appended)
    }

    /// Marks a broker as dead. Returns whether it was alive.
    pub(crate) fn broker_down(&mut self, id: i32) -> bool {
        let was_alive = self.set_alive(id, false);
        if was_alive == Some(true) {
            self.partitions_mut().for_each(|partition| partition.broker_down(id));
        }
        was_alive == Some(true)
    }

    /// Marks a broker as alive. Returns whether it was dead.
    pub(crate) fn broker_up(&mut self, id: i32) -> bool {
        let was_alive = self.set_alive(id, true);
        if was_alive == Some(false) {
            let alive = self.alive();
            self.partitions_mut().for_each(|partition| partition.broker_up(id, &alive));
        }
        was_alive == Some(false)
    }

    fn set_alive(&mut self, id: i32, alive: bool) -> Option<bool> {
        let broker = self.brokers.iter_mut().find(|broker| broker.id == id)?;
        Some(std::mem::replace(&mut broker.alive, alive))
    }
}

//! The cluster: its brokers and topics.
//!
//! Rules: the number of topics, partitions and producer ids, and the bytes of all logs, are bounded; everything that is
//! made here is made the same way each time: ids count up, replicas go round.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use kafka_protocol::ResponseError;
use uuid::Uuid;

use super::check::Target;
use super::partition::AppendContext;
use super::topic::name_is_valid;
use super::{Appended, CheckedBatch, Partition, Refusal, Topic, TopicConfig};

/// The first producer id: not 0, so that a client's forgotten field is seen.
const FIRST_PRODUCER_ID: i64 = 4000;
/// The high half of every topic id.
const TOPIC_ID: u64 = 0x6b63_7462_0000_4000;

/// What bounds a cluster.
#[derive(Clone, Debug)]
pub(crate) struct Limits {
    /// Partitions of all topics together.
    pub(crate) max_partitions: usize,
    /// Producer ids remembered per partition.
    pub(crate) max_producers: usize,
    /// Bytes of all logs together.
    pub(crate) max_log_bytes: usize,
    /// A partition that was never written takes only sequence 0 of an unknown id (KAFKA-15591).
    pub(crate) strict_first_sequence: bool,
    /// Topics that metadata is asked for are created.
    pub(crate) auto_create: bool,
    pub(crate) default_partitions: i32,
    pub(crate) default_replication: i16,
}

/// A broker, as metadata names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct BrokerInfo {
    pub(crate) id: i32,
    pub(crate) host: String,
    pub(crate) port: u16,
    pub(crate) alive: bool,
}

/// A topic to be created.
#[derive(Clone, Debug, Default)]
pub(crate) struct NewTopic {
    pub(crate) name: String,
    /// `None`: the cluster's default.
    pub(crate) partitions: Option<i32>,
    /// `None`: the cluster's default.
    pub(crate) replication: Option<i16>,
    /// Replicas of each partition, the leader first; empty: round the brokers.
    pub(crate) assignment: Vec<Vec<i32>>,
    pub(crate) config: TopicConfig,
}

/// A topic that was created, or could be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Created {
    /// Nil if it was only looked whether it could be.
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

/// A cluster.
#[derive(Debug)]
pub(crate) struct Cluster {
    pub(crate) limits: Limits,
    pub(crate) brokers: Vec<BrokerInfo>,
    topics: BTreeMap<String, Topic>,
    names: HashMap<Uuid, String>,
    /// Topics that nobody may write.
    denied: BTreeSet<String>,
    charged: usize,
    next_topic: u64,
    next_producer_id: i64,
}

impl Cluster {
    pub(crate) fn new(brokers: Vec<BrokerInfo>, limits: Limits) -> Self {
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

    /// Takes the right to write a topic from everybody, or gives it back.
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

    /// Ids of the brokers that are there.
    pub(crate) fn alive(&self) -> Vec<i32> {
        self.brokers.iter().filter(|broker| broker.alive).map(|broker| broker.id).collect()
    }

    pub(crate) fn topics(&self) -> impl Iterator<Item = (&str, &Topic)> {
        self.topics.iter().map(|(name, topic)| (name.as_str(), topic))
    }

    pub(crate) fn topic(&self, name: &str) -> Option<&Topic> {
        self.topics.get(name)
    }

    pub(crate) fn topic_mut(&mut self, name: &str) -> Option<&mut Topic> {
        self.topics.get_mut(name)
    }

    /// The name of a topic by its id.
    pub(crate) fn name_of(&self, id: Uuid) -> Option<&str> {
        self.names.get(&id).map(String::as_str)
    }

    /// A partition by topic and index.
    pub(crate) fn partition(&self, topic: &str, index: i32) -> Option<&Partition> {
        self.topics.get(topic)?.partition(index)
    }

    /// Every partition of every topic, to be changed.
    pub(crate) fn partitions_mut(&mut self) -> impl Iterator<Item = &mut Partition> {
        self.topics.values_mut().flat_map(|topic| &mut topic.partitions)
    }

    /// A producer id that was never given before.
    pub(crate) fn new_producer_id(&mut self) -> i64 {
        let id = self.next_producer_id;
        self.next_producer_id += 1;
        id
    }

    /// Creates a topic, or only says what it would be.
    pub(crate) fn create(&mut self, new: &NewTopic, validate_only: bool) -> Result<Created, CreateError> {
        let replicas = self.replicas_for(new)?;
        let replication = replicas.first().map_or(0, Vec::len);
        let created = Created { id: Uuid::nil(), partitions: replicas.len(), replication };
        if validate_only {
            return Ok(created);
        }
        let id = Uuid::from_u64_pair(TOPIC_ID, self.next_topic);
        self.next_topic += 1;
        let limit = self.limits.max_producers;
        let mut partitions: Vec<Partition> = replicas.into_iter().map(|ids| Partition::new(ids, limit)).collect();
        for broker in self.brokers.iter().filter(|broker| !broker.alive) {
            partitions.iter_mut().for_each(|partition| partition.broker_down(broker.id));
        }
        self.names.insert(id, new.name.clone());
        self.topics.insert(new.name.clone(), Topic { id, config: new.config.clone(), partitions });
        Ok(Created { id, ..created })
    }

    /// Raises a topic's partitions to so many; says whether there is such a topic and room for them.
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
            let mut partition = Partition::new(replicas.clone(), limits.1);
            down.iter().for_each(|id| partition.broker_down(*id));
            topic.partitions.push(partition);
        }
        true
    }

    fn replicas_for(&self, new: &NewTopic) -> Result<Vec<Vec<i32>>, CreateError> {
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
            return refuse(ResponseError::InvalidPartitions, format!("{count} partitions are not possible"));
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

    /// Deletes a topic with all that is in it. Answers whether there was one.
    pub(crate) fn delete(&mut self, name: &str) -> bool {
        let Some(topic) = self.topics.remove(name) else { return false };
        self.names.remove(&topic.id);
        self.charged = self.charged.saturating_sub(topic.charged());
        true
    }

    /// Appends a checked batch to a partition of the topic of that name. `None`: there is no such partition.
    pub(crate) fn append(
        &mut self,
        broker: i32,
        to: Target<'_>,
        checked: Result<CheckedBatch, Refusal>,
        acks: i16,
        now_ms: i64,
    ) -> Option<Result<Appended, Refusal>> {
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

    /// A broker dies. Answers whether it was there.
    pub(crate) fn broker_down(&mut self, id: i32) -> bool {
        let was_alive = self.set_alive(id, false);
        if was_alive == Some(true) {
            self.partitions_mut().for_each(|partition| partition.broker_down(id));
        }
        was_alive == Some(true)
    }

    /// A broker is back. Answers whether it was away.
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

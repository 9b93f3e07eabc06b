//! The leaders of partitions, and one connection to each of them.
//!
//! Rules:
//! - A topic's metadata is requested again after each failure that concerns the topic, and at no other time.
//! - A connection that failed, or that owes an answer, is cut: its next answer would belong to another request.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rskafka::protocol::messages::{ReadVersionedType, RequestBody, WriteVersionedType};
use tokio::sync::Mutex;
use tokio::time::timeout;

use super::attempt::AttemptError;
use super::topic::Cleanup;
use crate::config::ClientConfig;
use crate::connection::{BrokerConnection, Dialer, NoAnswer, broker_timeout};
use crate::control::{Control, ProducerIdError};
use crate::error_code::ErrorCode;
use crate::ids::{BrokerAddress, BrokerId, TopicUuid};
use crate::reason::Reason;
use crate::wire::describe_configs::{CLEANUP_POLICY, RETENTION_BYTES, RETENTION_MS};
use crate::wire::metadata::TopicMetadata;
use crate::wire::produce::{ProduceAnswer, ProducePart};

/// A partition's leader, with a connection to it.
pub(super) struct PartitionLeader {
    pub(super) topic: Arc<str>,
    pub(super) topic_uuid: Option<TopicUuid>,
    pub(super) epoch: Option<i32>,
    pooled: Arc<PooledConnection>,
}

/// A connection that may have failed.
struct PooledConnection {
    address: BrokerAddress,
    connection: BrokerConnection,
    failed: AtomicBool,
}

impl PartitionLeader {
    /// Sends a request. The connection is cut if no answer arrives, or if this future is dropped earlier.
    pub(super) async fn ask<R>(&self, request: R, time_limit: Duration) -> Result<R::ResponseBody, AttemptError>
    where
        R: RequestBody + Send + WriteVersionedType<Vec<u8>>,
        R::ResponseBody: ReadVersionedType<std::io::Cursor<Vec<u8>>>,
    {
        self.await_answer(self.pooled.connection.request(request), time_limit).await
    }

    /// Sends a batch to append, otherwise as [`ask`](Self::ask).
    pub(super) async fn produce(&self, part: ProducePart, time_limit: Duration) -> Result<ProduceAnswer, AttemptError> {
        self.await_answer(self.pooled.connection.produce(broker_timeout(time_limit), vec![part]), time_limit).await
    }

    async fn await_answer<A>(
        &self,
        answer: impl Future<Output = Result<A, NoAnswer>>,
        time_limit: Duration,
    ) -> Result<A, AttemptError> {
        let mut unanswered = CutUnlessAnswered(Some(&self.pooled));
        let answer = match timeout(time_limit, answer).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(NoAnswer::Failed(why))) => return Err(AttemptError::Lost(why)),
            Ok(Err(NoAnswer::NoVersion(none))) => {
                unanswered.0 = None; // The request was not sent.
                return Err(AttemptError::ClusterRefused(Reason::NoCommonVersion(Arc::new(none))));
            }
            Err(_) => return Err(AttemptError::Lost(format!("no answer within {time_limit:?}"))),
        };
        unanswered.0 = None;
        Ok(answer)
    }
}

struct CutUnlessAnswered<'a>(Option<&'a PooledConnection>);

impl Drop for CutUnlessAnswered<'_> {
    fn drop(&mut self) {
        if let Some(pooled) = self.0 {
            pooled.failed.store(true, Ordering::Relaxed);
            pooled.connection.cut();
        }
    }
}

pub(super) struct Leaders {
    control: Control,
    dialer: Dialer,
    state: Mutex<KnownLeaders>,
}

#[derive(Default)]
struct KnownLeaders {
    topics: HashMap<Arc<str>, TopicMetadata>,
    brokers: HashMap<BrokerId, BrokerAddress>,
    connections: HashMap<BrokerId, Arc<PooledConnection>>,
}

impl fmt::Debug for Leaders {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Leaders").finish_non_exhaustive()
    }
}

impl Leaders {
    pub(super) fn new(config: &ClientConfig) -> Self {
        let dialer = Dialer::new(config);
        let control = Control::new(config, dialer.clone());
        Self { control, dialer, state: Mutex::default() }
    }

    /// Requests a topic's metadata, and caches it.
    pub(super) async fn describe(&self, topic: &str) -> Result<TopicMetadata, AttemptError> {
        let cluster = self.control.metadata_if_there(vec![topic.into()]).await.map_err(AttemptError::from_connect)?;
        let found =
            cluster.topics.into_iter().find(|found| *found.name == *topic).ok_or(AttemptError::PartitionMissing)?;
        match ErrorCode(found.code) {
            ErrorCode::NONE => {}
            // Kafka calls this code retriable because a topic may just be created. This client takes the code as the
            // answer.
            none @ ErrorCode::UNKNOWN_TOPIC_OR_PARTITION => return Err(AttemptError::Permanent(none)),
            ErrorCode(code) => return Err(AttemptError::from_code(code)),
        }
        let mut state = self.state.lock().await;
        state.brokers = cluster.brokers.into_iter().map(|broker| (broker.id, broker)).collect();
        state.topics.insert(found.name.clone(), found.clone());
        Ok(found)
    }

    /// Drops the cached metadata of a topic. The next request asks for it first.
    pub(super) async fn invalidate(&self, topic: &str) {
        self.state.lock().await.topics.remove(topic);
    }

    pub(super) async fn producer_id(&self) -> Result<i64, AttemptError> {
        self.control.producer_id().await.map_err(|error| match error {
            ProducerIdError::Refused(reason) => AttemptError::ClusterRefused(reason),
            ProducerIdError::Failed { code: Some(code), .. } => AttemptError::from_code(code.0),
            ProducerIdError::Failed { code: None, why } => AttemptError::Lost(why),
        })
    }

    pub(super) async fn cleanup(&self, topic: &str) -> Result<Cleanup, AttemptError> {
        let settings = &[CLEANUP_POLICY, RETENTION_MS, RETENTION_BYTES];
        let answer = self.control.topic_settings(topic.into(), settings).await.map_err(AttemptError::from_connect)?;
        if answer.code != ErrorCode::NONE.0 {
            return Err(AttemptError::from_code(answer.code));
        }
        let policy = answer.value(CLEANUP_POLICY).ok_or(AttemptError::PartitionMissing)?;
        let number = |name| answer.value(name).and_then(|value| value.parse().ok());
        Ok(Cleanup {
            policy: policy.into(),
            retention_ms: number(RETENTION_MS),
            retention_bytes: number(RETENTION_BYTES),
        })
    }

    /// Returns the partition's leader, connected.
    pub(super) async fn leader(&self, topic: &str, partition: i32) -> Result<PartitionLeader, AttemptError> {
        let known = self.state.lock().await.topics.get(topic).cloned();
        let found = match known {
            Some(known) => known,
            None => self.describe(topic).await?,
        };
        let part = found.partitions.iter().find(|part| part.index == partition);
        let part = part.ok_or(AttemptError::Permanent(ErrorCode::UNKNOWN_TOPIC_OR_PARTITION))?;
        let id = part.leader.ok_or(AttemptError::Transient(ErrorCode::LEADER_NOT_AVAILABLE))?;
        let pooled = self.connection(id).await?;
        Ok(PartitionLeader { topic: found.name, topic_uuid: found.uuid, epoch: part.leader_epoch, pooled })
    }

    /// Returns the open connection to a broker, or opens one.
    async fn connection(&self, id: BrokerId) -> Result<Arc<PooledConnection>, AttemptError> {
        let mut state = self.state.lock().await;
        let address = state.brokers.get(&id).cloned();
        let address = address.ok_or(AttemptError::Transient(ErrorCode::LEADER_NOT_AVAILABLE))?;
        if let Some(pooled) = state.connections.get(&id)
            && pooled.address == address
            && !pooled.failed.load(Ordering::Relaxed)
            && !pooled.connection.is_expired()
        {
            return Ok(pooled.clone());
        }
        let connection = self.dialer.dial(&address.host, address.port).await.map_err(AttemptError::from_connect)?;
        let pooled = Arc::new(PooledConnection { address, connection, failed: AtomicBool::new(false) });
        state.connections.insert(id, pooled.clone());
        Ok(pooled)
    }
}

//! Who leads which partition, and one connection to each of them.
//!
//! Rules:
//! - What is known of a topic is asked for again after any failure that has to do with it, never otherwise.
//! - A connection that failed, or whose answer did not come, is cut: its next answer would be to another question.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rskafka::protocol::messages::{ReadVersionedType, RequestBody, WriteVersionedType};
use tokio::sync::Mutex;
use tokio::time::timeout;

use super::{Cleanup, LogErrorKind};
use crate::core::{BrokerAddress, BrokerId, ErrorCode, ProducePart, Reason, TopicMetadata, TopicUuid};
use crate::driver::connection::{Dialer, Link, Unanswered};
use crate::driver::control::{Control, NoProducerId};
use crate::driver::{DriverConfig, brokers_patience};
use crate::wire::messenger::Produced;
use crate::wire::small::describe_configs::{CLEANUP_POLICY, RETENTION_BYTES, RETENTION_MS};

/// The code of an offset that is not in the log.
const OFFSET_OUT_OF_RANGE: i16 = 1;
/// Errors of a leader that is about to change or was just elected, besides those that the core knows.
const PASSING: &[ErrorCode] = &[
    ErrorCode::NOT_LEADER_OR_FOLLOWER,
    ErrorCode::FENCED_LEADER_EPOCH,
    ErrorCode::UNKNOWN_LEADER_EPOCH,
    ErrorCode::LEADER_NOT_AVAILABLE,
    ErrorCode::KAFKA_STORAGE_ERROR,
];

/// Why an attempt came to nothing.
#[derive(Debug)]
pub(super) enum Missed {
    /// An error that may pass.
    Passing(ErrorCode),
    /// An error that will not.
    Final(ErrorCode),
    OutOfRange,
    /// The answer does not speak of what was asked.
    LeftOut,
    /// The deadline came first.
    Late,
    /// No connection, or no answer.
    Lost(String),
    /// No broker takes us, or none is to be trusted.
    NoTrust(Reason),
}

impl Missed {
    /// For everything but Produce, whose errors the core's table judges.
    pub(super) fn code(code: i16) -> Self {
        let error = ErrorCode(code);
        match code {
            OFFSET_OUT_OF_RANGE => Self::OutOfRange,
            _ if PASSING.contains(&error) || error.is_retriable() => Self::Passing(error),
            _ => Self::Final(error),
        }
    }

    /// Why there is no connection.
    fn unconnected(reason: Reason) -> Self {
        match reason {
            Reason::NotAvailable(why) => Self::Lost(why.to_string()),
            reason => Self::NoTrust(reason),
        }
    }

    pub(super) fn as_final(&self) -> Option<LogErrorKind> {
        match self {
            Self::Final(code) => Some(LogErrorKind::Refused(*code)),
            Self::OutOfRange => Some(LogErrorKind::OutOfRange),
            Self::NoTrust(reason) => Some(LogErrorKind::NoTrust(reason.clone())),
            Self::Passing(_) | Self::LeftOut | Self::Late | Self::Lost(_) => None,
        }
    }

    pub(super) fn in_the_end(&self) -> LogErrorKind {
        self.as_final().unwrap_or_else(|| LogErrorKind::Unavailable(self.to_string().into()))
    }
}

impl fmt::Display for Missed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Passing(code) | Self::Final(code) => write!(f, "{code}: {}", code.description()),
            Self::OutOfRange => f.write_str("offset out of range"),
            Self::LeftOut => f.write_str("the answer does not speak of the partition"),
            Self::Late => f.write_str("no answer"),
            Self::Lost(why) => f.write_str(why),
            Self::NoTrust(reason) => write!(f, "{reason}"),
        }
    }
}

/// The leader of a partition, connected.
pub(super) struct Leader {
    pub(super) topic: Arc<str>,
    pub(super) topic_uuid: TopicUuid,
    pub(super) epoch: i32,
    connection: Arc<Connection>,
}

/// A connection, until it failed.
struct Connection {
    at: BrokerAddress,
    link: Link,
    failed: AtomicBool,
}

impl Leader {
    /// Asks it something. The connection is cut if no answer comes, or if this future is dropped before it does.
    pub(super) async fn ask<R>(&self, request: R, patience: Duration) -> Result<R::ResponseBody, Missed>
    where
        R: RequestBody + Send + WriteVersionedType<Vec<u8>>,
        R::ResponseBody: ReadVersionedType<std::io::Cursor<Vec<u8>>>,
    {
        self.answer_of(self.connection.link.request(request), patience).await
    }

    /// Asks it to append a batch; otherwise as [`ask`](Self::ask).
    pub(super) async fn produce(&self, part: ProducePart, patience: Duration) -> Result<Produced, Missed> {
        self.answer_of(self.connection.link.produce(brokers_patience(patience), vec![part]), patience).await
    }

    async fn answer_of<A>(
        &self,
        answer: impl Future<Output = Result<A, Unanswered>>,
        patience: Duration,
    ) -> Result<A, Missed> {
        let mut unanswered = CutUnlessAnswered(Some(&self.connection));
        let answer = match timeout(patience, answer).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(Unanswered::Lost(why))) => return Err(Missed::Lost(why)),
            Ok(Err(Unanswered::NoVersion(none))) => {
                unanswered.0 = None; // nothing was asked
                return Err(Missed::NoTrust(Reason::NoCommonVersion(Arc::new(none))));
            }
            Err(_) => return Err(Missed::Lost(format!("no answer within {patience:?}"))),
        };
        unanswered.0 = None;
        Ok(answer)
    }
}

struct CutUnlessAnswered<'a>(Option<&'a Connection>);

impl Drop for CutUnlessAnswered<'_> {
    fn drop(&mut self) {
        if let Some(connection) = self.0 {
            connection.failed.store(true, Ordering::Relaxed);
            connection.link.cut();
        }
    }
}

pub(super) struct Leaders {
    control: Control,
    dialer: Dialer,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    topics: HashMap<Arc<str>, TopicMetadata>,
    brokers: HashMap<BrokerId, BrokerAddress>,
    connections: HashMap<BrokerId, Arc<Connection>>,
}

impl fmt::Debug for Leaders {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Leaders").finish_non_exhaustive()
    }
}

impl Leaders {
    pub(super) fn new(config: &DriverConfig) -> Self {
        let dialer = config.dialer();
        let control = Control::new(dialer.clone(), config.core.request_timeout, config.bootstrap.clone());
        Self { control, dialer, state: Mutex::default() }
    }

    /// Asks for a topic, and keeps what it learns.
    pub(super) async fn describe(&self, topic: &str) -> Result<TopicMetadata, Missed> {
        let cluster = self.control.metadata_if_there(vec![topic.into()]).await.map_err(Missed::unconnected)?;
        let found = cluster.topics.into_iter().find(|found| *found.name == *topic).ok_or(Missed::LeftOut)?;
        match ErrorCode(found.code) {
            ErrorCode(0) => {}
            // Kafka calls it retriable for the sake of topics that are just being made; here it is the answer.
            none @ ErrorCode::UNKNOWN_TOPIC_OR_PARTITION => return Err(Missed::Final(none)),
            ErrorCode(code) => return Err(Missed::code(code)),
        }
        let mut state = self.state.lock().await;
        state.brokers = cluster.brokers.into_iter().map(|broker| (broker.id, broker)).collect();
        state.topics.insert(found.name.clone(), found.clone());
        Ok(found)
    }

    /// What is known of the topic is in doubt: it is asked for again before anything else.
    pub(super) async fn doubt(&self, topic: &str) {
        self.state.lock().await.topics.remove(topic);
    }

    pub(super) async fn producer_id(&self) -> Result<i64, Missed> {
        self.control.producer_id().await.map_err(|error| match error {
            NoProducerId::Refused(reason) => Missed::NoTrust(reason),
            NoProducerId::Failed { code: Some(code), .. } => Missed::code(code.0),
            NoProducerId::Failed { code: None, why } => Missed::Lost(why),
        })
    }

    pub(super) async fn cleanup(&self, topic: &str) -> Result<Cleanup, Missed> {
        let settings = &[CLEANUP_POLICY, RETENTION_MS, RETENTION_BYTES];
        let answer = self.control.topic_settings(topic.into(), settings).await.map_err(Missed::unconnected)?;
        if answer.code != 0 {
            return Err(Missed::code(answer.code));
        }
        let policy = answer.value(CLEANUP_POLICY).ok_or(Missed::LeftOut)?;
        let number = |name| answer.value(name).and_then(|value| value.parse().ok());
        Ok(Cleanup {
            policy: policy.into(),
            retention_ms: number(RETENTION_MS),
            retention_bytes: number(RETENTION_BYTES),
        })
    }

    /// The partition's leader, connected.
    pub(super) async fn leader(&self, topic: &str, partition: i32) -> Result<Leader, Missed> {
        let known = self.state.lock().await.topics.get(topic).cloned();
        let found = match known {
            Some(known) => known,
            None => self.describe(topic).await?,
        };
        let part = found.partitions.iter().find(|part| part.index == partition);
        let part = part.ok_or(Missed::Final(ErrorCode::UNKNOWN_TOPIC_OR_PARTITION))?;
        let id = part.leader.ok_or(Missed::Passing(ErrorCode::LEADER_NOT_AVAILABLE))?;
        let connection = self.connection(id).await?;
        Ok(Leader { topic: found.name, topic_uuid: found.uuid, epoch: part.leader_epoch, connection })
    }

    /// The connection to a broker that is there and whole, or a new one.
    async fn connection(&self, id: BrokerId) -> Result<Arc<Connection>, Missed> {
        let mut state = self.state.lock().await;
        let at = state.brokers.get(&id).cloned().ok_or(Missed::Passing(ErrorCode::LEADER_NOT_AVAILABLE))?;
        if let Some(connection) = state.connections.get(&id)
            && connection.at == at
            && !connection.failed.load(Ordering::Relaxed)
            && !connection.link.is_old()
        {
            return Ok(connection.clone());
        }
        let link = self.dialer.dial(&at.host, at.port).await.map_err(Missed::unconnected)?;
        let connection = Arc::new(Connection { at, link, failed: AtomicBool::new(false) });
        state.connections.insert(id, connection.clone());
        Ok(connection)
    }
}

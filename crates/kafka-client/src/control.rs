//! Requests that any broker can answer: metadata, producer ids, topic settings.
//!
//! Rules:
//! - Control requests have a separate connection. A connection with Produce requests may be silent for as long as a
//!   write waits for its replicas.
//! - Known brokers are asked before the configured ones. The configured ones are asked again when all known brokers
//!   are gone (KIP-899). Each failure rotates the order.
//! - A refusal of the credentials starts a pause without requests to any broker. Callers get that refusal meanwhile.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::Mutex;
use tokio::time::timeout;

use crate::config::{BrokerEndpoint, ClientConfig};
use crate::connection::{BrokerConnection, Dialer, NoAnswer};
use crate::error_code::ErrorCode;
use crate::health_part::{HealthPart, HealthProgress};
use crate::reason::Reason;
use crate::refusals::BrokerRefusal;
use crate::wire::describe_configs;
use crate::wire::describe_producers::DescribeProducersRequest;
use crate::wire::messenger::{InitProducerIdRequest, Metadata, ProducerId, TopicConfigs};
use crate::wire::metadata::{ClusterMetadata, MetadataAnswer, MetadataRequest, TopicMetadata};

/// Why there is no producer id.
#[derive(Debug)]
pub enum ProducerIdError {
    /// The cluster refuses the client.
    Refused(Reason),
    /// A broker answered with this code, or no broker was reached.
    Failed {
        /// The broker's code, if one answered.
        code: Option<ErrorCode>,
        /// The cause.
        why: String,
    },
}

/// The largest batch that a topic accepts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TopicLimit {
    /// `max.message.bytes` of the topic.
    Bytes(usize),
    /// No broker could be asked now, or the client has no right to know.
    Unavailable,
    /// The brokers are too old for DescribeConfigs.
    Unsupported,
}

/// A client of any broker, over one connection.
pub struct Control {
    pub(crate) dialer: Dialer,
    pub(crate) timeout: Duration,
    bootstrap: Vec<BrokerEndpoint>,
    state: Mutex<ControlState>,
}

#[derive(Default)]
struct ControlState {
    connection: Option<Arc<BrokerConnection>>,
    known: Vec<BrokerEndpoint>,
    failures: usize,
    /// The latest refusal of the credentials. No other broker is tried with the same password while it is current.
    refusal: Option<BrokerRefusal>,
}

impl ControlState {
    /// Returns the brokers to ask, in order.
    fn candidates(&self, bootstrap: &[BrokerEndpoint]) -> Vec<BrokerEndpoint> {
        let rotated = |endpoints: &[BrokerEndpoint]| {
            let mut endpoints = endpoints.to_vec();
            let shift = self.failures.checked_rem(endpoints.len()).unwrap_or(0);
            endpoints.rotate_left(shift);
            endpoints
        };
        rotated(&self.known).into_iter().chain(rotated(bootstrap)).collect()
    }
}

impl Control {
    /// Creates a client for the cluster of `config`. The first request connects.
    pub fn new(config: &ClientConfig, dialer: Dialer) -> Self {
        let (timeout, bootstrap) = (config.request_timeout, config.bootstrap.clone());
        Self { dialer, timeout, bootstrap, state: Mutex::new(ControlState::default()) }
    }

    /// Returns the time limit of one answer.
    pub fn request_timeout(&self) -> Duration {
        self.timeout
    }

    /// Requests metadata of these topics. A missing topic is created if the broker's settings allow that. Tries once
    /// more on a new connection if the current connection is dead.
    ///
    /// # Errors
    ///
    /// [`Reason::NotAvailable`] if no broker answered, and any other reason if the brokers refuse this client.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe, as are all requests of this client.
    pub async fn metadata(&self, topics: Vec<Arc<str>>) -> Result<ClusterMetadata, Reason> {
        self.ask_metadata(MetadataRequest { topics, auto_create: true, operations: false }).await
    }

    /// Requests metadata as [`metadata`](Self::metadata) does, and never creates a topic.
    ///
    /// # Errors
    ///
    /// As [`metadata`](Self::metadata).
    pub async fn metadata_if_there(&self, topics: Vec<Arc<str>>) -> Result<ClusterMetadata, Reason> {
        self.ask_metadata(MetadataRequest { topics, auto_create: false, operations: false }).await
    }

    /// Requests the cluster's id, if its brokers send one, and the metadata of these topics. Never creates a topic.
    ///
    /// # Errors
    ///
    /// As [`metadata`](Self::metadata).
    pub async fn identity(&self, topics: Vec<Arc<str>>) -> Result<(Option<Arc<str>>, Vec<TopicMetadata>), Reason> {
        let answer = self.ask(MetadataRequest { topics, auto_create: false, operations: false }).await?;
        Ok((answer.cluster_id, answer.cluster.topics))
    }

    async fn ask_metadata(&self, request: MetadataRequest) -> Result<ClusterMetadata, Reason> {
        Ok(self.ask(request).await?.cluster)
    }

    async fn ask(&self, request: MetadataRequest) -> Result<MetadataAnswer, Reason> {
        self.dialer.security.refresh();
        let had_connection = self.state.lock().await.connection.is_some();
        match self.metadata_once(request.clone()).await {
            Err(_) if had_connection => self.metadata_once(request).await,
            answer => answer,
        }
    }

    async fn metadata_once(&self, request: MetadataRequest) -> Result<MetadataAnswer, Reason> {
        let connection = self.connection().await?;
        self.metadata_over(&connection, request).await
    }

    /// Requests metadata over this connection, and remembers the brokers in the answer.
    pub(crate) async fn metadata_over(
        &self,
        connection: &Arc<BrokerConnection>,
        request: MetadataRequest,
    ) -> Result<MetadataAnswer, Reason> {
        match timeout(self.timeout, connection.request(request)).await {
            Ok(Ok(Metadata(answer))) if answer.code == ErrorCode::NONE.0 => {
                self.state.lock().await.known =
                    answer.cluster.brokers.iter().map(|broker| (broker.host.clone(), broker.port)).collect();
                Ok(answer)
            }
            Ok(Ok(Metadata(answer))) => self.fail(connection, format!("metadata: {}", ErrorCode(answer.code))).await,
            Ok(Err(NoAnswer::Failed(error))) => {
                // A broker that expects authentication closes the connection of an unauthenticated client.
                let hint = if connection.is_first_request() { self.dialer.security.hint() } else { "" };
                self.fail(connection, format!("metadata: {error}{hint}")).await
            }
            Ok(Err(error)) => Err(self.no_answer_reason(connection, error).await),
            Err(_) => self.fail(connection, format!("metadata: no answer within {:?}", self.timeout)).await,
        }
    }

    /// Requests a producer id.
    ///
    /// # Errors
    ///
    /// [`ProducerIdError::Refused`] if the cluster refuses this client, otherwise [`ProducerIdError::Failed`].
    pub async fn producer_id(&self) -> Result<i64, ProducerIdError> {
        let connection = self.connection().await.map_err(|reason| match reason {
            Reason::NotAvailable(why) => ProducerIdError::Failed { code: None, why: why.to_string() },
            reason => ProducerIdError::Refused(reason),
        })?;
        match timeout(self.timeout, connection.request(InitProducerIdRequest)).await {
            Ok(Ok(ProducerId((0, id)))) => Ok(id),
            Ok(Ok(ProducerId((code, _)))) => {
                let code = ErrorCode(code);
                Err(ProducerIdError::Failed { code: Some(code), why: code.description().to_owned() })
            }
            Ok(Err(error)) => Err(match self.no_answer_reason(&connection, error).await {
                Reason::NotAvailable(why) => ProducerIdError::Failed { code: None, why: why.to_string() },
                reason => ProducerIdError::Refused(reason),
            }),
            Err(_) => {
                let why = format!("no answer within {:?}", self.timeout);
                Err(ProducerIdError::Failed { code: None, why: self.forget(&connection, why).await })
            }
        }
    }

    /// Requests the largest batch that a topic accepts.
    pub async fn topic_limit(&self, topic: Arc<str>) -> TopicLimit {
        match self.topic_settings(topic, &[describe_configs::MAX_MESSAGE_BYTES]).await {
            Ok(answer) => {
                let limit = answer.value(describe_configs::MAX_MESSAGE_BYTES).and_then(|value| value.parse().ok());
                limit.map_or(TopicLimit::Unavailable, TopicLimit::Bytes)
            }
            Err(Reason::NoCommonVersion(_)) => TopicLimit::Unsupported,
            Err(_) => TopicLimit::Unavailable,
        }
    }

    /// Requests settings of a topic.
    pub(crate) async fn topic_settings(
        &self,
        topic: Arc<str>,
        settings: &'static [&'static str],
    ) -> Result<describe_configs::TopicSettings, Reason> {
        let connection = self.connection().await?;
        match timeout(self.timeout, connection.request(describe_configs::DescribeConfigsRequest { topic, settings }))
            .await
        {
            Ok(Ok(TopicConfigs(answer))) => Ok(answer),
            Ok(Err(error)) => Err(self.no_answer_reason(&connection, error).await),
            Err(_) => self.fail(&connection, format!("no answer within {:?}", self.timeout)).await,
        }
    }

    /// Returns the current connection, or opens one to the first broker that accepts it. A refusal of the credentials
    /// ends the search, because each further broker would count another wrong password.
    async fn connection(&self) -> Result<Arc<BrokerConnection>, Reason> {
        self.connection_with_progress(&HealthProgress::default()).await
    }

    /// Returns why the connected broker can't show its producer states (DescribeProducers), if it can't.
    pub async fn lack_of_producer_states(&self) -> Option<Arc<str>> {
        let state = self.state.lock().await;
        let lack = state.connection.as_ref()?.check_version::<DescribeProducersRequest>();
        lack.err().map(|none| none.to_string().into())
    }

    /// Returns whether a connection is open.
    pub(crate) async fn has_connection(&self) -> bool {
        self.state.lock().await.connection.is_some()
    }

    /// Returns a connection as [`connection`](Self::connection) does, and reports each step in `progress`, which holds
    /// the failed step after a failure.
    pub(crate) async fn connection_with_progress(
        &self,
        progress: &HealthProgress,
    ) -> Result<Arc<BrokerConnection>, Reason> {
        let mut state = self.state.lock().await;
        if let Some(connection) = state.connection.as_ref().filter(|connection| !connection.is_expired()) {
            return Ok(connection.clone());
        }
        if let Some(refusal) = state.refusal.as_ref().filter(|refusal| refusal.is_current(Instant::now())) {
            progress.enter(refusal.part);
            return Err(refusal.reason.clone());
        }
        let mut failure = Reason::NotAvailable("no broker is configured".into());
        let mut failed_at = HealthPart::Dns;
        for (host, port) in state.candidates(&self.bootstrap) {
            match self.dialer.dial_with_progress(&host, port, progress).await {
                Ok(connection) => {
                    let connection = Arc::new(connection);
                    state.connection = Some(connection.clone());
                    return Ok(connection);
                }
                Err(reason @ Reason::Broker { .. }) => {
                    (failure, failed_at) = (reason, progress.part());
                    state.refusal = Some(BrokerRefusal::new(Instant::now(), failure.clone(), failed_at));
                    break;
                }
                Err(reason) if failure.is_retriable() => (failure, failed_at) = (reason, progress.part()),
                Err(_) => {}
            }
        }
        progress.enter(failed_at);
        state.failures = state.failures.wrapping_add(1);
        state.connection = None;
        Err(failure)
    }

    pub(crate) async fn fail<A>(&self, connection: &Arc<BrokerConnection>, why: String) -> Result<A, Reason> {
        Err(Reason::NotAvailable(self.forget(connection, why).await.into()))
    }

    /// Converts a missing answer to a reason. Drops the connection if it failed.
    pub(crate) async fn no_answer_reason(&self, connection: &Arc<BrokerConnection>, error: NoAnswer) -> Reason {
        match error {
            NoAnswer::Failed(why) => Reason::NotAvailable(self.forget(connection, why).await.into()),
            NoAnswer::NoVersion(none) => Reason::NoCommonVersion(Arc::new(none)),
        }
    }

    /// Drops a connection that failed.
    async fn forget(&self, failed: &Arc<BrokerConnection>, why: String) -> String {
        let mut state = self.state.lock().await;
        if state.connection.as_ref().is_some_and(|connection| Arc::ptr_eq(connection, failed)) {
            state.connection = None;
        }
        state.failures = state.failures.wrapping_add(1);
        why
    }
}

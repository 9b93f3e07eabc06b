//! Questions that any broker can answer: metadata, producer ids, and topics' settings.
//!
//! Rules:
//! - They have a connection of their own: a connection that carries Produce requests may be mute for as
//!   long as a write waits for its replicas.
//! - Known brokers are asked before the configured ones; when all known ones are gone the configured ones
//!   are asked again (KIP-899). The first to be asked changes with each failure.
//! - After a refusal of our credentials nobody is asked for a while: all are told that refusal.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::Mutex;
use tokio::time::timeout;

use super::connection::{Dialer, Link, Unanswered};
use super::health::{HealthPart, Progress};
use super::refusals::Refusal;
use crate::core::{ClusterMetadata, ErrorCode, Reason};
use crate::wire::messenger::{InitProducerIdRequest, Metadata, ProducerId, TopicConfigs};
use crate::wire::metadata::{MetadataAnswer, MetadataRequest};
use crate::wire::small::describe_configs;

/// Where a broker listens, as it was configured or learnt.
pub(crate) type Endpoint = (Arc<str>, u16);

/// Why no producer id was had.
#[derive(Debug)]
pub(crate) enum NoProducerId {
    /// No broker takes us.
    Refused(Reason),
    /// A broker gave this code, or none was reached.
    Failed { code: Option<ErrorCode>, why: String },
}

/// How large a batch a topic takes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum TopicLimit {
    /// So many bytes (`max.message.bytes`).
    Bytes(usize),
    /// No broker could be asked now, or we may not know.
    NotNow,
    /// The brokers are too old to tell.
    Untold,
}

pub(crate) struct Control {
    pub(super) dialer: Dialer,
    pub(super) timeout: Duration,
    bootstrap: Vec<Endpoint>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    link: Option<Arc<Link>>,
    known: Vec<Endpoint>,
    failures: usize,
    /// Who was asked last has refused us: until then nobody else is tried with the same password.
    refusal: Option<Refusal>,
}

impl State {
    /// Whom to ask, one after the other.
    fn candidates(&self, bootstrap: &[Endpoint]) -> Vec<Endpoint> {
        let turned = |endpoints: &[Endpoint]| {
            let mut endpoints = endpoints.to_vec();
            let turn = self.failures.checked_rem(endpoints.len()).unwrap_or(0);
            endpoints.rotate_left(turn);
            endpoints
        };
        turned(&self.known).into_iter().chain(turned(bootstrap)).collect()
    }
}

impl Control {
    pub(crate) fn new(dialer: Dialer, timeout: Duration, bootstrap: Vec<Endpoint>) -> Self {
        Self { dialer, timeout, bootstrap, state: Mutex::new(State::default()) }
    }

    /// Asks for these topics; once more on a new connection, if the one that was there has died unseen.
    pub(crate) async fn metadata(&self, topics: Vec<Arc<str>>) -> Result<ClusterMetadata, Reason> {
        self.ask_metadata(MetadataRequest { topics, auto_create: true, operations: false }).await
    }

    /// As [`metadata`](Self::metadata), but never creates a topic.
    pub(crate) async fn metadata_if_there(&self, topics: Vec<Arc<str>>) -> Result<ClusterMetadata, Reason> {
        self.ask_metadata(MetadataRequest { topics, auto_create: false, operations: false }).await
    }

    async fn ask_metadata(&self, request: MetadataRequest) -> Result<ClusterMetadata, Reason> {
        self.dialer.security.refresh();
        let was_there = self.state.lock().await.link.is_some();
        match self.metadata_once(request.clone()).await {
            Err(_) if was_there => self.metadata_once(request).await,
            answer => answer,
        }
    }

    async fn metadata_once(&self, request: MetadataRequest) -> Result<ClusterMetadata, Reason> {
        let link = self.link().await?;
        Ok(self.metadata_over(&link, request).await?.cluster)
    }

    /// Asks over this connection, and keeps in mind which brokers there are.
    pub(super) async fn metadata_over(
        &self,
        link: &Arc<Link>,
        request: MetadataRequest,
    ) -> Result<MetadataAnswer, Reason> {
        match timeout(self.timeout, link.request(request)).await {
            Ok(Ok(Metadata(answer))) if answer.code == 0 => {
                self.state.lock().await.known =
                    answer.cluster.brokers.iter().map(|broker| (broker.host.clone(), broker.port)).collect();
                Ok(answer)
            }
            Ok(Ok(Metadata(answer))) => self.fail(link, format!("metadata: {}", ErrorCode(answer.code))).await,
            Ok(Err(Unanswered::Lost(error))) => {
                // What a broker does with one who has not said who he is.
                let hint = if link.is_first_request() { self.dialer.security.hint() } else { "" };
                self.fail(link, format!("metadata: {error}{hint}")).await
            }
            Ok(Err(error)) => Err(self.unanswered(link, error).await),
            Err(_) => self.fail(link, format!("metadata: no answer within {:?}", self.timeout)).await,
        }
    }

    /// Asks for a producer id.
    pub(crate) async fn producer_id(&self) -> Result<i64, NoProducerId> {
        let link = self.link().await.map_err(|reason| match reason {
            Reason::NotAvailable(why) => NoProducerId::Failed { code: None, why: why.to_string() },
            reason => NoProducerId::Refused(reason),
        })?;
        match timeout(self.timeout, link.request(InitProducerIdRequest)).await {
            Ok(Ok(ProducerId((0, id)))) => Ok(id),
            Ok(Ok(ProducerId((code, _)))) => {
                let code = ErrorCode(code);
                Err(NoProducerId::Failed { code: Some(code), why: code.description().to_owned() })
            }
            Ok(Err(error)) => Err(match self.unanswered(&link, error).await {
                Reason::NotAvailable(why) => NoProducerId::Failed { code: None, why: why.to_string() },
                reason => NoProducerId::Refused(reason),
            }),
            Err(_) => {
                let why = format!("no answer within {:?}", self.timeout);
                Err(NoProducerId::Failed { code: None, why: self.forget(&link, why).await })
            }
        }
    }

    /// Asks how large a batch a topic takes.
    pub(crate) async fn topic_limit(&self, topic: Arc<str>) -> TopicLimit {
        match self.topic_settings(topic, &[describe_configs::MAX_MESSAGE_BYTES]).await {
            Ok(answer) => {
                let limit = answer.value(describe_configs::MAX_MESSAGE_BYTES).and_then(|value| value.parse().ok());
                limit.map_or(TopicLimit::NotNow, TopicLimit::Bytes)
            }
            Err(Reason::NoCommonVersion(_)) => TopicLimit::Untold,
            Err(_) => TopicLimit::NotNow,
        }
    }

    /// Asks for some settings of a topic.
    pub(crate) async fn topic_settings(
        &self,
        topic: Arc<str>,
        settings: &'static [&'static str],
    ) -> Result<describe_configs::Answer, Reason> {
        let link = self.link().await?;
        match timeout(self.timeout, link.request(describe_configs::Request { topic, settings })).await {
            Ok(Ok(TopicConfigs(answer))) => Ok(answer),
            Ok(Err(error)) => Err(self.unanswered(&link, error).await),
            Err(_) => self.fail(&link, format!("no answer within {:?}", self.timeout)).await,
        }
    }

    /// The connection that is there, or a new one to whichever broker takes one.
    /// A refusal of our credentials ends the search: the other brokers would only hear the same wrong password.
    async fn link(&self) -> Result<Arc<Link>, Reason> {
        self.link_noting(&Progress::default()).await
    }

    /// Whether there is a connection.
    pub(super) async fn has_link(&self) -> bool {
        self.state.lock().await.link.is_some()
    }

    /// As [`link`](Self::link), telling how far it has come; after a failure where that was.
    pub(super) async fn link_noting(&self, progress: &Progress) -> Result<Arc<Link>, Reason> {
        let mut state = self.state.lock().await;
        if let Some(link) = state.link.as_ref().filter(|link| !link.is_old()) {
            return Ok(link.clone());
        }
        if let Some(refusal) = state.refusal.as_ref().filter(|refusal| refusal.stands(Instant::now())) {
            progress.enter(refusal.part);
            return Err(refusal.reason.clone());
        }
        let mut failure = Reason::NotAvailable("there is no broker to ask".into());
        let mut failed_at = HealthPart::Dns;
        for (host, port) in state.candidates(&self.bootstrap) {
            match self.dialer.dial_noting(&host, port, progress).await {
                Ok(link) => {
                    let link = Arc::new(link);
                    state.link = Some(link.clone());
                    return Ok(link);
                }
                Err(reason @ Reason::Broker { .. }) => {
                    (failure, failed_at) = (reason, progress.part());
                    state.refusal = Some(Refusal::new(Instant::now(), failure.clone(), failed_at));
                    break;
                }
                Err(reason) if failure.is_retriable() => (failure, failed_at) = (reason, progress.part()),
                Err(_) => {}
            }
        }
        progress.enter(failed_at);
        state.failures = state.failures.wrapping_add(1);
        state.link = None;
        Err(failure)
    }

    pub(super) async fn fail<A>(&self, link: &Arc<Link>, why: String) -> Result<A, Reason> {
        Err(Reason::NotAvailable(self.forget(link, why).await.into()))
    }

    /// Why a request has no answer; a connection that failed is dropped.
    pub(super) async fn unanswered(&self, link: &Arc<Link>, error: Unanswered) -> Reason {
        match error {
            Unanswered::Lost(why) => Reason::NotAvailable(self.forget(link, why).await.into()),
            Unanswered::NoVersion(none) => Reason::NoCommonVersion(Arc::new(none)),
        }
    }

    /// Drops the connection that failed us.
    async fn forget(&self, failed: &Arc<Link>, why: String) -> String {
        let mut state = self.state.lock().await;
        if state.link.as_ref().is_some_and(|link| Arc::ptr_eq(link, failed)) {
            state.link = None;
        }
        state.failures = state.failures.wrapping_add(1);
        why
    }
}

//! Opens one connection to a broker: name lookup, TCP, TLS, ApiVersions, SASL.
//!
//! Rules:
//! - Each step has a time limit.
//! - Each address of a name is tried (KIP-602), unless a broker has refused the client.
//! - An error names the step that failed and the address.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rskafka::messenger::{Messenger, RequestError};
use rskafka::protocol::messages::{ReadVersionedType, RequestBody, WriteVersionedType};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::config::{BrokerEndpoint, ClientConfig};
use crate::error_code::ErrorCode;
use crate::health_part::{HealthPart, HealthProgress};
use crate::no_common_version::NoCommonVersion;
use crate::reason::Reason;
use crate::refusals::BrokerRefusals;
use crate::security::{ConnectionSecurity, ReplaceAt};
use crate::stream::{FrameStream, StreamHandle};
use crate::versions::Versions;
use crate::wire::api_versions::{self, ApiRange};
use crate::wire::messenger::{ApiVersionsRequest, Produced, api_versions_only, version_ranges};
use crate::wire::produce::{PartKey, ProduceAnswer, ProducePart, ProduceRequest};
use crate::wire::splice::PendingBatches;

pub use crate::stream::FramesWritten;

/// The largest answer that is read, in bytes.
const MAX_ANSWER: usize = 16 << 20;

/// A leader's timeout ends this long before the client's. The leader's answer then still says whether it wrote the
/// batch.
const ANSWER_HEADROOM: Duration = Duration::from_secs(2);

/// Returns the leader's timeout for a write, from the client's request timeout.
pub fn broker_timeout(ours: Duration) -> Duration {
    ours.saturating_sub(ANSWER_HEADROOM).max(ours / 2)
}

/// Opens connections. Clones share the brokers' refusals.
#[derive(Clone, Debug)]
pub struct Dialer {
    client_id: Arc<str>,
    timeout: Duration,
    pub(crate) security: ConnectionSecurity,
    refusals: BrokerRefusals,
    default_broker: Option<BrokerEndpoint>,
}

/// An open connection. Its broker has reported the API versions that it supports.
pub struct BrokerConnection {
    messenger: Messenger<FrameStream>,
    handle: Arc<StreamHandle>,
    versions: Versions,
    /// Batches of encoded requests, until the stream writes them.
    pending: Arc<PendingBatches>,
    /// Frames that opening the connection took.
    pub setup_frames: u64,
    /// The time to replace the connection, shortly before its SASL session ends.
    pub replace_at: ReplaceAt,
}

impl Dialer {
    /// Creates a dialer that knows of no refusal.
    pub fn new(config: &ClientConfig) -> Self {
        Self {
            client_id: config.client_id.clone(),
            timeout: config.connect_timeout,
            security: config.security.clone(),
            refusals: BrokerRefusals::default(),
            default_broker: config.default_broker.clone(),
        }
    }

    /// Opens a connection to the first address of `host` that accepts one.
    ///
    /// # Errors
    ///
    /// The reason is permanent (`!is_retriable`) if a broker refused the client, or if the broker is not the expected
    /// one.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: dropping this future closes the connection.
    pub async fn dial(&self, host: &str, port: u16) -> Result<BrokerConnection, Reason> {
        self.dial_with_progress(host, port, &HealthProgress::default()).await
    }

    /// Dials as [`dial`](Self::dial) does, and reports each step in `progress`. A broker that refused the client
    /// recently is not dialed: the earlier refusal is returned.
    pub(crate) async fn dial_with_progress(
        &self,
        host: &str,
        port: u16,
        progress: &HealthProgress,
    ) -> Result<BrokerConnection, Reason> {
        if let Some(refusal) = self.refusals.current(Instant::now(), host, port) {
            progress.enter(refusal.part);
            return Err(refusal.reason);
        }
        let opened = timeout(self.timeout, self.open(host, port, progress)).await;
        let opened = opened
            .unwrap_or_else(|_| Err(unavailable(host, port, &format!("no connection within {:?}", self.timeout))));
        let opened = opened.map_err(|reason| self.mention_default_broker(host, port, reason));
        opened.inspect_err(|reason| self.refusals.record(Instant::now(), host, port, reason, progress.part()))
    }

    /// Adds a hint to the error of an unavailable broker, if that broker is the default because none was configured.
    fn mention_default_broker(&self, host: &str, port: u16, reason: Reason) -> Reason {
        let is_default = self.default_broker.as_ref().is_some_and(|(name, number)| **name == *host && *number == port);
        match reason {
            Reason::NotAvailable(why) if is_default => Reason::NotAvailable(
                format!("{why} (this is the default broker: set brokers to the cluster's addresses)").into(),
            ),
            reason => reason,
        }
    }

    async fn open(&self, host: &str, port: u16, progress: &HealthProgress) -> Result<BrokerConnection, Reason> {
        let attempt = ConnectAttempt { host, port, progress };
        attempt.enter(HealthPart::Dns, None);
        let addresses: Vec<SocketAddr> = tokio::net::lookup_host((host, port))
            .await
            .map_err(|error| unavailable(host, port, &format!("the host name could not be resolved: {error}")))?
            .collect();
        let mut failure = unavailable(host, port, "the host name has no address");
        let share = self.timeout / u32::try_from(addresses.len()).unwrap_or(1).max(1);
        for address in addresses {
            match timeout(share, self.open_at(&attempt, address)).await {
                Ok(Ok(connection)) => {
                    tracing::debug!(broker = %attempt, %address, "broker connected");
                    return Ok(connection);
                }
                Ok(Err(reason)) if !reason.is_retriable() => return Err(reason),
                Ok(Err(reason)) => failure = reason,
                Err(_) => {
                    failure = unavailable(host, port, &format!("{}no answer within {share:?}", attempt.prefix(address)))
                }
            }
            let step = progress.part();
            tracing::debug!(broker = %attempt, %address, %step, %failure, "connection attempt failed");
        }
        Err(failure)
    }

    async fn open_at(&self, attempt: &ConnectAttempt<'_>, address: SocketAddr) -> Result<BrokerConnection, Reason> {
        let ConnectAttempt { host, port, .. } = *attempt;
        attempt.enter(HealthPart::Connect, Some(address));
        let failed = |step: &str, error: &dyn fmt::Display| unavailable(host, port, &format!("{step}: {error}"));
        let tcp = TcpStream::connect(address)
            .await
            .map_err(|error| unavailable(host, port, &format!("{}{error}", attempt.prefix(address))))?;
        tcp.set_nodelay(true).map_err(|error| failed("setting TCP_NODELAY", &error))?;
        // Dropping the connection resets it immediately. Fewer requests arrive after the verdict.
        socket2::SockRef::from(&tcp)
            .set_linger(Some(Duration::ZERO))
            .map_err(|error| failed("setting SO_LINGER", &error))?;
        if self.security.has_tls() {
            attempt.enter(HealthPart::Tls, Some(address));
        }
        let pending = Arc::<PendingBatches>::default();
        let (stream, handle) = FrameStream::new(self.security.wrap(host, port, tcp).await?, pending.clone());
        attempt.enter(HealthPart::ApiVersions, Some(address));
        let mut messenger = Messenger::new(stream, MAX_ANSWER, self.client_id.clone());
        let ranges = negotiate_versions(&mut messenger)
            .await
            .map_err(|error| self.versions_unavailable(attempt, address, &error))?;
        let versions = Versions::new(attempt.to_string().into(), &ranges);
        versions.log();
        versions.check_required().map_err(|none| Reason::NoCommonVersion(Arc::new(none)))?;
        let replace_at = match self.security.sasl() {
            Some(sasl) => {
                attempt.enter(HealthPart::Sasl, Some(address));
                sasl.authenticate(&messenger, &attempt.to_string()).await?
            }
            None => None,
        };
        let setup_frames = handle.written().frames;
        Ok(BrokerConnection { messenger, versions, handle, pending, setup_frames, replace_at })
    }

    /// Returns the error of a failed ApiVersions request, the first request on a connection. A broker that rejects
    /// the client certificate (TLS 1.3), or that does not understand the protocol, fails here too.
    fn versions_unavailable(&self, attempt: &ConnectAttempt<'_>, address: SocketAddr, error: &VersionsError) -> Reason {
        let ConnectAttempt { host, port, progress } = *attempt;
        let (ended, hint) = match error {
            VersionsError::Failed(error) => (Some(error), self.security.hint()),
            VersionsError::Refused(_) | VersionsError::Unknown => (None, ""),
        };
        ended
            .and_then(|error| self.security.tls_failure(host, port, error))
            .inspect(|_| progress.enter(HealthPart::Tls))
            .unwrap_or_else(|| {
                unavailable(host, port, &format!("{}no answer to ApiVersions: {error}{hint}", attempt.prefix(address)))
            })
    }
}

/// The host that is being dialed, and how far the connection is.
struct ConnectAttempt<'a> {
    host: &'a str,
    port: u16,
    progress: &'a HealthProgress,
}

impl ConnectAttempt<'_> {
    /// Enters a step. The debug log shows at which step a connection waits.
    fn enter(&self, part: HealthPart, address: Option<SocketAddr>) {
        self.progress.enter(part);
        let address = address.map(tracing::field::display);
        tracing::debug!(broker = %self, step = %part, address, "connection step started");
    }

    /// Returns the address as the prefix of an error, if the broker is configured under another name.
    fn prefix(&self, address: SocketAddr) -> String {
        let address = address.to_string();
        if address == self.to_string() { String::new() } else { format!("{address}: ") }
    }
}

impl fmt::Display for ConnectAttempt<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

fn unavailable(host: &str, port: u16, why: &str) -> Reason {
    Reason::NotAvailable(format!("{host}:{port}: {why}").into())
}

/// Why the broker's versions are unavailable.
#[derive(Debug, thiserror::Error)]
enum VersionsError {
    #[error("{0}")]
    Failed(RequestError),
    #[error("{0}")]
    Refused(ErrorCode),
    #[error("the broker supports neither version 3 nor version 0 of ApiVersions")]
    Unknown,
}

/// Why a request has no answer.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum NoAnswer {
    /// The connection failed, or the answer is malformed.
    #[error("{0}")]
    Failed(String),
    /// The request was not sent: client and broker have no version of it in common.
    #[error("{0}")]
    NoVersion(NoCommonVersion),
}

/// Sends ApiVersions in the newest version that the broker supports (KIP-511).
async fn negotiate_versions(messenger: &mut Messenger<FrameStream>) -> Result<Vec<ApiRange>, VersionsError> {
    for highest in [3, 0] {
        messenger.override_version_ranges(api_versions_only(highest));
        let (code, ranges) = messenger.request(ApiVersionsRequest).await.map_err(VersionsError::Failed)?.0;
        match code {
            api_versions::NONE => {
                messenger.override_version_ranges(version_ranges(&ranges));
                return Ok(ranges);
            }
            api_versions::UNSUPPORTED_VERSION => {}
            code => return Err(VersionsError::Refused(ErrorCode(code))),
        }
    }
    Err(VersionsError::Unknown)
}

impl BrokerConnection {
    /// Sends a request and waits for its answer. Requests leave in the order in which their futures are first polled.
    pub(crate) async fn request<R>(&self, request: R) -> Result<R::ResponseBody, NoAnswer>
    where
        R: RequestBody + Send + WriteVersionedType<Vec<u8>>,
        R::ResponseBody: ReadVersionedType<std::io::Cursor<Vec<u8>>>,
    {
        self.versions.check(R::API_KEY).map_err(NoAnswer::NoVersion)?;
        self.messenger.request(request).await.map_err(|error| NoAnswer::Failed(error.to_string()))
    }

    /// Sends a Produce request with the leader's timeout, and waits for its answer. Its batches are written from where
    /// they are, without a copy. Requests leave in the order in which their futures are first polled.
    ///
    /// # Errors
    ///
    /// [`NoAnswer`] if the connection ended before the answer, or if no version is in common.
    ///
    /// # Cancel safety
    ///
    /// Not cancel safe: after a drop of this future, the batches may or may not be written.
    pub async fn produce(&self, timeout: Duration, parts: Vec<ProducePart>) -> Result<ProduceAnswer, NoAnswer> {
        let keys: Vec<PartKey> = parts.iter().map(PartKey::of).collect();
        let Produced(response) = self.request(ProduceRequest { timeout, parts, pending: self.pending.clone() }).await?;
        Ok(response.into_answer(&keys))
    }

    /// Fails if the broker has no version of this request in common.
    pub(crate) fn check_version<R: RequestBody>(&self) -> Result<(), NoCommonVersion> {
        self.versions.check(R::API_KEY)
    }

    /// Returns whether the connection must be replaced now.
    pub fn is_expired(&self) -> bool {
        self.replace_at.is_some_and(|at| at <= Instant::now())
    }

    /// Returns whether at most one request was sent since the connection opened.
    pub(crate) fn is_first_request(&self) -> bool {
        self.written().frames <= self.setup_frames + 1
    }

    /// Returns how many frames were written completely since the connection opened, and when the last one was.
    pub fn written(&self) -> FramesWritten {
        self.handle.written()
    }

    /// Closes the connection immediately. Requests without an answer fail.
    pub fn cut(&self) {
        self.handle.cut();
    }
}

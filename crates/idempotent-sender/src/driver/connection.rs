//! One connection to a broker: found by name, opened, secured, and asked what it can do.
//!
//! Rules: every step has a time limit; every address of a name is tried (KIP-602), unless a broker has refused us; an error
//! says which step failed and for which address.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rskafka::messenger::{Messenger, RequestError};
use rskafka::protocol::messages::{ReadVersionedType, RequestBody, WriteVersionedType};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::health::{HealthPart, Progress};
use super::refusals::Refusals;
use super::security::{Security, Session};
use super::stream::{FrameStream, Handle, Written};
use super::versions::Versions;
use crate::core::{NoCommonVersion, ProducePart, Reason};
use crate::wire::aside::Aside;
use crate::wire::messenger::{ApiVersionsRequest, Produced, first_question, version_ranges};
use crate::wire::produce::ProduceRequest;
use crate::wire::small::{ApiRange, api_versions};

/// The longest answer that is read at all.
const MAX_ANSWER: usize = 16 << 20;

/// How connections are made.
#[derive(Clone, Debug)]
pub(crate) struct Dialer {
    pub(crate) client_id: Arc<str>,
    pub(crate) timeout: Duration,
    pub(crate) security: Security,
    pub(crate) refusals: Refusals,
    pub(crate) default_broker: Option<(Arc<str>, u16)>,
}

/// An open connection whose broker has said which versions it speaks.
pub(crate) struct Link {
    messenger: Messenger<FrameStream>,
    handle: Arc<Handle>,
    versions: Versions,
    /// Batches on their way into the stream, beside the requests that they belong to.
    aside: Arc<Aside>,
    /// Frames that opening it took.
    pub(crate) frames_before: u64,
    /// When it has to be replaced: its session with the broker ends soon after.
    pub(crate) replace_at: Session,
}

impl Dialer {
    /// Opens a connection to the first address of `host` that takes one. The reason why there is none is final
    /// (`!is_retriable`) if a broker has refused us, or is not the one that it should be.
    pub(crate) async fn dial(&self, host: &str, port: u16) -> Result<Link, Reason> {
        self.dial_noting(host, port, &Progress::default()).await
    }

    /// As [`dial`](Self::dial), telling how far it has come. Who has just refused us is not dialled.
    pub(crate) async fn dial_noting(&self, host: &str, port: u16, progress: &Progress) -> Result<Link, Reason> {
        if let Some(refusal) = self.refusals.standing(Instant::now(), host, port) {
            progress.enter(refusal.part);
            return Err(refusal.reason);
        }
        let opened = timeout(self.timeout, self.open(host, port, progress)).await;
        let opened = opened
            .unwrap_or_else(|_| Err(unavailable(host, port, &format!("no connection within {:?}", self.timeout))));
        let opened = opened.map_err(|reason| self.naming_default(host, port, reason));
        opened.inspect_err(|reason| self.refusals.note(Instant::now(), host, port, reason, progress.part()))
    }

    /// Says of a broker that is away that it is the default, where no other was configured.
    fn naming_default(&self, host: &str, port: u16, reason: Reason) -> Reason {
        let is_default = self.default_broker.as_ref().is_some_and(|(name, number)| **name == *host && *number == port);
        match reason {
            Reason::NotAvailable(why) if is_default => {
                Reason::NotAvailable(format!("{why} (this is the default broker: set brokers to the cluster's)").into())
            }
            reason => reason,
        }
    }

    async fn open(&self, host: &str, port: u16, progress: &Progress) -> Result<Link, Reason> {
        let way = Way { host, port, progress };
        way.enter(HealthPart::Dns, "looking its name up");
        let addresses: Vec<SocketAddr> = tokio::net::lookup_host((host, port))
            .await
            .map_err(|error| unavailable(host, port, &format!("the name could not be resolved: {error}")))?
            .collect();
        let mut failure = unavailable(host, port, "the name has no address");
        let share = self.timeout / u32::try_from(addresses.len()).unwrap_or(1).max(1);
        for address in addresses {
            match timeout(share, self.open_at(&way, address)).await {
                Ok(Ok(link)) => {
                    tracing::debug!(broker = %way, %address, "connected");
                    return Ok(link);
                }
                Ok(Err(reason)) if !reason.is_retriable() => return Err(reason),
                Ok(Err(reason)) => failure = reason,
                Err(_) => {
                    failure = unavailable(host, port, &format!("{}no answer within {share:?}", way.other(address)))
                }
            }
            tracing::debug!(broker = %way, %address, step = %progress.part(), %failure, "connection attempt failed");
        }
        Err(failure)
    }

    async fn open_at(&self, way: &Way<'_>, address: SocketAddr) -> Result<Link, Reason> {
        let Way { host, port, .. } = *way;
        way.enter(HealthPart::Connect, &format!("connecting to {address}"));
        let failed = |what: &str, error: &dyn fmt::Display| unavailable(host, port, &format!("{what}: {error}"));
        let tcp = TcpStream::connect(address)
            .await
            .map_err(|error| unavailable(host, port, &format!("{}{error}", way.other(address))))?;
        tcp.set_nodelay(true).map_err(|error| failed("setting TCP_NODELAY", &error))?;
        // A connection that is dropped is cut at once, so that fewer requests arrive after the verdict.
        socket2::SockRef::from(&tcp)
            .set_linger(Some(Duration::ZERO))
            .map_err(|error| failed("setting SO_LINGER", &error))?;
        if self.security.has_tls() {
            way.enter(HealthPart::Tls, "shaking hands");
        }
        let aside = Arc::<Aside>::default();
        let (stream, handle) = FrameStream::new(self.security.wrap(host, port, tcp).await?, aside.clone());
        way.enter(HealthPart::ApiVersions, "asking for its versions");
        let mut messenger = Messenger::new(stream, MAX_ANSWER, self.client_id.clone());
        let ranges = learn_versions(&mut messenger).await.map_err(|error| self.no_versions(way, address, &error))?;
        let versions = Versions::new(way.to_string().into(), &ranges);
        versions.log();
        versions.check_needed().map_err(|none| Reason::NoCommonVersion(Arc::new(none)))?;
        let replace_at = match self.security.sasl() {
            Some(sasl) => {
                way.enter(HealthPart::Sasl, "saying who we are");
                sasl.authenticate(&messenger, &way.to_string()).await?
            }
            None => None,
        };
        let frames_before = handle.written().frames;
        Ok(Link { messenger, versions, handle, aside, frames_before, replace_at })
    }

    /// Why the first question on a connection has no answer: it is also where a broker refuses our certificate (TLS 1.3),
    /// or does not understand what we speak at all.
    fn no_versions(&self, way: &Way<'_>, address: SocketAddr, error: &NoVersions) -> Reason {
        let Way { host, port, progress } = *way;
        let (ended, hint) = match error {
            NoVersions::Failed(error) => (Some(error), self.security.hint()),
            NoVersions::Refused(_) | NoVersions::Unknown => (None, ""),
        };
        ended
            .and_then(|error| self.security.tls_failure(host, port, error))
            .inspect(|_| progress.enter(HealthPart::Tls))
            .unwrap_or_else(|| {
                unavailable(host, port, &format!("{}asking for its versions: {error}{hint}", way.other(address)))
            })
    }
}

/// The way to a broker.
struct Way<'a> {
    host: &'a str,
    port: u16,
    progress: &'a Progress,
}

impl Way<'_> {
    /// A step begins: with debug logging, who waits for a connection sees where.
    fn enter(&self, part: HealthPart, what: &str) {
        self.progress.enter(part);
        tracing::debug!(broker = %self, step = %part, "{what}");
    }

    /// The address before an error, where it is not how the broker is named.
    fn other(&self, address: SocketAddr) -> String {
        let address = address.to_string();
        if address == self.to_string() { String::new() } else { format!("{address}: ") }
    }
}

impl fmt::Display for Way<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

fn unavailable(host: &str, port: u16, why: &str) -> Reason {
    Reason::NotAvailable(format!("{host}:{port}: {why}").into())
}

/// Why the broker's versions could not be had.
#[derive(Debug, thiserror::Error)]
enum NoVersions {
    #[error("{0}")]
    Failed(RequestError),
    #[error("{0}")]
    Refused(crate::core::ErrorCode),
    #[error("the broker knows no version of ApiVersions that we know")]
    Unknown,
}

/// Why a request has no answer.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub(crate) enum Unanswered {
    /// The connection failed, or the answer can't be understood.
    #[error("{0}")]
    Lost(String),
    /// The request never left: there is no version of it in common.
    #[error("{0}")]
    NoVersion(NoCommonVersion),
}

/// ApiVersions, in the newest version that the broker knows (KIP-511).
async fn learn_versions(messenger: &mut Messenger<FrameStream>) -> Result<Vec<ApiRange>, NoVersions> {
    for highest in [3, 0] {
        messenger.override_version_ranges(first_question(highest));
        let (code, ranges) = messenger.request(ApiVersionsRequest).await.map_err(NoVersions::Failed)?.0;
        match code {
            0 => {
                messenger.override_version_ranges(version_ranges(&ranges));
                return Ok(ranges);
            }
            api_versions::UNSUPPORTED_VERSION => {}
            code => return Err(NoVersions::Refused(crate::core::ErrorCode(code))),
        }
    }
    Err(NoVersions::Unknown)
}

impl Link {
    /// Sends a request and waits for its answer. Requests leave in the order in which the futures are first polled.
    pub(crate) async fn request<R>(&self, request: R) -> Result<R::ResponseBody, Unanswered>
    where
        R: RequestBody + Send + WriteVersionedType<Vec<u8>>,
        R::ResponseBody: ReadVersionedType<std::io::Cursor<Vec<u8>>>,
    {
        self.versions.check(R::API_KEY).map_err(Unanswered::NoVersion)?;
        self.messenger.request(request).await.map_err(|error| Unanswered::Lost(error.to_string()))
    }

    /// Sends a Produce request; its batches are not copied on their way.
    pub(crate) async fn produce(&self, timeout: Duration, parts: Vec<ProducePart>) -> Result<Produced, Unanswered> {
        self.request(ProduceRequest { timeout, parts, aside: self.aside.clone() }).await
    }

    /// Whether it is time to make another in its stead.
    pub(crate) fn is_old(&self) -> bool {
        self.replace_at.is_some_and(|at| at <= Instant::now())
    }

    /// Whether this is the first request since it was opened.
    pub(crate) fn is_first_request(&self) -> bool {
        self.written().frames <= self.frames_before + 1
    }

    /// How many frames have left whole since it was opened, and when the last did.
    pub(crate) fn written(&self) -> Written {
        self.handle.written()
    }

    /// Ends the connection at once; what waits for an answer on it fails.
    pub(crate) fn cut(&self) {
        self.handle.cut();
    }
}

//! One connection to a broker: found by name, opened, and asked what it can do.
//!
//! Rules: every step has a time limit; every address of a name is tried (KIP-602); an error says which
//! step failed and for which address.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rskafka::messenger::Messenger;
use rskafka::protocol::messages::{ReadVersionedType, RequestBody, WriteVersionedType};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::stream::{FrameStream, Handle, Written};
use crate::wire::messenger::{ApiVersionsRequest, first_question, version_ranges};

/// The longest answer that is read at all.
const MAX_ANSWER: usize = 16 << 20;

/// How connections are made.
#[derive(Clone, Debug)]
pub(crate) struct Dialer {
    pub(crate) client_id: Arc<str>,
    pub(crate) timeout: Duration,
}

/// An open connection whose broker has said which versions it speaks.
pub(crate) struct Link {
    messenger: Messenger<FrameStream>,
    handle: Arc<Handle>,
    /// Frames that opening it took.
    pub(crate) frames_before: u64,
}

impl Dialer {
    /// Opens a connection to the first address of `host` that takes one.
    pub(crate) async fn dial(&self, host: &str, port: u16) -> Result<Link, String> {
        let opened = timeout(self.timeout, self.open(host, port)).await;
        opened.unwrap_or_else(|_| Err(format!("{host}:{port}: no connection within {:?}", self.timeout)))
    }

    async fn open(&self, host: &str, port: u16) -> Result<Link, String> {
        let addresses: Vec<SocketAddr> = tokio::net::lookup_host((host, port))
            .await
            .map_err(|error| format!("{host}:{port}: the name could not be resolved: {error}"))?
            .collect();
        let mut failure = format!("{host}:{port}: the name has no address");
        let share = self.timeout / u32::try_from(addresses.len()).unwrap_or(1).max(1);
        for address in addresses {
            match timeout(share, self.open_at(address)).await {
                Ok(Ok(link)) => return Ok(link),
                Ok(Err(error)) => failure = format!("{host}:{port}: {error}"),
                Err(_) => failure = format!("{host}:{port}: {address} did not answer within {share:?}"),
            }
            tracing::debug!(broker = %format_args!("{host}:{port}"), %address, failure, "connection attempt failed");
        }
        Err(failure)
    }

    async fn open_at(&self, address: SocketAddr) -> Result<Link, String> {
        let tcp = TcpStream::connect(address).await.map_err(|error| format!("connecting to {address}: {error}"))?;
        tcp.set_nodelay(true).map_err(|error| format!("setting TCP_NODELAY: {error}"))?;
        // A connection that is dropped is cut at once, so that fewer requests arrive after the verdict.
        socket2::SockRef::from(&tcp)
            .set_linger(Some(Duration::ZERO))
            .map_err(|error| format!("setting SO_LINGER: {error}"))?;
        let (stream, handle) = FrameStream::new(Box::new(tcp));
        let mut messenger = Messenger::new(stream, MAX_ANSWER, self.client_id.clone());
        learn_versions(&mut messenger).await.map_err(|error| format!("asking {address} for its versions: {error}"))?;
        let frames_before = handle.written().frames;
        Ok(Link { messenger, handle, frames_before })
    }
}

/// ApiVersions, in the newest version that the broker knows (KIP-511).
async fn learn_versions(messenger: &mut Messenger<FrameStream>) -> Result<(), String> {
    for highest in [3, 0] {
        messenger.override_version_ranges(first_question(highest));
        let (code, ranges) = messenger.request(ApiVersionsRequest).await.map_err(|error| error.to_string())?.0;
        match code {
            0 => {
                messenger.override_version_ranges(version_ranges(&ranges));
                return Ok(());
            }
            35 => {}
            code => return Err(crate::core::ErrorCode(code).to_string()),
        }
    }
    Err("the broker knows no version of ApiVersions that we know".to_owned())
}

impl Link {
    /// Sends a request and waits for its answer. Requests leave in the order in which the futures are first polled.
    pub(crate) async fn request<R>(&self, request: R) -> Result<R::ResponseBody, String>
    where
        R: RequestBody + Send + WriteVersionedType<Vec<u8>>,
        R::ResponseBody: ReadVersionedType<std::io::Cursor<Vec<u8>>>,
    {
        self.messenger.request(request).await.map_err(|error| error.to_string())
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

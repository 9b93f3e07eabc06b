//! A listener and its connections.
//!
//! Rules:
//! - At most `max_connections` are open. Further clients wait in the operating system's queue.
//! - A failed accept, for instance without free descriptors, pauses accepting. It ends nothing.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

use super::handler::Handler;
use super::tls::{ServerTls, client_names};
use super::{Phase, ServeError, connection, metrics, reached};
use crate::options::GatewayConfig;

/// The pause after a failed accept.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// An address that is bound.
pub(super) struct Bound {
    listener: TcpListener,
    address: SocketAddr,
}

/// A listener that serves.
#[derive(Debug)]
pub(super) struct Listener {
    address: SocketAddr,
    task: JoinHandle<bool>,
    ends: watch::Sender<Option<Instant>>,
}

impl Listener {
    pub(super) async fn bind(option: &'static str, address: SocketAddr) -> Result<Bound, ServeError> {
        let bound = async {
            let listener = TcpListener::bind(address).await?;
            Ok(Bound { address: listener.local_addr()?, listener })
        };
        bound.await.map_err(|error| ServeError::Listen { option, address, error })
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Waits until all connections have ended, up to `ends`, and ends the others. Returns whether all had ended.
    pub(super) async fn ended(&mut self, ends: Instant) -> bool {
        self.ends.send_replace(Some(ends));
        (&mut self.task).await.unwrap_or(false)
    }
}

impl Bound {
    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Starts to accept connections.
    pub(super) fn serve(
        self,
        handler: Handler,
        tls: Option<Arc<ServerTls>>,
        config: Arc<GatewayConfig>,
        phase: watch::Receiver<Phase>,
    ) -> Listener {
        let (ends, end) = watch::channel(None);
        let address = self.address;
        let task = tokio::spawn(accept_all(self.listener, NewConnection { handler, tls, config, phase }, end));
        Listener { address, task, ends }
    }
}

/// Accepts connections until the service closes, then waits for their end. Returns whether all ended by themselves.
async fn accept_all(listener: TcpListener, new: NewConnection, mut end: watch::Receiver<Option<Instant>>) -> bool {
    let mut phase = new.phase.clone();
    let counts_connections = matches!(new.handler, Handler::Events(_));
    let closes_at = new.handler.closes_at();
    let mut connections = JoinSet::new();
    loop {
        if counts_connections {
            metrics::connections(connections.len());
        }
        tokio::select! {
            biased;
            () = reached(&mut phase, closes_at) => break,
            Some(_) = connections.join_next() => {}
            accepted = listener.accept(), if connections.len() < new.config.max_connections => match accepted {
                Ok((stream, _)) => {
                    connections.spawn(new.clone().serve(prepared(stream)));
                }
                Err(error) => {
                    tracing::warn!(%error, "connection not accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
        }
    }
    drop(listener);
    let all_ended = async { while connections.join_next().await.is_some() {} };
    let time_is_over = async {
        let ends = deadline(&mut end).await.unwrap_or_else(Instant::now);
        tokio::time::sleep_until(ends.into()).await;
    };
    tokio::select! {
        biased;
        () = all_ended => true,
        () = time_is_over => false,
    }
}

/// Returns the end of the time for connections, once it is known.
async fn deadline(end: &mut watch::Receiver<Option<Instant>>) -> Option<Instant> {
    end.wait_for(Option::is_some).await.ok().and_then(|end| *end)
}

/// The parts of each connection of a listener.
#[derive(Clone)]
struct NewConnection {
    handler: Handler,
    tls: Option<Arc<ServerTls>>,
    config: Arc<GatewayConfig>,
    phase: watch::Receiver<Phase>,
}

impl NewConnection {
    async fn serve(self, stream: TcpStream) {
        let Self { handler, tls, config, phase } = self;
        let Some(tls) = tls else { return connection::serve(stream, None, handler, config, phase).await };
        match tokio::time::timeout(config.head_timeout, tls.accept(stream)).await {
            Ok(Ok(stream)) => {
                let client = client_names(&stream);
                connection::serve(stream, client, handler, config, phase).await;
            }
            Ok(Err(error)) => tracing::debug!(%error, "TLS handshake failed"),
            Err(_) => tracing::debug!("TLS handshake timed out"),
        }
    }
}

/// Sends answers without waiting for more bytes.
fn prepared(stream: TcpStream) -> TcpStream {
    // A failure only delays answers.
    let _ = stream.set_nodelay(true);
    stream
}

//! A broker's address and its tasks.
//!
//! Rules:
//! - A broker keeps its port while the cluster lives, even while the broker is killed. A second socket is bound to the
//!   port and does not listen, so clients are refused and no other process gets the port.
//! - The requests of a killed broker end with it.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use tokio::io::{AsyncRead, AsyncWrite, DuplexStream};
use tokio::net::{TcpListener, TcpSocket};
use tokio::sync::{Notify, Semaphore, mpsc, watch};
use tokio::task::{JoinHandle, JoinSet};

use super::connection::{ConnectionContext, serve};
use crate::shared::SharedState;

/// The length of the queue of connections to accept.
const BACKLOG: u32 = 1024;

/// A reserved port on the loopback address.
pub(crate) struct ReservedAddress {
    address: SocketAddr,
    _holder: TcpSocket,
}

impl ReservedAddress {
    /// Reserves a free port.
    pub(crate) fn reserve() -> io::Result<Self> {
        let holder = bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))?;
        Ok(Self { address: holder.local_addr()?, _holder: holder })
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    fn listen(&self) -> io::Result<TcpListener> {
        bind(self.address)?.listen(BACKLOG)
    }
}

fn bind(address: SocketAddr) -> io::Result<TcpSocket> {
    let socket = TcpSocket::new_v4()?;
    socket.set_reuseaddr(true)?;
    #[cfg(unix)]
    socket.set_reuseport(true)?;
    socket.bind(address)?;
    Ok(socket)
}

/// The tasks of a running broker.
pub(crate) struct BrokerTasks {
    task: JoinHandle<()>,
    stop: Arc<Notify>,
    pub(crate) paused: watch::Sender<bool>,
    /// New connections without a socket.
    pub(crate) streams: mpsc::UnboundedSender<DuplexStream>,
}

impl BrokerTasks {
    /// Starts listening on the reserved port.
    pub(crate) fn start(endpoint: &ReservedAddress, broker: i32, shared: Arc<SharedState>) -> io::Result<Self> {
        let listener = endpoint.listen()?;
        let stop = Arc::new(Notify::new());
        let paused = watch::Sender::new(false);
        let (streams, offered) = mpsc::unbounded_channel();
        let context = ConnectionContext { shared, broker, paused: paused.subscribe() };
        Ok(Self { task: tokio::spawn(run(listener, offered, context, Arc::clone(&stop))), stop, paused, streams })
    }

    /// Ends the broker, its connections and their requests, and waits for that end.
    ///
    /// # Cancel safety
    /// Cancel safe: the broker ends even if the future is dropped.
    pub(crate) async fn kill(mut self) {
        self.stop.notify_one();
        if let Err(error) = (&mut self.task).await {
            tracing::error!(%error, "broker task failed");
        }
    }
}

impl Drop for BrokerTasks {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Accepts connections until the broker is stopped, then ends them.
async fn run(
    listener: TcpListener,
    mut offered: mpsc::UnboundedReceiver<DuplexStream>,
    context: ConnectionContext,
    stop: Arc<Notify>,
) {
    let capacity = Arc::new(Semaphore::new(context.shared.limits.max_connections));
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            () = stop.notified() => break,
            Some(stream) = offered.recv() => {
                spawn(&mut connections, std::future::ready(Ok(stream)), &context, &capacity);
            }
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    // An error is harmless: answers are only slower without TCP_NODELAY.
                    let _ = stream.set_nodelay(true);
                    match context.shared.security.layer.clone() {
                        None => spawn(&mut connections, std::future::ready(Ok(stream)), &context, &capacity),
                        Some(layer) => spawn(&mut connections, layer.wrap(stream), &context, &capacity),
                    }
                }
                Err(error) => {
                    // The likely cause is a lack of file descriptors. Other tasks must run to release some.
                    tracing::warn!(broker = context.broker, %error, "accept failed");
                    tokio::task::yield_now().await;
                }
            },
            Some(_) = connections.join_next(), if !connections.is_empty() => {}
        }
    }
    drop(listener);
    connections.shutdown().await;
}

fn spawn<F, S>(connections: &mut JoinSet<()>, stream: F, context: &ConnectionContext, capacity: &Arc<Semaphore>)
where
    F: Future<Output = io::Result<S>> + Send + 'static,
    S: AsyncRead + AsyncWrite + Send + 'static,
{
    let Ok(permit) = Arc::clone(capacity).try_acquire_owned() else {
        tracing::warn!(broker = context.broker, "connection limit reached: connection closed");
        return;
    };
    let context = context.clone();
    connections.spawn(async move {
        match stream.await {
            Ok(stream) => serve(stream, context).await,
            Err(error) => tracing::debug!(broker = context.broker, %error, "connection layer failed"),
        }
        drop(permit);
    });
}

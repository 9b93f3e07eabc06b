//! A broker's address and its tasks.
//!
//! Rules: the port is the broker's for as long as the cluster lives, also while it is killed: a second socket is bound to it
//! that does not listen, so that clients are refused and nobody else gets it; what a killed broker was doing ends with it.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use tokio::io::{AsyncRead, AsyncWrite, DuplexStream};
use tokio::net::{TcpListener, TcpSocket};
use tokio::sync::{Notify, Semaphore, mpsc, watch};
use tokio::task::{JoinHandle, JoinSet};

use super::connection::{Place, serve};
use crate::shared::Shared;

/// Connections that wait to be accepted.
const BACKLOG: u32 = 1024;

/// A port on the loopback address.
pub(crate) struct Endpoint {
    address: SocketAddr,
    _holder: TcpSocket,
}

impl Endpoint {
    /// Takes a free port.
    pub(crate) fn reserve() -> io::Result<Self> {
        let holder = bound(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))?;
        Ok(Self { address: holder.local_addr()?, _holder: holder })
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    fn listen(&self) -> io::Result<TcpListener> {
        bound(self.address)?.listen(BACKLOG)
    }
}

fn bound(address: SocketAddr) -> io::Result<TcpSocket> {
    let socket = TcpSocket::new_v4()?;
    socket.set_reuseaddr(true)?;
    #[cfg(unix)]
    socket.set_reuseport(true)?;
    socket.bind(address)?;
    Ok(socket)
}

/// A broker that runs.
pub(crate) struct Running {
    task: JoinHandle<()>,
    stop: Arc<Notify>,
    pub(crate) paused: watch::Sender<bool>,
    /// Connections without a socket.
    pub(crate) streams: mpsc::UnboundedSender<DuplexStream>,
}

impl Running {
    /// Starts listening.
    pub(crate) fn start(endpoint: &Endpoint, broker: i32, shared: Arc<Shared>) -> io::Result<Self> {
        let listener = endpoint.listen()?;
        let stop = Arc::new(Notify::new());
        let paused = watch::Sender::new(false);
        let (streams, offered) = mpsc::unbounded_channel();
        let place = Place { shared, broker, paused: paused.subscribe() };
        Ok(Self { task: tokio::spawn(run(listener, offered, place, Arc::clone(&stop))), stop, paused, streams })
    }

    /// Ends the broker, its connections and whatever they were doing. They have ended when this returns.
    ///
    /// Cancel safety: it ends all the same.
    pub(crate) async fn kill(mut self) {
        self.stop.notify_one();
        if let Err(error) = (&mut self.task).await {
            tracing::error!(%error, "a broker's task failed");
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Takes connections until the broker is stopped, and ends them then.
async fn run(
    listener: TcpListener,
    mut offered: mpsc::UnboundedReceiver<DuplexStream>,
    place: Place,
    stop: Arc<Notify>,
) {
    let room = Arc::new(Semaphore::new(place.shared.limits.max_connections));
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            () = stop.notified() => break,
            Some(stream) = offered.recv() => spawn(&mut connections, std::future::ready(Ok(stream)), &place, &room),
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    // Without it answers are only later, not wrong.
                    let _ = stream.set_nodelay(true);
                    match place.shared.security.layer.clone() {
                        None => spawn(&mut connections, std::future::ready(Ok(stream)), &place, &room),
                        Some(layer) => spawn(&mut connections, layer.wrap(stream), &place, &room),
                    }
                }
                Err(error) => {
                    // Out of file descriptors, most likely: others must run to give some back.
                    tracing::warn!(broker = place.broker, %error, "could not accept a connection");
                    tokio::task::yield_now().await;
                }
            },
            Some(_) = connections.join_next(), if !connections.is_empty() => {}
        }
    }
    drop(listener);
    connections.shutdown().await;
}

fn spawn<F, S>(connections: &mut JoinSet<()>, stream: F, place: &Place, room: &Arc<Semaphore>)
where
    F: Future<Output = io::Result<S>> + Send + 'static,
    S: AsyncRead + AsyncWrite + Send + 'static,
{
    let Ok(permit) = Arc::clone(room).try_acquire_owned() else {
        tracing::warn!(broker = place.broker, "a connection too many was closed");
        return;
    };
    let place = place.clone();
    connections.spawn(async move {
        match stream.await {
            Ok(stream) => serve(stream, place).await,
            Err(error) => tracing::debug!(broker = place.broker, %error, "a connection ended before its first request"),
        }
        drop(permit);
    });
}

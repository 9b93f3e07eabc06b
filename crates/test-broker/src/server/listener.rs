//! A broker's address and its tasks.
//!
//! Rules: the port is the broker's for as long as the cluster lives, also while it is killed: a second socket is bound to it
//! that does not listen, so that clients are refused and nobody else gets it; what a killed broker was doing ends with it.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use tokio::net::{TcpListener, TcpSocket};
use tokio::sync::{Semaphore, watch};
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
    pub(crate) paused: watch::Sender<bool>,
}

impl Running {
    /// Starts listening.
    pub(crate) fn start(endpoint: &Endpoint, broker: i32, shared: Arc<Shared>) -> io::Result<Self> {
        let listener = endpoint.listen()?;
        let paused = watch::Sender::new(false);
        let place = Place { shared, broker, paused: paused.subscribe() };
        Ok(Self { task: tokio::spawn(accept(listener, place)), paused })
    }

    /// What a connection needs to belong to this broker.
    pub(crate) fn place(&self, broker: i32, shared: Arc<Shared>) -> Place {
        Place { shared, broker, paused: self.paused.subscribe() }
    }

    /// Ends the broker, its connections and whatever they were doing.
    pub(crate) async fn kill(mut self) {
        self.task.abort();
        // It was aborted: the error says so.
        let _ = (&mut self.task).await;
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn accept(listener: TcpListener, place: Place) {
    let room = Arc::new(Semaphore::new(place.shared.limits.max_connections));
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    let Ok(permit) = Arc::clone(&room).try_acquire_owned() else {
                        tracing::warn!(broker = place.broker, "a connection too many was closed");
                        continue;
                    };
                    // Without it answers are only later, not wrong.
                    let _ = stream.set_nodelay(true);
                    let place = place.clone();
                    connections.spawn(async move {
                        serve(stream, place).await;
                        drop(permit);
                    });
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
}

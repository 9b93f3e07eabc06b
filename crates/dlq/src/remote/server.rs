//! The server: a thread that accepts connections, and one thread for each connection.
//!
//! Rules:
//! - An invalid request gets an error as its answer, and ends the connection. A request can only call the store's methods.
//! - Dropping the handle closes the connections, joins the threads and removes the socket.

use std::collections::HashMap;
use std::io::{self, BufReader};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use parking_lot::Mutex;

use super::protocol::{ServiceAnswer, ServiceRefusal, ServiceRequest, VERSION, receive, send};
use super::socket::Socket;
use crate::file::FileStore;
use crate::replay_guard::ReplayGuard;
use crate::store::DeadLetterStore;

/// Most connections at a time.
const MAX_CONNECTIONS: usize = 16;

/// Timeout for a client to read an answer.
const WRITE_TIMEOUT: Duration = Duration::from_secs(30);

impl FileStore {
    /// Serves the letters to other processes of the same user until the handle is dropped. The lock file names the Unix
    /// socket.
    ///
    /// # Errors
    /// Returns an error if the socket or a thread cannot be created.
    pub fn serve(self: &Arc<Self>) -> io::Result<Service> {
        let socket = Socket::for_file(self.path())?;
        let connections = Arc::new(Connections { store: self.clone(), open: Mutex::default() });
        let (listener, shared) = (socket.listener.try_clone()?, connections.clone());
        let acceptor = std::thread::Builder::new().name("dead-letter service".into());
        let acceptor = acceptor.spawn(move || shared.accept(&listener))?;
        self.announce(Some(&socket.path))?;
        Ok(Service { store: self.clone(), socket, connections, acceptor: Some(acceptor) })
    }
}

/// The service of a store's letters to other processes. It ends when the handle is dropped.
#[derive(Debug)]
pub struct Service {
    store: Arc<FileStore>,
    socket: Socket,
    connections: Arc<Connections>,
    acceptor: Option<JoinHandle<()>>,
}

impl Service {
    /// Returns the path of the socket.
    pub fn path(&self) -> &Path {
        &self.socket.path
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        if let Err(error) = self.store.announce(None) {
            tracing::warn!(store = self.store.name(), %error, "lock file of the dead letters still names the ended service");
        }
        let threads = self.connections.close_all();
        // Either call wakes the acceptor: the first one if the system can shut down listeners (Linux), the second one while
        // the socket has its name.
        let _ = socket2::SockRef::from(&self.socket.listener).shutdown(Shutdown::Both);
        let _ = UnixStream::connect(&self.socket.path);
        for thread in self.acceptor.take().into_iter().chain(threads) {
            let _ = thread.join();
        }
    }
}

#[derive(Debug)]
struct Connections {
    store: Arc<FileStore>,
    open: Mutex<OpenConnections>,
}

#[derive(Debug, Default)]
struct OpenConnections {
    ended: bool,
    next: u64,
    streams: HashMap<u64, (UnixStream, Option<JoinHandle<()>>)>,
}

impl Connections {
    fn accept(self: Arc<Self>, listener: &UnixListener) {
        for stream in listener.incoming() {
            if self.open.lock().ended {
                return;
            }
            let taken = stream.and_then(|stream| self.take(stream));
            if let Err(error) = taken {
                tracing::warn!(store = self.store.name(), %error, "connection to the dead-letter service failed");
                // The likely cause is a lack of file descriptors, which is temporary.
                std::thread::sleep(Duration::from_millis(50));
            }
        }
    }

    fn take(self: &Arc<Self>, stream: UnixStream) -> io::Result<()> {
        stream.set_write_timeout(Some(WRITE_TIMEOUT))?;
        let mut open = self.open.lock();
        if open.ended {
            return Ok(()); // the service has ended, and nothing would close this connection
        }
        if open.streams.len() >= MAX_CONNECTIONS {
            let reason = format!("{MAX_CONNECTIONS} connections are open already");
            return send(&stream, &ServiceAnswer::Refused(ServiceRefusal::Failed(reason)));
        }
        let (number, shared, copy) = (open.next, self.clone(), stream.try_clone()?);
        open.next += 1;
        let thread = std::thread::Builder::new().name("dead-letter client".into()).spawn(move || {
            if let Err(error) = serve_connection(&*shared.store, &stream) {
                tracing::debug!(store = shared.store.name(), %error, "connection to the dead-letter service ended");
            }
            shared.open.lock().streams.remove(&number);
        })?;
        open.streams.insert(number, (copy, Some(thread)));
        Ok(())
    }

    /// Closes every connection, and returns the threads.
    fn close_all(&self) -> Vec<JoinHandle<()>> {
        let mut open = self.open.lock();
        open.ended = true;
        let threads = open.streams.values_mut().filter_map(|(stream, thread)| {
            let _ = stream.shutdown(Shutdown::Both); // the connection may have ended already
            thread.take()
        });
        threads.collect()
    }
}

fn serve_connection(store: &dyn DeadLetterStore, stream: &UnixStream) -> io::Result<()> {
    send(stream, &ServiceAnswer::Hello { version: VERSION, store: store.name().to_owned() })?;
    let mut requests = BufReader::new(stream);
    // The claim is dropped with the connection.
    let mut claim = None;
    loop {
        let answer = match receive(&mut requests) {
            Ok(Some(request)) => respond(store, request, &mut claim).unwrap_or_else(ServiceAnswer::Refused),
            Ok(None) => return Ok(()),
            Err(error) => {
                send(stream, &ServiceAnswer::Refused(ServiceRefusal::Failed(format!("not a request: {error}"))))?;
                return Err(error);
            }
        };
        match send(stream, &answer) {
            // The answer is too long, and no byte of it was written: the client gets the error.
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => {
                send(stream, &ServiceAnswer::Refused(ServiceRefusal::Failed(error.to_string())))?;
            }
            sent => sent?,
        }
    }
}

fn respond(
    store: &dyn DeadLetterStore,
    request: ServiceRequest,
    claim: &mut Option<ReplayGuard>,
) -> Result<ServiceAnswer, ServiceRefusal> {
    Ok(match request {
        ServiceRequest::Append { letters } => ServiceAnswer::Appended(store.append(&letters)?),
        ServiceRequest::Import { letters, edited } => ServiceAnswer::Imported(store.import_with(&letters, edited)?),
        ServiceRequest::Scan { after, limit } => ServiceAnswer::Letters(store.scan(after, limit)?),
        ServiceRequest::Remove { positions } => ServiceAnswer::Count(store.remove(&positions)?),
        ServiceRequest::Update { changed } => ServiceAnswer::Count(store.update(&changed)?),
        ServiceRequest::Find { ids } => ServiceAnswer::Positions(store.find(&ids)?),
        ServiceRequest::Expire => ServiceAnswer::Count(store.expire()?),
        ServiceRequest::Stats => ServiceAnswer::Stats(Box::new(store.stats()?)),
        ServiceRequest::ClaimReplay => {
            *claim = Some(store.begin_replay()?);
            ServiceAnswer::Done
        }
        ServiceRequest::ReleaseReplay => {
            *claim = None;
            ServiceAnswer::Done
        }
    })
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    #[test]
    fn late_connection_is_closed() {
        let folder = tempfile::tempdir().unwrap();
        let store = Arc::new(FileStore::open(folder.path().join("letters")).unwrap());
        let connections = Arc::new(Connections { store, open: Mutex::default() });
        assert!(connections.close_all().is_empty());
        let (mut client, accepted) = UnixStream::pair().unwrap();
        connections.take(accepted).unwrap();
        assert!(connections.open.lock().streams.is_empty());
        assert_eq!(client.read_to_end(&mut Vec::new()).unwrap(), 0);
        let connections = Arc::into_inner(connections).unwrap();
        assert!(Arc::into_inner(connections.store).is_some(), "no thread holds the file");
    }
}

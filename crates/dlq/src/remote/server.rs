//! The side that holds the store: a thread that accepts, and one for each connection.
//!
//! - A connection that says nonsense is answered why, and ended. No request can do more than the store's own methods.
//! - Ends with its handle: connections are shut, threads joined, the socket removed.

use std::collections::HashMap;
use std::io::{self, BufReader};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use parking_lot::Mutex;

use super::protocol::{Answer, Refusal, Request, VERSION, receive, send};
use super::socket::Socket;
use crate::file::FileStore;
use crate::replay_guard::ReplayGuard;
use crate::store::DeadLetterStore;

/// Connections at a time.
const MOST: usize = 16;

/// How long a client may leave an answer unread.
const UNREAD: Duration = Duration::from_secs(30);

impl FileStore {
    /// Serves the letters to other processes of the same user, at a Unix socket that the lock file names, until the handle is
    /// dropped.
    pub fn serve(self: &Arc<Self>) -> io::Result<Service> {
        let socket = Socket::for_file(self.path())?;
        let connections = Arc::new(Connections { store: self.clone(), open: Mutex::default() });
        let (listener, of_thread) = (socket.listener.try_clone()?, connections.clone());
        let acceptor = std::thread::Builder::new().name("dead-letter service".into());
        let acceptor = acceptor.spawn(move || of_thread.accept(&listener))?;
        self.announce(Some(&socket.path))?;
        Ok(Service { store: self.clone(), socket, connections, acceptor: Some(acceptor) })
    }
}

/// Serves a store's letters to other processes, until it is dropped.
#[derive(Debug)]
pub struct Service {
    store: Arc<FileStore>,
    socket: Socket,
    connections: Arc<Connections>,
    acceptor: Option<JoinHandle<()>>,
}

impl Service {
    /// Where it listens.
    pub fn path(&self) -> &Path {
        &self.socket.path
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        if let Err(error) = self.store.announce(None) {
            tracing::warn!(store = self.store.name(), %error, "the lock file still names a service that has ended");
        }
        let threads = self.connections.end();
        // Either wakes the acceptor, which finds that it is over: the first where listeners can be shut (Linux), the
        // second while the socket has its name.
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
    open: Mutex<Open>,
}

#[derive(Debug, Default)]
struct Open {
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
                tracing::warn!(store = self.store.name(), %error, "a connection to the dead letters failed");
                // Out of file descriptors, most likely: it passes.
                std::thread::sleep(Duration::from_millis(50));
            }
        }
    }

    fn take(self: &Arc<Self>, stream: UnixStream) -> io::Result<()> {
        stream.set_write_timeout(Some(UNREAD))?;
        let mut open = self.open.lock();
        if open.ended {
            return Ok(()); // it came too late to be shut with the others
        }
        if open.streams.len() >= MOST {
            let reason = format!("{MOST} connections are open already");
            return send(&stream, &Answer::Refused(Refusal::Failed(reason)));
        }
        let (number, of_thread, copy) = (open.next, self.clone(), stream.try_clone()?);
        open.next += 1;
        let thread = std::thread::Builder::new().name("dead-letter client".into()).spawn(move || {
            if let Err(error) = answer(&*of_thread.store, &stream) {
                tracing::debug!(store = of_thread.store.name(), %error, "a connection to the dead letters ended");
            }
            of_thread.open.lock().streams.remove(&number);
        })?;
        open.streams.insert(number, (copy, Some(thread)));
        Ok(())
    }

    /// Shuts every connection.
    fn end(&self) -> Vec<JoinHandle<()>> {
        let mut open = self.open.lock();
        open.ended = true;
        let threads = open.streams.values_mut().filter_map(|(stream, thread)| {
            let _ = stream.shutdown(Shutdown::Both); // it may have ended by itself
            thread.take()
        });
        threads.collect()
    }
}

fn answer(store: &dyn DeadLetterStore, stream: &UnixStream) -> io::Result<()> {
    send(stream, &Answer::Hello { version: VERSION, store: store.name().to_owned() })?;
    let mut requests = BufReader::new(stream);
    // Dropped with the connection.
    let mut claim = None;
    loop {
        let answer = match receive(&mut requests) {
            Ok(Some(request)) => respond(store, request, &mut claim).unwrap_or_else(Answer::Refused),
            Ok(None) => return Ok(()),
            Err(error) => {
                send(stream, &Answer::Refused(Refusal::Failed(format!("not a request: {error}"))))?;
                return Err(error);
            }
        };
        match send(stream, &answer) {
            // Too long for a line, and nothing of it was written: the client hears why.
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => {
                send(stream, &Answer::Refused(Refusal::Failed(error.to_string())))?;
            }
            sent => sent?,
        }
    }
}

fn respond(store: &dyn DeadLetterStore, request: Request, claim: &mut Option<ReplayGuard>) -> Result<Answer, Refusal> {
    Ok(match request {
        Request::Append { letters } => Answer::Appended(store.append(&letters)?),
        Request::Import { letters, edited } => Answer::Imported(store.import_with(&letters, edited)?),
        Request::Scan { after, limit } => Answer::Letters(store.scan(after, limit)?),
        Request::Remove { positions } => Answer::Count(store.remove(&positions)?),
        Request::Update { changed } => Answer::Count(store.update(&changed)?),
        Request::Find { ids } => Answer::Positions(store.find(&ids)?),
        Request::Expire => Answer::Count(store.expire()?),
        Request::Stats => Answer::Stats(Box::new(store.stats()?)),
        Request::ClaimReplay => {
            *claim = Some(store.begin_replay()?);
            Answer::Done
        }
        Request::ReleaseReplay => {
            *claim = None;
            Answer::Done
        }
    })
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    #[test]
    fn a_client_that_is_accepted_while_the_service_ends_is_let_go() {
        let folder = tempfile::tempdir().unwrap();
        let store = Arc::new(FileStore::open(folder.path().join("letters")).unwrap());
        let connections = Arc::new(Connections { store, open: Mutex::default() });
        assert!(connections.end().is_empty());
        let (mut client, accepted) = UnixStream::pair().unwrap();
        connections.take(accepted).unwrap();
        assert!(connections.open.lock().streams.is_empty());
        assert_eq!(client.read_to_end(&mut Vec::new()).unwrap(), 0);
        let connections = Arc::into_inner(connections).unwrap();
        assert!(Arc::into_inner(connections.store).is_some(), "nobody else holds the file");
    }
}

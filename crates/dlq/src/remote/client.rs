//! The client: a store whose methods are requests to the service.
//!
//! Rules:
//! - The client has one connection, and opens a new one after a failure. A request without an answer is an error and is not
//!   repeated, because only the caller knows whether a repeat is safe.
//! - The claim of a replay has a separate connection, and ends with it.

use std::io::{self, BufReader};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use super::protocol::{ServiceAnswer, ServiceRefusal, ServiceRequest, VERSION, receive, send};
use crate::file::Publishing;
use crate::held::{Held, Position};
use crate::import::{Edited, Imported};
use crate::letter::{Letter, LetterId};
use crate::replay_guard::{BeginReplayError, ReplayGuard};
use crate::store::{Appended, DeadLetterStore, StoreStats};
use crate::store_error::{AppendError, StoreError};

/// Timeout of an answer. The store may have to open its file again first.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);

/// A dead-letter store that another process serves.
#[derive(Debug)]
pub struct RemoteStore {
    socket: PathBuf,
    name: String,
    connection: Mutex<Option<ServiceConnection>>,
    publishing: Mutex<Option<Publishing>>,
}

impl RemoteStore {
    /// Connects to the service at this socket.
    ///
    /// # Errors
    /// Returns an error if no service answers, or the service has another version of the protocol.
    pub fn connect(socket: impl AsRef<Path>) -> Result<Self, StoreError> {
        let socket = socket.as_ref().to_owned();
        let opened = ServiceConnection::open(&socket);
        let (connection, name) = opened.map_err(|error| service_error(&socket.display().to_string(), &error))?;
        Ok(Self { socket, name, connection: Mutex::new(Some(connection)), publishing: Mutex::default() })
    }

    fn request(&self, request: &ServiceRequest) -> Result<ServiceAnswer, AppendError> {
        let mut held = self.connection.lock();
        let connected = match held.take() {
            Some(connection) => Ok(connection),
            None => ServiceConnection::open(&self.socket).map(|(connection, _)| connection),
        };
        let answered = connected.and_then(|mut connection| {
            let answer = connection.ask(request)?;
            *held = Some(connection);
            Ok(answer)
        });
        match answered.map_err(|error| service_error(&self.name, &error))? {
            ServiceAnswer::Refused(refusal) => Err(self.error(refusal)),
            answer => Ok(answer),
        }
    }

    /// Takes the publishers' lock beside the file before the first letter.
    fn mark_publishing(&self) {
        let mut publishing = self.publishing.lock();
        if publishing.is_none() {
            match Publishing::beside(Path::new(&self.name)) {
                Ok(now) => *publishing = Some(now),
                // Letters are kept without the lock as well.
                Err(error) => {
                    tracing::warn!(store = self.name, %error, "publishers' lock of the dead-letter file is unavailable")
                }
            }
        }
    }

    fn request_from_store(&self, request: &ServiceRequest) -> Result<ServiceAnswer, StoreError> {
        self.request(request).map_err(|error| match error {
            AppendError::Store(error) => error,
            other => self.error_of_service(other.to_string()),
        })
    }

    fn count(&self, request: &ServiceRequest) -> Result<usize, StoreError> {
        match self.request_from_store(request)? {
            ServiceAnswer::Count(count) => Ok(count),
            other => Err(self.unexpected(&other)),
        }
    }

    fn error(&self, refusal: ServiceRefusal) -> AppendError {
        let store = self.name.clone();
        match refusal {
            ServiceRefusal::Full { letters, bytes } => AppendError::Full { store, letters, bytes },
            ServiceRefusal::TooLarge { id, bytes, limit } => AppendError::TooLarge { store, id, bytes, limit },
            ServiceRefusal::Busy | ServiceRefusal::Claimed { .. } => {
                self.error_of_service("a replay is running".into()).into()
            }
            ServiceRefusal::Failed(reason) => self.error_of_service(reason).into(),
        }
    }

    fn error_of_service(&self, reason: String) -> StoreError {
        StoreError::Service { store: self.name.clone(), reason }
    }

    fn unexpected(&self, answer: &ServiceAnswer) -> StoreError {
        self.error_of_service(format!("unexpected answer: {answer:.100?}"))
    }
}

impl DeadLetterStore for RemoteStore {
    fn name(&self) -> &str {
        &self.name
    }

    fn append(&self, letters: &[Letter]) -> Result<Appended, AppendError> {
        self.mark_publishing();
        match self.request(&ServiceRequest::Append { letters: letters.to_vec() })? {
            ServiceAnswer::Appended(appended) => Ok(appended),
            other => Err(self.unexpected(&other).into()),
        }
    }

    fn import_with(&self, letters: &[Letter], edited: Edited) -> Result<Imported, AppendError> {
        match self.request(&ServiceRequest::Import { letters: letters.to_vec(), edited })? {
            ServiceAnswer::Imported(imported) => Ok(imported),
            other => Err(self.unexpected(&other).into()),
        }
    }

    fn scan(&self, after: Option<Position>, limit: usize) -> Result<Vec<Held>, StoreError> {
        match self.request_from_store(&ServiceRequest::Scan { after, limit })? {
            ServiceAnswer::Letters(letters) => Ok(letters),
            other => Err(self.unexpected(&other)),
        }
    }

    fn remove(&self, positions: &[Position]) -> Result<usize, StoreError> {
        self.count(&ServiceRequest::Remove { positions: positions.to_vec() })
    }

    fn update(&self, changed: &[Held]) -> Result<usize, StoreError> {
        self.count(&ServiceRequest::Update { changed: changed.to_vec() })
    }

    fn find(&self, ids: &[LetterId]) -> Result<Vec<Option<Position>>, StoreError> {
        match self.request_from_store(&ServiceRequest::Find { ids: ids.to_vec() })? {
            ServiceAnswer::Positions(positions) if positions.len() == ids.len() => Ok(positions),
            other => Err(self.unexpected(&other)),
        }
    }

    fn expire(&self) -> Result<usize, StoreError> {
        self.count(&ServiceRequest::Expire)
    }

    fn stats(&self) -> Result<StoreStats, StoreError> {
        match self.request_from_store(&ServiceRequest::Stats)? {
            ServiceAnswer::Stats(stats) => Ok(*stats),
            other => Err(self.unexpected(&other)),
        }
    }

    fn begin_replay(&self) -> Result<ReplayGuard, BeginReplayError> {
        let opened = ServiceConnection::open(&self.socket).and_then(|(mut connection, _)| {
            let answer = connection.ask(&ServiceRequest::ClaimReplay)?;
            Ok((connection, answer))
        });
        let (connection, answer) = opened.map_err(|error| service_error(&self.name, &error))?;
        match answer {
            ServiceAnswer::Done => {
                let connection = Arc::new(Mutex::new(connection));
                let (shared, name) = (connection.clone(), self.name.clone());
                // The service keeps the claim for this connection. While the connection answers, the service has not ended.
                let holds = move || match shared.lock().ask(&ServiceRequest::Stats) {
                    Ok(_) => Ok(()),
                    Err(error) => Err(service_error(&name, &error)),
                };
                // The answer is awaited, so that the next claim succeeds. If this fails, closing the connection releases it.
                Ok(ReplayGuard::leased(move || _ = connection.lock().ask(&ServiceRequest::ReleaseReplay), holds))
            }
            ServiceAnswer::Refused(ServiceRefusal::Busy) => Err(BeginReplayError::Busy { store: self.name.clone() }),
            ServiceAnswer::Refused(ServiceRefusal::Claimed { holder, until }) => {
                Err(BeginReplayError::Claimed { store: self.name.clone(), holder, until })
            }
            ServiceAnswer::Refused(ServiceRefusal::Failed(reason)) => Err(self.error_of_service(reason).into()),
            other => Err(self.unexpected(&other).into()),
        }
    }
}

#[derive(Debug)]
struct ServiceConnection(BufReader<UnixStream>);

impl ServiceConnection {
    /// Connects, and returns the store's name as well.
    fn open(socket: &Path) -> io::Result<(Self, String)> {
        let stream = UnixStream::connect(socket)?;
        stream.set_read_timeout(Some(ANSWER_TIMEOUT))?;
        stream.set_write_timeout(Some(ANSWER_TIMEOUT))?;
        let mut connection = Self(BufReader::new(stream));
        match connection.receive()? {
            ServiceAnswer::Hello { version: VERSION, store } => Ok((connection, store)),
            ServiceAnswer::Hello { version, .. } => Err(io::Error::other(format!(
                "the service has version {version} of the protocol, and this process has version {VERSION}: use the same release"
            ))),
            ServiceAnswer::Refused(ServiceRefusal::Failed(reason)) => Err(io::Error::other(reason)),
            _ => Err(io::Error::other("the peer is not a dead-letter service")),
        }
    }

    fn ask(&mut self, request: &ServiceRequest) -> io::Result<ServiceAnswer> {
        send(self.0.get_ref(), request)?;
        self.receive()
    }

    fn receive(&mut self) -> io::Result<ServiceAnswer> {
        receive(&mut self.0)?.ok_or_else(|| io::Error::new(io::ErrorKind::UnexpectedEof, "the service has ended"))
    }
}

fn service_error(store: &str, error: &io::Error) -> StoreError {
    StoreError::Service { store: store.to_owned(), reason: error.to_string() }
}

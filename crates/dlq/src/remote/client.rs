//! The side that wants the letters: a store like any, each of whose methods is a request.
//!
//! - One connection, made again when it breaks. A request whose answer did not come is an error, not tried again: the caller
//!   knows best.
//! - The claim to replay has a connection of its own, and ends with it.

use std::io::{self, BufReader};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use super::protocol::{Answer, Refusal, Request, VERSION, receive, send};
use crate::file::Publishing;
use crate::import::{Edited, Imported};
use crate::letter::{Letter, LetterId};
use crate::replay_guard::{BeginReplayError, ReplayGuard};
use crate::store::{AppendError, Appended, DeadLetterStore, Held, Position, StoreError, StoreStats};

/// How long an answer may take: the store may have to open its file anew.
const PATIENCE: Duration = Duration::from_secs(60);

/// The dead letters of a service, in another process.
#[derive(Debug)]
pub struct RemoteStore {
    socket: PathBuf,
    name: String,
    connection: Mutex<Option<Connection>>,
    publishing: Mutex<Option<Publishing>>,
}

impl RemoteStore {
    /// Connects to the service at this socket.
    pub fn connect(socket: impl AsRef<Path>) -> Result<Self, StoreError> {
        let socket = socket.as_ref().to_owned();
        let opened = Connection::open(&socket);
        let (connection, name) = opened.map_err(|error| failed(&socket.display().to_string(), &error))?;
        Ok(Self { socket, name, connection: Mutex::new(Some(connection)), publishing: Mutex::default() })
    }

    fn ask(&self, request: &Request) -> Result<Answer, AppendError> {
        let mut held = self.connection.lock();
        let asked = match held.take() {
            Some(connection) => Ok(connection),
            None => Connection::open(&self.socket).map(|(connection, _)| connection),
        };
        let asked = asked.and_then(|mut connection| {
            let answer = connection.ask(request)?;
            *held = Some(connection);
            Ok(answer)
        });
        match asked.map_err(|error| failed(&self.name, &error))? {
            Answer::Refused(refusal) => Err(self.error(refusal)),
            answer => Ok(answer),
        }
    }

    /// Says beside the file, from the first letter on, that somebody publishes besides its holder.
    fn publishes(&self) {
        let mut publishing = self.publishing.lock();
        if publishing.is_none() {
            match Publishing::beside(Path::new(&self.name)) {
                Ok(now) => *publishing = Some(now),
                // Letters are kept all the same.
                Err(error) => {
                    tracing::warn!(store = self.name, %error, "nothing beside the dead letters says that somebody publishes")
                }
            }
        }
    }

    fn ask_store(&self, request: &Request) -> Result<Answer, StoreError> {
        self.ask(request).map_err(|error| match error {
            AppendError::Store(error) => error,
            other => self.service_error(other.to_string()),
        })
    }

    fn count(&self, request: &Request) -> Result<usize, StoreError> {
        match self.ask_store(request)? {
            Answer::Count(count) => Ok(count),
            other => Err(self.unexpected(&other)),
        }
    }

    fn error(&self, refusal: Refusal) -> AppendError {
        let store = self.name.clone();
        match refusal {
            Refusal::Full { letters, bytes } => AppendError::Full { store, letters, bytes },
            Refusal::TooLarge { id, bytes, limit } => AppendError::TooLarge { store, id, bytes, limit },
            Refusal::Busy | Refusal::Claimed { .. } => self.service_error("a replay is running".into()).into(),
            Refusal::Failed(reason) => self.service_error(reason).into(),
        }
    }

    fn service_error(&self, reason: String) -> StoreError {
        StoreError::Service { store: self.name.clone(), reason }
    }

    fn unexpected(&self, answer: &Answer) -> StoreError {
        self.service_error(format!("an answer to another question: {answer:.100?}"))
    }
}

impl DeadLetterStore for RemoteStore {
    fn name(&self) -> &str {
        &self.name
    }

    fn append(&self, letters: &[Letter]) -> Result<Appended, AppendError> {
        self.publishes();
        match self.ask(&Request::Append { letters: letters.to_vec() })? {
            Answer::Appended(appended) => Ok(appended),
            other => Err(self.unexpected(&other).into()),
        }
    }

    fn import_with(&self, letters: &[Letter], edited: Edited) -> Result<Imported, AppendError> {
        match self.ask(&Request::Import { letters: letters.to_vec(), edited })? {
            Answer::Imported(imported) => Ok(imported),
            other => Err(self.unexpected(&other).into()),
        }
    }

    fn scan(&self, after: Option<Position>, limit: usize) -> Result<Vec<Held>, StoreError> {
        match self.ask_store(&Request::Scan { after, limit })? {
            Answer::Letters(letters) => Ok(letters),
            other => Err(self.unexpected(&other)),
        }
    }

    fn remove(&self, positions: &[Position]) -> Result<usize, StoreError> {
        self.count(&Request::Remove { positions: positions.to_vec() })
    }

    fn update(&self, changed: &[Held]) -> Result<usize, StoreError> {
        self.count(&Request::Update { changed: changed.to_vec() })
    }

    fn find(&self, ids: &[LetterId]) -> Result<Vec<Option<Position>>, StoreError> {
        match self.ask_store(&Request::Find { ids: ids.to_vec() })? {
            Answer::Positions(positions) if positions.len() == ids.len() => Ok(positions),
            other => Err(self.unexpected(&other)),
        }
    }

    fn expire(&self) -> Result<usize, StoreError> {
        self.count(&Request::Expire)
    }

    fn stats(&self) -> Result<StoreStats, StoreError> {
        match self.ask_store(&Request::Stats)? {
            Answer::Stats(stats) => Ok(*stats),
            other => Err(self.unexpected(&other)),
        }
    }

    fn begin_replay(&self) -> Result<ReplayGuard, BeginReplayError> {
        let opened = Connection::open(&self.socket).and_then(|(mut connection, _)| {
            let answer = connection.ask(&Request::ClaimReplay)?;
            Ok((connection, answer))
        });
        let (connection, answer) = opened.map_err(|error| failed(&self.name, &error))?;
        match answer {
            Answer::Done => {
                let connection = Arc::new(Mutex::new(connection));
                let (asked, name) = (connection.clone(), self.name.clone());
                // The right is this connection's: as long as it answers, its service has not ended.
                let holds = move || match asked.lock().ask(&Request::Stats) {
                    Ok(_) => Ok(()),
                    Err(error) => Err(failed(&name, &error)),
                };
                // Awaited, so that the next claim finds it released. If it fails, the connection's end releases it.
                Ok(ReplayGuard::leased(move || _ = connection.lock().ask(&Request::ReleaseReplay), holds))
            }
            Answer::Refused(Refusal::Busy) => Err(BeginReplayError::Busy { store: self.name.clone() }),
            Answer::Refused(Refusal::Claimed { holder, until }) => {
                Err(BeginReplayError::Claimed { store: self.name.clone(), holder, until })
            }
            Answer::Refused(Refusal::Failed(reason)) => Err(self.service_error(reason).into()),
            other => Err(self.unexpected(&other).into()),
        }
    }
}

#[derive(Debug)]
struct Connection(BufReader<UnixStream>);

impl Connection {
    /// And the store's name.
    fn open(socket: &Path) -> io::Result<(Self, String)> {
        let stream = UnixStream::connect(socket)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        let mut connection = Self(BufReader::new(stream));
        match connection.receive()? {
            Answer::Hello { version: VERSION, store } => Ok((connection, store)),
            Answer::Hello { version, .. } => Err(io::Error::other(format!(
                "it speaks version {version} of the protocol, and this is version {VERSION}: use the same release"
            ))),
            Answer::Refused(Refusal::Failed(reason)) => Err(io::Error::other(reason)),
            _ => Err(io::Error::other("no greeting of a dead-letter service")),
        }
    }

    fn ask(&mut self, request: &Request) -> io::Result<Answer> {
        send(self.0.get_ref(), request)?;
        self.receive()
    }

    fn receive(&mut self) -> io::Result<Answer> {
        receive(&mut self.0)?.ok_or_else(|| io::Error::new(io::ErrorKind::UnexpectedEof, "it has ended"))
    }
}

fn failed(store: &str, error: &io::Error) -> StoreError {
    StoreError::Service { store: store.to_owned(), reason: error.to_string() }
}

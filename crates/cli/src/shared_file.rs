//! The dead-letter file of `courier publish` and `courier dlq replay`, which several processes of one user may share.
//!
//! Rules:
//! - The first process opens the file and serves it to the others. The next process that needs the file opens it after
//!   the first one has ended. A request that a vanished service did not answer is repeated: a store keeps a dead letter
//!   of one id once.
//! - A process that publishes registers beside the file before its first write, until it ends. If no process is
//!   registered, the processes that wrote dead letters have ended, and their producer ids may be fenced.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use kafka_courier::KafkaConfig;
#[cfg(unix)]
use kafka_courier::dlq::Service;
use kafka_courier::dlq::{
    AppendError, Appended, BeginReplayError, DeadLetterStore, Edited, FileStore, FileStoreOptions, Held, Imported,
    Letter, LetterId, OpenError, Position, Publishing, ReplayGuard, StoreError, StoreStats, reach,
};
use parking_lot::Mutex;

/// How long to wait for a file that another process has open and does not serve, such as one that lists dead letters.
const OPEN_TIMEOUT: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_millis(50);

/// The purpose of opening the file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum FileUse {
    /// To keep the dead letters of published events.
    Publish,
    /// To replay the dead letters in the file, or to import others.
    Replay,
}

/// A dead-letter file, opened by this process or by another one that serves it.
#[derive(Debug)]
pub(crate) struct SharedFile {
    path: PathBuf,
    name: String,
    options: FileStoreOptions,
    /// The registration of this process as a publisher.
    _publishing: Option<Publishing>,
    /// `None` after `release`, until the next request.
    now: Mutex<Option<Holding>>,
}

#[derive(Clone, Debug)]
struct Holding {
    store: Arc<dyn DeadLetterStore>,
    /// Refers to the store, so the service ends first.
    #[cfg(unix)]
    _service: Option<Arc<Service>>,
}

impl Holding {
    fn open(path: &Path, options: &FileStoreOptions) -> Result<Self, OpenError> {
        let until = Instant::now() + OPEN_TIMEOUT;
        loop {
            match Self::try_open(path, options) {
                Err(OpenError::Held { .. }) if Instant::now() < until => std::thread::sleep(PAUSE),
                opened => return opened,
            }
        }
    }

    fn try_open(path: &Path, options: &FileStoreOptions) -> Result<Self, OpenError> {
        match FileStore::open_with(path, options.clone()) {
            Ok(file) => Ok(Self::own(Arc::new(file))),
            // One attempt: if the holder closes the file meanwhile, this process must open and serve it above.
            Err(error) => Ok(Self {
                store: reach(error)?,
                #[cfg(unix)]
                _service: None,
            }),
        }
    }

    #[cfg(unix)]
    fn own(file: Arc<FileStore>) -> Self {
        let service = match file.serve() {
            Ok(service) => Some(Arc::new(service)),
            Err(error) => {
                crate::say(&format!("warning: cannot serve {} to other processes: {error}", file.path().display()));
                None
            }
        };
        Self { store: file, _service: service }
    }

    #[cfg(not(unix))]
    fn own(file: Arc<FileStore>) -> Self {
        Self { store: file }
    }
}

impl SharedFile {
    /// Opens the file at `path` with the limits of these settings, or connects to the process that has it open. Creates the
    /// file if it does not exist. Blocks.
    pub(crate) fn open(path: &Path, config: &KafkaConfig, to: FileUse) -> Result<Self, OpenError> {
        let options = config.dlq_file_options();
        let now = Holding::open(path, &options)?;
        let publishing = match to {
            FileUse::Publish => Some(Publishing::beside(path).map_err(|error| io_error(path, error))?),
            FileUse::Replay => None,
        };
        Ok(Self {
            path: path.to_owned(),
            name: path.display().to_string(),
            options,
            _publishing: publishing,
            now: Mutex::new(Some(now)),
        })
    }

    /// Closes the file, or the connection to its service.
    pub(crate) fn release(&self) {
        let held = self.now.lock().take();
        drop(held);
    }

    /// Calls the store. If its service has gone, opens the file again and repeats the call.
    fn ask<R, E: From<StoreError>>(
        &self,
        ask: impl Fn(&dyn DeadLetterStore) -> Result<R, E>,
        has_gone: impl Fn(&E) -> bool,
    ) -> Result<R, E> {
        let store = self.store(None)?;
        match ask(&*store) {
            Err(error) if has_gone(&error) => ask(&*self.store(Some(&store))?),
            answered => answered,
        }
    }

    /// Returns the current store, unless it is the one that has `gone`. Opens the file again if needed.
    fn store(&self, gone: Option<&Arc<dyn DeadLetterStore>>) -> Result<Arc<dyn DeadLetterStore>, StoreError> {
        let mut now = self.now.lock();
        if let Some(holding) = &*now
            && gone.is_none_or(|gone| !Arc::ptr_eq(gone, &holding.store))
        {
            return Ok(holding.store.clone());
        }
        *now = None;
        let next = Holding::open(&self.path, &self.options)
            .map_err(|error| StoreError::Service { store: self.name.clone(), reason: error.to_string() })?;
        Ok(now.insert(next).store.clone())
    }
}

fn io_error(path: &Path, error: io::Error) -> OpenError {
    OpenError::Io { path: path.to_owned(), error: Arc::new(error) }
}

fn service_gone(error: &StoreError) -> bool {
    matches!(error, StoreError::Service { .. })
}

impl DeadLetterStore for SharedFile {
    fn is_exclusive(&self) -> bool {
        self.now.lock().as_ref().is_some_and(|holding| holding.store.is_exclusive())
    }

    fn name(&self) -> &str {
        &self.name
    }

    fn append(&self, letters: &[Letter]) -> Result<Appended, AppendError> {
        let gone = |error: &AppendError| matches!(error, AppendError::Store(error) if service_gone(error));
        self.ask(|store| store.append(letters), gone)
    }

    fn import_with(&self, letters: &[Letter], edited: Edited) -> Result<Imported, AppendError> {
        let gone = |error: &AppendError| matches!(error, AppendError::Store(error) if service_gone(error));
        self.ask(|store| store.import_with(letters, edited), gone)
    }

    fn scan(&self, after: Option<Position>, limit: usize) -> Result<Vec<Held>, StoreError> {
        self.ask(|store| store.scan(after, limit), service_gone)
    }

    fn remove(&self, positions: &[Position]) -> Result<usize, StoreError> {
        self.ask(|store| store.remove(positions), service_gone)
    }

    fn update(&self, changed: &[Held]) -> Result<usize, StoreError> {
        self.ask(|store| store.update(changed), service_gone)
    }

    fn find(&self, ids: &[LetterId]) -> Result<Vec<Option<Position>>, StoreError> {
        self.ask(|store| store.find(ids), service_gone)
    }

    fn expire(&self) -> Result<usize, StoreError> {
        self.ask(|store| store.expire(), service_gone)
    }

    fn stats(&self) -> Result<StoreStats, StoreError> {
        self.ask(|store| store.stats(), service_gone)
    }

    fn begin_replay(&self) -> Result<ReplayGuard, BeginReplayError> {
        let gone = |error: &BeginReplayError| matches!(error, BeginReplayError::Store(error) if service_gone(error));
        self.ask(|store| store.begin_replay(), gone)
    }
}

#[cfg(all(test, unix))]
mod tests {
    use kafka_courier::dlq::Timestamp;

    use super::*;

    fn letter() -> Letter {
        Letter::new("t", None, "why", Timestamp::UNIX_EPOCH)
    }

    #[test]
    fn second_process_takes_over() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("letters");
        let open = || SharedFile::open(&path, &KafkaConfig::default(), FileUse::Publish).unwrap();
        let (first, second, third) = (open(), open(), open());
        let letters = [letter(), letter(), letter(), letter()];
        first.append(&letters[..1]).unwrap();
        second.append(&letters[1..2]).unwrap();
        assert_eq!(first.scan(None, 9).unwrap().len(), 2);
        drop(first);
        second.append(&letters[2..3]).unwrap();
        third.append(&letters[3..]).unwrap();
        let held: Vec<Letter> = second.scan(None, 9).unwrap().into_iter().map(|held| held.letter).collect();
        assert_eq!(held, letters);
        drop(second);
        assert_eq!(third.stats().unwrap().letters, 4);
    }

    #[test]
    fn publishers_prevent_exclusive_use() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("letters");
        let open = |to| SharedFile::open(&path, &KafkaConfig::default(), to).unwrap();
        let alone = open(FileUse::Replay);
        assert!(alone.is_exclusive() && !open(FileUse::Replay).is_exclusive());
        drop(alone);
        let (first, second) = (open(FileUse::Publish), open(FileUse::Publish));
        assert!(!first.is_exclusive() && !second.is_exclusive());
        drop(first);
        // `second` still publishes, although another process opens the file.
        let replay = open(FileUse::Replay);
        assert!(!replay.is_exclusive());
        drop((second, replay));
        assert!(open(FileUse::Replay).is_exclusive());
    }

    #[test]
    fn limits_of_settings_apply() {
        let folder = tempfile::tempdir().unwrap();
        let config = KafkaConfig::builder().dlq_max_letters(1_usize).config().unwrap();
        let file = SharedFile::open(&folder.path().join("letters"), &config, FileUse::Publish).unwrap();
        file.append(&[letter()]).unwrap();
        assert!(matches!(file.append(&[letter()]), Err(AppendError::Full { letters: 1, .. })));
    }
}

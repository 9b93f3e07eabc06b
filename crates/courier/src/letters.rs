//! The file of dead letters as `courier publish` and `courier dlq replay` have it: several at a time may, of the same user.
//!
//! Rules:
//! - The first to come has the file and serves it to the others; when it ends, whoever needs it next takes over. What was
//!   asked when a service went away is asked again: a letter of one id is kept once.
//! - Whoever publishes says so beside the file, from before it writes there until it ends. Where nobody does, whoever wrote
//!   letters is gone, and its producer's life may be ended to prove what it wrote.

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

/// How long a file is waited for that a process has which serves nobody: such as one that lists letters.
const PATIENCE: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_millis(50);

/// What the file is wanted for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Use {
    /// Letters of events that are published come into it, now or later.
    Publish,
    /// Letters that are there are sent again, or come from elsewhere.
    Replay,
}

/// The file, or whoever has it.
#[derive(Debug)]
pub(crate) struct SharedFile {
    path: PathBuf,
    name: String,
    options: FileStoreOptions,
    /// Says that somebody publishes.
    _publishing: Option<Publishing>,
    /// None: given back, until somebody asks again.
    now: Mutex<Option<Holding>>,
}

#[derive(Clone, Debug)]
struct Holding {
    store: Arc<dyn DeadLetterStore>,
    /// Ends before the store does: it refers to it.
    #[cfg(unix)]
    _service: Option<Arc<Service>>,
}

impl Holding {
    fn open(path: &Path, options: &FileStoreOptions) -> Result<Self, OpenError> {
        let until = Instant::now() + PATIENCE;
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
            // Once: a file that its holder gives up meanwhile has to be opened above, and served.
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
                crate::say(&format!("warning: {} can't be served to others: {error}", file.path().display()));
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
    /// Opens the file at `path`, or makes it, with the limits of these settings; or reaches whoever has it. Blocks.
    pub(crate) fn open(path: &Path, config: &KafkaConfig, to: Use) -> Result<Self, OpenError> {
        let options = config.dlq_file_options();
        let now = Holding::open(path, &options)?;
        let publishing = match to {
            Use::Publish => Some(Publishing::beside(path).map_err(|error| io_error(path, error))?),
            Use::Replay => None,
        };
        Ok(Self {
            path: path.to_owned(),
            name: path.display().to_string(),
            options,
            _publishing: publishing,
            now: Mutex::new(Some(now)),
        })
    }

    /// Gives the file back, so that it is closed in order.
    pub(crate) fn release(&self) {
        let held = self.now.lock().take();
        drop(held);
    }

    /// Asks the store; if whoever had it has gone, the one that is there now.
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

    /// The store as it is now, but not the one that has `gone`.
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
    fn a_second_one_goes_through_the_first_and_takes_over_when_that_ends() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("letters");
        let open = || SharedFile::open(&path, &KafkaConfig::default(), Use::Publish).unwrap();
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
    fn only_who_has_the_file_while_nobody_publishes_may_end_a_producers_life() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("letters");
        let open = |to| SharedFile::open(&path, &KafkaConfig::default(), to).unwrap();
        let alone = open(Use::Replay);
        assert!(alone.is_exclusive() && !open(Use::Replay).is_exclusive());
        drop(alone);
        let (first, second) = (open(Use::Publish), open(Use::Publish));
        assert!(!first.is_exclusive() && !second.is_exclusive());
        drop(first);
        // It publishes on, though it does not have the file.
        let replay = open(Use::Replay);
        assert!(!replay.is_exclusive());
        drop((second, replay));
        assert!(open(Use::Replay).is_exclusive());
    }

    #[test]
    fn the_settings_limits_hold() {
        let folder = tempfile::tempdir().unwrap();
        let config = KafkaConfig::builder().dlq_max_letters(1_usize).config().unwrap();
        let file = SharedFile::open(&folder.path().join("letters"), &config, Use::Publish).unwrap();
        file.append(&[letter()]).unwrap();
        assert!(matches!(file.append(&[letter()]), Err(AppendError::Full { letters: 1, .. })));
    }
}

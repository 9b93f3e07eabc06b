//! What failed for good: kept with its reason, listed, removed, and sent again.
//!
//! Rules: a letter is kept before its delivery reports the failure; whatever blocks, blocks a thread that may.

mod chain;
mod make;
pub(crate) mod refused;
pub(crate) mod topic;
pub(crate) mod writer;

use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Sender, channel};

use kafka_courier_dlq::{
    DeadLetterStore, FileStore, FileStoreOptions, Held, Letter, Limits, MemoryStore, Selection, StoreError, StoreStats,
};
use kafka_courier_event_model::{EncodeError, Event};
use kafka_courier_idempotent_sender::driver::security::TokenSource;
use tokio::sync::oneshot;

use crate::config::{ConfigErrors, KafkaConfig};
use crate::error::PublishError;
use crate::shared::Shared;
use chain::{Chain, Link};
pub use topic::{DeadLetterTopic, TopicWarning, UnfitTopic};
use writer::Work;

/// A producer's dead letters: those of its stores in memory and on disk, together. Those in a topic belong to all who
/// write there: see [`DeadLetterTopic`].
///
/// All of its methods may be called from any task: what blocks is done on tokio's threads for that.
#[derive(Clone, Debug)]
pub struct DeadLetters {
    chain: Arc<Chain>,
    work: Sender<Work>,
    /// Other processes reach the file through it.
    _service: Option<Arc<Service>>,
}

#[cfg(unix)]
use kafka_courier_dlq::Service;
/// Other processes reach a file only where there are Unix sockets.
#[cfg(not(unix))]
#[derive(Debug)]
enum Service {}

/// What a store of dead letters holds.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct DeadLetterStats {
    /// The store: `memory`, or the file's path, or the topic.
    pub store: String,
    /// Letters that were handed to it since the producer was built.
    pub kept: u64,
    /// What it holds, and what it did; all zero if it can't be asked.
    pub stats: StoreStats,
    /// Why it can't be asked.
    pub error: Option<StoreError>,
}

/// Letters that were found, and the stores that could not be read: there may be more letters in those.
///
/// It is a slice of the letters, and iterates over them.
#[derive(Clone, Default, Debug)]
#[non_exhaustive]
#[must_use]
pub struct Listed {
    /// The letters of all stores that could be read.
    pub letters: Vec<Held>,
    /// The stores that could not be read, or not to their end, by name, with the reason.
    pub unread: Vec<(String, StoreError)>,
}

impl Deref for Listed {
    type Target = [Held];

    fn deref(&self) -> &[Held] {
        &self.letters
    }
}

impl IntoIterator for Listed {
    type Item = Held;
    type IntoIter = std::vec::IntoIter<Held>;

    fn into_iter(self) -> Self::IntoIter {
        self.letters.into_iter()
    }
}

impl KafkaConfig {
    /// How a file of dead letters is kept: within `dlq_max_letters`, `dlq_max_bytes` and `dlq_max_age` (0: no limit), and
    /// what `dlq_overflow` says where it is full.
    pub fn dlq_file_options(&self) -> FileStoreOptions {
        let at_most = |limit: usize| Some(limit as u64).filter(|limit| *limit > 0);
        let limits = Limits {
            max_letters: at_most(self.dlq_max_letters),
            max_bytes: at_most(self.dlq_max_bytes),
            max_age: Some(self.dlq_max_age).filter(|age| !age.is_zero()),
            overflow: self.dlq_overflow,
        };
        FileStoreOptions { limits, ..FileStoreOptions::default() }
    }
}

/// Lets other processes reach the file through this one; without that it is kept all the same.
#[cfg(unix)]
fn serve(file: &Arc<FileStore>) -> Option<Service> {
    let served = file.serve();
    served
        .inspect_err(|error| {
            tracing::warn!(store = file.name(), %error, "other processes can't reach the dead letters while this one runs");
        })
        .ok()
}

#[cfg(not(unix))]
fn serve(_: &Arc<FileStore>) -> Option<Service> {
    None
}

impl DeadLetters {
    /// Starts keeping letters, in `store` if there is one, else as the configuration says.
    pub(crate) fn start(
        config: &KafkaConfig,
        store: Option<Arc<dyn DeadLetterStore>>,
        tokens: Option<TokenSource>,
        shared: &Arc<Shared>,
    ) -> Result<Self, ConfigErrors> {
        let (mut links, mut service) = (Vec::new(), None);
        if !config.dlq_topic.is_empty() {
            let topic = DeadLetterTopic::open_with(config, &config.dlq_topic, tokens, true)?;
            links.push(Link::in_cluster(Arc::new(topic)));
        }
        links.extend(store.map(|store| Link::own(store, "custom")));
        if !config.dlq_file.is_empty() {
            let file = FileStore::open_with(&config.dlq_file, config.dlq_file_options())
                .map_err(|error| ConfigErrors(vec![format!("dlq_file: {error}")]))?;
            let file = Arc::new(file);
            service = serve(&file);
            links.push(Link::own(file, "file"));
        }
        links.push(Link::own(Arc::new(MemoryStore::new(config.dlq_buffer as u64)), "memory"));
        let chain = Arc::new(Chain::new(links));
        let work = writer::start(chain.clone(), shared.clone()).map_err(|error| {
            ConfigErrors(vec![format!("the thread that keeps dead letters could not be started: {error}")])
        })?;
        Ok(Self { chain, work, _service: service.map(Arc::new) })
    }

    /// Keeps nothing, and holds nothing.
    pub(crate) fn none() -> Self {
        Self { chain: Arc::new(Chain::new(Vec::new())), work: channel().0, _service: None }
    }

    /// The stores of this process, in the order in which they are tried. The topic is not among them: it belongs to all
    /// replicas, and takes a [`DeadLetterTopic`] of one's own to read it.
    pub(crate) fn stores(&self) -> Vec<Arc<dyn DeadLetterStore>> {
        self.chain.own().map(|link| link.store.clone()).collect()
    }

    /// Checks the settings of the topic that `dlq_topic` names, as [`DeadLetterTopic::check`] does; without such a topic there
    /// is nothing to say. Waits for the cluster's answer.
    ///
    /// # Errors
    ///
    /// [`UnfitTopic`]: the topic takes no dead letters, because it would lose them; they go to the next store.
    pub async fn check_topic(&self) -> Result<Vec<TopicWarning>, UnfitTopic> {
        let topics: Vec<_> = self.chain.links.iter().filter_map(Link::topic).collect();
        // Without an answer the topic's own check says so before it takes a letter.
        let checked = tokio::task::spawn_blocking(move || {
            topics.iter().try_fold(Vec::new(), |mut warnings, topic| {
                warnings.extend(topic.check()?);
                Ok(warnings)
            })
        });
        checked.await.unwrap_or_else(|_| Ok(Vec::new()))
    }

    pub(crate) fn writer(&self) -> Sender<Work> {
        self.work.clone()
    }

    /// Letters held now, in memory and on disk; what is in a topic is not counted.
    pub fn len(&self) -> u64 {
        self.chain.held()
    }

    /// Letters that the stores took, the topic included.
    pub(crate) fn kept(&self) -> u64 {
        self.chain.links.iter().map(|link| link.kept.load(Ordering::Relaxed)).sum()
    }

    /// Letters that only memory holds.
    pub(crate) fn in_memory(&self) -> u64 {
        self.chain.links.iter().filter(|link| link.is_memory()).map(Link::held).sum()
    }

    /// Whether none is held.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What each store holds, in the order in which they are tried. A store that can't be asked hides no other: its entry
    /// says why.
    ///
    /// # Errors
    ///
    /// The runtime is shutting down.
    pub async fn stats(&self) -> Result<Vec<DeadLetterStats>, StoreError> {
        self.blocking(|chain| Ok(chain.links.iter().map(Link::stats).collect())).await
    }

    /// The selected letters, store by store, in order of arrival, at most `limit`. A store that can't be read hides no other:
    /// it is named beside what was found.
    ///
    /// # Errors
    ///
    /// The runtime is shutting down.
    pub async fn list(&self, selection: &Selection, limit: usize) -> Result<Listed, StoreError> {
        let selection = selection.clone();
        self.blocking(move |chain| Ok(chain.list(&selection, limit))).await
    }

    /// Removes the selected letters for ever; returns how many there were.
    ///
    /// # Errors
    ///
    /// The first store that failed. All stores were tried.
    pub async fn purge(&self, selection: &Selection) -> Result<usize, StoreError> {
        let selection = selection.clone();
        self.blocking(move |chain| {
            let purged = chain.purge(&selection);
            crate::metrics::dead_letters(chain.held());
            purged
        })
        .await
    }

    /// A letter of an event that was not accepted, for [`put`](Self::put): as the record that it would have been, for
    /// `topic`, certainly not written, never tried. Errors: the event has no JSON.
    pub fn letter_of(topic: &str, event: &dyn Event, error: &PublishError) -> Result<Letter, EncodeError> {
        refused::letter(topic, event, error)
    }

    /// Keeps letters that were written by hand. Returns when they are as durable as failures of the producer's own.
    ///
    /// Cancel safety: they are kept all the same.
    pub async fn put(&self, letters: Vec<Letter>) {
        let (kept, done) = oneshot::channel();
        // The thread is there as long as this sender is.
        let _ = self.work.send(Work::Put { letters, kept });
        let _ = done.await;
    }

    /// Waits until all that failed before is kept.
    pub(crate) async fn settled(&self) {
        let (reached, done) = oneshot::channel();
        let _ = self.work.send(Work::Barrier(reached));
        let _ = done.await;
    }

    async fn blocking<R: Send + 'static>(
        &self,
        what: impl FnOnce(&Chain) -> Result<R, StoreError> + Send + 'static,
    ) -> Result<R, StoreError> {
        let chain = self.chain.clone();
        match tokio::task::spawn_blocking(move || what(&chain)).await {
            Ok(result) => result,
            Err(error) => match error.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                Err(_) => Err(StoreError::Service {
                    store: "dead letters".to_owned(),
                    reason: "the runtime is shutting down".to_owned(),
                }),
            },
        }
    }
}

//! Dead letters: failed records, kept with their reason, listed and removed.
//!
//! Rules: a letter is kept before its delivery reports the failure. Blocking calls run on threads that may block.

mod awaited;
mod batch_letters;
mod chain;
mod page;
pub(crate) mod refused_event;
mod spooled;
pub(crate) mod topic;
pub(crate) mod writer;

use std::collections::HashSet;
use std::ops::Deref;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{SendError, Sender, channel};

use kafka_courier_dlq::{
    DeadLetterStore, FileStore, Held, Letter, LetterId, MemoryStore, Selection, StoreError, StoreStats,
};
use kafka_courier_event_model::{EncodeError, Event};
use kafka_courier_producer::{FailureSink, Landed, PublishError, Undelivered};
use tokio::sync::oneshot;

use crate::metrics;
pub use awaited::AwaitedRecord;
use chain::{StoreChain, StoreKind, StoreLink};
pub use page::{CursorError, LetterCursor, LetterPage};
pub use spooled::{UnsettledRecord, unsettled_records};
pub use topic::{DeadLetterTopic, TopicEngine, TopicOptions, TopicWarning, UnfitTopic};
use writer::Work;

/// The dead letters of a producer, in its stores in memory and on disk. Dead letters in a topic belong to all processes
/// that write to the topic: see [`DeadLetterTopic`].
///
/// All methods may be called from any task. Blocking work runs on tokio's blocking threads.
#[derive(Clone, Debug)]
pub struct DeadLetters {
    chain: Arc<StoreChain>,
    work: Sender<Work>,
    /// The service through which other processes reach the file.
    _service: Option<Arc<Service>>,
}

#[cfg(unix)]
use kafka_courier_dlq::Service;
/// Other processes reach a file only on platforms with Unix sockets.
#[cfg(not(unix))]
#[derive(Debug)]
enum Service {}

/// The stores of a process, in the order in which they are tried. Memory follows the file.
#[derive(Debug, Default)]
pub struct Stores {
    /// The topic. It belongs to all processes that write to it.
    pub topic: Option<DeadLetterTopic>,
    /// The application's own store.
    pub custom: Option<Arc<dyn DeadLetterStore>>,
    /// The file, which other processes reach through a service of this process.
    pub file: Option<FileStore>,
    /// Most letters in memory.
    pub memory_letters: u64,
}

/// The counts of one store of dead letters.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct DeadLetterStats {
    /// The store: `memory`, the file's path, or the topic.
    pub store: String,
    /// Dead letters that the store accepted since the producer was built.
    pub kept: u64,
    /// The store's own counts. All counts are zero if the store fails.
    pub stats: StoreStats,
    /// The store's error, if it fails.
    pub error: Option<StoreError>,
}

/// A list of dead letters, and the unreadable stores, which may contain more dead letters.
///
/// The list dereferences to a slice of the dead letters, and iterates over them.
#[derive(Clone, Default, Debug)]
#[non_exhaustive]
#[must_use]
pub struct Listed {
    /// The dead letters of all readable stores.
    pub letters: Vec<Held>,
    /// The names and errors of stores that could not be read to their end.
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

/// Starts the service through which other processes reach the file. A failure leaves the file usable for this process
/// alone.
#[cfg(unix)]
fn serve(file: &Arc<FileStore>) -> Option<Service> {
    let served = file.serve();
    served
        .inspect_err(|error| {
            tracing::warn!(store = file.name(), %error, "dead-letter service failed to start");
        })
        .ok()
}

#[cfg(not(unix))]
fn serve(_: &Arc<FileStore>) -> Option<Service> {
    None
}

impl DeadLetters {
    /// Starts the thread that keeps letters in `stores`.
    ///
    /// # Errors
    ///
    /// The operating system's error, if it starts no thread.
    #[doc(hidden)]
    pub fn start(stores: Stores) -> std::io::Result<Self> {
        let (mut links, mut service) = (Vec::new(), None);
        links.extend(stores.topic.map(|topic| StoreLink::in_cluster(Arc::new(topic))));
        links.extend(stores.custom.map(|store| StoreLink::local(store, StoreKind::Custom)));
        if let Some(file) = stores.file.map(Arc::new) {
            service = serve(&file);
            links.push(StoreLink::local(file, StoreKind::File));
        }
        links.push(StoreLink::local(Arc::new(MemoryStore::new(stores.memory_letters)), StoreKind::Memory));
        let chain = Arc::new(StoreChain::new(links));
        metrics::describe();
        metrics::dead_letters(chain.held());
        let work = writer::start(chain.clone())?;
        Ok(Self { chain, work, _service: service.map(Arc::new) })
    }

    /// Returns dead letters without a store.
    #[doc(hidden)]
    pub fn none() -> Self {
        Self { chain: Arc::new(StoreChain::new(Vec::new())), work: channel().0, _service: None }
    }

    /// Returns the stores of this process, in the order in which they are tried. The topic is excluded, because it
    /// belongs to all replicas. A separate [`DeadLetterTopic`] reads it.
    pub(crate) fn stores(&self) -> Vec<Arc<dyn DeadLetterStore>> {
        self.chain.local_links().map(|link| link.store.clone()).collect()
    }

    /// Checks the settings of `dlq_topic` as [`DeadLetterTopic::check`] does, and returns the warnings. Waits for the
    /// cluster's answer. Returns no warnings if `dlq_topic` is empty.
    ///
    /// # Errors
    ///
    /// Returns [`UnfitTopic`] if the topic would lose dead letters. The topic then accepts none, and the next store
    /// takes them.
    pub async fn check_topic(&self) -> Result<Vec<TopicWarning>, UnfitTopic> {
        let topics: Vec<_> = self.chain.links.iter().filter_map(StoreLink::topic).collect();
        // The topic repeats the check before it accepts a letter, so a missing answer is not an error here.
        let checked = tokio::task::spawn_blocking(move || {
            topics.iter().try_fold(Vec::new(), |mut warnings, topic| {
                warnings.extend(topic.check()?);
                Ok(warnings)
            })
        });
        checked.await.unwrap_or_else(|_| Ok(Vec::new()))
    }

    /// Returns the number of dead letters in memory and on disk. Dead letters in a topic are not counted.
    pub fn len(&self) -> u64 {
        self.chain.held()
    }

    /// Returns the number of letters that the stores accepted, including the topic.
    #[doc(hidden)]
    pub fn kept(&self) -> u64 {
        self.chain.links.iter().map(|link| link.kept.load(Ordering::Relaxed)).sum()
    }

    /// Returns the number of letters in memory only.
    #[doc(hidden)]
    pub fn in_memory(&self) -> u64 {
        self.chain.links.iter().filter(|link| link.is_memory()).map(StoreLink::held).sum()
    }

    /// Returns whether neither memory nor disk contains a dead letter.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns the counts of each store, in the order in which the stores are tried. The entry of a failed store
    /// contains its error.
    ///
    /// # Errors
    ///
    /// Returns an error if the runtime is shutting down.
    pub async fn stats(&self) -> Result<Vec<DeadLetterStats>, StoreError> {
        self.blocking(|chain| Ok(chain.links.iter().map(StoreLink::stats).collect())).await
    }

    /// Returns up to `limit` selected dead letters, store by store, in order of arrival. [`Listed::unread`] names the
    /// unreadable stores.
    ///
    /// # Errors
    ///
    /// Returns an error if the runtime is shutting down.
    pub async fn list(&self, selection: &Selection, limit: usize) -> Result<Listed, StoreError> {
        let selection = selection.clone();
        self.blocking(move |chain| Ok(chain.list(&selection, limit))).await
    }

    /// Returns up to `limit` selected dead letters behind `after`, store by store, in order of arrival. A page of large dead
    /// letters has fewer. Letters that arrive between two pages are included.
    ///
    /// # Errors
    ///
    /// Returns an error if the runtime is shutting down.
    pub async fn page(
        &self,
        selection: &Selection,
        after: Option<LetterCursor>,
        limit: usize,
    ) -> Result<LetterPage, StoreError> {
        let selection = selection.clone();
        self.blocking(move |chain| Ok(chain.page(&selection, after, limit))).await
    }

    /// Removes the selected dead letters permanently, and returns their number.
    ///
    /// # Errors
    ///
    /// Returns the error of the first store that failed, after trying all stores.
    pub async fn purge(&self, selection: &Selection) -> Result<usize, StoreError> {
        let selection = selection.clone();
        self.blocking(move |chain| {
            let purged = chain.purge(&selection);
            metrics::dead_letters(chain.held());
            purged
        })
        .await
    }

    /// Returns the dead letter of a refused event, for [`put`](Self::put). The dead letter contains the record that the
    /// event would have been in `topic`, has the outcome not written, and no attempt.
    ///
    /// # Errors
    ///
    /// Returns an error if the event has no JSON.
    pub fn letter_of(topic: &str, event: &dyn Event, error: &PublishError) -> Result<Letter, EncodeError> {
        refused_event::letter(topic, event, error)
    }

    /// Keeps dead letters of the application. Returns once they are as durable as the producer's own dead letters, with the
    /// ids of dead letters that are lost when the process ends: no other store than memory or the log took them.
    ///
    /// # Cancel safety
    ///
    /// The dead letters are kept even if the future is dropped after its first poll.
    pub async fn put(&self, letters: Vec<Letter>) -> HashSet<LetterId> {
        let ids = letters.iter().map(|letter| letter.id).collect();
        let (kept, done) = oneshot::channel();
        // The thread lives as long as this sender. No store has the letters if there is no thread.
        let _ = self.work.send(Work::Put { letters, kept });
        done.await.unwrap_or(ids)
    }

    async fn blocking<R: Send + 'static>(
        &self,
        work: impl FnOnce(&StoreChain) -> Result<R, StoreError> + Send + 'static,
    ) -> Result<R, StoreError> {
        let chain = self.chain.clone();
        match tokio::task::spawn_blocking(move || work(&chain)).await {
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

/// Keeps the records that failed as dead letters.
impl FailureSink for DeadLetters {
    fn undelivered(&self, undelivered: Undelivered) {
        let work = Work::Failed { undelivered, work: self.work.clone() };
        if let Err(SendError(Work::Failed { undelivered, .. })) = self.work.send(work) {
            writer::log_and_settle(undelivered);
        }
    }

    fn landed(&self, landed: Landed) {
        // Without a writer no letter is left to remove.
        let _ = self.work.send(Work::Landed(landed));
    }

    fn settled(&self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(async {
            let (reached, done) = oneshot::channel();
            let _ = self.work.send(Work::Barrier(reached));
            let _ = done.await;
        })
    }
}

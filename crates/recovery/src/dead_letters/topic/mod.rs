//! Dead letters in a Kafka topic, for several replicas of a service and for tools that read Kafka Connect's headers.
//!
//! Rules:
//! - The topic is append-only. A changed letter is a newer version, and a settled letter has a record that settles it.
//! - A scan of the topic determines the present letters and their order. A process that only writes does not scan.
//! - The right to replay is claimed in the topic, among all processes. A claim is valid for a lease and is renewed.
//! - A topic that refused letters in an outage is not tried for a pause. The next store takes the letters meanwhile.
//! - A topic whose settings would lose letters accepts none.

pub(crate) mod arrival;
mod check;
mod claim;
mod import;
pub(crate) mod index;
mod lease;
mod policy;
mod reader;
mod record;
mod task;
mod writer;

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::sync_channel;
use std::time::{Duration, Instant};

use kafka_courier_client::log_client::LogClient;
use kafka_courier_client::security::TokenSource;
use kafka_courier_dlq::{
    AppendError, Appended, BeginReplayError, DeadLetterStore, Edited, Held, Imported, Letter, LetterId, Outcome,
    Position, ReplayGuard, SCAN_BYTES, StoreError, StoreStats, Uuid,
};
use kafka_courier_producer::Engine;
use parking_lot::Mutex;
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};

use self::arrival::{Arrival, LogPosition};
use self::check::TopicCheck;
use self::import::TopicContents;
use self::index::{FoundLetters, Index, IndexedLetter};
use self::lease::LeaseError;
pub use self::policy::{TopicWarning, UnfitTopic};
use self::reader::{TopicPage, TopicReader};
use self::record::LoggedEntry;
use self::task::{Reply, TopicRequest, TopicTask};
use self::writer::{OutgoingRecord, WriteOutcome};

/// The timeout of an answer of the task, longer than the task's own timeouts.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);
/// How long a topic is not tried after an outage.
const PAUSE: Duration = Duration::from_secs(10);
/// The delivery timeout of a letter.
pub(crate) const DELIVERY_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a claim to replay is valid after its last renewal.
const LEASE: Duration = Duration::from_secs(30);

/// Starts the engine that writes to a dead-letter topic. The configuration of `kafka-courier` implements it.
pub trait TopicEngine {
    /// The problems of the configuration.
    type Error;

    /// Starts an engine without a failure sink on the current tokio runtime.
    ///
    /// # Errors
    ///
    /// Returns all problems of the configuration.
    #[doc(hidden)]
    fn start(&self, tokens: Option<TokenSource>) -> Result<(Engine, TopicOptions), Self::Error>;
}

impl<C: TopicEngine + ?Sized> TopicEngine for &C {
    type Error = C::Error;

    fn start(&self, tokens: Option<TokenSource>) -> Result<(Engine, TopicOptions), C::Error> {
        C::start(self, tokens)
    }
}

impl<C: TopicEngine + ?Sized> TopicEngine for Arc<C> {
    type Error = C::Error;

    fn start(&self, tokens: Option<TokenSource>) -> Result<(Engine, TopicOptions), C::Error> {
        C::start(self, tokens)
    }
}

/// The settings of a [`DeadLetterTopic`].
#[derive(Clone, Debug)]
pub struct TopicOptions {
    /// The client id that letters name as their writer.
    pub client_id: String,
    /// How long letters are to be kept. The topic's retention is compared with it.
    pub max_age: Duration,
    /// The timeout of a check of the topic's settings.
    pub check_timeout: Duration,
    /// Whether the topic is checked before the first request, and the result is logged.
    pub logs_check: bool,
}

/// A store of dead letters in a Kafka topic.
pub struct DeadLetterTopic {
    name: Arc<str>,
    client_id: String,
    requests: UnboundedSender<TopicRequest>,
    index: Mutex<Index>,
    /// The letters that imports are compared with.
    contents: Mutex<TopicContents>,
    failed_at: Mutex<Option<Instant>>,
    appended: AtomicU64,
    refused: AtomicU64,
    removed: AtomicU64,
    replaying: Arc<AtomicBool>,
}

impl DeadLetterTopic {
    /// The delivery timeout of a letter. The engine that is handed in should give up a record after it.
    #[doc(hidden)]
    pub const DELIVERY_TIMEOUT: Duration = DELIVERY_TIMEOUT;

    /// Opens a store in `topic` of the cluster in `config`. Does not wait for Kafka. [`check`](Self::check) waits, and
    /// returns whether the topic is fit for dead letters.
    ///
    /// # Errors
    ///
    /// Returns all problems of the configuration, or an error if the call is not within a tokio runtime.
    pub fn open<C: TopicEngine>(config: &C, topic: &str) -> Result<Self, C::Error> {
        let (engine, options) = config.start(None)?;
        Ok(Self::with_engine(engine, topic, options))
    }

    /// Opens a store as [`open`](Self::open) does, with a source of tokens for OAUTHBEARER.
    ///
    /// # Errors
    ///
    /// See [`open`](Self::open).
    pub fn open_with_tokens<C: TopicEngine>(config: &C, topic: &str, tokens: TokenSource) -> Result<Self, C::Error> {
        let (engine, options) = config.start(Some(tokens))?;
        Ok(Self::with_engine(engine, topic, options))
    }

    /// Creates a store that writes through `engine`, which has no failure sink. Runs on the current tokio runtime.
    #[doc(hidden)]
    pub fn with_engine(engine: Engine, topic: &str, options: TopicOptions) -> Self {
        let log = Arc::new(LogClient::new(engine.client_config()));
        let (requests, received) = unbounded_channel();
        let name: Arc<str> = topic.into();
        let reader = TopicReader { topic: name.clone(), log };
        let check = TopicCheck::new(options.max_age, options.check_timeout);
        let (engine, logs_check) = (Arc::new(engine), options.logs_check);
        tokio::spawn(TopicTask { engine, reader, requests: received, check, logs_check }.run());
        Self {
            name,
            client_id: options.client_id,
            requests,
            index: Mutex::default(),
            contents: Mutex::default(),
            failed_at: Mutex::default(),
            appended: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            removed: AtomicU64::new(0),
            replaying: Arc::default(),
        }
    }

    /// Checks the topic's settings, and returns warnings about settings that may lose dead letters. Blocks until the
    /// cluster answers. A missing topic passes, and is checked again before its first dead letter is written.
    ///
    /// # Errors
    ///
    /// Returns [`UnfitTopic`] if the topic accepts no dead letters, because it would lose them.
    pub fn check(&self) -> Result<Vec<TopicWarning>, UnfitTopic> {
        self.request(TopicRequest::Check).unwrap_or_else(|error| {
            Ok(vec![TopicWarning::Unknown { topic: self.name.to_string(), reason: error.to_string() }])
        })
    }

    /// Returns whether the topic exists on the cluster. Blocks until the cluster answers. Returns true if the cluster
    /// does not answer.
    ///
    /// # Errors
    ///
    /// Returns an error if the store's runtime has ended, or the store's task did not answer in time.
    pub fn exists(&self) -> Result<bool, StoreError> {
        self.request(TopicRequest::Exists)
    }

    /// Sends a request to the task and waits for the answer.
    fn request<A>(&self, request: impl FnOnce(Reply<A>) -> TopicRequest) -> Result<A, StoreError> {
        let (reply, answer) = sync_channel(1);
        self.requests.send(request(reply)).map_err(|_| self.failure("the store's runtime has ended".to_owned()))?;
        match answer.recv_timeout(ANSWER_TIMEOUT) {
            Ok(answered) => answered.map_err(|error| self.failure(error.to_string())),
            Err(_) => Err(self.failure(format!("no answer within {ANSWER_TIMEOUT:?}"))),
        }
    }

    fn write(&self, records: Vec<OutgoingRecord>) -> Result<Vec<WriteOutcome>, StoreError> {
        self.request(|reply| TopicRequest::Append(records, reply))
    }

    /// Writes records as [`write`](Self::write) does. Returns an error if one record is not written.
    fn write_all(&self, records: Vec<OutgoingRecord>) -> Result<Vec<Option<LogPosition>>, StoreError> {
        let all = self.write(records)?.into_iter().map(|written| match written {
            WriteOutcome::Written(partition, offset) => Ok(offset.map(|offset| (partition, offset))),
            WriteOutcome::Failed(failure) => Err(self.failure(failure.to_string())),
        });
        all.collect()
    }

    fn failure(&self, reason: String) -> StoreError {
        StoreError::Service { store: format!("the topic {}", self.name), reason }
    }

    /// Writes letters, and returns for each whether it is written.
    pub(super) fn append_each(&self, letters: &[Letter]) -> Result<Vec<bool>, StoreError> {
        Ok(self.append_to_partitions(letters)?.into_iter().map(|partition| partition.is_some()).collect())
    }

    /// Writes letters as [`append_each`](Self::append_each) does. Returns the partition of each written letter.
    fn append_to_partitions(&self, letters: &[Letter]) -> Result<Vec<Option<i32>>, StoreError> {
        if self.is_paused() {
            self.refused.fetch_add(letters.len() as u64, Ordering::Relaxed);
            return Err(self.paused_error());
        }
        let stamps: Vec<Uuid> = letters.iter().map(|_| Arrival::now()).collect();
        let outgoing = letters.iter().zip(&stamps).map(|(letter, at)| self.outgoing(letter, None, Arrival::First(*at)));
        let written = self.write(outgoing.collect());
        let outage = match &written {
            Ok(written) => {
                written.iter().any(|written| matches!(written, WriteOutcome::Failed(failure) if failure.is_outage()))
            }
            Err(_) => true,
        };
        *self.failed_at.lock() = outage.then(Instant::now);
        let mut index = self.index.lock();
        let taken = letters.iter().zip(stamps).zip(written?).map(|((letter, stamp), written)| {
            let WriteOutcome::Written(partition, offset) = written else { return None };
            if let (Some(offset), Outcome::Unknown) = (offset, letter.outcome) {
                index.insert_written(letter.id, (partition, offset), stamp);
            }
            Some(partition)
        });
        let taken: Vec<Option<i32>> = taken.collect();
        let count = taken.iter().flatten().count() as u64;
        self.appended.fetch_add(count, Ordering::Relaxed);
        self.refused.fetch_add(letters.len() as u64 - count, Ordering::Relaxed);
        Ok(taken)
    }

    fn outgoing(&self, letter: &Letter, partition: Option<i32>, arrival: Arrival) -> OutgoingRecord {
        let headers = record::headers(letter, &self.client_id, Some(arrival));
        OutgoingRecord { partition, key: letter.key.clone(), value: letter.value.clone(), headers }
    }

    fn settling_record(id: LetterId, (partition, _): LogPosition) -> OutgoingRecord {
        let key = Some(id.to_string().into());
        OutgoingRecord { partition: Some(partition), key, value: None, headers: record::settled_headers(id) }
    }

    /// Scans the whole topic, and replaces the index.
    ///
    /// The scan has a second pass that continues at the ends of the first. A letter that the first pass found in one
    /// partition may be newer than a letter that was written to another partition after the pass had read it. Letters
    /// that arrived after the first pass are left to the next scan.
    fn load(&self) -> Result<(), StoreError> {
        let (mut found, mut ends) = (FoundLetters::default(), HashMap::new());
        self.read_to_ends(&mut ends, |at, entry| found.add_entry(at, &entry))?;
        let last = found.last_arrival();
        self.read_to_ends(&mut ends, |at, entry| found.add_entry(at, &entry))?;
        found.retain_until(last);
        self.index.lock().replace(found);
        Ok(())
    }

    /// Reads each partition from its offset in `ends` to its end, and calls `take` with each entry.
    fn read_to_ends(
        &self,
        ends: &mut HashMap<i32, i64>,
        mut take: impl FnMut(LogPosition, LoggedEntry),
    ) -> Result<(), StoreError> {
        for partition in 0..self.request(TopicRequest::Partitions)? {
            loop {
                let from = ends.get(&partition).copied();
                let TopicPage { entries, next, .. } =
                    self.request(|reply| TopicRequest::Read(partition, from, reply))?;
                entries.into_iter().for_each(|(offset, entry)| take((partition, offset), entry));
                let Some(next) = next else { break };
                ends.insert(partition, next);
            }
        }
        Ok(())
    }

    /// Returns the newest versions of the letters, up to the letter that reaches [`SCAN_BYTES`] in total. Letters that
    /// retention has deleted are left out.
    fn newest(&self, wanted: Vec<(LetterId, IndexedLetter)>) -> Result<Vec<Held>, StoreError> {
        let mut awaited: HashMap<LogPosition, Option<Letter>> =
            wanted.iter().map(|(_, known)| (known.newest, None)).collect();
        let (mut found, mut bytes) = (Vec::with_capacity(wanted.len()), 0);
        for (id, IndexedLetter { position, newest, .. }) in wanted {
            if awaited.get(&newest).is_some_and(Option::is_none) {
                self.read_newest(newest, &mut awaited)?;
            }
            let Some(letter) = awaited.remove(&newest).flatten().filter(|letter| letter.id == id) else { continue };
            bytes += letter.memory_bytes();
            found.push(Held::new(position, letter));
            if bytes >= SCAN_BYTES {
                break;
            }
        }
        Ok(found)
    }

    /// Reads the awaited letter at this position, and other awaited letters on the same page.
    fn read_newest(
        &self,
        (partition, offset): LogPosition,
        awaited: &mut HashMap<LogPosition, Option<Letter>>,
    ) -> Result<(), StoreError> {
        let TopicPage { entries, next, .. } =
            self.request(|reply| TopicRequest::Read(partition, Some(offset), reply))?;
        if next.is_none() {
            return Err(
                self.failure(format!("partition {partition} ends before offset {offset}, which was read earlier"))
            );
        }
        for (offset, entry) in entries {
            if let (LoggedEntry::Letter(letter, _), Some(awaited)) = (entry, awaited.get_mut(&(partition, offset))) {
                *awaited = Some(*letter);
            }
        }
        Ok(())
    }

    fn claim(&self) -> Result<ReplayGuard, BeginReplayError> {
        let (reply, answer) = sync_channel(1);
        self.requests
            .send(TopicRequest::Claim(LEASE, reply))
            .map_err(|_| self.failure("the store's runtime has ended".to_owned()))?;
        let timeout = 2 * LEASE + ANSWER_TIMEOUT;
        let claimed = answer.recv_timeout(timeout);
        let lease = match claimed.map_err(|_| self.failure(format!("no answer within {timeout:?}")))? {
            Ok(lease) => lease,
            Err(LeaseError::Held { holder, until }) => {
                return Err(BeginReplayError::Claimed { store: self.name.to_string(), holder, until });
            }
            Err(error) => return Err(self.failure(error.to_string()).into()),
        };
        let (taken, valid) = (self.replaying.clone(), lease.valid());
        let lost = self.failure("the claim to replay its dead letters is lost, or was not renewed in time".to_owned());
        let release = move || {
            let (done, released) = sync_channel(1);
            if lease.release.send(done).is_ok() {
                // The claim expires if there is no answer.
                let _ = released.recv_timeout(DELIVERY_TIMEOUT);
            }
            taken.store(false, Ordering::Release);
        };
        let holds = move || if valid.lock().is_ahead() { Ok(()) } else { Err(lost.clone()) };
        Ok(ReplayGuard::leased(release, holds))
    }

    fn is_paused(&self) -> bool {
        self.failed_at.lock().is_some_and(|at| at.elapsed() < PAUSE)
    }

    fn paused_error(&self) -> StoreError {
        self.failure(format!("the topic refused dead letters, the next attempt follows after {PAUSE:?}"))
    }
}

impl fmt::Debug for DeadLetterTopic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DeadLetterTopic").field("name", &self.name).finish_non_exhaustive()
    }
}

impl DeadLetterStore for DeadLetterTopic {
    fn name(&self) -> &str {
        &self.name
    }

    fn append(&self, letters: &[Letter]) -> Result<Appended, AppendError> {
        let taken = self.append_to_partitions(letters)?;
        if taken.iter().all(Option::is_some) {
            return Ok(Appended { taken: letters.len() as u64, ..Appended::default() });
        }
        // A call accepts all letters or none, so the written letters are settled again. The settling record is in the
        // letter's partition, where a reader reads the letter first.
        let settling = letters.iter().zip(taken).filter_map(|(letter, partition)| {
            let (headers, key) = (record::settled_headers(letter.id), letter.key.clone());
            Some(OutgoingRecord { partition: Some(partition?), key, value: None, headers })
        });
        self.write_all(settling.collect())?;
        Err(self.failure("some dead letters were not written".to_owned()).into())
    }

    fn import_with(&self, letters: &[Letter], edited: Edited) -> Result<Imported, AppendError> {
        self.import_letters(letters, edited)
    }

    fn scan(&self, after: Option<Position>, limit: usize) -> Result<Vec<Held>, StoreError> {
        if after.is_none() {
            self.load()?;
        }
        let mut after = after;
        loop {
            let wanted = self.index.lock().after(after, limit);
            let Some((_, last)) = wanted.last() else { return Ok(Vec::new()) };
            after = Some(last.position);
            let found = self.newest(wanted)?;
            if !found.is_empty() {
                return Ok(found);
            }
        }
    }

    fn remove(&self, positions: &[Position]) -> Result<usize, StoreError> {
        let indexed: Vec<(LetterId, LogPosition)> = {
            let index = self.index.lock();
            let at = |position: &Position| index.get(*position).map(|(id, known)| (id, known.newest));
            positions.iter().filter_map(at).collect()
        };
        self.write_all(indexed.iter().map(|(id, at)| Self::settling_record(*id, *at)).collect())?;
        let mut index = self.index.lock();
        indexed.iter().for_each(|(id, _)| {
            index.remove(*id);
        });
        self.removed.fetch_add(indexed.len() as u64, Ordering::Relaxed);
        Ok(indexed.len())
    }

    fn update(&self, changed: &[Held]) -> Result<usize, StoreError> {
        let indexed: Vec<(&Held, IndexedLetter)> = {
            let index = self.index.lock();
            let known = |held: &Held| index.get(held.position).filter(|(id, _)| *id == held.letter.id);
            changed.iter().filter_map(|held| known(held).map(|(_, known)| (held, known))).collect()
        };
        let records = indexed
            .iter()
            .map(|(held, known)| self.outgoing(&held.letter, Some(known.newest.0), Arrival::Before(known.arrived)));
        let places = self.write_all(records.collect())?;
        let mut index = self.index.lock();
        for ((held, _), at) in indexed.iter().zip(places) {
            // The index keeps the older version until the next scan if there is no offset.
            if let Some(at) = at {
                index.update(held.letter.id, at);
            }
        }
        Ok(indexed.len())
    }

    /// Finds only letters that were scanned, or written by this process.
    fn find(&self, ids: &[LetterId]) -> Result<Vec<Option<Position>>, StoreError> {
        let index = self.index.lock();
        Ok(ids.iter().map(|id| index.position(*id)).collect())
    }

    /// Does nothing, because the topic's retention drops old letters.
    fn expire(&self) -> Result<usize, StoreError> {
        Ok(0)
    }

    /// Returns the counts of the store. The number of letters is as of the last scan from the beginning.
    fn stats(&self) -> Result<StoreStats, StoreError> {
        Ok(StoreStats {
            letters: self.index.lock().len(),
            appended: self.appended.load(Ordering::Relaxed),
            removed: self.removed.load(Ordering::Relaxed),
            refused: self.refused.load(Ordering::Relaxed),
            latched: self.is_paused().then(|| self.paused_error().to_string()),
            ..StoreStats::default()
        })
    }

    /// Claims the right to replay among all processes, by a record in the topic. A claim that a crashed process left is
    /// watched for a lease before it is taken over.
    fn begin_replay(&self) -> Result<ReplayGuard, BeginReplayError> {
        if self.replaying.swap(true, Ordering::AcqRel) {
            return Err(BeginReplayError::Busy { store: self.name.to_string() });
        }
        let claimed = self.claim();
        if claimed.is_err() {
            self.replaying.store(false, Ordering::Release);
        }
        claimed
    }
}

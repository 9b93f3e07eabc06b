//! Dead letters in a Kafka topic: for many replicas of a service, and for tools that read Kafka Connect's headers.
//!
//! Rules:
//! - The topic only grows: a change of a letter is its newer version, its end a record that says so.
//! - What is a letter now, and in which order they arrived, is known after the topic was read; whoever only writes does not
//!   read.
//! - Who replays is claimed in the topic itself, for all processes; a claim is kept for a lease and renewed.
//! - A topic that takes no letters is left alone for a while: the next store takes them meanwhile.
//! - A topic that would lose letters by its settings takes none.

mod check;
mod claim;
mod import;
pub(crate) mod index;
mod lease;
mod policy;
mod record;
mod task;

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::sync_channel;
use std::time::{Duration, Instant};

use kafka_courier_dlq::{
    AppendError, Appended, BeginReplayError, DeadLetterStore, Edited, Held, Imported, Letter, LetterId, Outcome,
    Position, ReplayGuard, SCAN_BYTES, StoreError, StoreStats, Uuid,
};
use kafka_courier_idempotent_sender::driver::LogClient;
use kafka_courier_idempotent_sender::driver::security::TokenSource;
use parking_lot::Mutex;
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};

use self::check::Check;
use self::import::Contents;
use self::index::{Arrival, Found, Index, Known};
use self::lease::NotTaken;
pub use self::policy::{TopicWarning, UnfitTopic};
use self::record::Entry;
use self::task::{Ask, NotWritten, Outgoing, Page, Place, Reader, Task, Written};
use crate::builder::Extras;
use crate::config::{ConfigErrors, KafkaConfig};
use crate::producer::{DeadLetterMode, KafkaProducer};

/// How long an answer of the task is waited for: beyond what it waits for itself.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long a topic that took no letters is left alone.
const PAUSE: Duration = Duration::from_secs(10);
/// How long a letter may take to be acknowledged.
const DELIVERY: Duration = Duration::from_secs(5);
/// How long a claim to replay holds after it was last renewed.
const LEASE: Duration = Duration::from_secs(30);

/// Dead letters in a Kafka topic.
pub struct DeadLetterTopic {
    name: Arc<str>,
    client_id: String,
    asks: UnboundedSender<Ask>,
    index: Mutex<Index>,
    /// What imports compare with.
    contents: Mutex<Contents>,
    failed_at: Mutex<Option<Instant>>,
    appended: AtomicU64,
    refused: AtomicU64,
    removed: AtomicU64,
    replaying: Arc<AtomicBool>,
}

impl DeadLetterTopic {
    /// A store in `topic` of the cluster that `config` leads to. Never waits for Kafka: [`check`](Self::check) does, and says
    /// whether the topic is fit for dead letters. Errors: everything that is wrong with the configuration, or that there is no
    /// tokio runtime here.
    pub fn open(config: &KafkaConfig, topic: &str) -> Result<Self, ConfigErrors> {
        Self::open_with(config, topic, None, false)
    }

    /// As [`open`](Self::open), with a source of tokens, for OAUTHBEARER.
    pub fn open_with_tokens(config: &KafkaConfig, topic: &str, tokens: TokenSource) -> Result<Self, ConfigErrors> {
        Self::open_with(config, topic, Some(tokens), false)
    }

    pub(super) fn open_with(
        config: &KafkaConfig,
        topic: &str,
        tokens: Option<TokenSource>,
        logs_check: bool,
    ) -> Result<Self, ConfigErrors> {
        let mut own = config.clone();
        (own.dlq_topic, own.dlq_file) = (String::new(), String::new());
        own.auto_replay = false;
        own.flush_timeout = own.flush_timeout.min(Duration::from_millis(5));
        own.delivery_timeout = DELIVERY.max(own.flush_timeout);
        own.metadata_timeout = own.metadata_timeout.min(DELIVERY);
        own.max_block = own.max_block.min(DELIVERY);
        let check = Check::new(own.dlq_max_age, own.metadata_timeout);
        let extras = Extras { letters: DeadLetterMode::None, tokens, ..Extras::default() };
        let producer = KafkaProducer::build_with(own, Vec::new(), extras)?;
        let log = Arc::new(LogClient::new(&producer.inner.reach));
        let (asks, received) = unbounded_channel();
        let name: Arc<str> = topic.into();
        let reader = Reader { topic: name.clone(), log };
        tokio::spawn(Task { producer, reader, asks: received, check, logs_check }.run());
        Ok(Self {
            name,
            client_id: config.client_id.clone(),
            asks,
            index: Mutex::default(),
            contents: Mutex::default(),
            failed_at: Mutex::default(),
            appended: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            removed: AtomicU64::new(0),
            replaying: Arc::default(),
        })
    }

    /// Checks the topic's settings, and returns what may lose dead letters there. Blocks until the cluster has answered; a
    /// topic that is not there passes, and is checked again before the first dead letter is written.
    ///
    /// # Errors
    ///
    /// [`UnfitTopic`]: the topic takes no dead letters, because it would lose them.
    pub fn check(&self) -> Result<Vec<TopicWarning>, UnfitTopic> {
        self.ask(Ask::Check).unwrap_or_else(|error| {
            Ok(vec![TopicWarning::Unknown { topic: self.name.to_string(), reason: error.to_string() }])
        })
    }

    /// Whether the topic exists on the cluster. Blocks until the cluster has answered; true where it does not answer.
    ///
    /// # Errors
    ///
    /// The store's runtime has ended, or it did not answer in time.
    pub fn exists(&self) -> Result<bool, StoreError> {
        self.ask(Ask::Exists)
    }

    /// Asks the task and waits for its answer.
    fn ask<A>(&self, ask: impl FnOnce(std::sync::mpsc::SyncSender<Result<A, String>>) -> Ask) -> Result<A, StoreError> {
        let (reply, answer) = sync_channel(1);
        self.asks.send(ask(reply)).map_err(|_| self.failure("its runtime has ended".to_owned()))?;
        match answer.recv_timeout(PATIENCE) {
            Ok(answered) => answered.map_err(|reason| self.failure(reason)),
            Err(_) => Err(self.failure(format!("no answer within {PATIENCE:?}"))),
        }
    }

    fn write(&self, records: Vec<Outgoing>) -> Result<Vec<Written>, StoreError> {
        self.ask(|reply| Ask::Append(records, reply))
    }

    /// As [`write`](Self::write), all of them or an error.
    fn write_all(&self, records: Vec<Outgoing>) -> Result<Vec<Option<Place>>, StoreError> {
        let all = self.write(records)?.into_iter().map(|written| match written {
            Written::At(partition, offset) => Ok(offset.map(|offset| (partition, offset))),
            Written::Not(NotWritten { why, .. }) => Err(self.failure(why)),
        });
        all.collect()
    }

    fn failure(&self, reason: String) -> StoreError {
        StoreError::Service { store: format!("the topic {}", self.name), reason }
    }

    /// Writes letters, each for itself; says of each whether it is there.
    pub(super) fn append_each(&self, letters: &[Letter]) -> Result<Vec<bool>, StoreError> {
        Ok(self.append_to_partitions(letters)?.into_iter().map(|partition| partition.is_some()).collect())
    }

    /// As [`append_each`](Self::append_each); returns the partition of each letter that is there.
    fn append_to_partitions(&self, letters: &[Letter]) -> Result<Vec<Option<i32>>, StoreError> {
        if self.is_left_alone() {
            self.refused.fetch_add(letters.len() as u64, Ordering::Relaxed);
            return Err(self.latched());
        }
        let stamps: Vec<Uuid> = letters.iter().map(|_| Arrival::now()).collect();
        let outgoing = letters.iter().zip(&stamps).map(|(letter, at)| self.outgoing(letter, None, Arrival::First(*at)));
        let written = self.write(outgoing.collect());
        let outage = match &written {
            Ok(written) => written.iter().any(|written| matches!(written, Written::Not(why) if why.outage)),
            Err(_) => true,
        };
        *self.failed_at.lock() = outage.then(Instant::now);
        let mut index = self.index.lock();
        let taken = letters.iter().zip(stamps).zip(written?).map(|((letter, stamp), written)| {
            let Written::At(partition, offset) = written else { return None };
            if let (Some(offset), Outcome::Unknown) = (offset, letter.outcome) {
                index.remember(letter.id, (partition, offset), stamp);
            }
            Some(partition)
        });
        let taken: Vec<Option<i32>> = taken.collect();
        let count = taken.iter().flatten().count() as u64;
        self.appended.fetch_add(count, Ordering::Relaxed);
        self.refused.fetch_add(letters.len() as u64 - count, Ordering::Relaxed);
        Ok(taken)
    }

    fn outgoing(&self, letter: &Letter, partition: Option<i32>, arrival: Arrival) -> Outgoing {
        let headers = record::headers(letter, &self.client_id, Some(arrival));
        Outgoing { partition, key: letter.key.clone(), value: letter.value.clone(), headers }
    }

    fn settled(id: LetterId, (partition, _): Place) -> Outgoing {
        let key = Some(id.to_string().into());
        Outgoing { partition: Some(partition), key, value: None, headers: record::settled(id) }
    }

    /// Reads the whole topic, to know what is a letter now.
    ///
    /// A second time, from where the first one ended: what was written before a letter that is found in one partition may
    /// have been written to another after that was read. What arrived still later is for the next reading.
    fn load(&self) -> Result<(), StoreError> {
        let (mut found, mut ends) = (Found::default(), HashMap::new());
        self.read_on(&mut ends, |at, entry| found.entry(at, &entry))?;
        let last = found.last();
        self.read_on(&mut ends, |at, entry| found.entry(at, &entry))?;
        found.until(last);
        self.index.lock().take(found);
        Ok(())
    }

    /// Reads each partition from where it was read to, and calls `take` with each record of ours.
    fn read_on(&self, ends: &mut HashMap<i32, i64>, mut take: impl FnMut(Place, Entry)) -> Result<(), StoreError> {
        for partition in 0..self.ask(Ask::Partitions)? {
            loop {
                let from = ends.get(&partition).copied();
                let Page { entries, next, .. } = self.ask(|reply| Ask::Read(partition, from, reply))?;
                entries.into_iter().for_each(|(offset, entry)| take((partition, offset), entry));
                let Some(next) = next else { break };
                ends.insert(partition, next);
            }
        }
        Ok(())
    }

    /// These letters' newest versions, up to the letter that brings them to [`SCAN_BYTES`]. A letter that retention has
    /// deleted since is left out.
    fn newest(&self, wanted: Vec<(LetterId, Known)>) -> Result<Vec<Held>, StoreError> {
        let mut awaited: HashMap<Place, Option<Letter>> =
            wanted.iter().map(|(_, known)| (known.newest, None)).collect();
        let (mut found, mut bytes) = (Vec::with_capacity(wanted.len()), 0);
        for (id, Known { position, newest, .. }) in wanted {
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

    /// Reads what is awaited at this place, and what else of it is near.
    fn read_newest(
        &self,
        (partition, offset): Place,
        awaited: &mut HashMap<Place, Option<Letter>>,
    ) -> Result<(), StoreError> {
        let Page { entries, next, .. } = self.ask(|reply| Ask::Read(partition, Some(offset), reply))?;
        if next.is_none() {
            return Err(
                self.failure(format!("partition {partition} ends before offset {offset}, which was there before"))
            );
        }
        for (offset, entry) in entries {
            if let (Entry::Letter(letter, _), Some(awaited)) = (entry, awaited.get_mut(&(partition, offset))) {
                *awaited = Some(*letter);
            }
        }
        Ok(())
    }

    fn claim(&self) -> Result<ReplayGuard, BeginReplayError> {
        let (reply, answer) = sync_channel(1);
        self.asks.send(Ask::Claim(LEASE, reply)).map_err(|_| self.failure("its runtime has ended".to_owned()))?;
        let patience = 2 * LEASE + PATIENCE;
        let claimed = answer.recv_timeout(patience);
        let lease = match claimed.map_err(|_| self.failure(format!("no answer within {patience:?}")))? {
            Ok(lease) => lease,
            Err(NotTaken::Held { holder, until }) => {
                return Err(BeginReplayError::Claimed { store: self.name.to_string(), holder, until });
            }
            Err(NotTaken::Failed(why)) => return Err(self.failure(why).into()),
        };
        let (taken, valid) = (self.replaying.clone(), lease.valid());
        let lost = self.failure("the claim to replay its letters is lost, or could not be renewed in time".to_owned());
        let release = move || {
            let (done, given_back) = sync_channel(1);
            if lease.release.send(done).is_ok() {
                // Without an answer it runs out.
                let _ = given_back.recv_timeout(DELIVERY);
            }
            taken.store(false, Ordering::Release);
        };
        let holds = move || if valid.lock().is_ahead() { Ok(()) } else { Err(lost.clone()) };
        Ok(ReplayGuard::leased(release, holds))
    }

    fn is_left_alone(&self) -> bool {
        self.failed_at.lock().is_some_and(|at| at.elapsed() < PAUSE)
    }

    fn latched(&self) -> StoreError {
        self.failure(format!("it took no letters; tried again {PAUSE:?} later"))
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
        // All or none: those that are there are taken back, in their partitions, where a reader meets the letter first.
        let back = letters.iter().zip(taken).filter_map(|(letter, partition)| {
            let (headers, key) = (record::settled(letter.id), letter.key.clone());
            Some(Outgoing { partition: Some(partition?), key, value: None, headers })
        });
        self.write_all(back.collect())?;
        Err(self.failure("some letters were not written".to_owned()).into())
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
        let there: Vec<(LetterId, Place)> = {
            let index = self.index.lock();
            let at = |position: &Position| index.at(*position).map(|(id, known)| (id, known.newest));
            positions.iter().filter_map(at).collect()
        };
        self.write_all(there.iter().map(|(id, at)| Self::settled(*id, *at)).collect())?;
        let mut index = self.index.lock();
        there.iter().for_each(|(id, _)| {
            index.settled(*id);
        });
        self.removed.fetch_add(there.len() as u64, Ordering::Relaxed);
        Ok(there.len())
    }

    fn update(&self, changed: &[Held]) -> Result<usize, StoreError> {
        let there: Vec<(&Held, Known)> = {
            let index = self.index.lock();
            let known = |held: &Held| index.at(held.position).filter(|(id, _)| *id == held.letter.id);
            changed.iter().filter_map(|held| known(held).map(|(_, known)| (held, known))).collect()
        };
        let records = there
            .iter()
            .map(|(held, known)| self.outgoing(&held.letter, Some(known.newest.0), Arrival::Before(known.arrived)));
        let places = self.write_all(records.collect())?;
        let mut index = self.index.lock();
        for ((held, _), at) in there.iter().zip(places) {
            // Where it is not known the older version stands for it, until the topic is read again.
            if let Some(at) = at {
                index.updated(held.letter.id, at);
            }
        }
        Ok(there.len())
    }

    /// Only letters that were read, or written by this process, are found.
    fn find(&self, ids: &[LetterId]) -> Result<Vec<Option<Position>>, StoreError> {
        let index = self.index.lock();
        Ok(ids.iter().map(|id| index.find(*id)).collect())
    }

    /// The topic's own retention sees to that.
    fn expire(&self) -> Result<usize, StoreError> {
        Ok(0)
    }

    /// How many letters there are is known as of the last time that it was read from the beginning.
    fn stats(&self) -> Result<StoreStats, StoreError> {
        Ok(StoreStats {
            letters: self.index.lock().len(),
            appended: self.appended.load(Ordering::Relaxed),
            removed: self.removed.load(Ordering::Relaxed),
            refused: self.refused.load(Ordering::Relaxed),
            latched: self.is_left_alone().then(|| self.latched().to_string()),
            ..StoreStats::default()
        })
    }

    /// Among all processes: the claim stands in the topic. One that a crash has left there is watched for a lease before it
    /// is taken over.
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

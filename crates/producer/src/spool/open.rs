//! Opens a spool's folder, and finds the batches of earlier processes.
//!
//! Rule: nothing is decided here about a record's stamp or fate. `inherit` does that.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use kafka_courier_batcher::{DecodeError, EncodedBatch};
use kafka_courier_spool::core::entry::{BatchHead, Ordinal, Partition, Topic, TopicNumber};
use kafka_courier_spool::core::ids::{Life, SpoolId};
use kafka_courier_spool::core::keys::RecordKey;
use kafka_courier_spool::disk::{Folder, FolderView};
use kafka_courier_spool::journal::{Journal, OpenError, ReadError, SEGMENT_BYTES, Settings};

use super::backlog::StoredRun;
use super::command::StoredPlace;
use super::file_system::{UnfitFileSystem, check_file_system};
use super::inherit::{held_producer_ids, unsettled_parts};
use super::origin::mark_if_original;
use super::stage::RecoveredPartition;

/// The number of segments beyond which a mostly settled one is freed by copying.
const SEGMENTS_KEPT: usize = 4;
/// The most bytes of the file system that stay free by default.
const KEEP_FREE: u64 = 1 << 30;
/// The divisor of the file system's size that gives the other default.
const KEEP_FREE_DIVISOR: u64 = 10;

/// The settings of a spool.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SpoolSettings {
    /// The folder. It is created if it is missing.
    pub dir: PathBuf,
    /// The most bytes of all files of the journal. At least 64 MiB: a smaller spool may never
    /// be freed once it is full.
    pub max_bytes: u64,
    /// The bytes of the file system that stay free. `None` is the smaller of 1 GiB and a tenth of the file system.
    pub keep_free: Option<u64>,
    /// Whether publishing waits for room, up to `max_block`.
    pub blocks: bool,
    /// The time after which facts are stored that no caller waits for.
    pub idle_sync: Duration,
    /// Whether the folder may be on a file system whose syncs promise nothing.
    pub any_filesystem: bool,
}

/// Why a spool can't be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SpoolOpenError {
    /// Another process has the folder.
    #[error("{}: {} has this spool: stop it, or use another folder", dir.display(), SpoolHolder { pid: *pid })]
    Locked {
        /// The folder.
        dir: PathBuf,
        /// The process, if the lock file names it.
        pid: Option<u32>,
    },
    /// The folder can't be used.
    #[error("{}: {source}", dir.display())]
    Folder {
        /// The folder.
        dir: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// Stored events may not survive on the folder's file system.
    #[error("{}: {file_system}: use a folder on a local disk, or set spool_any_filesystem=true", dir.display())]
    FileSystem {
        /// The folder.
        dir: PathBuf,
        /// Its file system.
        file_system: UnfitFileSystem,
    },
    /// The folder was copied or moved, and has undelivered events.
    #[error(
        "{0}: the spool was copied or moved, and its original may be in use: if no process uses another copy, run courier \
         spool adopt {0}",
        dir.display()
    )]
    Copied {
        /// The folder.
        dir: PathBuf,
    },
    /// The files can't be read.
    #[error("{}: {source}", dir.display())]
    Journal {
        /// The folder.
        dir: PathBuf,
        /// The cause.
        source: OpenError,
    },
}

/// Why a stored batch can't be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BatchReadError {
    /// The journal did not return the batch.
    #[error(transparent)]
    Journal(#[from] ReadError),
    /// The bytes are no batch of this producer.
    #[error(transparent)]
    Decode(#[from] DecodeError),
}

/// The process that has a spool.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SpoolHolder {
    /// The process, if the lock file names it.
    pub pid: Option<u32>,
}

impl fmt::Display for SpoolHolder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.pid {
            Some(pid) => write!(f, "process {pid}"),
            None => f.write_str("another process"),
        }
    }
}

/// An open spool, for an engine.
pub struct OpenSpool {
    pub(crate) dir: PathBuf,
    pub(crate) journal: Journal<Folder>,
    pub(crate) idle_sync: Duration,
    pub(crate) blocks: bool,
}

impl fmt::Debug for OpenSpool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OpenSpool").field("dir", &self.dir).finish_non_exhaustive()
    }
}

/// A topic that earlier processes stored events for.
#[derive(Debug)]
pub(crate) struct RecoveredTopic {
    pub(crate) name: Arc<str>,
    /// The topic under each of its numbers. A topic that was created again has several.
    pub(crate) numbers: Vec<Topic>,
}

impl RecoveredTopic {
    /// Returns the number of partitions, as the cluster named it last.
    pub(crate) fn partitions(&self) -> usize {
        self.numbers.last().map_or(0, |topic| topic.partitions as usize)
    }
}

/// The state of a spool at its opening.
#[derive(Debug)]
pub(crate) struct RecoveredSpool {
    pub(crate) spool: SpoolId,
    pub(crate) life: Life,
    pub(crate) cluster: Option<Arc<str>>,
    /// The topics, in the order of their first numbers.
    pub(crate) topics: Vec<RecoveredTopic>,
    pub(crate) partitions: Vec<RecoveredPartition>,
    /// The unsettled batches of each partition, in their order. The key is the topic's place in `topics`, and the
    /// partition.
    pub(crate) runs: BTreeMap<(usize, i32), Vec<StoredRun>>,
    /// The batches of the runs with records that have keys.
    pub(crate) keyed: BTreeMap<(usize, i32), Vec<KeyedBatch>>,
    /// The keys of requests.
    pub(crate) keys: Vec<RecordKey>,
}

impl OpenSpool {
    /// Opens a spool's folder, or creates it.
    ///
    /// # Errors
    ///
    /// [`SpoolOpenError`]: another process has the folder, or its files can't be used.
    pub fn open(settings: &SpoolSettings) -> Result<Self, SpoolOpenError> {
        let SpoolSettings { dir, idle_sync, max_bytes, keep_free, blocks, any_filesystem } = settings.clone();
        let folder = Folder::open(&dir).map_err(|source| match source.kind() {
            io::ErrorKind::ResourceBusy => {
                SpoolOpenError::Locked { pid: FolderView::new(&dir).last_holder(), dir: dir.clone() }
            }
            _ => SpoolOpenError::Folder { dir: dir.clone(), source },
        })?;
        if !any_filesystem {
            let found = folder.file_system().map_err(|source| SpoolOpenError::Folder { dir: dir.clone(), source })?;
            check_file_system(&dir, found)
                .map_err(|file_system| SpoolOpenError::FileSystem { dir: dir.clone(), file_system })?;
        }
        let is_usable = mark_if_original(&dir, &folder);
        if !is_usable.map_err(|source| SpoolOpenError::Folder { dir: dir.clone(), source })? {
            return Err(SpoolOpenError::Copied { dir });
        }
        let mut new_spool = [0; 16];
        fastrand::fill(&mut new_spool);
        let settings = Settings {
            segment_bytes: SEGMENT_BYTES,
            segments_kept: SEGMENTS_KEPT,
            max_bytes,
            keep_free: keep_free.unwrap_or_else(|| default_keep_free(&dir)),
            new_spool: SpoolId(new_spool),
        };
        let (journal, recovered) =
            Journal::open(folder, settings).map_err(|source| SpoolOpenError::Journal { dir: dir.clone(), source })?;
        for damage in &recovered.damage {
            tracing::error!(dir = %dir.display(), ?damage, "spool has damaged frames");
        }
        for name in &recovered.unreadable {
            tracing::error!(
                dir = %dir.display(),
                name,
                "spool has lost its newest segment: the events that it held are lost, and delivered ones may be sent again"
            );
        }
        for (partition, first, end) in recovered.lost() {
            let (records, partition) = (end.0.saturating_sub(first.0), partition.index);
            tracing::error!(dir = %dir.display(), partition, records, "stored events were damaged on the disk and are lost");
        }
        Ok(Self { dir, journal, idle_sync, blocks })
    }

    /// Returns the producer ids under which earlier processes may have sent records that are not settled.
    pub(crate) fn held_producer_ids(&self) -> BTreeSet<i64> {
        held_producer_ids(self.journal.table(), false)
    }

    /// Finds the batches of earlier processes. Their bytes stay on the disk.
    pub(crate) fn recover(&self) -> RecoveredSpool {
        let table = self.journal.table();
        let mut topics: Vec<RecoveredTopic> = Vec::new();
        for topic in table.topics.values() {
            match topics.iter_mut().find(|known| known.name == topic.name) {
                Some(known) => known.numbers.push(topic.clone()),
                None => topics.push(RecoveredTopic { name: topic.name.clone(), numbers: vec![topic.clone()] }),
            }
        }
        self.log_unnamed(&topics);
        let is_named = |(partition, _): &(&Partition, _)| topic_of(&topics, partition.topic).is_some();
        let partitions = table.partitions.iter().filter(is_named).map(|(partition, state)| RecoveredPartition {
            partition: *partition,
            settled: state.settled,
            end: state.end,
            end_offset: state.end_offset,
            done: state.done.iter().collect(),
            lost: state.lost.iter().collect(),
            origin: state.clone(),
        });
        let partitions = partitions.collect();
        let (runs, keyed) = self.unsettled(&topics);
        let (spool, life) = (self.journal.spool(), self.journal.life());
        let (cluster, keys) = (table.cluster.clone(), table.keys.iter().copied().collect());
        RecoveredSpool { spool, life, cluster, topics, partitions, runs, keyed, keys }
    }

    /// Logs the batches whose topic the journal does not name, because its entries are damaged. They stay in the files.
    fn log_unnamed(&self, topics: &[RecoveredTopic]) {
        let mut unnamed: BTreeMap<TopicNumber, u64> = BTreeMap::new();
        for head in self.journal.batches().filter(|head| topic_of(topics, head.partition.topic).is_none()) {
            *unnamed.entry(head.partition.topic).or_default() += u64::from(head.count);
        }
        for (topic, records) in unnamed {
            tracing::error!(
                dir = %self.dir.display(),
                topic = topic.0,
                records,
                "stored events are for a topic that the damaged spool does not name, and are not sent: save them with courier spool export"
            );
        }
    }

    /// Returns the runs of unsettled batches, and the batches among them with records that have keys.
    fn unsettled(&self, topics: &[RecoveredTopic]) -> (PartitionMap<StoredRun>, PartitionMap<KeyedBatch>) {
        let mut runs: PartitionMap<StoredRun> = BTreeMap::new();
        let mut keyed: PartitionMap<KeyedBatch> = BTreeMap::new();
        let times = self.journal.table().keys.iter().map(|key| ((key.partition, key.ordinal), key.at_ms));
        let times: BTreeMap<(Partition, Ordinal), u64> = times.collect();
        // The journal lists batches by topic number, partition and ordinal, which is their order.
        for (head, bytes) in self.journal.batch_sizes() {
            let Some(state) = self.journal.table().partitions.get(&head.partition) else { continue };
            let Some(topic) = topic_of(topics, head.partition.topic) else { continue };
            let parts = unsettled_parts(state, &head);
            let records: u64 = parts.iter().map(|part| u64::from(part.end - part.start)).sum();
            if parts.is_empty() {
                continue;
            }
            let of_partition = runs.entry((topic, head.partition.index)).or_default();
            if of_partition.last().is_none_or(|run| run.partition != head.partition) {
                of_partition.push(self.begin_run(&head));
            }
            if let Some(run) = of_partition.last_mut() {
                (run.batches, run.records) = (run.batches + parts.len() as u64, run.records + records);
                run.bytes += u64::from(bytes);
            }
            let batches = parts.iter().filter_map(|part| KeyedBatch::of(&head, part, &times));
            keyed.entry((topic, head.partition.index)).or_default().extend(batches);
        }
        (runs, keyed)
    }

    /// Returns an empty run whose first batch has this head.
    fn begin_run(&self, head: &BatchHead) -> StoredRun {
        let first = self.journal.read(head.partition, head.first).ok();
        let first = first.and_then(|stored| EncodedBatch::from_bytes(stored.bytes.to_vec()).ok());
        StoredRun {
            partition: head.partition,
            next: head.first,
            batches: 0,
            records: 0,
            bytes: 0,
            // A batch that can't be read is named when its turn comes.
            oldest_ms: first.map(|batch| batch.first_timestamp()),
            published: None,
            ticket: None,
        }
    }
}

/// Values of the partitions of topics, by the topic's place.
type PartitionMap<V> = BTreeMap<(usize, i32), Vec<V>>;

/// A batch of an earlier process with a record that has the key of a request.
#[derive(Clone, Debug)]
pub(crate) struct KeyedBatch {
    pub(crate) place: StoredPlace,
    pub(crate) notes: Arc<[u8]>,
    pub(crate) records: u32,
    /// The time of the first request, in milliseconds since 1970-01-01 UTC.
    pub(crate) at_ms: i64,
}

impl KeyedBatch {
    /// Returns the part of a batch, if one of its records has a key. `times` has the time of each key.
    fn of(head: &BatchHead, part: &Range<u32>, times: &BTreeMap<(Partition, Ordinal), u64>) -> Option<Self> {
        let (first, end) = (head.first.plus(part.start.into()), head.first.plus(part.end.into()));
        let (_, at_ms) = times.range((head.partition, first)..(head.partition, end)).next()?;
        let place = StoredPlace { partition: head.partition, first };
        let at_ms = i64::try_from(*at_ms).unwrap_or(i64::MAX);
        Some(Self { place, notes: head.notes.clone(), records: part.end - part.start, at_ms })
    }
}

/// Returns the place of the topic with a number of the spool.
fn topic_of(topics: &[RecoveredTopic], number: TopicNumber) -> Option<usize> {
    topics.iter().position(|topic| topic.numbers.iter().any(|known| known.number == number))
}

/// Returns the smaller of 1 GiB and a tenth of the folder's file system.
fn default_keep_free(dir: &Path) -> u64 {
    // A file system that does not answer has an unknown size.
    let size = rustix::fs::statvfs(dir).map_or(u64::MAX, |system| system.f_blocks.saturating_mul(system.f_frsize));
    KEEP_FREE.min(size / KEEP_FREE_DIVISOR)
}

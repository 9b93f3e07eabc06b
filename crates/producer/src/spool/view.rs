//! [`SpoolView`]: a spool that is read and not opened, for commands.
//!
//! Rules:
//!  - Nothing is written, and no life of the spool begins.
//!  - A record has the stamp that the next process would find for it.
//!  - A process that holds the spool may settle or move records after they were read.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use kafka_courier_batcher::{EncodedBatch, Stamp};
use kafka_courier_client::TopicUuid;
use kafka_courier_spool::core::entry::{JournalBatch, Ordinal, Partition};
use kafka_courier_spool::core::recover::HeldBatch;
use kafka_courier_spool::core::table::PartitionTable;
use kafka_courier_spool::disk::FolderView;
use kafka_courier_spool::journal::{DamagedFrames, OpenError, Snapshot, SnapshotError};

use super::inherit::{NO_TOPIC_ID, batch_of_part, held_producer_ids, inherited_stamp, unsettled_parts};
use super::input::{SpooledInput, spooled_inputs};
use super::open::{BatchReadError, SpoolHolder};

/// The identity of a record among the records of all spools. Every process that reads the spool has the same value.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct StoredRecord {
    /// The id of the spool.
    pub spool: [u8; 16],
    /// Random bytes of the process that stored the record. Copies of a spool have different ones.
    pub nonce: Arc<[u8]>,
    /// The topic's number within the spool.
    pub topic: u32,
    /// The partition.
    pub partition: i32,
    /// The number of the record in its partition of the spool.
    pub ordinal: u64,
}

/// Unsettled records of a partition, of one batch and one run of stamps, without a gap.
#[derive(Debug)]
pub struct StoredPart {
    /// The topic.
    pub topic: Arc<str>,
    /// Kafka's topic id (KIP-516) when the records were stored, if the cluster named one.
    pub topic_id: Option<TopicUuid>,
    /// The partition.
    pub partition: i32,
    /// The stamp under which a process may have sent the first record. The others have the following numbers. `None` if the
    /// records were certainly not sent.
    pub stamp: Option<Stamp>,
    /// The first offset that the records can have, if it is known.
    pub search_from: Option<i64>,
    /// The records.
    pub batch: EncodedBatch,
    first: StoredRecord,
}

impl StoredPart {
    /// Returns the identity of the record at `index`.
    pub fn record(&self, index: u32) -> StoredRecord {
        let mut record = self.first.clone();
        record.ordinal = record.ordinal.saturating_add(index.into());
        record
    }
}

/// The unsettled records of a partition. A topic that was created again has such a value for each of its ids.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct StoredPartition {
    /// The topic.
    pub topic: Arc<str>,
    /// Kafka's topic id when the records were stored, if the cluster named one.
    pub topic_id: Option<TopicUuid>,
    /// The partition.
    pub partition: i32,
    /// Records that are neither delivered nor dead letters.
    pub records: u64,
    /// Bytes of the stored batches with such records.
    pub bytes: u64,
    /// The timestamp of the first of them, in milliseconds since 1970-01-01 UTC.
    pub oldest_ms: Option<i64>,
    /// Records that were damaged on the disk and are lost.
    pub lost: u64,
}

/// The end of each partition of a spool at one moment.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SpoolEnds(BTreeMap<Partition, Ordinal>);

/// Damage of a spool's files.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SpoolDamage {
    /// Frames that were durable can't be read.
    #[error("frames {first} to {last} can't be read, between the frames before in {} and those behind in {}", files.0, files.1)]
    Frames {
        /// The number of the first frame.
        first: u64,
        /// The number of the last frame.
        last: u64,
        /// The file of the frame before, and the one of the frame behind.
        files: (String, String),
    },
    /// A file can't be read.
    #[error("{name} can't be read")]
    File {
        /// The file.
        name: String,
    },
    /// Records are lost.
    #[error("topic {topic:?}, partition {partition}: {records} stored records are lost")]
    Lost {
        /// The topic.
        topic: Arc<str>,
        /// The partition.
        partition: i32,
        /// The number of records.
        records: u64,
    },
}

/// Why a spool can't be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SpoolViewError {
    /// The folder does not exist, or holds no spool.
    #[error("{}: no spool: name the folder of spool_dir", dir.display())]
    Missing {
        /// The folder.
        dir: PathBuf,
    },
    /// A process wrote the spool while it was read.
    #[error("{}: {holder} wrote the spool while it was read: try again, or stop the process", dir.display())]
    Unsteady {
        /// The folder.
        dir: PathBuf,
        /// The process.
        holder: SpoolHolder,
    },
    /// The lock can't be read.
    #[error("{}: {source}", dir.display())]
    Lock {
        /// The folder.
        dir: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// The files can't be read.
    #[error("{}: {source}", dir.display())]
    Journal {
        /// The folder.
        dir: PathBuf,
        /// The cause.
        source: OpenError,
    },
    /// A batch can't be read.
    #[error("topic {topic:?}, partition {partition}: a stored batch can't be read: {source}")]
    Batch {
        /// The topic.
        topic: Arc<str>,
        /// The partition.
        partition: i32,
        /// The cause.
        source: BatchReadError,
    },
}

/// The state of a spool at one moment.
#[derive(Debug)]
pub struct SpoolView {
    dir: PathBuf,
    snapshot: Snapshot<FolderView>,
}

impl SpoolView {
    /// Reads the spool of a folder. A process may hold it.
    ///
    /// # Errors
    ///
    /// [`SpoolViewError`].
    pub fn read(dir: &Path) -> Result<Self, SpoolViewError> {
        let missing = || SpoolViewError::Missing { dir: dir.to_owned() };
        let folder = FolderView::new(dir);
        let holder = SpoolHolder { pid: folder.last_holder() };
        let snapshot = Snapshot::read(folder).map_err(|error| match error {
            SnapshotError::NoSpool => missing(),
            SnapshotError::Unsteady => SpoolViewError::Unsteady { dir: dir.to_owned(), holder },
            SnapshotError::Files(OpenError::Io { source, .. })
                if matches!(source.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) =>
            {
                missing()
            }
            SnapshotError::Files(source) => SpoolViewError::Journal { dir: dir.to_owned(), source },
        })?;
        Ok(Self { dir: dir.to_owned(), snapshot })
    }

    /// Returns the process that holds the spool of a folder now.
    ///
    /// # Errors
    ///
    /// [`SpoolViewError::Lock`].
    pub fn holder_of(dir: &Path) -> Result<Option<SpoolHolder>, SpoolViewError> {
        let folder = FolderView::new(dir);
        let is_held = folder.is_held().map_err(|source| SpoolViewError::Lock { dir: dir.to_owned(), source })?;
        Ok(is_held.then(|| SpoolHolder { pid: folder.last_holder() }))
    }

    /// Returns whether no process has opened the spool since this state was read. A process that had the spool before, and
    /// still has it, is not seen: [`holder_of`](Self::holder_of) returns it.
    ///
    /// # Errors
    ///
    /// [`SpoolViewError::Journal`].
    pub fn is_unopened(&self) -> Result<bool, SpoolViewError> {
        let unopened = self.snapshot.is_unopened();
        unopened.map_err(|source| SpoolViewError::Journal { dir: self.dir.clone(), source })
    }

    /// Returns the partitions with unsettled or lost records, by topic and partition.
    ///
    /// # Errors
    ///
    /// [`SpoolViewError::Batch`] or [`SpoolViewError::Unsteady`] if the first batch of a partition can't be read.
    pub fn partitions(&self) -> Result<Vec<StoredPartition>, SpoolViewError> {
        let table = self.snapshot.table();
        let empty = |(partition, state): (&Partition, &PartitionTable)| {
            let lost = state.lost.iter().map(|(first, end)| end.0.saturating_sub(first.0)).sum();
            (*partition, self.partition(*partition, lost))
        };
        let mut found: BTreeMap<Partition, StoredPartition> = table.partitions.iter().map(empty).collect();
        for batch in self.snapshot.batches() {
            let partition = batch.head.partition;
            let (Some(state), Some(counted)) = (table.partitions.get(&partition), found.get_mut(&partition)) else {
                continue;
            };
            let records: u32 = unsettled_parts(state, &batch.head).iter().map(|part| part.end - part.start).sum();
            if records == 0 {
                continue;
            }
            if counted.records == 0 {
                let first = self.batch_parts(state, batch)?;
                counted.oldest_ms = first.first().map(|part| part.batch.first_timestamp());
            }
            counted.records += u64::from(records);
            counted.bytes += u64::from(batch.place.length);
        }
        let mut partitions: Vec<_> = found.into_values().collect();
        partitions.retain(|counted| counted.records > 0 || counted.lost > 0);
        partitions.sort_by(|one, other| (&one.topic, one.partition).cmp(&(&other.topic, other.partition)));
        Ok(partitions)
    }

    /// Returns the producer ids under which records of the spool may still be sent. If a process holds the spool, these are
    /// all ids that it uses.
    pub fn producer_ids(&self, holder: Option<SpoolHolder>) -> BTreeSet<i64> {
        held_producer_ids(self.snapshot.table(), holder.is_some())
    }

    /// Returns the number of records that are neither delivered nor dead letters.
    pub fn records(&self) -> u64 {
        self.records_before(&self.ends())
    }

    /// Returns the end of each partition. Records that a process stores later are behind it.
    pub fn ends(&self) -> SpoolEnds {
        SpoolEnds(self.snapshot.table().partitions.iter().map(|(partition, state)| (*partition, state.end)).collect())
    }

    /// Returns the number of records before these ends that are neither delivered nor dead letters.
    pub fn records_before(&self, ends: &SpoolEnds) -> u64 {
        let table = self.snapshot.table();
        let counted = self.snapshot.batches().filter_map(|batch| {
            let (state, end) = (table.partitions.get(&batch.head.partition)?, *ends.0.get(&batch.head.partition)?);
            let before = u32::try_from(end.0.saturating_sub(batch.head.first.0)).unwrap_or(u32::MAX);
            let parts = unsettled_parts(state, &batch.head).into_iter();
            Some(parts.map(|part| u64::from(part.end.min(before).saturating_sub(part.start))).sum::<u64>())
        });
        counted.sum()
    }

    fn partition(&self, partition: Partition, lost: u64) -> StoredPartition {
        let (topic, topic_id) = self.topic(partition);
        let (records, bytes, oldest_ms) = (0, 0, None);
        StoredPartition { topic, topic_id, partition: partition.index, records, bytes, oldest_ms, lost }
    }

    fn topic(&self, partition: Partition) -> (Arc<str>, Option<TopicUuid>) {
        match self.snapshot.table().topics.get(&partition.topic) {
            Some(topic) => (topic.name.clone(), Some(topic.id).filter(|id| *id != NO_TOPIC_ID)),
            None => (format!("topic number {}", partition.topic.0).into(), None),
        }
    }

    /// Returns the unsettled records, by topic, partition and number. A batch that can't be read is an error, and the next
    /// one follows.
    pub fn parts(&self) -> impl Iterator<Item = Result<StoredPart, SpoolViewError>> {
        self.snapshot.batches().flat_map(|batch| {
            let parts = match self.snapshot.table().partitions.get(&batch.head.partition) {
                Some(state) => self.batch_parts(state, batch),
                None => Ok(Vec::new()),
            };
            match parts {
                Ok(parts) => parts.into_iter().map(Ok).collect(),
                Err(error) => vec![Err(error)],
            }
        })
    }

    fn batch_parts(&self, state: &PartitionTable, batch: &HeldBatch) -> Result<Vec<StoredPart>, SpoolViewError> {
        let ranges = unsettled_parts(state, &batch.head);
        if ranges.is_empty() {
            return Ok(Vec::new());
        }
        let (topic, topic_id) = self.topic(batch.head.partition);
        let stored = self.read_batch(&topic, batch)?;
        let JournalBatch { head, bytes } = stored;
        let parts = ranges.into_iter().map(|range| {
            let first = head.first.plus(range.start.into());
            let inherited = inherited_stamp(state, first);
            Ok(StoredPart {
                topic: topic.clone(),
                topic_id,
                partition: head.partition.index,
                stamp: inherited.map(|inherited| inherited.stamp),
                search_from: inherited.and_then(|inherited| inherited.search_from),
                batch: batch_of_part(&bytes, head.count, &range).map_err(BatchReadError::from)?,
                first: StoredRecord {
                    spool: self.snapshot.spool().0,
                    nonce: head.notes.clone(),
                    topic: head.partition.topic.0,
                    partition: head.partition.index,
                    ordinal: first.0,
                },
            })
        });
        let parts: Result<Vec<_>, BatchReadError> = parts.collect();
        parts.map_err(|source| self.batch_error(&topic, batch, source))
    }

    fn read_batch(&self, topic: &Arc<str>, batch: &HeldBatch) -> Result<JournalBatch, SpoolViewError> {
        self.snapshot.read_batch(batch).map_err(|error| match Self::holder_of(&self.dir) {
            // The process has settled the batch since, or moved it.
            Ok(Some(holder)) => SpoolViewError::Unsteady { dir: self.dir.clone(), holder },
            _ => self.batch_error(topic, batch, error.into()),
        })
    }

    fn batch_error(&self, topic: &Arc<str>, batch: &HeldBatch, source: BatchReadError) -> SpoolViewError {
        SpoolViewError::Batch { topic: topic.clone(), partition: batch.head.partition.index, source }
    }

    /// Returns the damage of the files, and the lost records. [`parts`](Self::parts) finds batches that can't be read.
    pub fn damage(&self) -> Vec<SpoolDamage> {
        let frames = |DamagedFrames { first, last, files }| SpoolDamage::Frames { first: first.0, last: last.0, files };
        let mut damage: Vec<_> = self.snapshot.damage().map(frames).collect();
        damage.extend(self.snapshot.unreadable().iter().map(|name| SpoolDamage::File { name: name.clone() }));
        damage.extend(self.snapshot.lost().map(|(partition, first, end)| {
            let (topic, _) = self.topic(partition);
            SpoolDamage::Lost { topic, partition: partition.index, records: end.0.saturating_sub(first.0) }
        }));
        damage
    }

    /// Returns the inputs whose items were published through the spool, the oldest first.
    pub fn inputs(&self) -> Vec<SpooledInput> {
        spooled_inputs(self.snapshot.spool().0, &self.snapshot.table().inputs)
    }

    /// Returns the names of files that are kept because of damage.
    pub fn quarantined(&self) -> &[String] {
        self.snapshot.quarantined()
    }

    /// Returns the number of segments.
    pub fn segment_count(&self) -> usize {
        self.snapshot.segment_count()
    }

    /// Returns the bytes of all segments' files, the one for the next segment included.
    pub fn file_bytes(&self) -> u64 {
        self.snapshot.file_bytes()
    }

    /// Returns Kafka's id of the cluster that the records are for, if it is known.
    pub fn cluster(&self) -> Option<Arc<str>> {
        self.snapshot.table().cluster.clone()
    }
}

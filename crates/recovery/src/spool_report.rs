//! The content of a spool that is read and not opened, as JSON: its counts and its records.

use kafka_courier_batcher::DecodeError;
use kafka_courier_dlq::{Letter, Outcome, Timestamp, Uuid};
use kafka_courier_producer::{SpoolHolder, SpoolView, SpoolViewError, SpooledInput, StoredPartition};
use serde::Serialize;
use serde_json::{Map, Value, json};

use crate::dead_letters::{UnsettledRecord, unsettled_records};

/// The counts of a spool.
#[derive(Clone, PartialEq, Debug, Serialize)]
#[non_exhaustive]
pub struct SpoolReport {
    /// The folder.
    pub dir: String,
    /// Kafka's id of the cluster that the events are for.
    pub cluster: Option<String>,
    /// Whether a process has the spool.
    pub held: bool,
    /// The process, if its pid is known.
    pub pid: Option<u32>,
    /// Events that are neither delivered nor dead letters.
    pub events: u64,
    /// Bytes of the stored batches with these events.
    pub bytes: u64,
    /// The time of the oldest event.
    pub oldest: Option<Timestamp>,
    /// Events that were damaged on the disk and are lost.
    pub lost: u64,
    /// Files of the spool's journal.
    pub segments: usize,
    /// Bytes of all these files.
    pub file_bytes: u64,
    /// Files that are kept because of damage.
    pub damaged_files: usize,
    /// The counts of each partition.
    pub partitions: Vec<SpoolPartitionReport>,
    /// The files that were published through the spool.
    pub inputs: Vec<SpoolInputReport>,
}

/// The position of an input.
#[derive(Clone, PartialEq, Debug, Serialize)]
#[non_exhaustive]
pub struct SpoolInputReport {
    /// The name of the input.
    pub name: String,
    /// Lines or elements that are dealt with.
    pub items: u64,
    /// The last of them.
    pub last: Option<u64>,
}

/// The counts of a partition.
#[derive(Clone, PartialEq, Debug, Serialize)]
#[non_exhaustive]
pub struct SpoolPartitionReport {
    /// The topic.
    pub topic: String,
    /// Kafka's topic id when the events were stored, if the cluster named one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub topic_id: Option<Uuid>,
    /// The partition.
    pub partition: i32,
    /// Events that are neither delivered nor dead letters.
    pub events: u64,
    /// Bytes of the stored batches with these events.
    pub bytes: u64,
    /// The time of the oldest event.
    pub oldest: Option<Timestamp>,
    /// Events that were damaged on the disk and are lost.
    pub lost: u64,
}

/// Why a record of a spool can't be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SpoolRecordError {
    /// The files can't be read.
    #[error(transparent)]
    View(#[from] SpoolViewError),
    /// The bytes of a stored batch are no batch.
    #[error("topic {topic:?}, partition {partition}: a stored batch can't be read: {error}")]
    Batch {
        /// The topic.
        topic: String,
        /// The partition.
        partition: i32,
        /// The reason.
        error: DecodeError,
    },
}

impl SpoolReport {
    /// Counts the events of a spool. `dir` is the folder as messages show it.
    ///
    /// # Errors
    ///
    /// The files can't be read.
    pub fn of(dir: String, view: &SpoolView, holder: Option<SpoolHolder>) -> Result<Self, SpoolViewError> {
        let partitions: Vec<_> = view.partitions()?.into_iter().map(SpoolPartitionReport::from).collect();
        Ok(Self {
            dir,
            cluster: view.cluster().map(|cluster| cluster.to_string()),
            held: holder.is_some(),
            pid: holder.and_then(|holder| holder.pid),
            events: partitions.iter().map(|partition| partition.events).sum(),
            bytes: partitions.iter().map(|partition| partition.bytes).sum(),
            oldest: partitions.iter().filter_map(|partition| partition.oldest).min(),
            lost: partitions.iter().map(|partition| partition.lost).sum(),
            segments: view.segment_count(),
            file_bytes: view.file_bytes(),
            damaged_files: view.quarantined().len(),
            partitions,
            inputs: view.inputs().iter().map(SpoolInputReport::of).collect(),
        })
    }
}

impl SpoolInputReport {
    fn of(input: &SpooledInput) -> Self {
        Self { name: input.name().to_string(), items: input.count(), last: input.last() }
    }
}

impl From<StoredPartition> for SpoolPartitionReport {
    fn from(stored: StoredPartition) -> Self {
        Self {
            topic: stored.topic.to_string(),
            topic_id: stored.topic_id.map(Uuid::from_bytes),
            partition: stored.partition,
            events: stored.records,
            bytes: stored.bytes,
            oldest: stored.oldest_ms.and_then(|ms| Timestamp::from_millisecond(ms).ok()),
            lost: stored.lost,
        }
    }
}

/// Returns the records of a topic, or of all topics, by topic, partition and number.
pub fn spool_records(
    view: &SpoolView,
    topic: Option<&str>,
) -> impl Iterator<Item = Result<UnsettledRecord, SpoolRecordError>> {
    view.parts().flat_map(move |part| {
        let part = match part {
            Ok(part) if topic.is_some_and(|topic| *topic != *part.topic) => return Vec::new(),
            Ok(part) => part,
            Err(error) => return vec![Err(error.into())],
        };
        match unsettled_records(&part) {
            Ok(records) => records.into_iter().map(Ok).collect(),
            Err(error) => {
                let (topic, partition) = (part.topic.to_string(), part.partition);
                vec![Err(SpoolRecordError::Batch { topic, partition, error })]
            }
        }
    })
}

impl UnsettledRecord {
    /// Returns whether a process may have sent the record.
    pub fn may_be_sent(&self) -> bool {
        self.letter.outcome == Outcome::Unknown
    }

    /// Returns the record without its value as JSON.
    ///
    /// # Errors
    ///
    /// The key has no JSON.
    pub fn to_json(&self) -> serde_json::Result<Value> {
        let letter = &self.letter;
        let mut line = Map::new();
        line.insert("topic".to_owned(), json!(letter.topic));
        line.insert("partition".to_owned(), json!(letter.partition));
        line.insert("number".to_owned(), json!(self.number));
        line.extend(key_fields(letter)?);
        line.insert("timestamp_ms".to_owned(), json!(letter.timestamp_ms));
        line.insert("size".to_owned(), json!(self.size()));
        line.insert("may_be_sent".to_owned(), json!(self.may_be_sent()));
        line.insert("event_id".to_owned(), json!(letter.event_id));
        line.insert("event_type".to_owned(), json!(letter.event_type));
        Ok(Value::Object(line))
    }
}

/// Returns the fields of the key as a dead letter's JSON has them: `key`, or `key_base64` if the key is no text.
fn key_fields(letter: &Letter) -> serde_json::Result<impl Iterator<Item = (String, Value)>> {
    let mut bare = Letter::new(letter.topic.as_str(), None, "", letter.first_attempt);
    bare.key.clone_from(&letter.key);
    let fields: Map<String, Value> = serde_json::from_slice(&serde_json::to_vec(&bare)?)?;
    Ok(fields.into_iter().filter(|(name, _)| name.starts_with("key")))
}

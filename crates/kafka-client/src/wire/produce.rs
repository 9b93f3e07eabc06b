//! Produce, versions 3 to 13 (KIP-98, 467, 482, 516, 951).
//!
//! Rule: a request's parts are grouped by topic. The answers are returned in the order of the parts, with `None` for
//! a part that the broker left out.

use std::sync::Arc;
use std::time::Duration;

use kafka_courier_batcher::EncodedBatch;

use super::reader::{WireError, WireReader};
use super::splice::{BatchSlot, PendingBatches, correlation_id};
use super::writer::WireWriter;
use crate::ids::{BrokerAddress, BrokerId, PartitionId, TopicUuid};

/// The first version that names topics by id.
const BY_TOPIC_ID: i16 = 13;
pub(crate) const FIRST_FLEXIBLE: i16 = 9;
pub(crate) const VERSIONS: (i16, i16) = (3, 13);

/// A rejected record: its index and the message of the broker.
pub type RejectedRecord = (u32, Option<Arc<str>>);

/// One batch within a Produce request.
#[derive(Clone, Debug)]
pub struct ProducePart {
    /// The partition of the batch.
    pub partition: PartitionId,
    /// The topic's name.
    pub topic: Arc<str>,
    /// The topic's id, for Produce v13. `None` if the broker sent none.
    pub topic_uuid: Option<TopicUuid>,
    /// The stamped bytes.
    pub batch: Arc<EncodedBatch>,
}

/// The answer to one batch of a Produce request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PartAnswer {
    /// Kafka's error code. 0 is success.
    pub code: i16,
    /// The offset of the first record. Only some errors with an offset prove the append: the caller decides.
    pub base_offset: Option<i64>,
    /// Milliseconds since the Unix epoch. The leader's time if the topic uses LogAppendTime. A leader that
    /// recognizes a duplicate sends the latest timestamp of the batch, whatever the topic uses.
    pub log_append_time: Option<i64>,
    /// The rejected records by index in the batch, each with its message (KIP-467).
    pub record_errors: Vec<RejectedRecord>,
    /// The broker's message for the whole batch.
    pub message: Option<Arc<str>>,
    /// The leader that the broker knows, and its epoch (KIP-951).
    pub leader: Option<(BrokerId, i32)>,
}

/// The answer to a Produce request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProduceAnswer {
    /// How long the broker asks this client to pause (KIP-219).
    pub throttle: Duration,
    /// One answer for each batch, in the order of the request. `None` if the broker left the batch out.
    pub parts: Vec<Option<PartAnswer>>,
    /// Addresses of the leaders that `parts` name (KIP-951).
    pub brokers: Vec<BrokerAddress>,
}

/// A Produce request with acks=all and without a transactional id.
#[derive(Debug)]
pub(crate) struct ProduceRequest {
    pub(crate) timeout: Duration,
    pub(crate) parts: Vec<ProducePart>,
    /// Takes the batches, for the stream that writes the request.
    pub(crate) pending: Arc<PendingBatches>,
}

/// The name of a topic in an answer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum TopicKey {
    Name(Arc<str>),
    Uuid(TopicUuid),
}

/// A decoded Produce answer, in the broker's order.
#[derive(Debug, Default)]
pub(crate) struct ProduceResponse {
    throttle: Duration,
    brokers: Vec<BrokerAddress>,
    parts: Vec<(TopicKey, i32, PartAnswer)>,
}

impl ProduceRequest {
    /// Groups the parts by topic.
    fn by_topic(&self) -> Vec<Vec<&ProducePart>> {
        let mut parts: Vec<&ProducePart> = self.parts.iter().collect();
        parts.sort_by_key(|part| part.partition);
        parts.chunk_by(|a, b| a.partition.topic == b.partition.topic).map(<[_]>::to_vec).collect()
    }

    /// Appends the request without its batches. The batches are stored under the correlation id of the header in
    /// `out`.
    pub(crate) fn encode(&self, out: &mut Vec<u8>, version: i16) {
        let id = correlation_id(out).unwrap_or_default();
        let mut slots = Vec::with_capacity(self.parts.len());
        let mut writer = WireWriter::new(out, version >= FIRST_FLEXIBLE);
        writer.null_string(); // transactional id
        writer.i16(-1); // acks=all
        writer.i32(i32::try_from(self.timeout.as_millis()).unwrap_or(i32::MAX));
        let topics = self.by_topic();
        writer.count(topics.len());
        for topic in topics {
            if version >= BY_TOPIC_ID {
                writer.uuid(topic[0].topic_uuid);
            } else {
                writer.string(&topic[0].topic);
            }
            writer.count(topic.len());
            for part in topic {
                writer.i32(part.partition.index);
                writer.bytes_len(part.batch.len());
                slots.push(BatchSlot { at: writer.out.len(), batch: part.batch.clone() });
                writer.no_tags();
            }
            writer.no_tags();
        }
        writer.no_tags();
        self.pending.put(id, slots);
    }
}

impl ProduceResponse {
    pub(crate) fn decode(bytes: &[u8], version: i16) -> Result<Self, WireError> {
        let mut reader = WireReader::new(bytes, version >= FIRST_FLEXIBLE);
        let mut response = Self::default();
        let parts = &mut response.parts;
        reader.vec("topics", 2, |reader| {
            let key = if version >= BY_TOPIC_ID {
                TopicKey::Uuid(reader.uuid("topic id")?.unwrap_or_default())
            } else {
                TopicKey::Name(reader.string("topic name")?)
            };
            let answers = reader.vec("partitions", 22, |reader| part_answer(reader, version))?;
            parts.extend(answers.into_iter().map(|(index, answer)| (key.clone(), index, answer)));
            reader.skip_tags()
        })?;
        let millis = reader.i32("throttle time")?;
        response.throttle = Duration::from_millis(u64::try_from(millis).unwrap_or(0));
        let brokers = &mut response.brokers;
        reader.tags(|tag, field| {
            if tag == 0 && version >= 10 {
                *brokers = field.vec("node endpoints", 11, WireReader::broker_address)?;
            }
            Ok(())
        })?;
        reader.finish("Produce");
        Ok(response)
    }

    /// Sorts the answers into the order of the request's parts.
    pub(crate) fn into_answer(self, request: &[PartKey]) -> ProduceAnswer {
        let mut parts: Vec<Option<PartAnswer>> = vec![None; request.len()];
        let mut slots: std::collections::HashMap<(&TopicKey, i32), usize> = std::collections::HashMap::new();
        for (position, key) in request.iter().enumerate() {
            slots.insert((&key.name, key.index), position);
            slots.insert((&key.uuid, key.index), position);
        }
        for (key, index, answer) in self.parts {
            if let Some(position) = slots.get(&(&key, index)) {
                parts[*position].get_or_insert(answer);
            }
        }
        ProduceAnswer { throttle: self.throttle, parts, brokers: self.brokers }
    }
}

impl std::hash::Hash for TopicKey {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        match self {
            Self::Name(name) => name.hash(state),
            Self::Uuid(uuid) => uuid.hash(state),
        }
    }
}

/// The topic and partition of a request's part, by name and by id.
#[derive(Debug)]
pub(crate) struct PartKey {
    name: TopicKey,
    uuid: TopicKey,
    index: i32,
}

impl PartKey {
    pub(crate) fn of(part: &ProducePart) -> Self {
        Self {
            name: TopicKey::Name(part.topic.clone()),
            uuid: TopicKey::Uuid(part.topic_uuid.unwrap_or_default()),
            index: part.partition.index,
        }
    }
}

fn part_answer(reader: &mut WireReader<'_>, version: i16) -> Result<(i32, PartAnswer), WireError> {
    let index = reader.i32("partition index")?;
    let mut answer = PartAnswer {
        code: reader.i16("error code")?,
        base_offset: reader.optional_i64("base offset")?,
        log_append_time: reader.optional_i64("log append time")?,
        ..PartAnswer::default()
    };
    if version >= 5 {
        reader.i64("log start offset")?;
    }
    if version >= 8 {
        answer.record_errors = reader.vec("record errors", 5, |reader| {
            let index = reader.i32("record index")?;
            let message = reader.display_text("record error")?;
            reader.skip_tags()?;
            let index = u32::try_from(index).map_err(|_| WireError::Malformed { what: "record index" })?;
            Ok((index, message))
        })?;
        answer.message = reader.display_text("error message")?;
    }
    reader.tags(|tag, field| {
        if tag == 0 && version >= 10 {
            let leader = field.i32("leader id")?;
            let epoch = field.i32("leader epoch")?;
            answer.leader = (leader >= 0 && epoch >= 0).then_some((BrokerId(leader), epoch));
        }
        Ok(())
    })?;
    Ok((index, answer))
}

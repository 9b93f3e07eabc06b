//! The small messages: ApiVersions (0 to 3), InitProducerId (0 to 5), DescribeProducers (0), DescribeConfigs (1 to 4).
//!
//! Rules: as for all messages here; each has its encode, its decode, and its version constants.

use std::sync::Arc;
use std::time::Duration;

use super::reader::{Reader, WireError};
use super::writer::Writer;
use crate::core::LookAnswer;

/// A range of versions of an api: (api key, lowest, highest).
pub(crate) type ApiRange = (i16, i16, i16);

pub(crate) mod api_versions {
    use super::{ApiRange, Reader, WireError, Writer};

    pub(crate) const FIRST_FLEXIBLE: i16 = 3;
    pub(crate) const VERSIONS: (i16, i16) = (0, 3);

    pub(crate) fn encode(out: &mut Vec<u8>, version: i16) {
        let mut writer = Writer::new(out, version >= FIRST_FLEXIBLE);
        if version >= 3 {
            writer.string("kafka-courier");
            writer.string(env!("CARGO_PKG_VERSION"));
        }
        writer.no_tags();
    }

    /// What a broker answers that does not know the version of the question (KIP-511).
    pub(crate) const UNSUPPORTED_VERSION: i16 = 35;

    /// The error code, and what the broker can do. A broker that does not know the version answers in version 0, or in
    /// one of its own: nothing is read beyond that code.
    pub(crate) fn decode(bytes: &[u8], version: i16) -> Result<(i16, Vec<ApiRange>), WireError> {
        let mut reader = Reader::new(bytes, version >= FIRST_FLEXIBLE);
        let code = reader.i16("error code")?;
        if code == UNSUPPORTED_VERSION {
            return Ok((code, Vec::new()));
        }
        let ranges = reader.vec("api keys", 6, |reader| {
            let range = (reader.i16("api key")?, reader.i16("lowest version")?, reader.i16("highest version")?);
            reader.skip_tags()?;
            Ok(range)
        })?;
        if version >= 1 {
            reader.i32("throttle time")?;
        }
        reader.skip_tags()?;
        reader.end("ApiVersions");
        Ok((code, ranges))
    }
}

pub(crate) mod init_producer_id {
    use super::{Reader, WireError, Writer};

    pub(crate) const FIRST_FLEXIBLE: i16 = 2;
    pub(crate) const VERSIONS: (i16, i16) = (0, 5);

    pub(crate) fn encode(out: &mut Vec<u8>, version: i16) {
        let mut writer = Writer::new(out, version >= FIRST_FLEXIBLE);
        writer.null_string(); // transactional id
        writer.i32(i32::MAX); // transaction timeout: means nothing without one
        if version >= 3 {
            writer.i64(-1);
            writer.i16(-1);
        }
        writer.no_tags();
    }

    /// The error code and the id. Epochs begin at 0 with every new id.
    pub(crate) fn decode(bytes: &[u8], version: i16) -> Result<(i16, i64), WireError> {
        let mut reader = Reader::new(bytes, version >= FIRST_FLEXIBLE);
        reader.i32("throttle time")?;
        let code = reader.i16("error code")?;
        let id = reader.i64("producer id")?;
        reader.i16("producer epoch")?;
        reader.skip_tags()?;
        reader.end("InitProducerId");
        if code == 0 && id < 0 {
            return Err(WireError::Malformed { what: "producer id" });
        }
        Ok((code, id))
    }
}

pub(crate) mod describe_producers {
    use super::{Arc, Duration, LookAnswer, Reader, WireError, Writer};

    pub(crate) const FIRST_FLEXIBLE: i16 = 0;
    pub(crate) const VERSIONS: (i16, i16) = (0, 0);

    #[derive(Debug)]
    pub(crate) struct Request {
        pub(crate) topic: Arc<str>,
        pub(crate) partition: i32,
    }

    impl Request {
        pub(crate) fn encode(&self, out: &mut Vec<u8>, version: i16) {
            let mut writer = Writer::new(out, version >= FIRST_FLEXIBLE);
            writer.count(1);
            writer.string(&self.topic);
            writer.count(1);
            writer.i32(self.partition);
            writer.no_tags();
            writer.no_tags();
        }
    }

    /// One producer of the partition that was asked for.
    #[derive(Clone, Copy, PartialEq, Eq, Debug)]
    pub(crate) struct Producer {
        pub(crate) id: i64,
        pub(crate) epoch: i32,
        pub(crate) last_sequence: i32,
        /// The latest timestamp of its last batch, milliseconds since the Unix epoch.
        pub(crate) last_timestamp: i64,
    }

    /// What was answered for one partition.
    #[derive(Clone, PartialEq, Eq, Debug)]
    pub(crate) struct Described {
        pub(crate) topic: Arc<str>,
        pub(crate) partition: i32,
        pub(crate) code: i16,
        pub(crate) producers: Vec<Producer>,
    }

    /// Every partition that the answer speaks of.
    pub(crate) fn decode(bytes: &[u8], version: i16) -> Result<Vec<Described>, WireError> {
        let mut reader = Reader::new(bytes, version >= FIRST_FLEXIBLE);
        reader.i32("throttle time")?;
        let mut all = Vec::new();
        reader.vec("topics", 3, |reader| {
            let topic = reader.string("topic name")?;
            all.extend(reader.vec("partitions", 9, |reader| described(reader, &topic))?);
            reader.skip_tags()
        })?;
        reader.skip_tags()?;
        reader.end("DescribeProducers");
        Ok(all)
    }

    fn described(reader: &mut Reader<'_>, topic: &Arc<str>) -> Result<Described, WireError> {
        let partition = reader.i32("partition index")?;
        let code = reader.i16("error code")?;
        reader.nullable_string("error message")?;
        let producers = reader.vec("producers", 33, producer)?;
        reader.skip_tags()?;
        Ok(Described { topic: topic.clone(), partition, code, producers })
    }

    fn producer(reader: &mut Reader<'_>) -> Result<Producer, WireError> {
        let id = reader.i64("producer id")?;
        let epoch = reader.i32("producer epoch")?;
        let last_sequence = reader.i32("last sequence")?;
        let last_timestamp = reader.i64("last timestamp")?;
        reader.i32("coordinator epoch")?;
        reader.i64("transaction start offset")?;
        reader.skip_tags()?;
        Ok(Producer { id, epoch, last_sequence, last_timestamp })
    }

    /// What the answer says at `now_ms` of one producer id in the partition that was asked for. An answer for another
    /// partition says nothing: it must not pass for a proof.
    pub(crate) fn judge(
        answer: &[Described],
        topic: &str,
        partition: i32,
        producer_id: i64,
        now_ms: i64,
    ) -> LookAnswer {
        let Some(asked) = answer.iter().find(|found| &*found.topic == topic && found.partition == partition) else {
            return LookAnswer::Unavailable;
        };
        let retriable = crate::core::ErrorCode(asked.code).is_retriable();
        match asked.producers.iter().find(|producer| producer.id == producer_id) {
            Some(Producer { epoch, last_sequence, last_timestamp, .. }) => {
                let age = now_ms.saturating_sub(*last_timestamp);
                let age = Duration::from_millis(u64::try_from(age).unwrap_or(0));
                LookAnswer::Producer { epoch: *epoch, last_sequence: *last_sequence, age }
            }
            None if retriable => LookAnswer::Unavailable,
            None => LookAnswer::Nothing,
        }
    }
}

pub(crate) mod describe_configs {
    use super::{Arc, Reader, WireError, Writer};

    pub(crate) const FIRST_FLEXIBLE: i16 = 4;
    pub(crate) const VERSIONS: (i16, i16) = (1, 4);
    /// A topic, among the kinds of resource.
    const TOPIC: i8 = 2;
    /// The largest batch that a topic takes, bytes.
    pub(crate) const MAX_MESSAGE_BYTES: &str = "max.message.bytes";
    /// Whether a topic is compacted, and whether old records are deleted.
    pub(crate) const CLEANUP_POLICY: &str = "cleanup.policy";
    /// How old records become before they are deleted, milliseconds.
    pub(crate) const RETENTION_MS: &str = "retention.ms";
    /// How large a partition becomes before its oldest records are deleted, bytes.
    pub(crate) const RETENTION_BYTES: &str = "retention.bytes";

    /// Asks for some settings of a topic.
    #[derive(Debug)]
    pub(crate) struct Request {
        pub(crate) topic: Arc<str>,
        pub(crate) settings: &'static [&'static str],
    }

    impl Request {
        pub(crate) fn encode(&self, out: &mut Vec<u8>, version: i16) {
            let mut writer = Writer::new(out, version >= FIRST_FLEXIBLE);
            writer.count(1);
            writer.i8(TOPIC);
            writer.string(&self.topic);
            writer.count(self.settings.len());
            for setting in self.settings {
                writer.string(setting);
            }
            writer.no_tags();
            writer.i8(0); // synonyms
            if version >= 3 {
                writer.i8(0); // documentation
            }
            writer.no_tags();
        }
    }

    /// A setting: its name, and its value where the broker tells it.
    pub(crate) type Setting = (Arc<str>, Option<Arc<str>>);

    /// What a broker says of the topic that it was asked about.
    #[derive(Clone, PartialEq, Eq, Debug, Default)]
    pub(crate) struct Answer {
        pub(crate) code: i16,
        pub(crate) settings: Vec<Setting>,
    }

    impl Answer {
        /// The value of this setting, if the broker told it.
        pub(crate) fn value(&self, name: &str) -> Option<&str> {
            self.settings.iter().find(|(known, _)| &**known == name)?.1.as_deref()
        }
    }

    /// The topic's error code and settings; only one topic is ever asked about.
    pub(crate) fn decode(bytes: &[u8], version: i16) -> Result<Answer, WireError> {
        let mut reader = Reader::new(bytes, version >= FIRST_FLEXIBLE);
        reader.i32("throttle time")?;
        let mut answer = Answer::default();
        reader.vec("results", 7, |reader| {
            answer.code = reader.i16("error code")?;
            reader.nullable_string("error message")?;
            reader.i8("resource type")?;
            reader.string("resource name")?;
            answer.settings.extend(reader.vec("configs", 6, |reader| config(reader, version))?);
            reader.skip_tags()
        })?;
        reader.skip_tags()?;
        reader.end("DescribeConfigs");
        Ok(answer)
    }

    fn config(reader: &mut Reader<'_>, version: i16) -> Result<Setting, WireError> {
        let name = reader.string("config name")?;
        let value = reader.nullable_string("config value")?;
        reader.i8("read only")?;
        reader.i8("config source")?;
        reader.i8("is sensitive")?;
        reader.vec("synonyms", 4, |reader| {
            reader.string("synonym name")?;
            reader.nullable_string("synonym value")?;
            reader.i8("synonym source")?;
            reader.skip_tags()
        })?;
        if version >= 3 {
            reader.i8("config type")?;
            reader.nullable_string("documentation")?;
        }
        reader.skip_tags()?;
        Ok((name, value))
    }
}

//! DescribeConfigs, versions 1 to 4 (KIP-133).

use std::sync::Arc;

use super::reader::{WireError, WireReader};
use super::writer::WireWriter;

pub(crate) const FIRST_FLEXIBLE: i16 = 4;
pub(crate) const VERSIONS: (i16, i16) = (1, 4);
/// The resource type of topics.
const TOPIC: i8 = 2;
/// The largest batch that a topic accepts, in bytes.
pub(crate) const MAX_MESSAGE_BYTES: &str = "max.message.bytes";
/// Whether a topic is compacted, and whether old records are deleted.
pub(crate) const CLEANUP_POLICY: &str = "cleanup.policy";
/// The age at which records are deleted, in milliseconds.
pub(crate) const RETENTION_MS: &str = "retention.ms";
/// The size of a partition above which its oldest records are deleted, in bytes.
pub(crate) const RETENTION_BYTES: &str = "retention.bytes";

/// Requests settings of one topic.
#[derive(Debug)]
pub(crate) struct DescribeConfigsRequest {
    pub(crate) topic: Arc<str>,
    pub(crate) settings: &'static [&'static str],
}

impl DescribeConfigsRequest {
    pub(crate) fn encode(&self, out: &mut Vec<u8>, version: i16) {
        let mut writer = WireWriter::new(out, version >= FIRST_FLEXIBLE);
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

/// A setting: its name, and its value if the broker reports it.
pub(crate) type ConfigEntry = (Arc<str>, Option<Arc<str>>);

/// The settings of the requested topic.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct TopicSettings {
    pub(crate) code: i16,
    pub(crate) settings: Vec<ConfigEntry>,
}

impl TopicSettings {
    /// Returns the value of a setting, if the broker reported it.
    pub(crate) fn value(&self, name: &str) -> Option<&str> {
        self.settings.iter().find(|(known, _)| &**known == name)?.1.as_deref()
    }
}

/// Returns the topic's error code and settings. Each request is for one topic.
pub(crate) fn decode(bytes: &[u8], version: i16) -> Result<TopicSettings, WireError> {
    let mut reader = WireReader::new(bytes, version >= FIRST_FLEXIBLE);
    reader.i32("throttle time")?;
    let mut answer = TopicSettings::default();
    reader.vec("results", 7, |reader| {
        answer.code = reader.i16("error code")?;
        reader.nullable_string("error message")?;
        reader.i8("resource type")?;
        reader.string("resource name")?;
        answer.settings.extend(reader.vec("configs", 6, |reader| config(reader, version))?);
        reader.skip_tags()
    })?;
    reader.skip_tags()?;
    reader.finish("DescribeConfigs");
    Ok(answer)
}

fn config(reader: &mut WireReader<'_>, version: i16) -> Result<ConfigEntry, WireError> {
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

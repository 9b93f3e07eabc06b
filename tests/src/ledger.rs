//! The events that `courier sample` made, and the check that the log holds exactly these events.
//!
//! Rules:
//! - The id identifies an event. The contents are compared as JSON, regardless of the order of fields.
//! - The order within a key follows the running number that `courier sample` gives each event.
use std::collections::{HashMap, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::BufRead;
use std::sync::LazyLock;

use anyhow::{Context, Result, bail, ensure};
use kafka_courier::events::{BUILT_IN, BuiltIn};
use serde_json::Value;
use uuid::Uuid;

use crate::cluster::Cluster;
use crate::dump::DumpedRecord;

/// The default topics, in the order in which the ledger numbers them. The last one is the topic of types that are not
/// built in.
pub static TOPICS: LazyLock<Vec<&'static str>> = LazyLock::new(|| {
    let mut topics: Vec<_> = BUILT_IN.iter().map(|built_in| built_in.default_topic).collect();
    topics.push("default-events");
    let mut seen = HashSet::new();
    topics.retain(|topic| seen.insert(*topic));
    topics
});

fn built_in(event_type: &str) -> Option<&'static BuiltIn> {
    BUILT_IN.iter().find(|built_in| built_in.event_type == event_type)
}

/// Returns the default topic of an event type.
#[must_use]
pub fn default_topic(event_type: &str) -> &'static str {
    built_in(event_type).map_or("default-events", |built_in| built_in.default_topic)
}

/// Returns the field of `data` that is the record key of an event type.
fn key_field(event_type: &str) -> Option<&'static str> {
    built_in(event_type).map(|built_in| built_in.key_field)
}

/// The position of a record in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogPosition {
    /// The topic's index in [`Ledger::topics`].
    pub topic: u8,
    /// The record's partition.
    pub partition: i32,
    /// The record's offset.
    pub offset: i64,
}

struct ExpectedEvent {
    topic: u8,
    /// The hash of the event's JSON.
    content: u64,
    found: Option<LogPosition>,
}

/// The events of one `courier sample`, and their positions in the log.
pub struct Ledger {
    topics: Vec<String>,
    entries: HashMap<Uuid, ExpectedEvent>,
}

impl Ledger {
    /// Reads events as NDJSON. All belong to `topic`, or without it each belongs to the default topic of its type.
    ///
    /// # Errors
    /// Fails if a line is no event, or if two events have the same id.
    pub fn read(mut events: impl BufRead, topic: Option<&str>) -> Result<Self> {
        let topics = topic.map_or_else(|| TOPICS.iter().map(ToString::to_string).collect(), |one| vec![one.to_owned()]);
        let mut ledger = Self { topics, entries: HashMap::new() };
        let mut line = String::new();
        while events.read_line(&mut line)? > 0 {
            ledger.add(&line).with_context(|| format!("event {}", line.trim_end()))?;
            line.clear();
        }
        Ok(ledger)
    }

    fn add(&mut self, line: &str) -> Result<()> {
        let event: Value = serde_json::from_str(line)?;
        let wanted = default_topic(text(&event, "type")?);
        let index = self.topics.iter().position(|topic| topic == wanted).unwrap_or(0);
        let entry = ExpectedEvent { topic: u8::try_from(index)?, content: content(&event), found: None };
        ensure!(self.entries.insert(id(&event)?, entry).is_none(), "an earlier event has the same id");
        Ok(())
    }

    /// Returns the number of events.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Returns whether the ledger has no events.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Returns the topics, in the order of [`LogPosition::topic`].
    #[must_use]
    pub fn topics(&self) -> Vec<&str> {
        self.topics.iter().map(String::as_str).collect()
    }

    /// Returns the position at which [`Self::check`] found the event.
    #[must_use]
    pub fn position(&self, id: &Uuid) -> Option<LogPosition> {
        self.entries.get(id)?.found
    }

    /// Reads all topics and returns the number of records in each.
    ///
    /// Every event must be in the log exactly once: unchanged, in order, with its key and headers, and in the partition
    /// that the Java client chooses.
    ///
    /// # Errors
    /// Returns an error that shows the first wrong record, or the number of missing events.
    pub fn check(&mut self, cluster: &Cluster) -> Result<Vec<(String, u64)>> {
        let mut counts = Vec::new();
        for index in 0..self.topics.len() {
            let name = self.topics[index].clone();
            let mut walk = TopicWalk { topic: u8::try_from(index)?, offsets: HashMap::new(), running: HashMap::new() };
            let count = cluster.dump(&name, |record| self.check_record(&mut walk, record))?;
            counts.push((name, count));
        }
        self.check_complete()?;
        Ok(counts)
    }

    fn check_complete(&self) -> Result<()> {
        let missing: Vec<&Uuid> = self.entries.iter().filter(|(_, e)| e.found.is_none()).map(|(id, _)| id).collect();
        ensure!(missing.is_empty(), "{} events are not in the log, such as {}", missing.len(), missing[0]);
        Ok(())
    }

    fn check_record(&mut self, walk: &mut TopicWalk, record: &DumpedRecord<'_>) -> Result<()> {
        let position = LogPosition { topic: walk.topic, partition: record.partition, offset: record.offset };
        let value = record.value.as_deref().with_context(|| format!("{position:?} has no value"))?;
        self.check_event(walk, record, &serde_json::from_str(value)?, position)
            .with_context(|| format!("{} {position:?}: {value}", self.topics[usize::from(walk.topic)]))
    }

    fn check_event(
        &mut self,
        walk: &mut TopicWalk,
        record: &DumpedRecord<'_>,
        event: &Value,
        position: LogPosition,
    ) -> Result<()> {
        let id = id(event)?;
        let entry = self.entries.get_mut(&id).context("no event with this id was published")?;
        if let Some(first) = entry.found.replace(position) {
            bail!("the event is in the log twice, first at {first:?}");
        }
        ensure!(entry.topic == walk.topic, "the event belongs to topic {}", self.topics[usize::from(entry.topic)]);
        ensure!(entry.content == content(event), "the event differs from the published one");
        check_key(record, event)?;
        check_headers(record, event)?;
        walk.check_order(record, event)
    }
}

/// The state of reading one topic.
struct TopicWalk {
    topic: u8,
    /// The next offset of each partition.
    offsets: HashMap<i32, i64>,
    /// The last running number of each key.
    running: HashMap<String, u64>,
}

impl TopicWalk {
    fn check_order(&mut self, record: &DumpedRecord<'_>, event: &Value) -> Result<()> {
        let next = self.offsets.entry(record.partition).or_insert(0);
        ensure!(record.offset == *next, "expected offset {next}");
        *next += 1;
        let number = event["sample"]["seq"].as_u64().context("no running number")?;
        let key = record.key.as_deref().unwrap_or_default();
        match self.running.get_mut(key) {
            Some(last) => {
                ensure!(number == *last + 1, "out of order: {number} follows {last} of key {key:?}");
                *last = number;
            }
            None => {
                ensure!(number <= 1, "the first record of key {key:?} has the running number {number}");
                self.running.insert(key.to_owned(), number);
            }
        }
        Ok(())
    }
}

fn check_key(record: &DumpedRecord<'_>, event: &Value) -> Result<()> {
    let field = key_field(text(event, "type")?);
    let of_type = field.and_then(|field| event["data"][field].as_str());
    let wanted = event["partition_key"].as_str().or(of_type);
    ensure!(record.key.as_deref() == wanted, "the key is {:?}, not {wanted:?}", record.key);
    let java = record.java_partition.unwrap_or(record.partition);
    ensure!(record.partition == java, "the Java client puts this key into partition {java}");
    Ok(())
}

fn check_headers(record: &DumpedRecord<'_>, event: &Value) -> Result<()> {
    let wanted = [
        ("event_id", "id"),
        ("event_type", "type"),
        ("correlation_id", "correlation_id"),
        ("traceparent", "traceparent"),
    ];
    for (header, field) in wanted {
        let (is, should) = (record.header(header), event[field].as_str());
        ensure!(is == should, "header {header} is {is:?}, not {should:?}");
    }
    Ok(())
}

fn text<'a>(event: &'a Value, field: &str) -> Result<&'a str> {
    event[field].as_str().with_context(|| format!("the event has no text field {field:?}"))
}

fn id(event: &Value) -> Result<Uuid> {
    Ok(Uuid::try_parse(text(event, "id")?)?)
}

/// Returns a hash that does not depend on the order of an object's fields. Numbers are hashed as they are written.
fn content(value: &Value) -> u64 {
    let mut hasher = DefaultHasher::new();
    match value {
        Value::Array(items) => ("array", items.iter().map(content).collect::<Vec<_>>()).hash(&mut hasher),
        Value::Object(fields) => {
            let mut all: Vec<u64> = fields.iter().map(|(name, value)| hash_field(name, content(value))).collect();
            all.sort_unstable();
            ("object", all).hash(&mut hasher);
        }
        Value::String(text) => ("text", text).hash(&mut hasher),
        other => ("plain", other.to_string()).hash(&mut hasher),
    }
    hasher.finish()
}

fn hash_field(name: &str, content: u64) -> u64 {
    let mut hasher = DefaultHasher::new();
    (name, content).hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests;

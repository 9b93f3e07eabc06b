//! What was to be published, event by event, and the check that the log holds exactly that.
//!
//! Rules: an event is accounted for by its id; its content is compared as JSON, whatever the order of fields; order within
//! a key is judged by the running number that `courier sample` gives each event, never by a count.
use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::BufRead;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use uuid::Uuid;

use crate::cluster::Cluster;
use crate::dump::DumpedRecord;

/// The default topics, in the order in which the ledger numbers them.
pub const TOPICS: [&str; 6] =
    ["user-events", "auth-events", "api-events", "error-events", "system-events", "default-events"];

/// The default topic of an event type.
#[must_use]
pub fn default_topic(event_type: &str) -> &'static str {
    match event_type {
        "user.logged_in" | "user.registered" | "user.logged_out" => "user-events",
        "user.token_refreshed" => "auth-events",
        "api.request" => "api-events",
        "api.error" => "error-events",
        "system.alert" => "system-events",
        _ => "default-events",
    }
}

/// The field of `data` that is the record key of an event type.
fn key_field(event_type: &str) -> Option<&'static str> {
    match event_type {
        "user.logged_in" | "user.registered" | "user.logged_out" | "user.token_refreshed" => Some("user_id"),
        "api.request" | "api.error" => Some("request_id"),
        "system.alert" => Some("service"),
        _ => None,
    }
}

/// Where a record stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// Its topic's index in [`Ledger::topics`].
    pub topic: u8,
    /// Its partition.
    pub partition: i32,
    /// Its offset.
    pub offset: i64,
}

struct Entry {
    topic: u8,
    /// Of its JSON.
    content: u64,
    found: Option<Place>,
}

/// The events of one `courier sample`, and where they were found.
pub struct Ledger {
    topics: Vec<String>,
    entries: HashMap<Uuid, Entry>,
}

impl Ledger {
    /// Reads events as NDJSON; `topic` is where all are to be found, else each is in its type's default topic.
    ///
    /// # Errors
    /// A line that is no event, or an id that comes twice.
    pub fn read(mut events: impl BufRead, topic: Option<&str>) -> Result<Self> {
        let topics = topic.map_or_else(|| TOPICS.map(String::from).to_vec(), |one| vec![one.to_owned()]);
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
        let entry = Entry { topic: u8::try_from(index)?, content: content(&event), found: None };
        ensure!(self.entries.insert(id(&event)?, entry).is_none(), "its id came before");
        Ok(())
    }

    /// How many events there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The topics, in the order of [`Place::topic`].
    #[must_use]
    pub fn topics(&self) -> Vec<&str> {
        self.topics.iter().map(String::as_str).collect()
    }

    /// Where the event was found.
    #[must_use]
    pub fn place(&self, id: &Uuid) -> Option<Place> {
        self.entries.get(id)?.found
    }

    /// Reads all topics and checks that they hold every event exactly once, as it was, under its key, where the Java
    /// client would have put it, with its headers, and in order; returns the number of records in each topic.
    ///
    /// # Errors
    /// The first record that is wrong, or the number of events that are missing.
    pub fn check(&mut self, cluster: &Cluster) -> Result<Vec<(String, u64)>> {
        let mut counts = Vec::new();
        for index in 0..self.topics.len() {
            let name = self.topics[index].clone();
            let mut walk = Walk { topic: u8::try_from(index)?, offsets: HashMap::new(), running: HashMap::new() };
            let count = cluster.dump(&name, |record| self.take(&mut walk, record))?;
            counts.push((name, count));
        }
        self.check_complete()?;
        Ok(counts)
    }

    fn check_complete(&self) -> Result<()> {
        let missing: Vec<&Uuid> = self.entries.iter().filter(|(_, e)| e.found.is_none()).map(|(id, _)| id).collect();
        ensure!(missing.is_empty(), "{} events are not in the log, among them {}", missing.len(), missing[0]);
        Ok(())
    }

    fn take(&mut self, walk: &mut Walk, record: &DumpedRecord<'_>) -> Result<()> {
        let place = Place { topic: walk.topic, partition: record.partition, offset: record.offset };
        let value = record.value.as_deref().with_context(|| format!("{place:?} has no value"))?;
        self.take_event(walk, record, &serde_json::from_str(value)?, place)
            .with_context(|| format!("{} {place:?}: {value}", self.topics[usize::from(walk.topic)]))
    }

    fn take_event(&mut self, walk: &mut Walk, record: &DumpedRecord<'_>, event: &Value, place: Place) -> Result<()> {
        let id = id(event)?;
        let entry = self.entries.get_mut(&id).context("its id was never published")?;
        if let Some(first) = entry.found.replace(place) {
            bail!("it is in the log twice, first at {first:?}");
        }
        ensure!(entry.topic == walk.topic, "it belongs into {}", self.topics[usize::from(entry.topic)]);
        ensure!(entry.content == content(event), "it is not what was published");
        check_key(record, event)?;
        check_headers(record, event)?;
        walk.check_order(record, event)
    }
}

/// A walk through one topic.
struct Walk {
    topic: u8,
    /// The next offset of each partition.
    offsets: HashMap<i32, i64>,
    /// The running number last seen of each key.
    running: HashMap<String, u64>,
}

impl Walk {
    fn check_order(&mut self, record: &DumpedRecord<'_>, event: &Value) -> Result<()> {
        let next = self.offsets.entry(record.partition).or_insert(0);
        ensure!(record.offset == *next, "offset {next} expected");
        *next += 1;
        let number = event["sample"]["seq"].as_u64().context("no running number")?;
        let key = record.key.as_deref().unwrap_or_default();
        match self.running.get_mut(key) {
            Some(last) => {
                ensure!(number == *last + 1, "out of order: {number} follows {last} of key {key:?}");
                *last = number;
            }
            None => {
                ensure!(number <= 1, "the first of key {key:?} has the running number {number}");
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
    ensure!(record.key.as_deref() == wanted, "its key is {:?}, not {wanted:?}", record.key);
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
    event[field].as_str().with_context(|| format!("it has no text {field:?}"))
}

fn id(event: &Value) -> Result<Uuid> {
    Ok(Uuid::try_parse(text(event, "id")?)?)
}

/// A hash that does not depend on the order of an object's fields. Numbers are compared as they are spelled.
fn content(value: &Value) -> u64 {
    let mut hasher = DefaultHasher::new();
    match value {
        Value::Array(items) => ("array", items.iter().map(content).collect::<Vec<_>>()).hash(&mut hasher),
        Value::Object(fields) => {
            let mut all: Vec<u64> = fields.iter().map(|(name, value)| pair(name, content(value))).collect();
            all.sort_unstable();
            ("object", all).hash(&mut hasher);
        }
        Value::String(text) => ("text", text).hash(&mut hasher),
        other => ("plain", other.to_string()).hash(&mut hasher),
    }
    hasher.finish()
}

fn pair(name: &str, content: u64) -> u64 {
    let mut hasher = DefaultHasher::new();
    (name, content).hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests;

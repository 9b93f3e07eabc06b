//! Maps event types to topics.
//!
//! - Every topic name is checked by Kafka's rules before it enters the table.
//! - A lookup takes no lock and allocates nothing. A change copies the table.
//! - Lookups that start after a change has returned see the change.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use arc_swap::ArcSwap;
use foldhash::fast::RandomState;
use thiserror::Error;

use crate::topic_name::{TopicNameError, validate_topic_name};
use crate::types::BUILT_IN;

/// The type that matches all unmapped types.
const ANY_TYPE: &str = "*";

/// The topic of each event type. The defaults are the built-in types' own topics, and for other types
/// `default-events`.
#[derive(Debug)]
pub struct TopicMapping {
    table: ArcSwap<Table>,
}

#[derive(Clone, Debug)]
struct Table {
    topics: HashMap<Box<str>, Arc<str>, RandomState>,
    default: Arc<str>,
}

impl Table {
    fn set(&mut self, event_type: &str, topic: &Arc<str>) {
        if event_type == ANY_TYPE {
            self.default = topic.clone();
        } else {
            self.topics.insert(event_type.into(), topic.clone());
        }
    }
}

impl Default for TopicMapping {
    fn default() -> Self {
        let entries = BUILT_IN.iter().map(|built_in| (built_in.event_type.into(), built_in.default_topic.into()));
        let table = Table { topics: entries.collect(), default: "default-events".into() };
        Self { table: ArcSwap::from_pointee(table) }
    }
}

impl TopicMapping {
    /// Creates a mapping with the defaults.
    pub fn new() -> Self {
        Self::default()
    }

    /// Returns the topic for events of this type.
    pub fn topic_for(&self, event_type: &str) -> Arc<str> {
        self.with_topic(event_type, Arc::clone)
    }

    /// Calls `take` with the topic for events of this type. Unlike [`topic_for`](Self::topic_for) this method
    /// increments no reference count, for which threads that publish to one topic would contend at every event. A
    /// concurrent change does not wait for `take`.
    pub fn with_topic<R>(&self, event_type: &str, take: impl FnOnce(&Arc<str>) -> R) -> R {
        let table = self.table.load();
        take(table.topics.get(event_type).unwrap_or(&table.default))
    }

    /// Sets the topic for events of this type. Type `*` matches all unmapped types.
    ///
    /// # Errors
    /// Returns a [`TopicMappingError`] if the type is empty or Kafka refuses the topic's name.
    pub fn set_topic_mapping(&self, event_type: &str, topic: &str) -> Result<(), TopicMappingError> {
        self.set_all(&[check(event_type, topic)?]);
        Ok(())
    }

    /// Applies `type=topic,type=topic,..` (as in `KAFKA_TOPIC_MAPPING`). Spaces around names are ignored.
    ///
    /// # Errors
    /// Returns a [`TopicMappingError`] with all problems of the list. Nothing is applied in that case.
    pub fn apply(&self, mappings: &str) -> Result<(), TopicMappingError> {
        self.set_all(&parse(mappings)?);
        Ok(())
    }

    fn set_all(&self, entries: &[(&str, Arc<str>)]) {
        self.table.rcu(|table| {
            let mut table = Table::clone(table);
            for (event_type, topic) in entries {
                table.set(event_type, topic);
            }
            table
        });
    }
}

fn parse(mappings: &str) -> Result<Vec<(&str, Arc<str>)>, TopicMappingError> {
    let mut entries: Vec<(&str, Arc<str>)> = Vec::new();
    let mut problems = Vec::new();
    if mappings.trim().is_empty() {
        return Ok(entries);
    }
    for entry in mappings.split(',').map(str::trim) {
        match parse_entry(entry) {
            Ok((event_type, _)) if entries.iter().any(|(seen, _)| *seen == event_type) => {
                problems.push(TopicMappingProblem::Twice { event_type: event_type.to_owned() });
            }
            Ok(parsed) => entries.push(parsed),
            Err(problem) => problems.push(problem),
        }
    }
    if problems.is_empty() { Ok(entries) } else { Err(TopicMappingError { problems }) }
}

fn parse_entry(entry: &str) -> Result<(&str, Arc<str>), TopicMappingProblem> {
    let Some((event_type, topic)) = entry.split_once('=') else {
        return Err(TopicMappingProblem::NoEqualsSign { entry: entry.to_owned() });
    };
    check(event_type.trim(), topic.trim())
}

fn check<'a>(event_type: &'a str, topic: &str) -> Result<(&'a str, Arc<str>), TopicMappingProblem> {
    if event_type.is_empty() {
        return Err(TopicMappingProblem::EmptyType { topic: topic.to_owned() });
    }
    match validate_topic_name(topic) {
        Ok(()) => Ok((event_type, topic.into())),
        Err(reason) => Err(TopicMappingProblem::Topic { event_type: event_type.to_owned(), reason }),
    }
}

/// All problems of a mapping. No entry of the mapping was applied.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct TopicMappingError {
    /// The problems, in the order of the entries. Never empty.
    pub problems: Vec<TopicMappingProblem>,
}

impl From<TopicMappingProblem> for TopicMappingError {
    fn from(problem: TopicMappingProblem) -> Self {
        Self { problems: vec![problem] }
    }
}

impl fmt::Display for TopicMappingError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.problems.iter().enumerate() {
            let separator = if index == 0 { "" } else { "; " };
            write!(f, "{separator}{problem}")?;
        }
        Ok(())
    }
}

impl std::error::Error for TopicMappingError {}

/// A problem of one entry.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
#[non_exhaustive]
pub enum TopicMappingProblem {
    /// The entry is not of the form `type=topic`.
    #[error("topic mapping entry \"{entry}\" is not of the form type=topic")]
    NoEqualsSign {
        /// The entry.
        entry: String,
    },
    /// The entry has no type before the `=`.
    #[error("topic mapping entry \"={topic}\" has no event type: write type={topic}")]
    EmptyType {
        /// The entry's topic.
        topic: String,
    },
    /// The topic's name is invalid.
    #[error("topic mapping for type {event_type}: {reason}")]
    Topic {
        /// The entry's type.
        event_type: String,
        /// Why the name is invalid.
        reason: TopicNameError,
    },
    /// Two entries have the same type.
    #[error("topic mapping for type {event_type} appears twice: keep one")]
    Twice {
        /// The type.
        event_type: String,
    },
}

//! Which topic the events of a type go to.
//!
//! - Every name is checked by Kafka's rules before it gets in.
//! - Looking up takes no lock and allocates nothing; a change copies the table.
//! - A change counts for whatever is looked up after it returned.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use arc_swap::ArcSwap;
use foldhash::fast::RandomState;
use thiserror::Error;

use crate::topic_name::{TopicNameError, validate_topic_name};
use crate::types::BUILT_IN;

/// Stands for every type that has no topic of its own.
const ANY_TYPE: &str = "*";

/// Where events go by their type. The defaults are the built-in types' topics, and `default-events` for all others.
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
    /// The defaults.
    pub fn new() -> Self {
        Self::default()
    }

    /// The topic for events of this type.
    pub fn topic_for(&self, event_type: &str) -> Arc<str> {
        self.with_topic(event_type, Arc::clone)
    }

    /// Calls `take` with the topic for events of this type. Unlike [`topic_for`](Self::topic_for) it counts no reference, which
    /// threads that publish to one topic would take from each other for every event. A change meanwhile does not wait for it.
    pub fn with_topic<R>(&self, event_type: &str, take: impl FnOnce(&Arc<str>) -> R) -> R {
        let table = self.table.load();
        take(table.topics.get(event_type).unwrap_or(&table.default))
    }

    /// Sends events of this type to `topic` from now on; type `*` stands for all that have no topic of their own.
    pub fn set_topic_mapping(&self, event_type: &str, topic: &str) -> Result<(), TopicMappingError> {
        self.set_all(&[check(event_type, topic)?]);
        Ok(())
    }

    /// Applies `type=topic,type=topic,..` (as in `KAFKA_TOPIC_MAPPING`), all of it or, if anything is wrong, nothing.
    /// Spaces around names don't count. The error has all that is wrong.
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

/// All that is wrong with a mapping. Nothing of it was applied.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct TopicMappingError {
    /// What is wrong, in the order of the entries. Never empty.
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

/// What is wrong with one entry of a mapping.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
#[non_exhaustive]
pub enum TopicMappingProblem {
    /// Not of the form `type=topic`.
    #[error("topic mapping entry {entry:?} is not of the form type=topic")]
    NoEqualsSign {
        /// The entry.
        entry: String,
    },
    /// No type before the `=`.
    #[error("topic mapping entry for topic {topic:?} has no event type: write type=topic")]
    EmptyType {
        /// The entry's topic.
        topic: String,
    },
    /// Not a topic's name.
    #[error("topic mapping for type {event_type:?}: {reason}")]
    Topic {
        /// The entry's type.
        event_type: String,
        /// What is wrong with its topic.
        reason: TopicNameError,
    },
    /// Two entries for one type.
    #[error("topic mapping for type {event_type:?} is there twice: leave one")]
    Twice {
        /// The type.
        event_type: String,
    },
}

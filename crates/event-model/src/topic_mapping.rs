//! Maps event types to topics.
//!
//! - Every topic name is checked by Kafka's rules before it enters the table, and is not the topic that is reserved for
//!   dead letters.
//! - The most specific entry applies: the type itself, then the longest prefix (`user.*`), then the built-in type's
//!   default, then `*`.
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

/// Matches any end of a type.
const ANY: char = '*';

/// The topic of each event type. The defaults are the built-in types' own topics, and for other types
/// `default-events`.
#[derive(Debug)]
pub struct TopicMapping {
    table: ArcSwap<MappingTable>,
    /// The topic of dead letters, which no event goes to; empty if there is none.
    reserved: Box<str>,
}

type Topics = HashMap<Box<str>, Arc<str>, RandomState>;

#[derive(Clone, Debug)]
struct MappingTable {
    /// Types with an entry of their own.
    own: Topics,
    /// Those, and the built-in types.
    topics: Topics,
    /// Beginnings of types, the longest first.
    prefixes: Vec<(Box<str>, Arc<str>)>,
    default: Arc<str>,
}

impl MappingTable {
    fn set(&mut self, pattern: &Pattern<'_>, topic: &Arc<str>) {
        match *pattern {
            Pattern::Type(event_type) => {
                self.own.insert(event_type.into(), topic.clone());
                self.topics.insert(event_type.into(), topic.clone());
            }
            Pattern::Prefix("") => self.default = topic.clone(),
            Pattern::Prefix(prefix) => {
                self.prefixes.retain(|(known, _)| **known != *prefix);
                self.prefixes.push((prefix.into(), topic.clone()));
                self.prefixes.sort_by_key(|(prefix, _)| std::cmp::Reverse(prefix.len()));
                self.place_built_in();
            }
        }
    }

    /// Enters the built-in types that have no entry of their own.
    fn place_built_in(&mut self) {
        for built_in in BUILT_IN.iter().filter(|built_in| !self.own.contains_key(built_in.event_type)) {
            let topic = self.by_prefix(built_in.event_type).cloned();
            let topic = topic.unwrap_or_else(|| built_in.default_topic.into());
            self.topics.insert(built_in.event_type.into(), topic);
        }
    }

    fn by_prefix(&self, event_type: &str) -> Option<&Arc<str>> {
        let found = self.prefixes.iter().find(|(prefix, _)| event_type.starts_with(&**prefix));
        found.map(|(_, topic)| topic)
    }
}

impl Default for TopicMapping {
    fn default() -> Self {
        Self::reserving("")
    }
}

/// What an entry is for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Pattern<'a> {
    /// One type.
    Type(&'a str),
    /// All types that begin so; all types at all if it is empty.
    Prefix(&'a str),
}

impl<'a> Pattern<'a> {
    fn parse(text: &'a str) -> Option<Self> {
        match text.strip_suffix(ANY) {
            Some(prefix) => (!prefix.contains(ANY)).then_some(Self::Prefix(prefix)),
            None => (!text.contains(ANY)).then_some(Self::Type(text)),
        }
    }
}

impl TopicMapping {
    /// Creates a mapping with the defaults.
    pub fn new() -> Self {
        Self::default()
    }

    /// Creates a mapping with the defaults for an application whose dead letters go to the topic `reserved`. A change that
    /// sends events to this topic is refused. [`conflict`](Self::conflict) tells whether the defaults do.
    pub fn reserving(reserved: &str) -> Self {
        let mut table = MappingTable {
            own: Topics::default(),
            topics: Topics::default(),
            prefixes: Vec::new(),
            default: "default-events".into(),
        };
        table.place_built_in();
        Self { table: ArcSwap::from_pointee(table), reserved: reserved.into() }
    }

    /// Returns a type whose events go to the topic that is reserved for dead letters. `*` are the types without an entry.
    pub fn conflict(&self) -> Option<String> {
        let table = self.table.load();
        let is_reserved = |topic: &Arc<str>| !self.reserved.is_empty() && **topic == *self.reserved;
        let of_type =
            table.topics.iter().filter(|(_, topic)| is_reserved(topic)).map(|(name, _)| name.to_string()).min();
        of_type.or_else(|| is_reserved(&table.default).then(|| ANY.to_string()))
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
        let topic = table.topics.get(event_type).or_else(|| table.by_prefix(event_type));
        take(topic.unwrap_or(&table.default))
    }

    /// Sets the topic for events of this type. `user.*` matches all types that begin with `user.` and have no entry of
    /// their own; of several such prefixes the longest applies. `*` matches all types with no other entry and no default.
    ///
    /// # Errors
    /// Returns a [`TopicMappingError`] if the type is empty or has a `*` before its end, if Kafka refuses the topic's name,
    /// or if the topic is reserved for dead letters.
    pub fn set_topic_mapping(&self, event_type: &str, topic: &str) -> Result<(), TopicMappingError> {
        self.set_all(&[self.check(event_type, topic)?]);
        Ok(())
    }

    /// Applies `type=topic,type=topic,..` (as in `KAFKA_TOPIC_MAPPING`). Spaces around names are ignored.
    ///
    /// # Errors
    /// Returns a [`TopicMappingError`] with all problems of the list. Nothing is applied in that case.
    pub fn apply(&self, mappings: &str) -> Result<(), TopicMappingError> {
        self.set_all(&self.parse(mappings)?);
        Ok(())
    }

    fn set_all(&self, entries: &[(Pattern<'_>, Arc<str>)]) {
        self.table.rcu(|table| {
            let mut table = MappingTable::clone(table);
            for (pattern, topic) in entries {
                table.set(pattern, topic);
            }
            table
        });
    }

    fn parse<'a>(&self, mappings: &'a str) -> Result<Vec<(Pattern<'a>, Arc<str>)>, TopicMappingError> {
        let mut entries: Vec<(Pattern<'a>, Arc<str>)> = Vec::new();
        let mut problems: Vec<TopicMappingProblem> = Vec::new();
        let mut report = |problem| {
            if !problems.contains(&problem) {
                problems.push(problem);
            }
        };
        if mappings.trim().is_empty() {
            return Ok(entries);
        }
        for entry in mappings.split(',').map(str::trim) {
            let Some((event_type, topic)) = entry.split_once('=') else {
                report(TopicMappingProblem::NoEqualsSign { entry: entry.to_owned() });
                continue;
            };
            match self.check(event_type.trim(), topic.trim()) {
                Ok((pattern, _)) if entries.iter().any(|(seen, _)| *seen == pattern) => {
                    report(TopicMappingProblem::Twice { event_type: event_type.trim().to_owned() });
                }
                Ok(parsed) => entries.push(parsed),
                Err(problem) => report(problem),
            }
        }
        if problems.is_empty() { Ok(entries) } else { Err(TopicMappingError { problems }) }
    }

    fn check<'a>(&self, event_type: &'a str, topic: &str) -> Result<(Pattern<'a>, Arc<str>), TopicMappingProblem> {
        if event_type.is_empty() {
            return Err(TopicMappingProblem::EmptyType { topic: topic.to_owned() });
        }
        let Some(pattern) = Pattern::parse(event_type) else {
            return Err(TopicMappingProblem::Pattern { event_type: event_type.to_owned() });
        };
        if let Err(reason) = validate_topic_name(topic) {
            return Err(TopicMappingProblem::Topic { event_type: event_type.to_owned(), reason });
        }
        if *topic == *self.reserved {
            return Err(TopicMappingProblem::Reserved { event_type: event_type.to_owned(), topic: topic.to_owned() });
        }
        Ok((pattern, topic.into()))
    }
}

/// All problems of a mapping. No entry of the mapping was applied.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct TopicMappingError {
    /// The problems, in the order of the entries. Equal problems occur once. Never empty.
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
    #[error("topic mapping entry {entry:?} is not of the form type=topic: fix or remove it")]
    NoEqualsSign {
        /// The entry.
        entry: String,
    },
    /// The entry has no type before the `=`.
    #[error("topic mapping entry for topic {topic:?} has no event type: write type=topic")]
    EmptyType {
        /// The entry's topic.
        topic: String,
    },
    /// The topic's name is invalid.
    #[error("topic mapping for type {event_type:?}: {reason}")]
    Topic {
        /// The entry's type.
        event_type: String,
        /// Why the name is invalid.
        reason: TopicNameError,
    },
    /// A `*` is not the last character.
    #[error(
        "topic mapping for type {event_type:?}: * is allowed only at the end, after the prefix of the types that it \
         matches: write each type, or a prefix such as user.*"
    )]
    Pattern {
        /// The entry's type.
        event_type: String,
    },
    /// Events would go to the topic of dead letters.
    #[error("topic mapping for type {event_type:?}: {topic} is dlq_topic, the topic of dead letters: use another one")]
    Reserved {
        /// The entry's type.
        event_type: String,
        /// The topic.
        topic: String,
    },
    /// Two entries have the same type.
    #[error("topic mapping for type {event_type:?} appears twice: keep one")]
    Twice {
        /// The type.
        event_type: String,
    },
}

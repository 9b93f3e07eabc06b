//! Events in this project's own JSON: one, an array, or a line of NDJSON.
//!
//! Rules:
//! - The event's JSON is published as it is, without white space between tokens. Missing ids, times and the request's context
//!   are added.
//! - An array is read whole before a record of it exists. Each event that is not one is named by its place.

use kafka_courier::events::{AnyEvent, Event, ParseError};
use serde::Deserialize;
use serde::de::{Deserializer, Error as _, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::depth;
use super::failure::Failure;
use super::problem::Problem;
use super::record::{MAX_EVENT_ID, OutRecord, Reading, event_headers};

/// Reads one event.
///
/// # Errors
///
/// [`Problem::NotJson`], [`Problem::NotAnEvent`] or [`Problem::TooDeep`].
pub fn read_one(json: &[u8], reading: Reading<'_>) -> Result<OutRecord, Failure> {
    depth::check(json, reading.max_depth)?;
    let mut event = AnyEvent::from_json_with(json, reading.stamper).map_err(|error| not_an_event(&error))?;
    if let Some(correlation_id) = &reading.context.correlation_id {
        event = event.with_default_correlation_id(correlation_id);
    }
    if let Some(trace) = &reading.context.trace {
        event = event.with_default_trace_context(trace);
    }
    let id = event.id().to_string();
    if id.len() > MAX_EVENT_ID {
        return Err(Failure::new(Problem::NotAnEvent, format!("id has more than {MAX_EVENT_ID} bytes")));
    }
    Ok(OutRecord {
        topic: (reading.topic_of)(event.event_type()),
        partition: None,
        key: event.key().map(|key| key.into_owned()),
        value: Some(event.as_str().as_bytes().to_vec()),
        headers: event_headers(&id, event.event_type(), event.correlation_id(), event.trace()),
        timestamp: None,
        id: Some(id),
        source: if reading.needs_source { named_source(json) } else { None },
    })
}

/// Returns the source of an event that has a source and an id.
fn named_source(json: &[u8]) -> Option<String> {
    #[derive(Deserialize)]
    struct Named {
        id: Option<String>,
        source: Option<String>,
    }
    let named: Named = serde_json::from_slice(json).ok()?;
    named.id?;
    named.source.filter(|source| !source.is_empty())
}

/// The events of a body.
#[derive(Debug)]
pub enum Events {
    /// The body is one event.
    One(OutRecord),
    /// The body is an array. Each element is an event, or the reason why it is none.
    Array(Vec<Result<OutRecord, Failure>>),
}

/// Reads a body with one event or an array of events.
///
/// # Errors
///
/// The body's failure, or that of the only event.
pub fn read_body(json: &[u8], reading: Reading<'_>) -> Result<Events, Failure> {
    read_each(json, reading, |json| read_one(json, reading))
}

/// Reads a body with one element or an array of elements, each of them with `read`.
pub(super) fn read_each(
    json: &[u8],
    reading: Reading<'_>,
    read: impl Fn(&[u8]) -> Result<OutRecord, Failure>,
) -> Result<Events, Failure> {
    let text = json.strip_prefix("\u{feff}".as_bytes()).unwrap_or(json);
    match text.iter().find(|byte| !byte.is_ascii_whitespace()) {
        None => Err(Failure::new(Problem::NotJson, "the body is empty: send an event, or an array of events")),
        Some(b'[') => {
            // An array is one level around its events.
            depth::check(text, reading.max_depth.saturating_add(1))?;
            let elements = elements(text, reading.max_events)?;
            let read =
                |(index, raw): (usize, &RawValue)| read(raw.get().as_bytes()).map_err(|failure| failure.at(index));
            Ok(Events::Array(elements.into_iter().enumerate().map(read).collect()))
        }
        Some(_) => read(text).map(Events::One),
    }
}

/// Returns the events of an array, if all are valid.
///
/// # Errors
///
/// The first failure.
pub fn all_valid(events: Vec<Result<OutRecord, Failure>>) -> Result<Vec<Result<OutRecord, Failure>>, Failure> {
    let Some(failure) = events.iter().find_map(|event| event.as_ref().err()) else { return Ok(events) };
    let detail = format!("event {}: {}. No event was published", failure.index.unwrap_or(0), failure.detail);
    Err(Failure { detail, ..failure.clone() })
}

/// Returns the elements of an array.
fn elements(json: &[u8], max: usize) -> Result<Vec<&RawValue>, Failure> {
    let mut deserializer = serde_json::Deserializer::from_slice(json);
    let read = deserializer.deserialize_seq(Elements { max });
    let elements = read
        .and_then(|elements| deserializer.end().map(|()| elements))
        .map_err(|error| Failure::new(Problem::NotJson, format!("not JSON: {error}")))?;
    elements.ok_or_else(|| too_many(max))
}

/// Returns the failure of a request with more than `max` events.
pub(crate) fn too_many(max: usize) -> Failure {
    Failure::new(Problem::TooManyEvents, format!("more than {max} events: send them in several requests"))
}

/// The elements of an array, or `None` if there are more than `max`.
struct Elements {
    max: usize,
}

impl<'de> Visitor<'de> for Elements {
    type Value = Option<Vec<&'de RawValue>>;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("an array of events")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut sequence: A) -> Result<Self::Value, A::Error> {
        let mut elements = Vec::new();
        while let Some(element) = sequence.next_element()? {
            if elements.len() == self.max {
                // The rest is not kept, but must be JSON.
                while sequence.next_element::<Skipped>()?.is_some() {}
                return Ok(None);
            }
            elements.push(element);
        }
        Ok(Some(elements))
    }
}

struct Skipped;

impl<'de> Deserialize<'de> for Skipped {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        <&RawValue>::deserialize(deserializer).map(|_| Self).map_err(D::Error::custom)
    }
}

fn not_an_event(error: &ParseError) -> Failure {
    let problem = match error {
        ParseError::NotUtf8 { .. } | ParseError::Syntax { .. } => Problem::NotJson,
        ParseError::TooDeep { .. } => Problem::TooDeep,
        _ => Problem::NotAnEvent,
    };
    Failure::new(problem, error.to_string())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use kafka_courier::events::SystemStamper;

    use super::*;
    use crate::shapes::record::Context;

    fn topic_of(event_type: &str) -> Arc<str> {
        format!("of-{event_type}").into()
    }

    fn reading(context: &Context) -> Reading<'_> {
        let (stamper, needs_source) = (&SystemStamper, true);
        Reading { topic_of: &topic_of, context, max_depth: 4, max_events: 2, stamper, needs_source }
    }

    fn read(json: &str) -> Result<Events, Failure> {
        read_body(json.as_bytes(), reading(&Context::default()))
    }

    #[test]
    fn event_becomes_a_record() {
        let context = Context { correlation_id: Some("r-1".to_owned()), trace: None };
        let json =
            br#"{"id":"e-1","type":"user.logged_in","timestamp":"2024-01-15T10:00:00Z","data":{"user_id":"u-1"}}"#;
        let record = read_one(json, reading(&context)).unwrap();
        assert_eq!((&*record.topic, record.key.as_deref()), ("of-user.logged_in", Some(&b"u-1"[..])));
        assert_eq!(record.id.as_deref(), Some("e-1"));
        let names: Vec<&str> = record.headers.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["event_id", "event_type", "correlation_id"]);
        let value = String::from_utf8(record.value.unwrap()).unwrap();
        assert!(value.ends_with(r#","correlation_id":"r-1"}"#), "{value}");
    }

    #[test]
    fn invalid_elements_keep_their_place() {
        let Ok(Events::Array(read)) = read(r#" [ {"type":"a"} , {"kind":"b"} ] "#) else { panic!("expected an array") };
        assert!(read[0].is_ok());
        let failure = read[1].as_ref().unwrap_err();
        assert_eq!((failure.problem, failure.index), (Problem::NotAnEvent, Some(1)));
    }

    #[test]
    fn bodies_are_bounded() {
        let problem = |json: &str| read(json).unwrap_err().problem;
        assert_eq!(problem(r#"[{"type":"a"},{"type":"a"},{"type":"a"}]"#), Problem::TooManyEvents);
        assert_eq!(problem(r#"{"type":"a","data":{"a":[[[1]]]}}"#), Problem::TooDeep);
        assert_eq!(problem(r#"[[[[[[1]]]]]]"#), Problem::TooDeep);
        for json in ["", " \n", "[", "[{]", "[1] 2", "[1,2,3,}", "{"] {
            assert_eq!(problem(json), Problem::NotJson, "{json}");
        }
        assert_eq!(problem("17"), Problem::NotAnEvent);
        assert_eq!(problem(&format!(r#"{{"type":"a","id":"{}"}}"#, "i".repeat(1025))), Problem::NotAnEvent);
        assert!(matches!(read("[]"), Ok(Events::Array(none)) if none.is_empty()));
    }
}

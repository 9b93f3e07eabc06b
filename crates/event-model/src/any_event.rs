//! Events of any type that arrive as JSON and are forwarded unchanged.
//!
//! - The text is kept: field order, unknown fields and the spelling of numbers survive. White space between tokens is
//!   removed, so that an event is always one line.
//! - Only the fields that publishing needs are read, and each field of the envelope is checked to be of its kind. The
//!   content of `data` is not checked against the event's type.

use std::borrow::Cow;
use std::fmt;

use jiff::Timestamp;
use serde::de::{DeserializeOwned, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::Value;
use serde_json::value::RawValue;

use crate::compact::{MAX_DEPTH, compact};
use crate::envelope::Envelope;
use crate::event::{EncodeError, Event, EventData};
use crate::fields::{Fields, Text, string};
use crate::id::EventId;
use crate::parse_error::ParseError;
use crate::stamper::{Stamper, SystemStamper};
use crate::trace::TraceContext;
use crate::types::BUILT_IN;

/// An event of any type, read from JSON.
///
/// The key is `partition_key` if the JSON has that field. A built-in type is otherwise keyed by its key field, and any
/// other type has no key.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AnyEvent {
    json: Box<str>,
    id: EventId,
    event_type: Box<str>,
    timestamp: Timestamp,
    correlation_id: Option<Box<str>>,
    trace: Option<TraceContext>,
    key: Option<Box<str>>,
}

impl AnyEvent {
    /// Reads one event. Only `type` is required. A missing `id` becomes a new UUIDv7 and a missing `timestamp` the
    /// current time. Both are written before the other fields.
    ///
    /// # Errors
    /// Returns a [`ParseError`] if the JSON is invalid, lacks `type`, or has an envelope field of the wrong form.
    pub fn from_json(json: &[u8]) -> Result<Self, ParseError> {
        Self::from_json_with(json, &SystemStamper)
    }

    /// Reads one event as [`AnyEvent::from_json`] does. `stamper` is called only if the id or the timestamp is missing.
    ///
    /// # Errors
    /// See [`AnyEvent::from_json`].
    pub fn from_json_with(json: &[u8], stamper: &(impl Stamper + ?Sized)) -> Result<Self, ParseError> {
        let (text, fields) = Fields::parse(json)?;
        let event_type = fields
            .name("type")?
            .ok_or(ParseError::Missing { field: "type", expected: "the event's type as a string" })?;
        fields.check_kind("source", '"', "a string, or leave it out")?;
        fields.check_kind("version", '"', "a string, or leave it out")?;
        fields.check_kind("data", '{', "an object such as {}, or leave it out")?;
        let json = compact(text).ok_or(ParseError::TooDeep { limit: MAX_DEPTH })?;
        let id = fields.name("id")?;
        let mut event = Self {
            key: key(&fields, &event_type)?,
            event_type: event_type.into(),
            timestamp: fields.timestamp()?.unwrap_or_default(),
            correlation_id: fields.text("correlation_id")?.map(Into::into),
            trace: fields.trace()?,
            id: match &id {
                Some(text) => {
                    EventId::parse(text).map_err(|error| ParseError::invalid("id", "\"\"", error.to_string()))?
                }
                None => uuid::Uuid::nil().into(),
            },
            json: json.into(),
        };
        event.complete(id.is_none(), fields.raw("timestamp").is_none(), stamper);
        Ok(event)
    }

    fn complete(&mut self, id: bool, timestamp: bool, stamper: &(impl Stamper + ?Sized)) {
        if !id && !timestamp {
            return;
        }
        let (new_id, now) = stamper.stamp();
        let mut json = String::with_capacity(self.json.len() + 96);
        json.push('{');
        if id {
            self.id = new_id.into();
            json.push_str(&format!("\"id\":\"{}\",", self.id));
        }
        if timestamp {
            self.timestamp = now;
            json.push_str(&format!("\"timestamp\":\"{now}\","));
        }
        json.push_str(self.json.strip_prefix('{').unwrap_or(&self.json));
        self.json = json.into();
    }

    /// Returns the event's JSON, on one line.
    pub fn as_str(&self) -> &str {
        &self.json
    }

    /// Returns the time of the event.
    pub fn timestamp(&self) -> Timestamp {
        self.timestamp
    }

    /// Sets the record's key and writes it to the JSON as `partition_key`.
    #[must_use]
    pub fn with_key(mut self, key: &str) -> Self {
        self.set_field("partition_key", key.into());
        self.key = Some(key.into());
        self
    }

    /// Sets the correlation id and writes it to the JSON, unless the event has one.
    #[must_use]
    pub fn with_default_correlation_id(mut self, correlation_id: &str) -> Self {
        if self.correlation_id.is_none() {
            self.set_field("correlation_id", correlation_id.into());
            self.correlation_id = Some(correlation_id.into());
        }
        self
    }

    /// Sets the trace context and writes it to the JSON, unless the event has one.
    #[must_use]
    pub fn with_default_trace_context(mut self, trace: &TraceContext) -> Self {
        if self.trace.is_none() {
            self.set_field("traceparent", trace.traceparent().into());
            match trace.tracestate() {
                Some(state) => self.set_field("tracestate", state.into()),
                // A state without a parent means nothing, and must not join another parent.
                None if field_at(&self.json, "tracestate").is_some() => self.set_field("tracestate", Value::Null),
                None => {}
            }
            self.trace = Some(trace.clone());
        }
        self
    }

    /// Writes a field of the envelope to the JSON.
    fn set_field(&mut self, name: &str, value: Value) {
        let mut json = std::mem::take(&mut self.json).into_string();
        match field_at(&json, name) {
            Some(range) => json.replace_range(range, &value.to_string()),
            None => json.insert_str(json.len() - 1, &format!(",\"{name}\":{value}")),
        }
        self.json = json.into();
    }

    /// Decodes the event as type `T`.
    ///
    /// # Errors
    /// Returns a [`ParseError`] if the event has another type or lacks a field that a typed event needs.
    pub fn decode<T: EventData + DeserializeOwned>(&self) -> Result<Envelope<T>, ParseError> {
        Envelope::from_json(self.json.as_bytes())
    }
}

/// Returns the position of the value of a field of the envelope in `json`.
fn field_at(json: &str, name: &str) -> Option<std::ops::Range<usize>> {
    let (text, fields) = Fields::parse(json.as_bytes()).ok()?;
    let value = fields.raw(name)?.get();
    let start = value.as_ptr().addr() - text.as_ptr().addr();
    Some(start..start + value.len())
}

impl Event for AnyEvent {
    fn id(&self) -> &EventId {
        &self.id
    }

    fn event_type(&self) -> &str {
        &self.event_type
    }

    fn correlation_id(&self) -> Option<&str> {
        self.correlation_id.as_deref()
    }

    fn trace(&self) -> Option<&TraceContext> {
        self.trace.as_ref()
    }

    fn timestamp_ms(&self) -> i64 {
        self.timestamp.as_millisecond()
    }

    fn key(&self) -> Option<Cow<'_, [u8]>> {
        self.key.as_ref().map(|key| Cow::Borrowed(key.as_bytes()))
    }

    fn encode_into(&self, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        out.extend_from_slice(self.json.as_bytes());
        Ok(())
    }
}

fn key(fields: &Fields<'_>, event_type: &str) -> Result<Option<Box<str>>, ParseError> {
    if let Some(key) = fields.text("partition_key")? {
        return Ok(Some(key.into()));
    }
    let built_in = BUILT_IN.iter().find(|built_in| built_in.event_type == event_type);
    Ok(built_in.and_then(|built_in| key_in(fields.raw("data")?, built_in.key_field)))
}

/// Returns the text of field `name` in `data`: a string's content, or a number as it is spelt.
fn key_in(data: &RawValue, name: &'static str) -> Option<Box<str>> {
    let mut deserializer = serde_json::Deserializer::from_str(data.get());
    let raw = deserializer.deserialize_map(Member(name)).ok()??;
    match raw.get().as_bytes().first()? {
        b'-' | b'0'..=b'9' => Some(raw.get().into()),
        _ => string(raw).map(Into::into),
    }
}

/// Finds one member of an object. The last of several duplicates counts, as in most readers.
struct Member(&'static str);

impl<'de> Visitor<'de> for Member {
    type Value = Option<&'de RawValue>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut found = None;
        while let Some(Text(name)) = map.next_key()? {
            if name == self.0 {
                found = Some(map.next_value()?);
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(found)
    }
}

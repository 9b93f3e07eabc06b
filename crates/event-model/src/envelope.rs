//! The envelope of an event's data, and the JSON of both.
//!
//! - The order of fields is fixed: id, type, source, version, timestamp, correlation_id, traceparent, tracestate,
//!   partition_key, data, then unknown fields.
//! - Absent fields are left out. False, 0, empty texts and {} are written.

use std::borrow::Cow;
use std::sync::Arc;

use jiff::Timestamp;
use serde::de::DeserializeOwned;
use serde::ser::{Serialize, SerializeMap, Serializer};
use serde_json::{Map, Value};
use thiserror::Error;

use crate::event::{EncodeError, Event, EventData};
use crate::fields::{Fields, NAMES};
use crate::id::EventId;
use crate::json;
use crate::parse_error::ParseError;
use crate::rfc3339::{self, Rfc3339};
use crate::trace::TraceContext;

/// A typed event: data and envelope. An [`EventBuilder`](crate::EventBuilder) or [`Envelope::from_json`] creates it.
#[derive(Clone, PartialEq, Debug)]
#[non_exhaustive]
pub struct Envelope<T> {
    /// The unique id of the event.
    pub id: EventId,
    /// The service that produced the event.
    pub source: Arc<str>,
    /// The version of the event's schema.
    pub version: Arc<str>,
    /// The time of the event: RFC 3339 in UTC in JSON.
    pub timestamp: Timestamp,
    /// Connects events of the same request or process.
    pub correlation_id: Option<Arc<str>>,
    /// The trace of the event: `traceparent` and `tracestate` in JSON.
    pub trace: Option<TraceContext>,
    /// The record's key, if it differs from the type's own key. The JSON has it too, so that a later publisher uses the
    /// same key.
    pub partition_key: Option<Box<str>>,
    /// The data of the event.
    pub data: T,
    extra: Map<String, Value>,
}

impl<T> Envelope<T> {
    pub(crate) fn new(
        (id, timestamp): (uuid::Uuid, Timestamp),
        (source, version): (Arc<str>, Arc<str>),
        data: T,
    ) -> Self {
        Self {
            id: id.into(),
            source,
            version,
            timestamp,
            correlation_id: None,
            trace: None,
            partition_key: None,
            data,
            extra: Map::new(),
        }
    }

    /// Sets the record's key in place of the type's own key.
    #[must_use]
    pub fn with_key(mut self, key: impl Into<Box<str>>) -> Self {
        self.partition_key = Some(key.into());
        self
    }

    /// Sets the correlation id.
    #[must_use]
    pub fn with_correlation_id(mut self, correlation_id: impl Into<Arc<str>>) -> Self {
        self.correlation_id = Some(correlation_id.into());
        self
    }

    /// Sets the trace.
    #[must_use]
    pub fn with_trace_context(mut self, trace: TraceContext) -> Self {
        self.trace = Some(trace);
        self
    }

    /// Returns the top-level fields beyond the envelope's own, in their order.
    pub fn extra(&self) -> &Map<String, Value> {
        &self.extra
    }

    /// Adds or replaces a top-level field.
    ///
    /// # Errors
    /// Returns [`ReservedField`] if the envelope itself has a field of this name.
    pub fn set_extra(&mut self, name: impl Into<String>, value: impl Into<Value>) -> Result<(), ReservedField> {
        let name = name.into();
        if NAMES.contains(&name.as_str()) {
            return Err(ReservedField { name });
        }
        self.extra.insert(name, value.into());
        Ok(())
    }
}

impl<T: EventData + DeserializeOwned> Envelope<T> {
    /// Reads one event of this type. Every envelope field except correlation id, trace and partition key is required.
    /// An [`AnyEvent`](crate::AnyEvent) accepts events that lack more, or of any type.
    ///
    /// # Errors
    /// Returns a [`ParseError`] if the JSON is invalid, lacks a required field, or is an event of another type.
    pub fn from_json(json: &[u8]) -> Result<Self, ParseError> {
        let (_, fields) = Fields::parse(json)?;
        check_type::<T>(&fields)?;
        let name = |field| fields.name(field)?.ok_or(ParseError::Missing { field, expected: "a string" });
        let id = name("id")?;
        Ok(Self {
            id: EventId::parse(&id).map_err(|error| ParseError::invalid("id", "\"\"", error.to_string()))?,
            source: name("source")?.into(),
            version: name("version")?.into(),
            timestamp: fields
                .timestamp()?
                .ok_or(ParseError::Missing { field: "timestamp", expected: "an RFC 3339 time" })?,
            correlation_id: fields.text("correlation_id")?.map(Into::into),
            trace: fields.trace()?,
            partition_key: fields.text("partition_key")?.map(Into::into),
            data: data(&fields)?,
            extra: extra(&fields)?,
        })
    }
}

fn check_type<T: EventData>(fields: &Fields<'_>) -> Result<(), ParseError> {
    match fields.name("type")? {
        Some(found) if found == T::TYPE => Ok(()),
        Some(_) => {
            let found = fields.raw("type").map_or("", |raw| raw.get());
            Err(ParseError::invalid("type", found, format!("{:?}", T::TYPE)))
        }
        None => Err(ParseError::Missing { field: "type", expected: "a string" }),
    }
}

fn data<T: EventData + DeserializeOwned>(fields: &Fields<'_>) -> Result<T, ParseError> {
    let raw = fields.raw("data").ok_or(ParseError::Missing { field: "data", expected: "an object" })?;
    serde_json::from_str(raw.get()).map_err(|error| ParseError::Data { event_type: T::TYPE, reason: error.to_string() })
}

fn extra(fields: &Fields<'_>) -> Result<Map<String, Value>, ParseError> {
    let value = |raw: &str| serde_json::from_str(raw).map_err(|error| ParseError::syntax(&error));
    let fields = fields.extra.iter();
    fields.map(|(name, raw)| Ok((name.clone().into_owned(), value(raw.get())?))).collect()
}

impl<T: EventData> Envelope<T> {
    /// Appends the event's JSON. Names of extra fields are not checked again.
    fn write(&self, out: &mut Vec<u8>) -> Result<(), serde_json::Error> {
        out.extend_from_slice(b"{\"id\":");
        match self.id.as_uuid() {
            Some(id) => {
                out.push(b'"');
                out.extend_from_slice(id.hyphenated().encode_lower(&mut [0; EventId::UUID_LEN]).as_bytes());
                out.push(b'"');
            }
            None => json::append(out, &self.id)?,
        }
        out.extend_from_slice(b",\"type\":");
        json::put_text(out, T::TYPE)?;
        out.extend_from_slice(b",\"source\":");
        json::put_text(out, &self.source)?;
        out.extend_from_slice(b",\"version\":");
        json::put_text(out, &self.version)?;
        out.extend_from_slice(b",\"timestamp\":\"");
        rfc3339::append(out, self.timestamp);
        out.push(b'"');
        let options = [
            (&b",\"correlation_id\":"[..], self.correlation_id.as_deref()),
            (b",\"traceparent\":", self.trace.as_ref().map(TraceContext::traceparent)),
            (b",\"tracestate\":", self.trace.as_ref().and_then(TraceContext::tracestate)),
            (b",\"partition_key\":", self.partition_key.as_deref()),
        ];
        for (name, value) in options {
            if let Some(value) = value {
                out.extend_from_slice(name);
                json::put_text(out, value)?;
            }
        }
        out.extend_from_slice(b",\"data\":");
        json::append(out, &self.data)?;
        for (name, value) in &self.extra {
            out.push(b',');
            json::put_text(out, name)?;
            out.push(b':');
            json::append(out, value)?;
        }
        out.push(b'}');
        Ok(())
    }
}

impl<T: EventData> Serialize for Envelope<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        Head::of(self, T::TYPE).serialize(&self.data, &self.extra, serializer)
    }
}

/// An envelope without its data, which typed and untyped events write the same way.
pub(crate) struct Head<'a> {
    id: &'a EventId,
    event_type: &'a str,
    source: &'a str,
    version: &'a str,
    timestamp: Timestamp,
    correlation_id: Option<&'a str>,
    trace: Option<&'a TraceContext>,
    partition_key: Option<&'a str>,
}

impl<'a> Head<'a> {
    pub(crate) fn of<T>(envelope: &'a Envelope<T>, event_type: &'a str) -> Self {
        Self {
            id: &envelope.id,
            event_type,
            source: &envelope.source,
            version: &envelope.version,
            timestamp: envelope.timestamp,
            correlation_id: envelope.correlation_id.as_deref(),
            trace: envelope.trace.as_ref(),
            partition_key: envelope.partition_key.as_deref(),
        }
    }

    pub(crate) fn serialize<S: Serializer>(
        &self,
        data: &impl Serialize,
        extra: &Map<String, Value>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("id", self.id)?;
        map.serialize_entry("type", self.event_type)?;
        map.serialize_entry("source", self.source)?;
        map.serialize_entry("version", self.version)?;
        map.serialize_entry("timestamp", &Rfc3339(self.timestamp))?;
        let options = [
            ("correlation_id", self.correlation_id),
            ("traceparent", self.trace.map(TraceContext::traceparent)),
            ("tracestate", self.trace.and_then(TraceContext::tracestate)),
            ("partition_key", self.partition_key),
        ];
        for (name, value) in options {
            if let Some(value) = value {
                map.serialize_entry(name, value)?;
            }
        }
        map.serialize_entry("data", data)?;
        for (name, value) in extra {
            map.serialize_entry(name, value)?;
        }
        map.end()
    }
}

impl<T: EventData> Event for Envelope<T> {
    fn id(&self) -> &EventId {
        &self.id
    }

    fn event_type(&self) -> &str {
        T::TYPE
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
        if let Some(key) = &self.partition_key {
            return Some(Cow::Borrowed(key.as_bytes()));
        }
        self.data.key().map(|key| match key {
            Cow::Borrowed(text) => Cow::Borrowed(text.as_bytes()),
            Cow::Owned(text) => Cow::Owned(text.into_bytes()),
        })
    }

    fn encode_into(&self, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        let before = out.len();
        self.write(out).map_err(|error| {
            out.truncate(before);
            EncodeError { event_type: T::TYPE.into(), reason: error.to_string() }
        })
    }
}

/// A field name that the envelope itself uses.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
#[error("\"{name}\" is a field of the envelope itself: choose another name, or set that field")]
#[non_exhaustive]
pub struct ReservedField {
    /// The name.
    pub name: String,
}

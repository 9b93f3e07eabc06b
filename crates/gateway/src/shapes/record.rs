//! [`OutRecord`], a record to publish, and the context that a request gives its events.

use std::sync::Arc;

use kafka_courier::events::{Stamper, TraceContext};
use kafka_courier::headers::{CORRELATION_ID, EVENT_ID, EVENT_TYPE};

/// The longest id of an event in bytes. The answer repeats it.
pub const MAX_EVENT_ID: usize = 1024;

/// A record to publish.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct OutRecord {
    /// The topic.
    pub topic: Arc<str>,
    /// The partition. `None` chooses it by the key.
    pub partition: Option<i32>,
    /// The key.
    pub key: Option<Vec<u8>>,
    /// The value. `None` is a tombstone.
    pub value: Option<Vec<u8>>,
    /// The headers, in order.
    pub headers: Vec<(String, Vec<u8>)>,
    /// The time in milliseconds since 1970-01-01 UTC. `None` is the time of the publishing.
    pub timestamp: Option<i64>,
    /// The event's id, for the answer.
    pub id: Option<String>,
    /// The source of the event, if the client gave the event its source and its id.
    pub source: Option<String>,
}

/// The context that a request gives its events. An event's own values take precedence.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Context {
    /// Connects events of the same request or process.
    pub correlation_id: Option<String>,
    /// The trace.
    pub trace: Option<TraceContext>,
}

/// The topic of an event type.
pub type TopicOf<'a> = &'a (dyn Fn(&str) -> Arc<str> + Sync);

/// How the bodies of a request are read.
#[derive(Clone, Copy)]
pub struct Reading<'a> {
    /// The topic of each event type.
    pub topic_of: TopicOf<'a>,
    /// The context of the request.
    pub context: &'a Context,
    /// The deepest nesting of JSON.
    pub max_depth: usize,
    /// The maximum number of events.
    pub max_events: usize,
    /// Gives events without an id or a time these.
    pub stamper: &'a dyn Stamper,
    /// Whether the source of an event is needed, beside its id.
    pub needs_source: bool,
}

impl std::fmt::Debug for Reading<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reading").field("context", &self.context).finish_non_exhaustive()
    }
}

/// Returns the headers by which consumers and dead letters know an event.
pub(crate) fn event_headers(
    id: &str,
    event_type: &str,
    correlation_id: Option<&str>,
    trace: Option<&TraceContext>,
) -> Vec<(String, Vec<u8>)> {
    let texts = [
        (EVENT_ID, Some(id)),
        (EVENT_TYPE, Some(event_type)),
        (CORRELATION_ID, correlation_id),
        ("traceparent", trace.map(TraceContext::traceparent)),
        ("tracestate", trace.and_then(TraceContext::tracestate)),
    ];
    let present = texts.into_iter().filter_map(|(name, text)| Some((name, text?)));
    present.map(|(name, text)| (name.to_owned(), text.as_bytes().to_vec())).collect()
}

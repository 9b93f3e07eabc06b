//! Spans by OpenTelemetry's conventions for messaging, and the trace context of records.
//!
//! The rules of this module:
//!  - A span without a subscriber costs the load of an atomic. Nothing is recorded per event unless `create` spans are
//!    enabled.
//!  - The context of an event or record is passed on unchanged. The event has no `create` span then.
//!  - Each batch has one `send` span, from its first event to its last verdict. It follows from the `create` spans of
//!    its events.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use kafka_courier_batcher::Header;
use kafka_courier_event_model::{Event, EventId, TraceContext};
use kafka_courier_idempotent_sender::core::{RecordSet, Verdict};
use tracing::field::Empty;
use tracing::level_filters::LevelFilter;
use tracing::{Level, Span};

/// The header of W3C Trace Context that identifies the parent span of a record.
pub(crate) const TRACEPARENT: &str = "traceparent";
/// The header of W3C Trace Context for the data of tracing vendors.
pub(crate) const TRACESTATE: &str = "tracestate";

/// The level of `create` spans, one for each event.
const CREATE_LEVEL: Level = Level::DEBUG;

/// A function that returns the trace context of a span, so that records carry it. It connects `tracing` to a tracing
/// system.
#[derive(Clone)]
pub struct TraceContextSource(Arc<ContextOf>);

type ContextOf = dyn Fn(&Span) -> Option<TraceContext> + Send + Sync;

impl TraceContextSource {
    /// Creates a source from a function. The producer calls it for each event without a context, with the event's
    /// `create` span, or with the current span if `create` spans are disabled.
    pub fn new(context_of: impl Fn(&Span) -> Option<TraceContext> + Send + Sync + 'static) -> Self {
        Self(Arc::new(context_of))
    }
}

impl fmt::Debug for TraceContextSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TraceContextSource")
    }
}

/// The attributes of every span: the client id, and the first of `brokers` as the server. A batch's leader may change
/// while its span lasts.
#[derive(Clone, Debug, Default)]
pub struct SpanOrigin {
    client_id: String,
    server: Option<(Arc<str>, u16)>,
}

impl SpanOrigin {
    /// Creates the attributes from the client id, and host and port of the first configured broker.
    pub fn new(client_id: String, server: Option<(Arc<str>, u16)>) -> Self {
        Self { client_id, server }
    }

    /// Returns host and port of the first entry of `brokers`, the span attributes `server.address` and `server.port`.
    fn server(&self) -> (Option<&str>, Option<u16>) {
        let server = self.server.as_ref();
        (server.map(|(host, _)| &**host), server.map(|(_, port)| *port))
    }
}

/// The tracing state of one event. Most events have none.
#[derive(Debug)]
pub(crate) struct EventTrace(Option<Box<CreateSpan>>);

/// An event's `create` span, and the context that the producer adds to the record.
#[derive(Debug)]
struct CreateSpan {
    span: Span,
    context: Option<TraceContext>,
}

impl EventTrace {
    /// Returns the event's `create` span, if there is one.
    #[inline]
    pub(crate) fn span(&self) -> Option<&Span> {
        self.0.as_ref().map(|traced| &traced.span)
    }

    /// Returns the context that the producer adds to the record.
    #[inline]
    pub(crate) fn context(&self) -> Option<&TraceContext> {
        self.0.as_ref()?.context.as_ref()
    }

    /// Returns a record's headers, with the context that the producer adds.
    #[inline]
    pub(crate) fn headers<'a>(&'a self, own: &'a [Header<'a>]) -> Cow<'a, [Header<'a>]> {
        let Some(context) = self.context() else { return Cow::Borrowed(own) };
        let parent = Header { key: TRACEPARENT, value: Some(context.traceparent().as_bytes()) };
        let state = context.tracestate().map(|state| Header { key: TRACESTATE, value: Some(state.as_bytes()) });
        Cow::Owned(own.iter().copied().chain([parent]).chain(state).collect())
    }
}

/// Creates spans, and obtains their contexts.
#[derive(Debug, Default)]
pub(crate) struct Tracer {
    pub(crate) source: Option<TraceContextSource>,
    pub(crate) origin: SpanOrigin,
}

impl Tracer {
    /// Starts the trace of an event that is about to be published.
    #[inline]
    pub(crate) fn trace_event(&self, topic: &str, event: &dyn Event) -> EventTrace {
        if self.is_disabled() || event.trace().is_some() {
            return EventTrace(None);
        }
        self.event_span(topic, event)
    }

    /// Starts the trace of a record that is about to be sent.
    #[inline]
    pub(crate) fn trace_record(&self, topic: &str, headers: &[Header<'_>], is_tombstone: bool) -> EventTrace {
        if self.is_disabled() || headers.iter().any(|header| header.key == TRACEPARENT) {
            return EventTrace(None);
        }
        self.record_span(topic, is_tombstone)
    }

    /// Returns whether `create` spans are disabled and no source of contexts is set.
    #[inline]
    fn is_disabled(&self) -> bool {
        self.source.is_none() && LevelFilter::current() < CREATE_LEVEL
    }

    fn event_span(&self, topic: &str, event: &dyn Event) -> EventTrace {
        let span = create_span(topic, &self.origin);
        if !span.is_disabled() {
            let mut id = [0; EventId::UUID_LEN];
            span.record("messaging.message.id", event.id().as_str(&mut id));
            if let Some(correlation) = event.correlation_id() {
                span.record("messaging.message.conversation_id", correlation);
            }
        }
        self.with_context(span)
    }

    fn record_span(&self, topic: &str, is_tombstone: bool) -> EventTrace {
        let span = create_span(topic, &self.origin);
        if is_tombstone {
            span.record("messaging.kafka.message.tombstone", true);
        }
        self.with_context(span)
    }

    fn with_context(&self, span: Span) -> EventTrace {
        let of = |source: &TraceContextSource| match span.is_disabled() {
            true => (source.0)(&Span::current()),
            false => (source.0)(&span),
        };
        let context = self.source.as_ref().and_then(of);
        EventTrace((context.is_some() || !span.is_disabled()).then(|| Box::new(CreateSpan { span, context })))
    }
}

fn create_span(topic: &str, origin: &SpanOrigin) -> Span {
    tracing::span!(
        target: "kafka_courier::create",
        CREATE_LEVEL,
        "create",
        otel.name = format_args!("create {topic}"),
        otel.kind = "producer",
        messaging.system = "kafka",
        messaging.operation.name = "create",
        messaging.operation.r#type = "create",
        messaging.destination.name = topic,
        messaging.client.id = origin.client_id,
        server.address = origin.server().0,
        server.port = origin.server().1,
        messaging.message.id = Empty,
        messaging.message.conversation_id = Empty,
        messaging.kafka.message.tombstone = Empty,
    )
}

/// Creates the `send` span of a batch.
pub(crate) fn send_span(topic: &str, partition: i32, origin: &SpanOrigin) -> Span {
    tracing::span!(
        target: "kafka_courier::send",
        parent: None,
        Level::INFO,
        "send",
        otel.name = format_args!("send {topic}"),
        otel.kind = "client",
        otel.status_code = Empty,
        messaging.system = "kafka",
        messaging.operation.name = "send",
        messaging.operation.r#type = "send",
        messaging.destination.name = topic,
        messaging.client.id = origin.client_id,
        server.address = origin.server().0,
        server.port = origin.server().1,
        messaging.destination.partition.id = format_args!("{partition}"),
        messaging.batch.message_count = Empty,
        messaging.kafka.offset = Empty,
        error.r#type = Empty,
    )
}

/// Records a verdict on a batch's span.
pub(crate) fn note_verdict(span: &Span, records: &RecordSet, verdict: &Verdict) {
    if span.is_disabled() {
        return;
    }
    match verdict {
        Verdict::Delivered { base_offset: Some(offset), .. } => {
            // The offset of the whole batch, if it was not split.
            if matches!(records, RecordSet::Range(range) if range.start == 0) {
                span.record("messaging.kafka.offset", offset);
            }
        }
        Verdict::Delivered { base_offset: None, .. } | Verdict::Stored => {}
        Verdict::Failed(failure) => {
            span.record("error.type", failure.reason.name());
            span.record("otel.status_code", "ERROR");
        }
    }
}

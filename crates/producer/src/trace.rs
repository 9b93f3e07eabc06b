//! Spans by OpenTelemetry's messaging conventions, and the trace context that records carry.
//!
//! Rules:
//! - Where nobody listens a span costs a look at an atomic; nothing is recorded per event unless `create` spans are wanted.
//! - A context that an event or record brings with it is passed on as it is, and then has no `create` span.
//! - One `send` span per batch, from its first event to its last verdict; it follows from its events' `create` spans.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use kafka_courier_batcher::Header;
use kafka_courier_event_model::{Event, EventId, TraceContext};
use kafka_courier_idempotent_sender::core::{RecordSet, Verdict};
use tracing::field::Empty;
use tracing::level_filters::LevelFilter;
use tracing::{Level, Span};

use crate::config::{Endpoint, KafkaConfig};
use crate::delivery::Delivery;

/// The header of W3C's trace context that says where a record came from.
pub(crate) const TRACEPARENT: &str = "traceparent";
/// Its companion, for what vendors add.
pub(crate) const TRACESTATE: &str = "tracestate";

/// The level of the spans that there is one of for each event.
const CREATE_LEVEL: Level = Level::DEBUG;

/// Tells the trace context of a span, so that records carry it: what joins `tracing` to a tracing system.
///
/// With the crates `opentelemetry` and `tracing-opentelemetry`:
///
/// ```no_run
/// # // Stands for the two crates, with the methods that are used.
/// # trait OpenTelemetrySpanExt { fn context(&self) -> Context; }
/// # impl OpenTelemetrySpanExt for tracing::Span { fn context(&self) -> Context { Context } }
/// # #[derive(Clone)]
/// # struct Context;
/// # impl Context {
/// #     fn span(&self) -> &Self { self }
/// #     fn span_context(&self) -> &Self { self }
/// #     fn trace_id(&self) -> &'static str { "4bf92f3577b34da6a3ce929d0e0e4736" }
/// #     fn span_id(&self) -> &'static str { "00f067aa0ba902b7" }
/// #     fn trace_flags(&self) -> u8 { 1 }
/// #     fn trace_state(&self) -> &Self { self }
/// #     fn header(&self) -> String { String::new() }
/// # }
/// use kafka_courier::events::TraceContext;
/// use kafka_courier::{KafkaProducer, TraceContextSource};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let source = TraceContextSource::new(|span| {
///     let context = span.context(); // OpenTelemetrySpanExt
///     let context = context.span().span_context().clone();
///     let parent = format!("00-{}-{}-{:02x}", context.trace_id(), context.span_id(), context.trace_flags());
///     TraceContext::new(&parent, Some(&context.trace_state().header())).ok()
/// });
/// let producer = KafkaProducer::builder().trace_context(source).build()?;
/// # drop(producer);
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct TraceContextSource(Arc<ContextOf>);

type ContextOf = dyn Fn(&Span) -> Option<TraceContext> + Send + Sync;

impl TraceContextSource {
    /// Asks this function for each event that brings no context. The span is the event's `create` span, or the current
    /// one where `create` spans are not recorded.
    pub fn new(context_of: impl Fn(&Span) -> Option<TraceContext> + Send + Sync + 'static) -> Self {
        Self(Arc::new(context_of))
    }
}

impl fmt::Debug for TraceContextSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TraceContextSource")
    }
}

/// Who sends, and where to: what every span says. A batch's leader may change while its span lasts, so the server is the
/// first of `brokers`.
#[derive(Clone, Debug, Default)]
pub(crate) struct Origin {
    client_id: String,
    server: Option<Endpoint>,
}

impl Origin {
    pub(crate) fn of(config: &KafkaConfig) -> Self {
        Self { client_id: config.client_id.clone(), server: config.brokers.first().cloned() }
    }

    fn server(&self) -> (Option<&str>, Option<u16>) {
        let server = self.server.as_ref();
        (server.map(|it| &*it.host), server.map(|it| it.port))
    }
}

/// What tracing has to do with one event, if anything: most have nothing to carry around.
#[derive(Debug)]
pub(crate) struct Created(Option<Box<Traced>>);

/// An event's `create` span, and the context that it does not bring itself.
#[derive(Debug)]
struct Traced {
    span: Span,
    context: Option<TraceContext>,
}

impl Created {
    /// Tells the batch that took it.
    #[inline]
    pub(crate) fn delivered(&self, delivery: Delivery) -> Delivery {
        if let Some(traced) = &self.0 {
            delivery.follows(&traced.span);
        }
        delivery
    }

    /// The context that the event does not bring itself.
    #[inline]
    pub(crate) fn context(&self) -> Option<&TraceContext> {
        self.0.as_ref()?.context.as_ref()
    }

    /// A record's headers, with the context that it does not bring itself.
    #[inline]
    pub(crate) fn headers<'a>(&'a self, own: &'a [Header<'a>]) -> Cow<'a, [Header<'a>]> {
        let Some(context) = self.context() else { return Cow::Borrowed(own) };
        let parent = Header { key: TRACEPARENT, value: Some(context.traceparent().as_bytes()) };
        let state = context.tracestate().map(|state| Header { key: TRACESTATE, value: Some(state.as_bytes()) });
        Cow::Owned(own.iter().copied().chain([parent]).chain(state).collect())
    }
}

/// Makes spans, and finds contexts.
#[derive(Debug, Default)]
pub(crate) struct Tracer {
    pub(crate) source: Option<TraceContextSource>,
    pub(crate) origin: Origin,
}

impl Tracer {
    /// For an event that is about to be published.
    #[inline]
    pub(crate) fn event(&self, topic: &str, event: &dyn Event) -> Created {
        if self.is_silent() || event.trace().is_some() {
            return Created(None);
        }
        self.event_span(topic, event)
    }

    /// For a record that is about to be sent.
    #[inline]
    pub(crate) fn record(&self, topic: &str, headers: &[Header<'_>], is_tombstone: bool) -> Created {
        if self.is_silent() || headers.iter().any(|header| header.key == TRACEPARENT) {
            return Created(None);
        }
        self.record_span(topic, is_tombstone)
    }

    /// Whether nobody wants `create` spans, and nobody tells contexts.
    #[inline]
    fn is_silent(&self) -> bool {
        self.source.is_none() && LevelFilter::current() < CREATE_LEVEL
    }

    fn event_span(&self, topic: &str, event: &dyn Event) -> Created {
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

    fn record_span(&self, topic: &str, is_tombstone: bool) -> Created {
        let span = create_span(topic, &self.origin);
        if is_tombstone {
            span.record("messaging.kafka.message.tombstone", true);
        }
        self.with_context(span)
    }

    fn with_context(&self, span: Span) -> Created {
        let of = |source: &TraceContextSource| match span.is_disabled() {
            true => (source.0)(&Span::current()),
            false => (source.0)(&span),
        };
        let context = self.source.as_ref().and_then(of);
        Created((context.is_some() || !span.is_disabled()).then(|| Box::new(Traced { span, context })))
    }
}

fn create_span(topic: &str, origin: &Origin) -> Span {
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

/// The span of a batch's sending.
pub(crate) fn send_span(topic: &str, partition: i32, origin: &Origin) -> Span {
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

/// Notes a verdict on a batch's span.
pub(crate) fn note_verdict(span: &Span, records: &RecordSet, verdict: &Verdict) {
    if span.is_disabled() {
        return;
    }
    match verdict {
        Verdict::Delivered { base_offset: Some(offset), .. } => {
            // Of the whole batch, where it went in one piece.
            if matches!(records, RecordSet::Range(range) if range.start == 0) {
                span.record("messaging.kafka.offset", offset);
            }
        }
        Verdict::Delivered { base_offset: None, .. } => {}
        Verdict::Failed(failure) => {
            span.record("error.type", failure.reason.name());
            span.record("otel.status_code", "ERROR");
        }
    }
}

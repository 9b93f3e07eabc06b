//! Spans by OpenTelemetry's conventions, trace contexts in headers, and warnings.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex};

use crate::support::{LONG, Producer, config, keep_callsites_enabled, record};
use kafka_courier::events::{EventBuilder, SystemAlert, TraceContext};
use kafka_courier::{Header, ProducerRecord, TraceContextSource};
use kafka_courier_test_broker::{ApiKey, ErrorCode, Fault, Rule, TestCluster};
use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::span::{Attributes, Id, Record};
use tracing::subscriber::DefaultGuard;
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt as _};
use tracing_subscriber::registry::LookupSpan;

type SpanFields = BTreeMap<String, String>;

/// The spans and events of a test, in their order.
#[derive(Clone, Default)]
struct SpanLog(Arc<Mutex<Vec<SpanRecord>>>);

/// A span, or an event with id 0.
#[derive(Clone, Debug, Default)]
struct SpanRecord {
    id: u64,
    fields: SpanFields,
    follows: Vec<u64>,
    closed: bool,
}

/// Stores fields as text.
struct FieldVisitor<'a>(&'a mut SpanFields);

impl Visit for FieldVisitor<'_> {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.0.insert(field.name().to_owned(), value.to_owned());
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.0.insert(field.name().to_owned(), format!("{value:?}"));
    }
}

impl SpanLog {
    fn with(&self, id: &Id, change: impl FnOnce(&mut SpanRecord)) {
        let mut all = self.0.lock().unwrap();
        if let Some(entry) = all.iter_mut().rev().find(|entry| entry.id == id.into_u64()) {
            change(entry);
        }
    }

    /// Returns the spans with this name, such as `send t`.
    fn spans(&self, name: &str) -> Vec<SpanRecord> {
        let all = self.0.lock().unwrap();
        all.iter().filter(|entry| entry.fields.get("otel.name").is_some_and(|it| it == name)).cloned().collect()
    }
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for SpanLog {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, _: Context<'_, S>) {
        let mut entry = SpanRecord { id: id.into_u64(), ..SpanRecord::default() };
        attributes.record(&mut FieldVisitor(&mut entry.fields));
        self.0.lock().unwrap().push(entry);
    }

    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut entry = SpanRecord::default();
        event.record(&mut FieldVisitor(&mut entry.fields));
        self.0.lock().unwrap().push(entry);
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, _: Context<'_, S>) {
        self.with(id, |entry| values.record(&mut FieldVisitor(&mut entry.fields)));
    }

    fn on_follows_from(&self, id: &Id, follows: &Id, _: Context<'_, S>) {
        self.with(id, |entry| entry.follows.push(follows.into_u64()));
    }

    fn on_close(&self, id: Id, _: Context<'_, S>) {
        self.with(&id, |entry| entry.closed = true);
    }
}

/// Listens on this thread. The test's producer runs on the same thread.
///
/// The filter is one of the whole subscriber. A filter of the layer alone hides a span from the layer, and the span exists.
fn listen(level: Level) -> (SpanLog, DefaultGuard) {
    keep_callsites_enabled();
    let log = SpanLog::default();
    let subscriber = tracing_subscriber::registry().with(LevelFilter::from_level(level)).with(log.clone());
    (log, tracing::subscriber::set_default(subscriber))
}

fn alert() -> SystemAlert {
    SystemAlert { alert_id: "a-1".to_owned(), service: "billing".to_owned(), ..SystemAlert::default() }
}

fn parent(number: u64) -> String {
    format!("00-0af7651916cd43dd8448eb211c80319c-{number:016x}-01")
}

/// Returns a source that uses each span's id as its context.
fn source() -> TraceContextSource {
    TraceContextSource::new(|span| TraceContext::new(&parent(span.id()?.into_u64()), None).ok())
}

#[tokio::test]
async fn send_span_follows_create_spans() {
    let (log, _guard) = listen(Level::DEBUG);
    let cluster = TestCluster::builder().topic("system-events", 1).start().await.unwrap();
    let mut config = config(&cluster);
    config.flush_timeout = LONG;
    let producer = Producer::build(config).unwrap();
    let builder = EventBuilder::new("tests", "1.0").with_correlation_id("c-9");
    let events = [builder.system_alert(alert()), builder.system_alert(alert())];
    for event in &events {
        producer.publish(event).await.unwrap().detach();
    }
    assert!(producer.flush(LONG).await);
    let created = log.spans("create system-events");
    assert_eq!(created.len(), 2);
    for (entry, event) in created.iter().zip(&events) {
        let mut id = [0; kafka_courier::events::EventId::UUID_LEN];
        assert_eq!(entry.fields["messaging.message.id"], event.id.as_str(&mut id));
        assert_eq!(entry.fields["messaging.message.conversation_id"], "c-9");
        assert_eq!(entry.fields["messaging.operation.name"], "create");
        assert_eq!((&*entry.fields["otel.kind"], entry.closed), ("producer", true));
    }
    let sent = log.spans("send system-events");
    assert_eq!(sent.len(), 1);
    let server = cluster.address(1).unwrap();
    for fields in [&created[0].fields, &sent[0].fields] {
        assert_eq!(fields["messaging.client.id"], "kafka-courier");
        assert_eq!(fields["server.address"], server.ip().to_string());
        assert_eq!(fields["server.port"], server.port().to_string());
    }
    let fields = &sent[0].fields;
    assert_eq!(sent[0].follows, [created[0].id, created[1].id]);
    for (name, value) in [
        ("messaging.system", "kafka"),
        ("messaging.operation.name", "send"),
        ("messaging.destination.name", "system-events"),
        ("messaging.destination.partition.id", "0"),
        ("messaging.batch.message_count", "2"),
        ("messaging.kafka.offset", "0"),
    ] {
        assert_eq!(fields[name], value, "{name}");
    }
    assert!(sent[0].closed && !fields.contains_key("error.type"));
}

#[tokio::test]
async fn failed_batch_marks_its_span() {
    let (log, _guard) = listen(Level::DEBUG);
    let cluster = TestCluster::builder().topic("system-events", 1).start().await.unwrap();
    let producer = Producer::build(config(&cluster)).unwrap();
    cluster.inject(Rule::for_api(ApiKey::Produce).then(Fault::Refuse(ErrorCode::TopicAuthorizationFailed)));
    let event = EventBuilder::new("tests", "1.0").with_correlation_id("c-9").system_alert(alert());
    producer.publish_and_wait(&event).await.unwrap_err();
    let sent = log.spans("send system-events");
    assert_eq!(sent[0].fields["error.type"], "TOPIC_AUTHORIZATION_FAILED");
    assert_eq!((&*sent[0].fields["otel.status_code"], sent[0].closed), ("ERROR", true));
}

#[tokio::test]
async fn create_span_context_is_propagated() {
    let (log, _guard) = listen(Level::DEBUG);
    let cluster = TestCluster::builder().topic("system-events", 1).start().await.unwrap();
    let producer = Producer::with(|builder| builder.with_config(config(&cluster)).trace_context(source())).unwrap();
    producer.publish_and_wait(&EventBuilder::new("tests", "1.0").system_alert(alert())).await.unwrap();
    producer.send(&record("system-events", "k", "v")).await.unwrap().await.unwrap();
    let created = log.spans("create system-events");
    let records = cluster.records("system-events");
    assert_eq!((records.len(), created.len()), (2, 2));
    for (record, created) in records.iter().zip(&created) {
        assert_eq!(record.header("traceparent"), Some(parent(created.id).as_bytes()));
    }
}

/// An event with a context has no create span.
#[tokio::test]
async fn existing_context_is_passed_on() {
    let (log, _guard) = listen(Level::DEBUG);
    let cluster = TestCluster::builder().topic("system-events", 1).start().await.unwrap();
    let producer = Producer::with(|builder| builder.with_config(config(&cluster)).trace_context(source())).unwrap();
    let own = parent(0xbeef);
    let builder = EventBuilder::new("tests", "1.0").with_trace_context(TraceContext::new(&own, None).unwrap());
    producer.publish_and_wait(&builder.system_alert(alert())).await.unwrap();
    let headers = [Header { key: "traceparent", value: Some(own.as_bytes()) }];
    let raw = ProducerRecord { headers: &headers, ..record("system-events", "k", "v") };
    producer.send(&raw).await.unwrap().await.unwrap();
    assert!(log.spans("create system-events").is_empty());
    for record in cluster.records("system-events") {
        let parents = record.headers.iter().filter(|(name, _)| name == "traceparent");
        assert_eq!(parents.map(|(_, value)| value.as_deref()).collect::<Vec<_>>(), [Some(own.as_bytes())]);
    }
}

#[tokio::test]
async fn current_span_replaces_unrecorded_create_span() {
    let (log, _guard) = listen(Level::INFO);
    let cluster = TestCluster::builder().topic("system-events", 1).start().await.unwrap();
    let producer = Producer::with(|builder| builder.with_config(config(&cluster)).trace_context(source())).unwrap();
    let request = tracing::info_span!("request");
    let id = request.id().unwrap().into_u64();
    let event = EventBuilder::new("tests", "1.0").system_alert(alert());
    tracing::Instrument::instrument(producer.publish_and_wait(&event), request).await.unwrap();
    assert!(log.spans("create system-events").is_empty());
    assert_eq!(log.spans("send system-events").len(), 1);
    assert_eq!(cluster.records("system-events")[0].header("traceparent"), Some(parent(id).as_bytes()));
}

/// The producer logs the warning only if it has events without a verdict.
#[tokio::test]
async fn drop_without_close_is_logged() {
    let (log, _guard) = listen(Level::WARN);
    let warned = || {
        let all = log.0.lock().unwrap();
        let lines = all.iter().filter_map(|entry| entry.fields.get("message"));
        lines.filter(|line| line.contains("dropped without close()")).count()
    };
    let cluster = TestCluster::builder().topic("t", 1).start().await.unwrap();
    let mut config = config(&cluster);
    config.flush_timeout = LONG;
    for (closed, in_hand) in [(true, true), (false, false), (false, true)] {
        let producer = Producer::build(config.clone()).unwrap();
        let clone = producer.clone();
        if in_hand {
            producer.send(&record("t", "k", "v")).await.unwrap().detach();
        }
        if closed {
            producer.close(LONG).await;
        }
        drop(producer);
        assert_eq!(warned(), 0, "a clone exists, or there is nothing to report");
        drop(clone);
        assert_eq!(warned(), usize::from(!closed && in_hand));
    }
}

//! Spans by OpenTelemetry's conventions, contexts in headers, and lines by which an event is found again.
#![allow(clippy::unwrap_used)] // helpers of tests may, as tests do
mod support;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex};

use kafka_courier::events::{EventBuilder, SystemAlert, TraceContext};
use kafka_courier::{Header, ProducerRecord, TraceContextSource};
use kafka_courier_test_broker::{ApiKey, ErrorCode, Fault, Rule, TestCluster};
use support::{LONG, Producer, config, record};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt as _};
use tracing_subscriber::registry::LookupSpan;

type Fields = BTreeMap<String, String>;

/// What was told to whoever listens, in order.
#[derive(Clone, Default)]
struct Heard(Arc<Mutex<Vec<Told>>>);

#[derive(Clone, Debug, Default)]
struct Told {
    id: u64,
    fields: Fields,
    follows: Vec<u64>,
    closed: bool,
}

struct Take<'a>(&'a mut Fields);

impl Visit for Take<'_> {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.0.insert(field.name().to_owned(), value.to_owned());
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.0.insert(field.name().to_owned(), format!("{value:?}"));
    }
}

impl Heard {
    fn with(&self, id: &Id, change: impl FnOnce(&mut Told)) {
        let mut all = self.0.lock().unwrap();
        if let Some(told) = all.iter_mut().rev().find(|told| told.id == id.into_u64()) {
            change(told);
        }
    }

    /// The spans of that name, such as `send t`.
    fn spans(&self, name: &str) -> Vec<Told> {
        let all = self.0.lock().unwrap();
        all.iter().filter(|told| told.fields.get("otel.name").is_some_and(|it| it == name)).cloned().collect()
    }
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Heard {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, _: Context<'_, S>) {
        let mut told = Told { id: id.into_u64(), ..Told::default() };
        attributes.record(&mut Take(&mut told.fields));
        self.0.lock().unwrap().push(told);
    }

    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut told = Told::default();
        event.record(&mut Take(&mut told.fields));
        self.0.lock().unwrap().push(told);
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, _: Context<'_, S>) {
        self.with(id, |told| values.record(&mut Take(&mut told.fields)));
    }

    fn on_follows_from(&self, id: &Id, follows: &Id, _: Context<'_, S>) {
        self.with(id, |told| told.follows.push(follows.into_u64()));
    }

    fn on_close(&self, id: Id, _: Context<'_, S>) {
        self.with(&id, |told| told.closed = true);
    }
}

/// Only one listens at a time: whether a span is wanted at all is known for the whole process.
static ONE: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

/// Listens on this thread, on which the test's producer runs too.
async fn listen(level: Level) -> (Heard, (tracing::subscriber::DefaultGuard, tokio::sync::MutexGuard<'static, ()>)) {
    let one = ONE.lock().await;
    let heard = Heard::default();
    let filter = tracing_subscriber::filter::LevelFilter::from_level(level);
    let guard =
        tracing::subscriber::set_default(tracing_subscriber::registry().with(heard.clone().with_filter(filter)));
    (heard, (guard, one))
}

fn alert() -> SystemAlert {
    SystemAlert { alert_id: "a-1".to_owned(), service: "billing".to_owned(), ..SystemAlert::default() }
}

fn parent(number: u64) -> String {
    format!("00-0af7651916cd43dd8448eb211c80319c-{number:016x}-01")
}

/// A source that makes each span's own id its context.
fn source() -> TraceContextSource {
    TraceContextSource::new(|span| TraceContext::new(&parent(span.id()?.into_u64()), None).ok())
}

#[tokio::test]
async fn an_event_has_a_create_span_and_its_batch_a_send_span_that_follows_from_it() {
    let (heard, _guard) = listen(Level::DEBUG).await;
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
    let created = heard.spans("create system-events");
    assert_eq!(created.len(), 2);
    for (told, event) in created.iter().zip(&events) {
        let mut id = [0; kafka_courier::events::EventId::UUID_LEN];
        assert_eq!(told.fields["messaging.message.id"], event.id.as_str(&mut id));
        assert_eq!(told.fields["messaging.message.conversation_id"], "c-9");
        assert_eq!(told.fields["messaging.operation.name"], "create");
        assert_eq!((&*told.fields["otel.kind"], told.closed), ("producer", true));
    }
    let sent = heard.spans("send system-events");
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
async fn a_batch_that_fails_says_so_on_its_span() {
    let (heard, _guard) = listen(Level::DEBUG).await;
    let cluster = TestCluster::builder().topic("system-events", 1).start().await.unwrap();
    let producer = Producer::build(config(&cluster)).unwrap();
    cluster.inject(Rule::for_api(ApiKey::Produce).then(Fault::Refuse(ErrorCode::TopicAuthorizationFailed)));
    let event = EventBuilder::new("tests", "1.0").with_correlation_id("c-9").system_alert(alert());
    producer.publish_and_wait(&event).await.unwrap_err();
    let sent = heard.spans("send system-events");
    assert_eq!(sent[0].fields["error.type"], "TOPIC_AUTHORIZATION_FAILED");
    assert_eq!((&*sent[0].fields["otel.status_code"], sent[0].closed), ("ERROR", true));
}

#[tokio::test]
async fn the_context_of_the_create_span_is_in_the_headers() {
    let (heard, _guard) = listen(Level::DEBUG).await;
    let cluster = TestCluster::builder().topic("system-events", 1).start().await.unwrap();
    let producer = Producer::with(|builder| builder.with_config(config(&cluster)).trace_context(source())).unwrap();
    producer.publish_and_wait(&EventBuilder::new("tests", "1.0").system_alert(alert())).await.unwrap();
    producer.send(&record("system-events", "k", "v")).await.unwrap().await.unwrap();
    let created = heard.spans("create system-events");
    let records = cluster.records("system-events");
    assert_eq!((records.len(), created.len()), (2, 2));
    for (record, created) in records.iter().zip(&created) {
        assert_eq!(record.header("traceparent"), Some(parent(created.id).as_bytes()));
    }
}

#[tokio::test]
async fn a_context_that_is_there_is_passed_on_and_has_no_create_span() {
    let (heard, _guard) = listen(Level::DEBUG).await;
    let cluster = TestCluster::builder().topic("system-events", 1).start().await.unwrap();
    let producer = Producer::with(|builder| builder.with_config(config(&cluster)).trace_context(source())).unwrap();
    let own = parent(0xbeef);
    let builder = EventBuilder::new("tests", "1.0").with_trace_context(TraceContext::new(&own, None).unwrap());
    producer.publish_and_wait(&builder.system_alert(alert())).await.unwrap();
    let headers = [Header { key: "traceparent", value: Some(own.as_bytes()) }];
    let raw = ProducerRecord { headers: &headers, ..record("system-events", "k", "v") };
    producer.send(&raw).await.unwrap().await.unwrap();
    assert!(heard.spans("create system-events").is_empty());
    for record in cluster.records("system-events") {
        let parents = record.headers.iter().filter(|(name, _)| name == "traceparent");
        assert_eq!(parents.map(|(_, value)| value.as_deref()).collect::<Vec<_>>(), [Some(own.as_bytes())]);
    }
}

#[tokio::test]
async fn where_create_spans_are_not_recorded_the_current_span_is_the_context() {
    let (heard, _guard) = listen(Level::INFO).await;
    let cluster = TestCluster::builder().topic("system-events", 1).start().await.unwrap();
    let producer = Producer::with(|builder| builder.with_config(config(&cluster)).trace_context(source())).unwrap();
    let request = tracing::info_span!("request");
    let id = request.id().unwrap().into_u64();
    let event = EventBuilder::new("tests", "1.0").system_alert(alert());
    tracing::Instrument::instrument(producer.publish_and_wait(&event), request).await.unwrap();
    assert!(heard.spans("create system-events").is_empty());
    assert_eq!(heard.spans("send system-events").len(), 1);
    assert_eq!(cluster.records("system-events")[0].header("traceparent"), Some(parent(id).as_bytes()));
}

#[tokio::test]
async fn a_producer_that_is_dropped_with_something_in_hand_and_no_close_says_so() {
    let (heard, _guard) = listen(Level::WARN).await;
    let warned = || {
        let all = heard.0.lock().unwrap();
        let lines = all.iter().filter_map(|told| told.fields.get("message"));
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
        assert_eq!(warned(), 0, "a clone is left, or there is nothing to say");
        drop(clone);
        assert_eq!(warned(), usize::from(!closed && in_hand));
    }
}

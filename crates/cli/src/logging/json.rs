//! Log lines as JSON, one object a line.
//!
//! Rules:
//! - A field stands beside time, level and target. A field with one of their names begins with `field_`.
//! - Numbers and booleans stay such. Other values are texts.

use std::fmt::{self, Debug};

use jiff::Timestamp;
use serde_json::{Map, Value};
use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

/// Writes an event as a line of JSON.
pub(super) struct JsonLines;

/// The names of each line, beside those of the event's fields.
const RESERVED: [&str; 4] = ["timestamp", "level", "target", "spans"];

impl<S, N> FormatEvent<S, N> for JsonLines
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, context: &FmtContext<'_, S, N>, mut writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let metadata = event.metadata();
        let mut line = line(&metadata.level().to_string().to_lowercase(), metadata.target());
        event.record(&mut Fields(&mut line));
        let spans = context.event_scope().into_iter().flat_map(|scope| scope.from_root());
        let spans: Vec<Value> = spans.map(|span| span.name().into()).collect();
        if !spans.is_empty() {
            line.insert("spans".to_owned(), spans.into());
        }
        writeln!(writer, "{}", Value::Object(line))
    }
}

/// Returns a message of the command itself as a line of JSON.
pub(super) fn message(text: &str) -> String {
    let mut line = line("info", "courier");
    line.insert("message".to_owned(), text.into());
    Value::Object(line).to_string()
}

fn line(level: &str, target: &str) -> Map<String, Value> {
    let pairs =
        [("timestamp", Timestamp::now().to_string()), ("level", level.to_owned()), ("target", target.to_owned())];
    pairs.into_iter().map(|(name, value)| (name.to_owned(), value.into())).collect()
}

/// Adds the fields of an event to its line.
struct Fields<'a>(&'a mut Map<String, Value>);

impl Fields<'_> {
    fn add(&mut self, field: &Field, value: Value) {
        let name = field.name();
        let name = if RESERVED.contains(&name) { format!("field_{name}") } else { name.to_owned() };
        self.0.insert(name, value);
    }
}

impl Visit for Fields<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.add(field, format!("{value:?}").into());
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.add(field, value.into());
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.add(field, value.into());
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.add(field, value.into());
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.add(field, value.into());
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.add(field, value.into());
    }
}

//! CloudEvents 1.0 over HTTP to Kafka, in binary and structured mode.
//!
//! Sources: CloudEvents 1.0.2, its HTTP and Kafka protocol bindings, and its JSON format.
//!
//! Rules:
//! - A binary request becomes a binary record, a structured one a structured record. The data is not changed.
//! - The key is the extension `partitionkey`, which stays in the event.
//! - An attribute has a name of lower-case letters and digits. A header gives it once.

use std::collections::BTreeMap;

use kafka_courier::events::TraceContext;
use serde_json::value::RawValue;

use super::depth;
use super::failure::Failure;
use super::percent::decode_text;
use super::problem::Problem;
use super::record::{MAX_EVENT_ID, OutRecord, Reading, event_headers};

/// The prefix of attributes in headers of requests.
const PREFIX: &str = "ce-";
const STRUCTURED: &str = "application/cloudevents+json; charset=UTF-8";

/// Attributes by name.
type Attributes = BTreeMap<String, String>;

/// Makes the record of a CloudEvent in binary mode. `headers` are the request's, with lower-case names.
///
/// # Errors
///
/// [`Problem::NotACloudEvent`].
pub fn read_binary<'a>(
    content_type: Option<&str>,
    headers: impl Iterator<Item = (&'a str, &'a [u8])>,
    body: Vec<u8>,
    reading: Reading<'_>,
) -> Result<OutRecord, Failure> {
    let mut attributes = Attributes::new();
    for (name, value) in headers.filter_map(|(name, value)| Some((name.strip_prefix(PREFIX)?, value))) {
        check_name(name)?;
        if name == "datacontenttype" {
            return Err(invalid("ce-datacontenttype is not allowed: the header content-type has the type of the data"));
        }
        let value = decode_value(value).ok_or_else(|| invalid(&format!("ce-{name} is not percent-encoded UTF-8")))?;
        if attributes.insert(name.to_owned(), value).is_some() {
            return Err(invalid(&format!("ce-{name} is given twice")));
        }
    }
    let mut record = record(&attributes, reading)?;
    let typed = content_type.map(|content_type| ("content-type".to_owned(), content_type.as_bytes().to_vec()));
    let named = attributes.into_iter().map(|(name, value)| (format!("ce_{name}"), value.into_bytes()));
    record.headers.extend(typed.into_iter().chain(named));
    // A CloudEvent without data has no value in Kafka's binding.
    record.value = (!body.is_empty()).then_some(body);
    Ok(record)
}

/// Makes the record of a CloudEvent in structured mode.
///
/// # Errors
///
/// [`Problem::NotJson`], [`Problem::NotACloudEvent`] or [`Problem::TooDeep`].
pub fn read_structured(json: &[u8], reading: Reading<'_>) -> Result<OutRecord, Failure> {
    depth::check(json, reading.max_depth)?;
    let members: BTreeMap<String, &RawValue> = serde_json::from_slice(json).map_err(|error| match error.is_data() {
        true => invalid(&format!("a CloudEvent is a JSON object: {error}")),
        false => Failure::new(Problem::NotJson, format!("not JSON: {error}")),
    })?;
    if members.contains_key("data") && members.contains_key("data_base64") {
        return Err(invalid("data and data_base64 exclude each other: keep one"));
    }
    let mut attributes = Attributes::new();
    for (name, raw) in members.iter().filter(|(name, _)| !matches!(name.as_str(), "data" | "data_base64")) {
        check_name(name)?;
        match raw.get().as_bytes().first() {
            Some(b'n') => {}
            Some(b'{' | b'[') => return Err(invalid(&format!("{name} is not a string, a number or a boolean"))),
            _ => {
                let text = serde_json::from_str(raw.get()).unwrap_or_else(|_| raw.get().to_owned());
                attributes.insert(name.clone(), text);
            }
        }
    }
    let mut record = record(&attributes, reading)?;
    record.headers.push(("content-type".to_owned(), STRUCTURED.as_bytes().to_vec()));
    record.value = Some(json.to_vec());
    Ok(record)
}

/// Returns a record without a value, with topic, key and the headers that every event has.
fn record(attributes: &Attributes, reading: Reading<'_>) -> Result<OutRecord, Failure> {
    let required = |name: &str| match attributes.get(name).filter(|text| !text.is_empty()) {
        Some(text) => Ok(text.as_str()),
        None => Err(invalid(&format!("attribute {name} is missing: id, source, specversion and type are required"))),
    };
    match required("specversion")? {
        "1.0" => {}
        other => return Err(invalid(&format!("specversion is {:?}, expected 1.0", super::query::shortened(other)))),
    }
    let (id, event_type, source) = (required("id")?, required("type")?, required("source")?);
    if id.len() > MAX_EVENT_ID {
        return Err(invalid(&format!("attribute id has more than {MAX_EVENT_ID} bytes")));
    }
    let own_trace = attributes.get("traceparent").map(|parent| {
        TraceContext::new(parent, attributes.get("tracestate").map(String::as_str))
            .map_err(|error| invalid(&error.to_string()))
    });
    let trace = own_trace.transpose()?.or_else(|| reading.context.trace.clone());
    let correlation_id = reading.context.correlation_id.as_deref();
    Ok(OutRecord {
        topic: (reading.topic_of)(event_type),
        partition: None,
        key: attributes.get("partitionkey").map(|key| key.as_bytes().to_vec()),
        value: None,
        headers: event_headers(id, event_type, correlation_id, trace.as_ref()),
        id: Some(id.to_owned()),
        timestamp: None,
        source: reading.needs_source.then(|| source.to_owned()),
    })
}

fn check_name(name: &str) -> Result<(), Failure> {
    let is_valid = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit());
    match is_valid {
        true => Ok(()),
        false => Err(invalid(&format!(
            "{:?} is not the name of an attribute: a name has lower-case letters and digits",
            super::query::shortened(name)
        ))),
    }
}

/// Decodes the value of a header: a quoted string first, then one round of percent escapes (HTTP binding, 3.1.3.2).
fn decode_value(value: &[u8]) -> Option<String> {
    match value.strip_prefix(b"\"").and_then(|inner| inner.strip_suffix(b"\"")) {
        None => decode_text(value),
        Some(quoted) => {
            let mut plain = Vec::with_capacity(quoted.len());
            let mut bytes = quoted.iter();
            while let Some(byte) = bytes.next() {
                plain.push(if *byte == b'\\' { *bytes.next()? } else { *byte });
            }
            decode_text(&plain)
        }
    }
}

fn invalid(why: &str) -> Failure {
    Failure::new(Problem::NotACloudEvent, why)
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

    fn with_reading<R>(read: impl FnOnce(Reading<'_>) -> R) -> R {
        let context = Context::default();
        let (stamper, needs_source) = (&SystemStamper, true);
        read(Reading { topic_of: &topic_of, context: &context, max_depth: 4, max_events: 1, stamper, needs_source })
    }

    const REQUIRED: [(&str, &str); 4] =
        [("ce-specversion", "1.0"), ("ce-id", "1"), ("ce-source", "/s"), ("ce-type", "com.example")];

    fn binary(more: &[(&str, &str)], body: &str) -> Result<OutRecord, Failure> {
        let headers: Vec<(&str, &[u8])> =
            REQUIRED.iter().chain(more).map(|(name, value)| (*name, value.as_bytes())).collect();
        with_reading(|reading| {
            read_binary(Some("text/xml"), headers.iter().copied(), body.as_bytes().to_vec(), reading)
        })
    }

    fn structured(json: &str) -> Result<OutRecord, Failure> {
        with_reading(|reading| read_structured(json.as_bytes(), reading))
    }

    fn header<'a>(record: &'a OutRecord, name: &str) -> Option<&'a str> {
        let found = record.headers.iter().find(|(known, _)| known == name);
        found.map(|(_, value)| std::str::from_utf8(value).unwrap())
    }

    #[test]
    fn binary_request_becomes_binary_record() {
        let more = [("ce-partitionkey", "k"), ("ce-subject", "Euro%20%E2%82%AC"), ("ce-quoted", "\"a\\\"b\"")];
        let record = binary(&more, "<much/>").unwrap();
        assert_eq!((&*record.topic, record.key.as_deref()), ("of-com.example", Some(&b"k"[..])));
        assert_eq!(record.value.as_deref(), Some(&b"<much/>"[..]));
        for (name, value) in [
            ("content-type", "text/xml"),
            ("ce_specversion", "1.0"),
            ("ce_id", "1"),
            ("ce_source", "/s"),
            ("ce_subject", "Euro \u{20ac}"),
            ("ce_quoted", "a\"b"),
            ("ce_partitionkey", "k"),
            ("event_id", "1"),
        ] {
            assert_eq!(header(&record, name), Some(value), "{name}");
        }
        assert_eq!(binary(&[], "").unwrap().value, None);
    }

    #[test]
    fn invalid_binary_requests_are_refused() {
        for more in [
            ("ce-datacontenttype", "text/xml"),
            ("ce-id", "2"),
            ("ce-under_score", "1"),
            ("ce-subject", "%C0%A0"),
            ("ce-traceparent", "00"),
        ] {
            assert_eq!(binary(&[more], "").unwrap_err().problem, Problem::NotACloudEvent, "{more:?}");
        }
    }

    #[test]
    fn structured_event_is_not_changed() {
        let json = r#"{ "specversion" : "1.0", "id":"1", "source":"/s", "type":"t", "sequence":7, "subject":null,
                        "partitionkey":"k", "data":{"a":1.50} }"#;
        let record = structured(json).unwrap();
        assert_eq!(record.value.as_deref(), Some(json.as_bytes()));
        assert_eq!(header(&record, "content-type"), Some("application/cloudevents+json; charset=UTF-8"));
        assert_eq!((record.key.as_deref(), record.id.as_deref()), (Some(&b"k"[..]), Some("1")));
    }

    #[test]
    fn invalid_structured_events_are_refused() {
        for (json, problem) in [
            ("", Problem::NotJson),
            (r#"{"specversion":"1.0"#, Problem::NotJson),
            ("[]", Problem::NotACloudEvent),
            (r#"{"specversion":"0.3","id":"1","source":"/s","type":"t"}"#, Problem::NotACloudEvent),
            (r#"{"specversion":"1.0","id":"","source":"/s","type":"t"}"#, Problem::NotACloudEvent),
            (r#"{"specversion":"1.0","id":"1","source":"/s"}"#, Problem::NotACloudEvent),
            (r#"{"specversion":"1.0","id":"1","source":"/s","type":"t","Big":1}"#, Problem::NotACloudEvent),
            (r#"{"specversion":"1.0","id":"1","source":"/s","type":"t","a":{}}"#, Problem::NotACloudEvent),
            (
                r#"{"specversion":"1.0","id":"1","source":"/s","type":"t","data":1,"data_base64":"MQ=="}"#,
                Problem::NotACloudEvent,
            ),
            (r#"{"specversion":"1.0","id":"1","source":"/s","type":"t","data":[[[[1]]]]}"#, Problem::TooDeep),
        ] {
            assert_eq!(structured(json).unwrap_err().problem, problem, "{json}");
        }
    }
}

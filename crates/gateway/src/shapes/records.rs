//! Records as JSON: key, value, headers, partition and timestamp, one record or an array.
//!
//! Rules:
//! - A key, a value or a header is null, a text, or an object with `text`, `base64` or `json`. The bytes of `json` are those of the
//!   request, without a change.
//! - A value must be there: null is a tombstone, and a record without a value is a mistake.
//! - An unknown field is an error.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use kafka_courier::dlq::Timestamp;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::depth;
use super::event::{Events, read_each};
use super::failure::Failure;
use super::problem::Problem;
use super::raw::with_context;
use super::record::{OutRecord, Reading};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RecordBody<'a> {
    #[serde(borrow, default)]
    key: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    value: Option<&'a RawValue>,
    #[serde(borrow, default)]
    headers: Vec<HeaderBody<'a>>,
    #[serde(default)]
    partition: Option<u32>,
    #[serde(borrow, default)]
    timestamp: Option<&'a RawValue>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct HeaderBody<'a> {
    name: String,
    #[serde(borrow, deserialize_with = "raw")]
    value: &'a RawValue,
}

/// Keeps a null, which a plain option loses.
fn present<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<&'de RawValue>, D::Error> {
    <&RawValue>::deserialize(deserializer).map(Some)
}

fn raw<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<&'de RawValue, D::Error> {
    <&RawValue>::deserialize(deserializer)
}

/// Reads a body with one record or an array of records for `topic`. An array is read whole: an invalid record refuses all.
///
/// # Errors
///
/// [`Problem::NotJson`], [`Problem::NotARecord`], [`Problem::TooDeep`] or [`Problem::TooManyEvents`].
pub fn read_body(topic: &str, json: &[u8], reading: Reading<'_>) -> Result<Events, Failure> {
    match read_each(json, reading, |json| read_one(topic, json, reading))? {
        Events::Array(records) => super::event::all_valid(records).map(Events::Array),
        one => Ok(one),
    }
}

fn read_one(topic: &str, json: &[u8], reading: Reading<'_>) -> Result<OutRecord, Failure> {
    depth::check(json, reading.max_depth)?;
    let body: RecordBody<'_> = serde_json::from_slice(json).map_err(|error| match error.classify() {
        serde_json::error::Category::Data => not_a_record(&error.to_string()),
        _ => Failure::new(Problem::NotJson, format!("not JSON: {error}")),
    })?;
    let value = body.value.ok_or_else(|| not_a_record("value is missing: null is a tombstone"))?;
    let headers = body.headers.iter().map(|header| {
        let value = bytes("headers", header.value)?;
        Ok((header.name.clone(), value.unwrap_or_default()))
    });
    let headers: Vec<(String, Vec<u8>)> = headers.collect::<Result<_, Failure>>()?;
    Ok(OutRecord {
        topic: topic.into(),
        partition: body.partition.map(partition).transpose()?,
        key: body.key.map_or(Ok(None), |key| bytes("key", key))?,
        value: bytes("value", value)?,
        headers: with_context(headers, reading.context),
        timestamp: body.timestamp.map(timestamp).transpose()?.flatten(),
        id: None,
        source: None,
    })
}

fn not_a_record(why: &str) -> Failure {
    Failure::new(Problem::NotARecord, why)
}

fn partition(partition: u32) -> Result<i32, Failure> {
    i32::try_from(partition).map_err(|_| not_a_record("partition: expected a number up to 2147483647"))
}

/// Returns the bytes of a field. `None` is null.
fn bytes(field: &str, raw: &RawValue) -> Result<Option<Vec<u8>>, Failure> {
    let expected =
        || not_a_record(&format!("{field}: expected null, a text, or an object with one of text, base64 and json"));
    match raw.get().as_bytes().first() {
        Some(b'n') => Ok(None),
        Some(b'"') => {
            let text: String = serde_json::from_str(raw.get()).map_err(|_| expected())?;
            Ok(Some(text.into_bytes()))
        }
        Some(b'{') => {
            let parts: BTreeMap<String, &RawValue> = serde_json::from_str(raw.get()).map_err(|_| expected())?;
            let mut parts = parts.into_iter();
            let (Some((kind, part)), None) = (parts.next(), parts.next()) else { return Err(expected()) };
            let text = || serde_json::from_str::<String>(part.get()).map_err(|_| expected());
            match kind.as_str() {
                "text" => Ok(Some(text()?.into_bytes())),
                "json" => Ok(Some(part.get().as_bytes().to_vec())),
                "base64" => {
                    let decoded = STANDARD.decode(text()?);
                    decoded
                        .map(Some)
                        .map_err(|_| not_a_record(&format!("{field}: the text is not base64 (RFC 4648, 4)")))
                }
                _ => Err(expected()),
            }
        }
        _ => Err(expected()),
    }
}

/// Returns a time in milliseconds since 1970-01-01 UTC, given as such or as RFC 3339. `None` is null.
fn timestamp(raw: &RawValue) -> Result<Option<i64>, Failure> {
    let expected =
        || not_a_record("timestamp: expected milliseconds since 1970, or a time such as 2024-01-15T10:00:00Z");
    match raw.get().as_bytes().first() {
        Some(b'n') => Ok(None),
        Some(b'"') => {
            let text: String = serde_json::from_str(raw.get()).map_err(|_| expected())?;
            text.parse::<Timestamp>().map(|time| Some(time.as_millisecond())).map_err(|_| expected())
        }
        _ => raw.get().parse().ok().filter(|time: &i64| *time >= 0).map(Some).ok_or_else(expected),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::shapes::record::Context;

    fn read(json: &str) -> Result<Events, Failure> {
        let topic_of = |_: &str| Arc::from("other");
        let context = Context { correlation_id: Some("c-1".to_owned()), trace: None };
        let (stamper, needs_source) = (&kafka_courier::events::SystemStamper, false);
        let reading =
            Reading { topic_of: &topic_of, context: &context, max_depth: 8, max_events: 3, stamper, needs_source };
        read_body("t", json.as_bytes(), reading)
    }

    fn one(json: &str) -> OutRecord {
        match read(json).unwrap() {
            Events::One(record) => record,
            Events::Array(_) => panic!("expected one record"),
        }
    }

    #[test]
    fn fields_become_the_record() {
        let record = one(
            r#" {"key":{"base64":"AP8="},"value":{"json":{"b": 1.10, "a":[]}},"partition":2,"timestamp":"1970-01-01T00:00:01.5Z",
                "headers":[{"name":"h","value":"1"},{"name":"h","value":{"text":"2"}}]}"#,
        );
        assert_eq!((&*record.topic, record.partition, record.timestamp), ("t", Some(2), Some(1500)));
        assert_eq!(
            (record.key.as_deref(), record.value.as_deref()),
            (Some(&[0, 255][..]), Some(&br#"{"b": 1.10, "a":[]}"#[..]))
        );
        let headers: Vec<_> = record.headers.iter().map(|(name, value)| (name.as_str(), &value[..])).collect();
        assert_eq!(headers, [("h", &b"1"[..]), ("h", b"2"), ("correlation_id", b"c-1")]);
    }

    #[test]
    fn null_and_text_differ() {
        let record = one(r#"{"key":null,"value":null,"timestamp":5}"#);
        assert_eq!((record.key, record.value, record.timestamp), (None, None, Some(5)));
        assert_eq!(one(r#"{"value":"null"}"#).value.as_deref(), Some(&b"null"[..]));
        assert_eq!(one(r#"{"value":{"json":null}}"#).value.as_deref(), Some(&b"null"[..]));
        assert_eq!(one(r#"{"value":""}"#).value.as_deref(), Some(&b""[..]));
    }

    #[test]
    fn invalid_records_are_refused() {
        for json in [
            "{}",
            "1",
            r#"{"value":1}"#,
            r#"{"value":{}}"#,
            r#"{"value":{"text":"a","json":1}}"#,
            r#"{"value":{"bytes":"a"}}"#,
            r#"{"value":{"base64":"*"}}"#,
            r#"{"value":{"text":1}}"#,
            r#"{"value":"v","topic":"other"}"#,
            r#"{"value":"v","partition":-1}"#,
            r#"{"value":"v","partition":4294967295}"#,
            r#"{"value":"v","timestamp":"today"}"#,
            r#"{"value":"v","timestamp":-1}"#,
            r#"{"value":"v","headers":[{"name":"h"}]}"#,
            r#"{"value":"v","headers":{"h":"v"}}"#,
        ] {
            assert_eq!(read(json).unwrap_err().problem, Problem::NotARecord, "{json}");
        }
        assert_eq!(read(r#"{"value":"#).unwrap_err().problem, Problem::NotJson);
        assert_eq!(
            read(&format!(r#"{{"value":{{"json":{}}}}}"#, "[".repeat(9))).unwrap_err().problem,
            Problem::TooDeep
        );
    }

    #[test]
    fn array_is_accepted_whole() {
        let Ok(Events::Array(records)) = read(r#"[{"value":"a"},{"value":"b"}]"#) else { panic!("expected an array") };
        assert_eq!(records.len(), 2);
        let refused = read(r#"[{"value":"a"},{}]"#).unwrap_err();
        assert_eq!((refused.problem, refused.index), (Problem::NotARecord, Some(1)));
        let many = format!("[{}]", [r#"{"value":"a"}"#; 4].join(","));
        assert_eq!(read(&many).unwrap_err().problem, Problem::TooManyEvents);
    }
}

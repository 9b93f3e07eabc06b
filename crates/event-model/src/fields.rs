//! The top level of an event's JSON: the envelope's fields by name, other fields in their order.
//!
//! - Values are borrowed and stay unparsed until a check reads them.
//! - A duplicate envelope field is an error.

use std::borrow::Cow;
use std::fmt;

use jiff::Timestamp;
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use crate::parse_error::ParseError;
use crate::trace::{TraceContext, TraceContextError};

/// The envelope's own field names, in the order of the JSON.
pub(crate) const NAMES: [&str; 10] = [
    "id",
    "type",
    "source",
    "version",
    "timestamp",
    "correlation_id",
    "traceparent",
    "tracestate",
    "partition_key",
    "data",
];

const TIMESTAMP: &str = "an RFC 3339 time such as \"2024-01-15T10:00:00Z\"";
const TRACEPARENT: &str =
    "a value such as \"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\" (lower case hex, ids not all zero)";

/// The fields of one event's JSON.
#[derive(Default)]
pub(crate) struct Fields<'a> {
    known: [Option<&'a RawValue>; NAMES.len()],
    pub(crate) extra: Vec<(Cow<'a, str>, &'a RawValue)>,
    duplicate: Option<&'static str>,
}

impl<'a> Fields<'a> {
    /// Parses the top level of `bytes`. A byte order mark before the JSON is skipped (RFC 8259, section 8.1).
    pub(crate) fn parse(bytes: &'a [u8]) -> Result<(&'a str, Self), ParseError> {
        let text = std::str::from_utf8(bytes).map_err(|error| ParseError::NotUtf8 { at: error.valid_up_to() })?;
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        check_object(text)?;
        let fields: Self = serde_json::from_str(text).map_err(|error| ParseError::syntax(&error))?;
        match fields.duplicate {
            Some(field) => Err(ParseError::Duplicate { field }),
            None => Ok((text, fields)),
        }
    }

    pub(crate) fn raw(&self, name: &str) -> Option<&'a RawValue> {
        self.known[index(name)?]
    }

    /// Returns the text of a string that must not be empty. `null` is an error.
    pub(crate) fn name(&self, field: &'static str) -> Result<Option<Cow<'a, str>>, ParseError> {
        let Some(raw) = self.raw(field) else {
            return Ok(None);
        };
        match string(raw).filter(|text| !text.is_empty()) {
            Some(text) => Ok(Some(text)),
            None => Err(ParseError::invalid(field, raw.get(), "a string that is not empty")),
        }
    }

    /// Returns the text of a string. `null` counts as absent.
    pub(crate) fn text(&self, field: &'static str) -> Result<Option<Cow<'a, str>>, ParseError> {
        let Some(raw) = self.raw(field).filter(|raw| raw.get() != "null") else {
            return Ok(None);
        };
        match string(raw) {
            Some(text) => Ok(Some(text)),
            None => Err(ParseError::invalid(field, raw.get(), "a string, or leave it out")),
        }
    }

    /// Checks that a field, if it is there, is of the kind whose JSON begins like this. `null` is of no kind.
    pub(crate) fn check_kind(&self, field: &'static str, begin: char, expected: &str) -> Result<(), ParseError> {
        match self.raw(field).filter(|raw| !raw.get().starts_with(begin)) {
            Some(raw) => Err(ParseError::invalid(field, raw.get(), expected)),
            None => Ok(()),
        }
    }

    pub(crate) fn timestamp(&self) -> Result<Option<Timestamp>, ParseError> {
        let Some(raw) = self.raw("timestamp") else {
            return Ok(None);
        };
        match string(raw).and_then(|text| rfc3339(&text)) {
            Some(timestamp) => Ok(Some(timestamp)),
            None => Err(ParseError::invalid("timestamp", raw.get(), TIMESTAMP)),
        }
    }

    /// Returns the trace context. A `tracestate` alone means nothing (W3C Trace Context, 3.3) and is ignored.
    pub(crate) fn trace(&self) -> Result<Option<TraceContext>, ParseError> {
        let tracestate = self.text("tracestate")?;
        let Some(traceparent) = self.text("traceparent")? else {
            return Ok(None);
        };
        TraceContext::new(&traceparent, tracestate.as_deref()).map(Some).map_err(|error| {
            let (field, expected) = match error {
                TraceContextError::Traceparent => ("traceparent", TRACEPARENT),
                TraceContextError::Tracestate => ("tracestate", "printable ASCII"),
            };
            ParseError::invalid(field, self.raw(field).map_or("", RawValue::get), expected)
        })
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Fields<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Top;
        impl<'de> Visitor<'de> for Top {
            type Value = Fields<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a JSON object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Fields<'de>, A::Error> {
                let mut fields = Fields::default();
                while let Some((Text(name), value)) = map.next_entry::<Text<'de>, &'de RawValue>()? {
                    match index(&name) {
                        None => fields.extra.push((name, value)),
                        Some(at) if fields.known[at].replace(value).is_some() => fields.duplicate = Some(NAMES[at]),
                        Some(_) => {}
                    }
                }
                Ok(fields)
            }
        }
        deserializer.deserialize_map(Top)
    }
}

/// A string, borrowed unless it has escapes.
pub(crate) struct Text<'a>(pub(crate) Cow<'a, str>);

impl<'de: 'a, 'a> Deserialize<'de> for Text<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Str;
        impl<'de> Visitor<'de> for Str {
            type Value = Text<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string")
            }

            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Text<'de>, E> {
                Ok(Text(Cow::Borrowed(text)))
            }

            fn visit_str<E>(self, text: &str) -> Result<Text<'de>, E> {
                Ok(Text(Cow::Owned(text.to_owned())))
            }
        }
        deserializer.deserialize_str(Str)
    }
}

/// Returns the text of a JSON string, or `None` for other values and for lone surrogates.
pub(crate) fn string(raw: &RawValue) -> Option<Cow<'_, str>> {
    serde_json::from_str(raw.get()).ok().map(|Text(text)| text)
}

fn index(name: &str) -> Option<usize> {
    NAMES.iter().position(|known| *known == name)
}

fn check_object(text: &str) -> Result<(), ParseError> {
    let found = match text.bytes().find(|byte| !matches!(byte, b' ' | b'\n' | b'\r' | b'\t')) {
        Some(b'[') => "an array",
        Some(b'"') => "a string",
        Some(b'-' | b'0'..=b'9') => "a number",
        Some(b'n') if text.trim_ascii() == "null" => "null",
        Some(b't' | b'f') if matches!(text.trim_ascii(), "true" | "false") => "a boolean",
        // An object, or JSON that serde_json refuses with a position.
        _ => return Ok(()),
    };
    Err(ParseError::NotAnObject { found })
}

/// Parses RFC 3339 only. jiff accepts more (other forms of ISO 8601, zones in brackets), and the text is forwarded as
/// is.
fn rfc3339(text: &str) -> Option<Timestamp> {
    let bytes = text.as_bytes();
    let separators = bytes.len() >= 20
        && [(4, b'-'), (7, b'-'), (13, b':'), (16, b':')].iter().all(|(at, byte)| bytes[*at] == *byte)
        && matches!(bytes[10], b'T' | b't');
    let numeric_offset = || {
        let offset = &bytes[bytes.len() - 6..];
        matches!(offset[0], b'+' | b'-') && offset[3] == b':'
    };
    let offset = separators && (matches!(bytes[bytes.len() - 1], b'Z' | b'z') || numeric_offset());
    if offset { text.parse().ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_rfc_3339_is_accepted() {
        for good in ["2024-01-15T10:00:00Z", "2024-01-15t10:00:00.123456789z", "2024-01-15T10:00:00.5+02:00"] {
            assert!(rfc3339(good).is_some(), "{good}");
        }
        for bad in [
            "",
            "2024-01-15",
            "2024-01-15T10:00:00",
            "2024-01-15 10:00:00Z",
            "20240115T100000Z",
            "2024-01-15T10:00:00+02:00[Europe/Paris]",
            "2024-13-15T10:00:00Z",
            "+002024-01-15T10:00:00Z",
            "2024-01-15T10:00:00+0200",
        ] {
            assert!(rfc3339(bad).is_none(), "{bad}");
        }
    }
}

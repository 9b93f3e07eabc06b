//! The parameters of a request.
//!
//! Rule: an unknown parameter, and one that the route does not have, is an error. A misspelt `ack` must not be ignored.

use std::time::Duration;

use super::ack::Ack;
use super::failure::Failure;
use super::percent::{decode, decode_text};
use super::problem::Problem;

/// The parameters of a request.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Query {
    /// The meaning of an answer of success.
    pub ack: Option<Ack>,
    /// The time until the answer.
    pub timeout: Option<Duration>,
    /// Whether the valid events of an array are published if others are invalid.
    pub partial: bool,
    /// Whether the results of NDJSON are sent while its lines arrive.
    pub stream: bool,
    /// The record's key.
    pub key: Option<Vec<u8>>,
    /// The record's partition.
    pub partition: Option<i32>,
    /// Whether the record has no value.
    pub tombstone: bool,
}

/// The parameters that a route has beyond `ack` and `timeout`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum QueryOf {
    /// `POST /v1/events`.
    Events,
    /// `POST /v1/topics/{topic}`.
    Record,
}

impl Query {
    /// Parses the query of a request, without the question mark.
    ///
    /// # Errors
    ///
    /// The first invalid parameter.
    pub fn parse(query: &str, of: QueryOf) -> Result<Self, Failure> {
        let mut parsed = Self::default();
        let mut seen: Vec<&str> = Vec::new();
        for part in query.split('&').filter(|part| !part.is_empty()) {
            let (name, value) = part.split_once('=').unwrap_or((part, ""));
            if seen.contains(&name) {
                return Err(invalid(name, "given once"));
            }
            seen.push(name);
            parsed.set(name, value, of)?;
        }
        Ok(parsed)
    }

    fn set(&mut self, name: &str, value: &str, of: QueryOf) -> Result<(), Failure> {
        let text = || decode_text(value.as_bytes()).unwrap_or_default();
        match (name, of) {
            ("ack", _) => {
                let ack = Ack::parse(&text());
                self.ack = Some(ack.ok_or_else(|| invalid(name, "broker, disk or memory"))?);
            }
            ("timeout", _) => {
                let timeout = duration(&text()).filter(|time| !time.is_zero());
                self.timeout = Some(timeout.ok_or_else(|| invalid(name, "a time such as 500ms, 10s or 5m"))?);
            }
            ("partial", QueryOf::Events) => self.partial = switch(name, &text())?,
            ("stream", QueryOf::Events) => self.stream = switch(name, &text())?,
            ("key", QueryOf::Record) => {
                self.key = Some(decode(value.as_bytes()).ok_or_else(|| invalid(name, "percent-encoded bytes"))?);
            }
            ("partition", QueryOf::Record) => {
                let partition = text().parse().ok().filter(|partition| *partition >= 0);
                self.partition = Some(partition.ok_or_else(|| invalid(name, "a number from 0"))?);
            }
            ("tombstone", QueryOf::Record) => self.tombstone = switch(name, &text())?,
            _ => {
                let known = match of {
                    QueryOf::Events => "ack, timeout, partial and stream",
                    QueryOf::Record => "ack, timeout, key, partition and tombstone",
                };
                let name = decode_text(name.as_bytes()).unwrap_or_default();
                let why = format!("unknown parameter {:?}: this route has {known}", shortened(&name));
                return Err(Failure::new(Problem::BadQuery, why));
            }
        }
        Ok(())
    }
}

fn invalid(name: &str, expected: &str) -> Failure {
    Failure::new(Problem::BadQuery, format!("parameter {name}: expected {expected}"))
}

fn switch(name: &str, text: &str) -> Result<bool, Failure> {
    match text {
        "true" | "" => Ok(true),
        "false" => Ok(false),
        _ => Err(invalid(name, "true or false")),
    }
}

/// Returns the first characters of a text for a message.
pub(crate) fn shortened(text: &str) -> String {
    const SHOWN: usize = 80;
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text.to_owned(),
    }
}

/// Parses a time such as `500ms`, `10s` or `5m`.
pub(crate) fn duration(text: &str) -> Option<Duration> {
    let end = text.find(|c: char| !c.is_ascii_digit())?;
    let (number, unit) = text.split_at(end);
    let number: u64 = number.parse().ok()?;
    match unit {
        "ms" => Some(Duration::from_millis(number)),
        "s" => Some(Duration::from_secs(number)),
        "m" => Some(Duration::from_secs(number.checked_mul(60)?)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_parsed() {
        let query = Query::parse("ack=disk&timeout=500ms&partial&stream=true", QueryOf::Events).unwrap();
        let timeout = Some(Duration::from_millis(500));
        assert_eq!(query, Query { ack: Some(Ack::Disk), timeout, partial: true, stream: true, ..Query::default() });
        let record = Query::parse("key=a%00b&partition=3&tombstone=true", QueryOf::Record).unwrap();
        let key = Some(b"a\0b".to_vec());
        assert_eq!(record, Query { key, partition: Some(3), tombstone: true, ..Query::default() });
    }

    #[test]
    fn unknown_and_invalid_are_refused() {
        for query in ["akc=disk", "ack=paper", "timeout=5", "timeout=0s", "partial=yes", "ack=disk&ack=disk", "key=a"] {
            assert_eq!(Query::parse(query, QueryOf::Events).unwrap_err().problem, Problem::BadQuery, "{query}");
        }
        for query in ["partition=-1", "partition=x", "key=%", "partial=true"] {
            assert_eq!(Query::parse(query, QueryOf::Record).unwrap_err().problem, Problem::BadQuery, "{query}");
        }
    }
}

//! Requests of operators for dead letters: parameters and bodies in, selections and replays out.
//!
//! Rules:
//! - An unknown parameter, and an unknown field, is an error: a misspelt criterion must not select more.
//! - A request that changes dead letters names a criterion, or `all`.

use std::num::NonZeroU32;
use std::str::FromStr;

use kafka_courier::dlq::{Bytes, LetterId, Outcome, Selection, SelectionError, Timestamp};
use kafka_courier::events::validate_topic_name;
use kafka_courier::{CursorError, Doubtful, LetterCursor, Replay};
use serde::Deserialize;

use super::percent::decode_text;

/// Dead letters of a page that names no limit, and the most of a page.
const DEFAULT_LIMIT: usize = 100;
const MAX_LIMIT: usize = 1000;

/// Why a request of an operator is invalid.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OperatorError {
    /// A parameter is invalid.
    #[error("parameter {name}: expected {expected}")]
    Parameter {
        /// The parameter.
        name: &'static str,
        /// The allowed values.
        expected: &'static str,
    },
    /// The route has no such parameter, or the parameter is there twice.
    #[error("a parameter is unknown or given twice: this route has {known}")]
    UnknownParameter {
        /// The parameters of the route.
        known: &'static str,
    },
    /// The body is not the JSON of this route.
    #[error("the body is not JSON as this route expects it: {0}")]
    Body(String),
    /// The selection is refused.
    #[error(transparent)]
    Selection(#[from] SelectionError),
    /// Two fields of a replay contradict each other.
    #[error("{0}")]
    Replay(&'static str),
}

/// A request for a page.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PageQuery {
    /// The dead letters.
    pub selection: Selection,
    /// The place where the page begins.
    pub after: Option<LetterCursor>,
    /// The most dead letters of the page.
    pub limit: usize,
}

impl PageQuery {
    /// Parses the query of a request, without the question mark.
    ///
    /// # Errors
    ///
    /// The first invalid parameter.
    pub fn parse(query: &str) -> Result<Self, OperatorError> {
        const KNOWN: &str =
            "limit, cursor, topic, event_type, error_code, key, reason, outcome, retriable, since and until";
        let mut page = Self { selection: Selection::all(), after: None, limit: DEFAULT_LIMIT };
        let Selection { topics, event_types, error_codes, keys, .. } = &mut page.selection;
        let (mut reason, mut outcome, mut retriable, mut since, mut until) = (None, None, None, None, None);
        for (name, text) in parameters(query, KNOWN)? {
            match name {
                "limit" => page.limit = limit(&text)?,
                "cursor" => {
                    let cursor =
                        text.parse().map_err(|_: CursorError| invalid("cursor", "the next of an earlier page"));
                    page.after = Some(cursor?);
                }
                "topic" => topics.push(text),
                "event_type" => event_types.push(text),
                "error_code" => error_codes.push(text.to_uppercase()),
                "key" => keys.push(Bytes::from(text)),
                "reason" => reason = Some(text),
                "outcome" => outcome = Some(value::<Outcome>("outcome", &text, "not_written or unknown")?),
                "retriable" => retriable = Some(value("retriable", &text, "true or false")?),
                "since" => since = Some(value::<Timestamp>("since", &text, TIME)?),
                "until" => until = Some(value::<Timestamp>("until", &text, TIME)?),
                _ => return Err(OperatorError::UnknownParameter { known: KNOWN }),
            }
        }
        let selection = Selection { reason, outcome, retriable, since, until, ..page.selection };
        Ok(Self { selection: selection.checked()?, ..page })
    }
}

const TIME: &str = "a time such as 2024-01-15T10:00:00Z";

/// A request for the events of a spool.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SpoolQuery {
    /// The topic. `None` selects all.
    pub topic: Option<String>,
    /// Events that the answer leaves out at its begin.
    pub offset: usize,
    /// The most events.
    pub limit: usize,
}

impl SpoolQuery {
    /// Parses the query of a request, without the question mark.
    ///
    /// # Errors
    ///
    /// The first invalid parameter.
    pub fn parse(query: &str) -> Result<Self, OperatorError> {
        const KNOWN: &str = "topic, limit and offset";
        let mut parsed = Self { topic: None, offset: 0, limit: DEFAULT_LIMIT };
        for (name, text) in parameters(query, KNOWN)? {
            match name {
                "topic" => parsed.topic = Some(text),
                "offset" => parsed.offset = value("offset", &text, "a number from 0")?,
                "limit" => parsed.limit = limit(&text)?,
                _ => return Err(OperatorError::UnknownParameter { known: KNOWN }),
            }
        }
        Ok(parsed)
    }
}

/// Splits a query into parameters, each of them once.
fn parameters<'q>(query: &'q str, known: &'static str) -> Result<Vec<(&'q str, String)>, OperatorError> {
    let mut all: Vec<(&str, String)> = Vec::new();
    for part in query.split('&').filter(|part| !part.is_empty()) {
        let (name, value) = part.split_once('=').unwrap_or((part, ""));
        let value = decode_text(value.as_bytes()).filter(|value| !value.is_empty());
        match value {
            Some(value) if !all.iter().any(|(other, _)| *other == name) => all.push((name, value)),
            _ => return Err(OperatorError::UnknownParameter { known }),
        }
    }
    Ok(all)
}

fn invalid(name: &'static str, expected: &'static str) -> OperatorError {
    OperatorError::Parameter { name, expected }
}

fn value<T: FromStr>(name: &'static str, text: &str, expected: &'static str) -> Result<T, OperatorError> {
    text.parse().map_err(|_| invalid(name, expected))
}

fn limit(text: &str) -> Result<usize, OperatorError> {
    let limit = text.parse().ok().filter(|limit| (1..=MAX_LIMIT).contains(limit));
    limit.ok_or_else(|| invalid("limit", "1 to 1000"))
}

/// The criteria of a body.
#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
struct Criteria {
    ids: Vec<String>,
    topics: Vec<String>,
    event_types: Vec<String>,
    error_codes: Vec<String>,
    keys: Vec<String>,
    reason: Option<String>,
    outcome: Option<String>,
    retriable: Option<bool>,
    since: Option<Timestamp>,
    until: Option<Timestamp>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
struct PurgeBody {
    all: bool,
    selection: Criteria,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
struct ReplayBody {
    all: bool,
    selection: Criteria,
    verify: bool,
    include_unknown: bool,
    force: bool,
    out_of_order: bool,
    dry_run: bool,
    max_replays: Option<u32>,
    rate: Option<NonZeroU32>,
    limit: Option<u64>,
    to_topic: Option<String>,
}

impl Criteria {
    fn selection(self) -> Result<Selection, OperatorError> {
        let ids = self.ids.iter().map(|id| id.parse::<LetterId>());
        let outcome = self.outcome.map(|outcome| outcome.parse::<Outcome>()).transpose();
        Ok(Selection {
            ids: ids.collect::<Result<_, _>>().map_err(|_| invalid("ids", "ids of dead letters"))?,
            topics: self.topics,
            event_types: self.event_types,
            error_codes: self.error_codes,
            keys: self.keys.into_iter().map(Bytes::from).collect(),
            reason: self.reason,
            outcome: outcome.map_err(|_| invalid("outcome", "not_written or unknown"))?,
            retriable: self.retriable,
            since: self.since,
            until: self.until,
            max_replay_count: None,
        })
    }
}

fn read<'b, T: Deserialize<'b>>(body: &'b [u8]) -> Result<T, OperatorError> {
    serde_json::from_slice(body).map_err(|error| OperatorError::Body(error.to_string()))
}

/// Reads the body of a purge.
///
/// # Errors
///
/// The body is invalid, or selects nothing.
pub fn read_purge(body: &[u8]) -> Result<Selection, OperatorError> {
    let PurgeBody { all, selection } = read(body)?;
    Ok(selection.selection()?.explicit(all)?)
}

/// Reads the body of a replay. `id` is the dead letter of the route, if it names one.
///
/// # Errors
///
/// The body is invalid, or selects nothing.
pub fn read_replay(body: &[u8], id: Option<LetterId>) -> Result<Replay, OperatorError> {
    let body: ReplayBody = read(body)?;
    let criteria = body.selection.selection()?;
    let selection = match id {
        None => criteria.explicit(body.all)?,
        Some(id) if criteria == Selection::all() && !body.all => Selection { ids: vec![id], ..criteria },
        Some(_) => return Err(OperatorError::Replay("the route names the dead letter: remove selection and all")),
    };
    if body.to_topic.as_deref().is_some_and(|topic| validate_topic_name(topic).is_err()) {
        return Err(OperatorError::Replay("to_topic: expected the name of a topic"));
    }
    let doubtful = match (body.verify, body.include_unknown) {
        (true, true) => return Err(OperatorError::Replay("verify and include_unknown exclude each other")),
        (true, false) => Doubtful::Verify { force: body.force },
        (false, _) if body.force => return Err(OperatorError::Replay("force needs verify")),
        (false, true) => Doubtful::Send,
        (false, false) => Doubtful::LeaveOut,
    };
    let defaults = Replay::default();
    Ok(Replay {
        selection,
        doubtful,
        max_replays: body.max_replays.unwrap_or(defaults.max_replays),
        rate: body.rate,
        limit: body.limit,
        dry_run: body.dry_run,
        to_topic: body.to_topic,
        out_of_order: body.out_of_order,
        ..defaults
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn page_has_criteria_and_cursor() {
        let page =
            PageQuery::parse("limit=5&cursor=0.7&topic=a%2Db&outcome=unknown&error_code=invalid_record").unwrap();
        assert_eq!((page.limit, page.after.map(|after| after.to_string()).as_deref()), (5, Some("0.7")));
        let selection = Selection {
            topics: vec!["a-b".to_owned()],
            outcome: Some(Outcome::Unknown),
            error_codes: vec!["INVALID_RECORD".to_owned()],
            ..Selection::all()
        };
        assert_eq!(page.selection, selection);
        for query in
            ["limit=0", "limit=1001", "cursor=x", "outcome=x", "since=1h", "topics=a", "topic=a&topic=b", "topic="]
        {
            assert!(PageQuery::parse(query).is_err(), "{query}");
        }
        assert!(PageQuery::parse("since=2024-01-15T10:00:00Z&until=2024-01-15T10:00:00Z").is_err());
        let spool = SpoolQuery { topic: Some("t".to_owned()), offset: 3, limit: 100 };
        assert_eq!(SpoolQuery::parse("topic=t&offset=3"), Ok(spool));
        assert!(SpoolQuery::parse("cursor=1").is_err());
    }

    #[test]
    fn change_needs_a_selection() {
        assert_eq!(read_purge(b"{}").unwrap_err(), SelectionError::Empty.into());
        assert_eq!(read_purge(br#"{"all":true}"#), Ok(Selection::all()));
        for body in
            [&b""[..], b"[]", br#"{"al":true}"#, br#"{"selection":{"topic":"t"}}"#, br#"{"selection":{"ids":["x"]}}"#]
        {
            assert!(read_purge(body).is_err() && read_replay(body, None).is_err(), "{body:?}");
        }
        let topics = br#"{"selection":{"topics":["t"]}}"#;
        assert_eq!(read_purge(topics).unwrap().topics, ["t"]);
        assert!(read_replay(b"{}", None).is_err() && read_replay(topics, Some(LetterId::new())).is_err());
    }

    #[test]
    fn replay_has_its_options() {
        let id = LetterId::new();
        let replay = read_replay(br#"{"verify":true,"limit":3,"to_topic":"t","rate":9}"#, Some(id)).unwrap();
        assert_eq!((replay.selection.ids, replay.doubtful), (vec![id], Doubtful::Verify { force: false }));
        assert_eq!((replay.limit, replay.to_topic.as_deref(), replay.rate), (Some(3), Some("t"), NonZeroU32::new(9)));
        for body in
            [r#"{"verify":true,"include_unknown":true}"#, r#"{"force":true}"#, r#"{"to_topic":"a/b"}"#, r#"{"rate":0}"#]
        {
            assert!(read_replay(body.as_bytes(), Some(id)).is_err(), "{body}");
        }
    }
}

//! Answers: verdicts in, status, headers and body out.
//!
//! Rules:
//! - A body says which acknowledgement was given, and that an event in memory is lost if the process dies.
//! - The project's own errors are problem details (RFC 9457). `code` is stable.

use serde::Serialize;
use serde_json::Value;

use super::failure::Failure;
use super::problem::Problem;
use super::verdict::{Verdict, status};

const JSON: &str = "application/json";
const PROBLEM: &str = "application/problem+json";
/// The type of a problem without its code.
const PROBLEM_TYPE: &str = "urn:kafka-courier:problem:";
const LOST_WITH_PROCESS: &str = "the event is in memory, and is lost if the process dies before it is delivered";

/// An answer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Answer {
    /// The status code.
    pub status: u16,
    /// The content type.
    pub content_type: &'static str,
    /// The seconds after which a retry may help.
    pub retry_after: Option<u32>,
    /// The methods of the route, for 405.
    pub allow: Option<&'static str>,
    /// The body.
    pub body: Vec<u8>,
    /// The number of events that succeeded, and that failed.
    pub counts: (usize, usize),
    /// Whether the answer is that of an earlier request with the same key.
    pub is_repeated: bool,
    /// Whether an event of the request has a dead letter.
    pub has_dead_letter: bool,
}

/// An event of a request, with its verdict.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct EventResult {
    /// The event's id, if it is known.
    pub id: Option<String>,
    /// The verdict.
    pub verdict: Verdict,
}

#[derive(Serialize, Default)]
struct EventBody<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ack: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    topic: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    partition: Option<i32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    offset: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    note: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    verdict: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    dead_letter: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    line: Option<usize>,
}

#[derive(Serialize)]
struct EventsBody<'a> {
    succeeded: usize,
    failed: usize,
    events: Vec<EventBody<'a>>,
    /// Why the rest of the body was not read.
    #[serde(skip_serializing_if = "Option::is_none")]
    stopped: Option<Value>,
}

#[derive(Serialize)]
struct LastLine {
    succeeded: usize,
    failed: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    stopped: Option<Value>,
}

#[derive(Serialize)]
struct ProblemBody<'a> {
    r#type: String,
    title: &'static str,
    status: u16,
    code: &'static str,
    detail: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    verdict: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    index: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    dead_letter: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    retry_after: Option<u32>,
    request_id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    events: Option<Vec<EventBody<'a>>>,
}

/// Returns whether an event with this failure is certainly not in Kafka. `None` if an earlier request with the same key decides
/// about the event.
fn outcome(failure: &Failure) -> Option<&'static str> {
    match failure.problem {
        _ if failure.is_undecided => None,
        Problem::Unknown => Some("unknown"),
        _ => Some("not_written"),
    }
}

impl<'a> EventBody<'a> {
    fn of(result: &'a EventResult) -> Self {
        let verdict = &result.verdict;
        let body = Self {
            status: Some(verdict.status()),
            ack: verdict.ack().map(super::ack::Ack::as_str),
            id: result.id.as_deref(),
            ..Self::default()
        };
        match verdict {
            Verdict::Written { topic, partition, offset } => {
                Self { topic: Some(topic), partition: Some(*partition), offset: *offset, ..body }
            }
            Verdict::Stored { topic } => Self { topic: Some(topic), ..body },
            Verdict::Accepted { topic } => Self { topic: Some(topic), note: Some(LOST_WITH_PROCESS), ..body },
            Verdict::Failed(failure) => Self {
                code: Some(failure.problem.code()),
                verdict: outcome(failure),
                detail: Some(&failure.detail),
                dead_letter: failure.dead_letter.as_deref(),
                line: failure.line,
                ..body
            },
        }
    }
}

impl Answer {
    /// Returns the answer to a request that failed as a whole.
    pub fn problem(failure: &Failure, request_id: &str) -> Self {
        Self::with_problem(failure.problem.status(), failure, None, request_id)
    }

    fn with_problem(status: u16, failure: &Failure, events: Option<Vec<EventBody<'_>>>, request_id: &str) -> Self {
        let problem = failure.problem;
        let failed = events.as_ref().map_or(1, Vec::len);
        let body = ProblemBody {
            r#type: format!("{PROBLEM_TYPE}{}", problem.code()),
            title: problem.title(),
            status,
            code: problem.code(),
            detail: &failure.detail,
            verdict: outcome(failure),
            index: failure.index,
            dead_letter: failure.dead_letter.as_deref(),
            retry_after: failure.retry_after(),
            request_id,
            events,
        };
        let allow = (problem == Problem::MethodNotAllowed).then_some("POST");
        let retry_after = failure.retry_after();
        let (body, counts, has_dead_letter) = (json(&body), (0, failed), failure.dead_letter.is_some());
        Self { status, content_type: PROBLEM, retry_after, allow, body, counts, is_repeated: false, has_dead_letter }
    }

    /// Returns the answer to a request with one event.
    pub fn one(result: &EventResult, request_id: &str) -> Self {
        if let Verdict::Failed(failure) = &result.verdict {
            return Self::problem(failure, request_id);
        }
        let body = EventBody { status: None, ..EventBody::of(result) };
        Self::success(result.verdict.status(), json(&body), (1, 0))
    }

    /// Returns the answer to a request with several events. `stopped` says why the rest of the body was not read.
    pub fn many(results: &[EventResult], stopped: Option<&Failure>, request_id: &str) -> Self {
        let rest = stopped.map(|failure| failure.problem.status());
        let status = status(results.iter().map(|result| result.verdict.status()).chain(rest));
        let events: Vec<EventBody<'_>> = results.iter().map(EventBody::of).collect();
        let failed = results.iter().filter(|result| result.verdict.failure().is_some()).count();
        let counts = (results.len() - failed, failed);
        let letters = results.iter().filter_map(|result| result.verdict.failure()?.dead_letter.as_ref());
        let has_dead_letter = letters.count() > 0;
        if status >= 400 {
            let failures = results.iter().filter_map(|result| result.verdict.failure()).chain(stopped);
            if let Some(failure) = failures.clone().find(|failure| failure.problem.status() == status) {
                let retry_after = failures.filter_map(Failure::retry_after).max();
                let answer = Self::with_problem(status, failure, Some(events), request_id);
                let is_retriable = failure.problem.is_retriable();
                let retry_after = retry_after.filter(|_| is_retriable);
                return Self { retry_after, counts, has_dead_letter, ..answer };
            }
        }
        let stopped = stopped.map(stopped_body);
        let body = json(&EventsBody { succeeded: counts.0, failed: counts.1, events, stopped });
        Self { has_dead_letter, ..Self::success(status, body, counts) }
    }

    /// Returns the answer for a repeated request. Its events are not counted again.
    #[must_use]
    pub(crate) fn repeated(self) -> Self {
        Self { is_repeated: true, counts: (0, 0), ..self }
    }

    fn success(status: u16, body: Vec<u8>, counts: (usize, usize)) -> Self {
        let (is_repeated, has_dead_letter) = (false, false);
        Self { status, content_type: JSON, retry_after: None, allow: None, body, counts, is_repeated, has_dead_letter }
    }
}

/// Returns the line of an event whose result is sent while the body arrives. `line` is the event's line in the body.
pub fn result_line(result: &EventResult, line: usize) -> Vec<u8> {
    json(&EventBody { line: Some(line), ..EventBody::of(result) })
}

/// Returns the last line of such an answer: the numbers of events that succeeded and that failed, and why the rest of the body was
/// not read.
pub fn last_line(counts: (usize, usize), stopped: Option<&Failure>) -> Vec<u8> {
    json(&LastLine { succeeded: counts.0, failed: counts.1, stopped: stopped.map(stopped_body) })
}

fn stopped_body(failure: &Failure) -> Value {
    serde_json::json!({"status": failure.problem.status(), "code": failure.problem.code(), "detail": failure.detail})
}

/// Serializes a body. All of its parts are texts and numbers, for which serialization cannot fail.
fn json(body: &impl Serialize) -> Vec<u8> {
    let mut json = serde_json::to_vec(body).unwrap_or_default();
    json.push(b'\n');
    json
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(answer: &Answer) -> Value {
        serde_json::from_slice(&answer.body).unwrap()
    }

    fn result(verdict: Verdict) -> EventResult {
        EventResult { id: Some("e-1".to_owned()), verdict }
    }

    fn written() -> EventResult {
        result(Verdict::Written { topic: "t".into(), partition: 3, offset: Some(42) })
    }

    fn failed(problem: Problem) -> EventResult {
        result(Verdict::Failed(Failure::new(problem, "why")))
    }

    #[test]
    fn success_names_place_and_ack() {
        let answer = Answer::one(&written(), "r");
        let body = serde_json::json!({"ack":"broker","id":"e-1","topic":"t","partition":3,"offset":42});
        assert_eq!((answer.status, answer.content_type, parsed(&answer)), (200, JSON, body));
        let answer = Answer::one(&result(Verdict::Accepted { topic: "t".into() }), "r");
        assert_eq!((answer.status, &parsed(&answer)["note"]), (202, &Value::from(LOST_WITH_PROCESS)));
    }

    #[test]
    fn problems_are_problem_details() {
        let failure = Failure::new(Problem::MemoryFull, "no room").at(2);
        let answer = Answer::problem(&failure, "r-1");
        let body = serde_json::json!({
            "type": "urn:kafka-courier:problem:memory-full", "title": "The memory for events is full", "status": 503,
            "code": "memory-full", "detail": "no room", "verdict": "not_written", "index": 2, "retry_after": 1,
            "request_id": "r-1",
        });
        assert_eq!((answer.status, answer.content_type, parsed(&answer)), (503, PROBLEM, body));
        assert_eq!(answer.retry_after, Some(1));
    }

    #[test]
    fn unknown_names_its_letter() {
        let failure = Failure::new(Problem::Unknown, "lost answer").with_letter(Some("l-1"));
        let answer = Answer::one(&result(Verdict::Failed(failure)), "r");
        let body = parsed(&answer);
        assert_eq!((answer.status, &body["verdict"], &body["dead_letter"]), (504, &"unknown".into(), &"l-1".into()));
        assert_eq!(answer.retry_after, None, "a retry could write the event twice");
    }

    #[test]
    fn mixed_answer_has_every_result() {
        let answer = Answer::many(&[written(), failed(Problem::NotAnEvent)], None, "r");
        let body = parsed(&answer);
        assert_eq!((answer.status, &body["succeeded"], &body["failed"]), (207, &1.into(), &1.into()));
        assert_eq!((&body["events"][0]["status"], &body["events"][1]["code"]), (&200.into(), &"not-an-event".into()));
    }

    #[test]
    fn failed_answer_has_every_result() {
        let answer = Answer::many(&[failed(Problem::NotAnEvent), failed(Problem::SpoolFull)], None, "r");
        let body = parsed(&answer);
        assert_eq!((answer.status, answer.retry_after, &body["code"]), (503, Some(5), &"spool-full".into()));
        assert_eq!(body["events"].as_array().map(Vec::len), Some(2));
    }

    #[test]
    fn streamed_results_have_their_line() {
        let line = String::from_utf8(result_line(&written(), 7)).unwrap();
        assert!(
            line.contains(r#""status":200"#) && line.ends_with("\"line\":7}\n") && line.lines().count() == 1,
            "{line}"
        );
        assert_eq!(last_line((1, 2), None), b"{\"succeeded\":1,\"failed\":2}\n");
        let stopped: Value =
            serde_json::from_slice(&last_line((0, 0), Some(&Failure::new(Problem::Closing, "w")))).unwrap();
        assert_eq!(stopped["stopped"]["code"], "closing");
    }

    #[test]
    fn unread_rest_is_a_failure() {
        let stopped = Failure::new(Problem::BodyTooLarge, "long line");
        let answer = Answer::many(&[written()], Some(&stopped), "r");
        assert_eq!((answer.status, &parsed(&answer)["stopped"]["code"]), (207, &"body-too-large".into()));
        assert_eq!(Answer::many(&[], Some(&stopped), "r").status, 413);
    }
}

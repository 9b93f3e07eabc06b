//! The demands of a request's head, decided before a byte of the body is read.

use std::time::Duration;

use hyper::HeaderMap;
use hyper::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE};
use hyper::http::request::Parts;
use kafka_courier::events::TraceContext;
use uuid::Uuid;

use crate::limits::dedupe::MAX_KEY;
use crate::options::{Dedupe, GatewayConfig};
use crate::shapes::ack::{Ack, AckRules};
use crate::shapes::content::{Encoding, Shape};
use crate::shapes::failure::Failure;
use crate::shapes::principal::Principal;
use crate::shapes::problem::Problem;
use crate::shapes::query::{Query, QueryOf};
use crate::shapes::record::Context;
use crate::shapes::route::Route;

/// The longest id of a request that is taken from a client.
const MAX_ID: usize = 128;
const REQUEST_ID: &str = "x-request-id";
const CORRELATION_ID: &str = "x-correlation-id";
pub(super) const IDEMPOTENCY_KEY: &str = "idempotency-key";

/// The head of a request.
#[derive(Debug)]
pub(super) struct Head {
    pub(super) route: Route,
    pub(super) query: Query,
    pub(super) shape: Shape,
    pub(super) encoding: Encoding,
    pub(super) context: Context,
    /// The length of the body, if the client says it.
    pub(super) length: Option<usize>,
    pub(super) timeout: Duration,
    /// The key by which a repeated request is known.
    pub(super) key: Option<String>,
}

impl Head {
    /// Reads the head of a request.
    ///
    /// # Errors
    ///
    /// The first problem. Nothing of the body was read.
    pub(super) fn read(
        parts: &Parts,
        config: &GatewayConfig,
        rules: &AckRules,
        client: Option<&Principal>,
    ) -> Result<Self, Failure> {
        let route = Route::find(parts.method.as_str(), parts.uri.path())?;
        let query_of = if route == Route::Events { QueryOf::Events } else { QueryOf::Record };
        let query = Query::parse(parts.uri.query().unwrap_or_default(), query_of)?;
        let content_type = text(&parts.headers, CONTENT_TYPE.as_str());
        let shape = match &route {
            Route::Events => Shape::of_events(content_type, parts.headers.contains_key("ce-specversion"))?,
            Route::Topic(topic) => {
                client.map_or(Ok(()), |client| client.check_topic(topic))?;
                rules.choose(topic, query.ack, client.and_then(|client| client.floor))?;
                Shape::of_record(content_type)?
            }
        };
        let encoding = Encoding::parse(text(&parts.headers, CONTENT_ENCODING.as_str()))?;
        if query.ack == Some(Ack::Disk) && !rules.has_spool {
            rules.choose("", query.ack, None)?;
        }
        let timeout = timeout(&query, config)?;
        let length = text(&parts.headers, CONTENT_LENGTH.as_str()).and_then(|length| length.parse().ok());
        let (context, key) = (context(&parts.headers)?, idempotency_key(&parts.headers, config)?);
        check_stream(&query, shape, key.is_some())?;
        check_records(&query, shape)?;
        let is_whole = shape != Shape::Ndjson || key.is_some();
        if length.is_some_and(|length: usize| length > config.max_body_bytes) && is_whole {
            return Err(too_large(config.max_body_bytes));
        }
        Ok(Self { route, query, shape, encoding, context, length, timeout, key })
    }
}

/// Only lines without a key have results while they arrive: the answer to a key is repeated as a whole.
fn check_stream(query: &Query, shape: Shape, has_key: bool) -> Result<(), Failure> {
    match query.stream && (shape != Shape::Ndjson || has_key) {
        false => Ok(()),
        true => {
            let why = "parameter stream: expected a body of application/x-ndjson, and no idempotency-key";
            Err(Failure::new(Problem::BadQuery, why))
        }
    }
}

/// Records as JSON have their own keys and partitions.
fn check_records(query: &Query, shape: Shape) -> Result<(), Failure> {
    let names_record = query.key.is_some() || query.partition.is_some() || query.tombstone;
    match shape == Shape::Records && names_record {
        false => Ok(()),
        true => {
            let why = "parameters key, partition and tombstone: name them in each record of the body";
            Err(Failure::new(Problem::BadQuery, why))
        }
    }
}

/// Returns the failure of a body with more than `max` bytes.
pub(super) fn too_large(max: usize) -> Failure {
    let why = format!("the body has more than {max} bytes: send less in a request, or raise max_body_bytes");
    Failure::new(Problem::BodyTooLarge, why)
}

fn timeout(query: &Query, config: &GatewayConfig) -> Result<Duration, Failure> {
    let timeout = query.timeout.unwrap_or(config.answer_timeout);
    if timeout > config.answer_timeout_max && query.timeout.is_some() {
        let why = format!("parameter timeout: expected at most {:?} (answer_timeout_max)", config.answer_timeout_max);
        return Err(Failure::new(Problem::BadQuery, why));
    }
    Ok(timeout)
}

/// Returns the key of a request. A quoted key and the same text without quotes are one key.
fn idempotency_key(headers: &HeaderMap, config: &GatewayConfig) -> Result<Option<String>, Failure> {
    let Some(value) = headers.get(IDEMPOTENCY_KEY) else { return Ok(None) };
    let text = value.to_str().unwrap_or_default().trim();
    let key = text.strip_prefix('"').and_then(|text| text.strip_suffix('"')).unwrap_or(text);
    if config.deduped() == Dedupe::Off {
        return Err(Failure::new(Problem::BadRequest, "idempotency-key is switched off (dedupe, dedupe_window)"));
    }
    if key.is_empty() || key.len() > MAX_KEY {
        let why = format!("idempotency-key: expected 1 to {MAX_KEY} printable ASCII characters");
        return Err(Failure::new(Problem::BadRequest, why));
    }
    Ok(Some(key.to_owned()))
}

/// Returns the context that the request gives its events.
fn context(headers: &HeaderMap) -> Result<Context, Failure> {
    let correlation_id = text(headers, CORRELATION_ID).or_else(|| text(headers, REQUEST_ID));
    // An invalid context is not forwarded (W3C Trace Context, 4.3).
    let trace =
        text(headers, "traceparent").and_then(|parent| TraceContext::new(parent, text(headers, "tracestate")).ok());
    if correlation_id.is_some_and(|id| !is_id(id)) {
        let why = format!("a request or correlation id has up to {MAX_ID} printable ASCII characters");
        return Err(Failure::new(Problem::BadRequest, why));
    }
    Ok(Context { correlation_id: correlation_id.map(str::to_owned), trace })
}

/// Returns the client's id of the request, or a new one.
pub(super) fn request_id(headers: &HeaderMap) -> String {
    let given = text(headers, REQUEST_ID).filter(|id| is_id(id));
    given.map_or_else(|| Uuid::now_v7().to_string(), str::to_owned)
}

fn is_id(text: &str) -> bool {
    (1..=MAX_ID).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic())
}

pub(super) fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

#[cfg(test)]
mod tests {
    use hyper::Request;

    use super::*;
    use crate::shapes::ack::TopicAcks;

    fn read(uri: &str, headers: &[(&str, &str)]) -> Result<Head, Failure> {
        let config = GatewayConfig { max_body_bytes: 10, ..GatewayConfig::default() };
        let topics = TopicAcks::parse("audit=broker:broker").unwrap();
        let rules = AckRules { default: Ack::Broker, floor: Ack::Memory, topics, has_spool: false };
        let mut request = Request::post(uri);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        Head::read(&request.body(()).unwrap().into_parts().0, &config, &rules, None)
    }

    #[test]
    fn problems_precede_the_body() {
        let json = ("content-type", "application/json");
        for (uri, headers, problem) in [
            ("/v1/nowhere", &[json][..], Problem::NotFound),
            ("/v1/events?akc=disk", &[json], Problem::BadQuery),
            ("/v1/events?ack=disk", &[json], Problem::AckUnavailable),
            ("/v1/events?timeout=6m", &[json], Problem::BadQuery),
            ("/v1/events?stream=true", &[json], Problem::BadQuery),
            ("/v1/events", &[], Problem::UnsupportedType),
            ("/v1/events", &[json, ("content-encoding", "br")], Problem::UnsupportedEncoding),
            ("/v1/events", &[json, ("content-length", "11")], Problem::BodyTooLarge),
            ("/v1/events", &[json, ("x-correlation-id", "a b")], Problem::BadRequest),
            ("/v1/events", &[json, ("idempotency-key", "\"\"")], Problem::BadRequest),
            ("/v1/topics/audit?ack=memory", &[json], Problem::AckTooWeak),
        ] {
            assert_eq!(read(uri, headers).unwrap_err().problem, problem, "{uri} {headers:?}");
        }
        let lines = [("content-type", "application/x-ndjson"), ("content-length", "11")];
        assert_eq!(read("/v1/events", &lines).unwrap().length, Some(11), "each line has the limit");
        let keyed = [lines[0], lines[1], ("idempotency-key", "k-1")];
        assert_eq!(read("/v1/events", &keyed).unwrap_err().problem, Problem::BodyTooLarge, "the body is read whole");
    }

    #[test]
    fn ids_and_trace_are_forwarded() {
        let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        let headers = [("content-type", "application/json"), ("x-request-id", "r-1"), ("traceparent", trace)];
        let context = read("/v1/events", &headers).unwrap().context;
        assert_eq!(context.correlation_id.as_deref(), Some("r-1"));
        assert_eq!(context.trace.map(|trace| trace.traceparent().to_owned()).as_deref(), Some(trace));
        let both = [headers[0], headers[1], ("x-correlation-id", "c-1"), ("traceparent", "00")];
        let context = read("/v1/events", &both).unwrap().context;
        assert_eq!((context.correlation_id.as_deref(), context.trace), (Some("c-1"), None));
    }
}

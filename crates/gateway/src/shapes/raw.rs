//! Records with the client's own bytes: the body is the value, `record-` headers are the record's.

use super::failure::Failure;
use super::problem::Problem;
use super::query::Query;
use super::record::{Context, OutRecord};

/// The prefix of request headers that become record headers.
const PREFIX: &str = "record-";

/// Makes the record of a request for `topic`. `headers` are the request's, with lower-case names.
///
/// # Errors
///
/// [`Problem::BadQuery`] if a tombstone has a value.
pub fn read<'a>(
    topic: &str,
    query: &Query,
    headers: impl Iterator<Item = (&'a str, &'a [u8])>,
    body: Vec<u8>,
    context: &Context,
) -> Result<OutRecord, Failure> {
    if query.tombstone && !body.is_empty() {
        let why = "tombstone=true, and the body is not empty: a tombstone has no value";
        return Err(Failure::new(Problem::BadQuery, why));
    }
    let named = headers.filter_map(|(name, value)| Some((name.strip_prefix(PREFIX)?, value)));
    let headers = named.filter(|(name, _)| !name.is_empty()).map(|(name, value)| (name.to_owned(), value.to_vec()));
    Ok(OutRecord {
        topic: topic.into(),
        partition: query.partition,
        key: query.key.clone(),
        value: (!query.tombstone).then_some(body),
        headers: with_context(headers.collect(), context),
        timestamp: None,
        id: None,
        source: None,
    })
}

/// Adds the context of the request to headers that lack it.
pub(super) fn with_context(mut headers: Vec<(String, Vec<u8>)>, context: &Context) -> Vec<(String, Vec<u8>)> {
    let defaults = [
        (kafka_courier::headers::CORRELATION_ID, context.correlation_id.as_deref()),
        ("traceparent", context.trace.as_ref().map(|trace| trace.traceparent())),
        ("tracestate", context.trace.as_ref().and_then(|trace| trace.tracestate())),
    ];
    for (name, text) in defaults {
        if let Some(text) = text.filter(|_| !headers.iter().any(|(known, _)| known == name)) {
            headers.push((name.to_owned(), text.as_bytes().to_vec()));
        }
    }
    headers
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn request_becomes_the_record() {
        let query = Query { key: Some(b"k".to_vec()), partition: Some(2), ..Query::default() };
        let context = Context { correlation_id: Some("r-1".to_owned()), trace: None };
        let headers = [("record-tenant", &b"acme"[..]), ("content-type", b"x/y"), ("record-", b"none")];
        let record = read("t", &query, headers.into_iter(), b"value".to_vec(), &context).unwrap();
        assert_eq!((record.partition, record.value.as_deref()), (Some(2), Some(&b"value"[..])));
        let expected = [("tenant", &b"acme"[..]), ("correlation_id", b"r-1")];
        assert!(record.headers.iter().map(|(name, value)| (name.as_str(), &value[..])).eq(expected));
    }

    #[test]
    fn tombstone_has_no_value() {
        let query = Query { tombstone: true, ..Query::default() };
        let read = |body: &[u8]| read("t", &query, std::iter::empty(), body.to_vec(), &Context::default());
        assert_eq!(read(b"").unwrap().value, None);
        assert_eq!(read(b"v").unwrap_err().problem, Problem::BadQuery);
    }
}

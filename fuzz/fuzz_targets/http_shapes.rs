//! Reads arbitrary bytes as requests in every shape.
//!
//! Rules: no input panics. An event is the same after it was read and written once. NDJSON has the same lines, wherever the
//! body is cut. A structured CloudEvent is not changed.
#![no_main]

use std::sync::Arc;

use kafka_courier::events::SystemStamper;
use kafka_courier_gateway::shapes::dead_letters::{PageQuery, SpoolQuery, read_purge, read_replay};
use kafka_courier_gateway::shapes::event::{read_body, read_one};
use kafka_courier_gateway::shapes::ndjson::Lines;
use kafka_courier_gateway::shapes::principal::Principals;
use kafka_courier_gateway::shapes::query::{Query, QueryOf};
use kafka_courier_gateway::shapes::record::{Context, Reading};
use kafka_courier_gateway::shapes::{ack::TopicAcks, cloudevents, openmetrics, percent, raw, records, route::Route};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Some((cut, data)) = data.split_first() else { return };
    let topic_of = |event_type: &str| -> Arc<str> { event_type.into() };
    let context = Context { correlation_id: Some("c".to_owned()), trace: None };
    let (stamper, needs_source) = (&SystemStamper, true);
    let reading = Reading { topic_of: &topic_of, context: &context, max_depth: 64, max_events: 100, stamper, needs_source };
    let _ = (read_body(data, reading), records::read_body("t", data, reading));
    let _ = (read_purge(data), read_replay(data, None));
    if let Ok(record) = read_one(data, reading) {
        let value = record.value.clone().expect("an event has a value");
        assert_eq!(read_one(&value, reading).expect("our own event can be read"), record);
    }
    if let Ok(record) = cloudevents::read_structured(data, reading) {
        assert_eq!(record.value.as_deref(), Some(data));
    }
    assert_eq!(lines(data, data.len()), lines(data, usize::from(*cut).min(data.len())));
    headers(data, reading);
    if let Ok(text) = std::str::from_utf8(data) {
        let _ = (Query::parse(text, QueryOf::Events), Route::find("POST", text), Principals::parse(text));
        let _ = (PageQuery::parse(text), SpoolQuery::parse(text), openmetrics::is_preferred(Some(text)));
        let _ = openmetrics::from_prometheus(text);
        if let Some(acks) = TopicAcks::parse(text) {
            assert_eq!(TopicAcks::parse(&acks.to_string()), Some(acks));
        }
        if let Ok(query) = Query::parse(text, QueryOf::Record) {
            let _ = raw::read("t", &query, std::iter::empty(), data.to_vec(), &context);
        }
    }
    let _ = percent::decode_text(data);
});

/// Returns the lines of a body that arrives in two parts.
fn lines(body: &[u8], cut: usize) -> Option<Vec<Vec<u8>>> {
    let (mut lines, mut all) = (Lines::new(1000), Vec::new());
    let (first, second) = body.split_at(cut);
    for part in [first, second] {
        lines.push(part);
        while let Some(line) = lines.next_line().ok()? {
            all.push(line.to_vec());
        }
    }
    lines.end();
    while let Some(line) = lines.next_line().ok()? {
        all.push(line.to_vec());
    }
    Some(all)
}

/// Reads each line as a header `name:value` of a CloudEvent in binary mode.
fn headers(data: &[u8], reading: Reading<'_>) {
    let pairs = data.split(|byte| *byte == b'\n').filter_map(|line| {
        let at = line.iter().position(|byte| *byte == b':')?;
        Some((std::str::from_utf8(&line[..at]).ok()?, &line[at + 1..]))
    });
    let required = [("ce-specversion", &b"1.0"[..]), ("ce-id", b"1"), ("ce-source", b"/s"), ("ce-type", b"t")];
    let _ = cloudevents::read_binary(None, required.into_iter().chain(pairs), data.to_vec(), reading);
}

//! Arbitrary bodies, headers and queries in every shape. fuzz/fuzz_targets/http_shapes.rs does the same for longer.

use std::sync::Arc;

use kafka_courier::events::SystemStamper;
use kafka_courier_gateway::shapes::event::{read_body, read_one};
use kafka_courier_gateway::shapes::query::{Query, QueryOf};
use kafka_courier_gateway::shapes::record::{Context, Reading};
use kafka_courier_gateway::shapes::{cloudevents, percent, principal::Principals, route::Route};
use proptest::prelude::*;

/// Texts of the words of events, which reach further than arbitrary bytes.
fn words() -> impl Strategy<Value = String> {
    let word = prop_oneof![
        Just("{"),
        Just("}"),
        Just("["),
        Just("]"),
        Just(":"),
        Just(","),
        Just("\"type\""),
        Just("\"id\""),
        Just("\"data\""),
        Just("\"specversion\":\"1.0\""),
        Just("\"source\""),
        Just("\"t\""),
        Just("\"\\u00e4\\ud800\""),
        Just("null"),
        Just("1.50e3"),
        Just("\n"),
        Just("&ack=disk"),
        Just("%2f%"),
    ];
    proptest::collection::vec(word, 0..30).prop_map(|words| words.concat())
}

fn check(data: &[u8]) {
    let topic_of = |event_type: &str| -> Arc<str> { event_type.into() };
    let context = Context { correlation_id: Some("c".to_owned()), trace: None };
    let (stamper, needs_source) = (&SystemStamper, true);
    let reading =
        Reading { topic_of: &topic_of, context: &context, max_depth: 8, max_events: 5, stamper, needs_source };
    let _ = read_body(data, reading);
    if let Ok(record) = read_one(data, reading) {
        assert_eq!(read_one(&record.value.clone().unwrap(), reading).unwrap(), record);
    }
    if let Ok(record) = cloudevents::read_structured(data, reading) {
        assert_eq!(record.value.as_deref(), Some(data));
    }
    let headers = [("ce-specversion", &b"1.0"[..]), ("ce-id", data), ("ce-source", data), ("ce-type", data)];
    let _ = cloudevents::read_binary(None, headers.into_iter(), data.to_vec(), reading);
    let text = String::from_utf8_lossy(data);
    let _ = (Query::parse(&text, QueryOf::Record), Route::find("POST", &text), Principals::parse(&text));
    let _ = percent::decode_text(data);
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(data in proptest::collection::vec(any::<u8>(), 0..200)) {
        check(&data);
    }

    #[test]
    fn arbitrary_words_never_panic(text in words()) {
        check(text.as_bytes());
        check(format!("{{\"type\":\"t\",{text}}}").as_bytes());
    }
}

//! Events from JSON: preserved text, filled-in fields, and errors.

use kafka_courier_event_model::{
    AnyEvent, Envelope, Event, EventBuilder, EventData, ParseError, TraceContext, UserLoggedIn, event_data,
};
use serde_json::json;

fn any(json: &str) -> AnyEvent {
    AnyEvent::from_json(json.as_bytes()).unwrap_or_else(|error| panic!("{json}: {error}"))
}

fn refused(json: &str) -> ParseError {
    AnyEvent::from_json(json.as_bytes()).unwrap_err()
}

fn encode(event: &dyn Event) -> String {
    let mut out = Vec::new();
    event.encode_into(&mut out).unwrap();
    String::from_utf8(out).unwrap()
}

fn key(event: &dyn Event) -> Option<String> {
    event.key().map(|key| String::from_utf8(key.into_owned()).unwrap())
}

fn stamp() -> (uuid::Uuid, jiff::Timestamp) {
    let id = uuid::Uuid::from_u128(0x0190163d_8694_739b_aea5_966c26f8ad91);
    (id, "2024-01-15T10:00:00Z".parse().unwrap())
}

#[test]
fn text_survives_unchanged() {
    let json = concat!(
        r#"{"zeta":1,"data":{"n":9007199254740993,"huge":1e400,"tiny":-0.0E-7,"d":1.50,"same":1,"same":2},"#,
        r#""id":"x-1","type":"order.placed","alpha":[null,false,{},[],"\u00e9\ud800"],"timestamp":"2024-01-15T12:00:00+02:00"}"#
    );
    let event = any(json);
    assert_eq!(encode(&event), json);
    assert_eq!(event.timestamp_ms(), 1_705_312_800_000);
    assert_eq!(event.id().to_string(), "x-1");
}

#[test]
fn space_between_tokens_is_removed() {
    let event = any("\u{feff}{\n  \"type\" : \"a b\",\n\t\"id\": \"1\", \"timestamp\":\"2024-01-15T10:00:00Z\" }\r\n");
    assert_eq!(encode(&event), r#"{"type":"a b","id":"1","timestamp":"2024-01-15T10:00:00Z"}"#);
}

#[test]
fn missing_id_and_timestamp_are_added() {
    let fill = |json: &str| encode(&AnyEvent::from_json_with(json.as_bytes(), &stamp).unwrap());
    let id = r#""id":"0190163d-8694-739b-aea5-966c26f8ad91""#;
    let timestamp = r#""timestamp":"2024-01-15T10:00:00Z""#;
    assert_eq!(fill(r#" {"type":"t"}"#), format!(r#"{{{id},{timestamp},"type":"t"}}"#));
    assert_eq!(fill(r#"{"type":"t","id":"1"}"#), format!(r#"{{{timestamp},"type":"t","id":"1"}}"#));
    assert_eq!(
        fill(r#"{"type":"t","timestamp":"1999-01-15T10:00:00Z"}"#),
        format!(r#"{{{id},"type":"t","timestamp":"1999-01-15T10:00:00Z"}}"#)
    );
}

#[test]
fn added_fields_are_readable() {
    let event = AnyEvent::from_json_with(br#"{"type":"t"}"#, &stamp).unwrap();
    assert_eq!(event.id().as_uuid(), Some(stamp().0));
    assert_eq!(event.timestamp(), stamp().1);
    assert_eq!(AnyEvent::from_json(encode(&event).as_bytes()).unwrap(), event);
}

#[test]
fn default_id_is_uuid_7() {
    let event = any(r#"{"type":"t"}"#);
    assert_eq!(event.id().as_uuid().unwrap().get_version_num(), 7);
    assert_ne!(event.id(), any(r#"{"type":"t"}"#).id());
}

#[test]
fn built_in_type_finds_its_key() {
    assert_eq!(key(&any(r#"{"type":"user.logged_in","data":{"email":"e","user_id":"u\n1"}}"#)).unwrap(), "u\n1");
    assert_eq!(key(&any(r#"{"type":"system.alert","data":{"service":"s"}}"#)).unwrap(), "s");
    assert_eq!(key(&any(r#"{"type":"api.error","data":{"request_id":17}}"#)).unwrap(), "17");
    assert_eq!(key(&any(r#"{"type":"api.error","data":{"request_id":""}}"#)).unwrap(), "");
}

#[test]
fn key_is_absent_without_field() {
    for json in [
        r#"{"type":"user.logged_in"}"#,
        r#"{"type":"user.logged_in","data":{}}"#,
        r#"{"type":"user.logged_in","data":{"user_id":null}}"#,
        r#"{"type":"user.logged_in","data":{"user_id":["u"]}}"#,
        r#"{"type":"order.placed","data":{"user_id":"u"}}"#,
        r#"{"type":"order.placed","partition_key":null}"#,
    ] {
        assert_eq!(key(&any(json)), None, "{json}");
    }
}

#[test]
fn partition_key_takes_precedence() {
    let json = r#"{"type":"user.logged_in","partition_key":"p","data":{"user_id":"u"}}"#;
    assert_eq!(key(&any(json)).unwrap(), "p");
}

#[test]
fn overridden_key_is_written() {
    let event = any(r#"{"id":"1","type":"t","timestamp":"2024-01-15T10:00:00Z"}"#);
    let json = r#"{"id":"1","type":"t","timestamp":"2024-01-15T10:00:00Z","partition_key":"a\"b"}"#;
    let keyed = event.with_key("a\"b");
    assert_eq!(encode(&keyed), json);
    assert_eq!(keyed, any(json));
    let keyed_again = keyed.with_key("c");
    assert_eq!(encode(&keyed_again), json.replace(r#"a\"b"#, "c"));
    assert_eq!(key(&keyed_again).unwrap(), "c");
}

#[test]
fn request_context_fills_absent_fields() {
    let trace = |last: char| {
        TraceContext::new(&format!("00-0af7651916cd43dd8448eb211c80319c-b7ad6b716920333{last}-01"), None).unwrap()
    };
    let filled = |json: &str| {
        let event = any(json).with_default_correlation_id("r-\"1").with_default_trace_context(&trace('1'));
        let read = any(event.as_str());
        assert_eq!((read.correlation_id(), read.trace()), (event.correlation_id(), event.trace()), "{json}");
        (event.correlation_id().unwrap().to_owned(), event.trace().unwrap().clone())
    };
    let absent = ("r-\"1".to_owned(), trace('1'));
    assert_eq!(filled(r#"{"type":"t"}"#), absent);
    assert_eq!(filled(r#"{"type":"t","correlation_id":null,"traceparent":null,"tracestate":"a=b"}"#), absent);
    let own = format!(r#"{{"type":"t","correlation_id":"mine","traceparent":"{}"}}"#, trace('2').traceparent());
    assert_eq!(filled(&own), ("mine".to_owned(), trace('2')));
}

#[test]
fn typed_events_key_survives_json() {
    let event = EventBuilder::new("s", "1").user_logged_in(UserLoggedIn::default()).with_key("");
    assert_eq!(key(&event).unwrap(), "");
    assert_eq!(key(&any(&encode(&event))).unwrap(), "");
}

#[test]
fn correlation_and_trace_are_read() {
    let traceparent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let event =
        any(&format!(r#"{{"type":"t","correlation_id":"c","traceparent":"{traceparent}","tracestate":"a=b"}}"#));
    assert_eq!(event.correlation_id(), Some("c"));
    assert_eq!(event.trace().unwrap().traceparent(), traceparent);
    assert_eq!(event.trace().unwrap().tracestate(), Some("a=b"));
    let event = any(r#"{"type":"t","correlation_id":null,"tracestate":"alone"}"#);
    assert_eq!((event.correlation_id(), event.trace()), (None, None));
}

#[test]
fn error_names_field_value_remedy() {
    for (json, message) in [
        ("{}", r#"field "type" is missing: add it, the event's type as a string"#),
        (r#"{"type":""}"#, r#"field "type" is "", expected a string that is not empty"#),
        (r#"{"type":7}"#, r#"field "type" is 7, expected a string that is not empty"#),
        (r#"{"type":"t","id":null}"#, r#"field "id" is null, expected a string that is not empty"#),
        (r#"{"type":"t","correlation_id":7}"#, r#"field "correlation_id" is 7, expected a string, or leave it out"#),
        (r#"{"type":"t","partition_key":[]}"#, r#"field "partition_key" is [], expected a string, or leave it out"#),
        (
            r#"{"type":"t","timestamp":1705312800}"#,
            r#"field "timestamp" is 1705312800, expected an RFC 3339 time such as "2024-01-15T10:00:00Z""#,
        ),
        (r#"{"type":"t","type":"u"}"#, r#"field "type" appears twice: keep one"#),
        ("[]", r#"an event is a JSON object {"type": ..}, not an array"#),
        (" \"x\"", r#"an event is a JSON object {"type": ..}, not a string"#),
        ("-1", r#"an event is a JSON object {"type": ..}, not a number"#),
        ("", "not JSON: EOF while parsing a value at line 1 column 0"),
        (r#"{"type":"t"} x"#, "not JSON: trailing characters at line 1 column 14"),
        (r#"{"type":"t","a":01}"#, "not JSON: invalid number at line 1 column 18"),
        (r#"{"type":"t""#, "not JSON: EOF while parsing an object at line 1 column 11"),
    ] {
        assert_eq!(refused(json).to_string(), message, "{json}");
    }
}

#[test]
fn invalid_trace_is_quoted() {
    let error = refused(r#"{"type":"t","traceparent":"zz"}"#).to_string();
    assert!(error.starts_with(r#"field "traceparent" is "zz", expected a value such as "00-0af"#), "{error}");
    let parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let error = refused(&format!(r#"{{"type":"t","traceparent":"{parent}","tracestate":"ä=b"}}"#)).to_string();
    assert_eq!(error, r#"field "tracestate" is "ä=b", expected printable ASCII"#);
}

#[test]
fn long_value_is_truncated_in_error() {
    let error = refused(&format!(r#"{{"type":["{}"]}}"#, "é".repeat(100_000))).to_string();
    assert!(error.len() < 200, "{error}");
}

#[test]
fn invalid_utf_8_names_position() {
    let error = AnyEvent::from_json(b"{\"type\":\"\xff\"}").unwrap_err();
    assert_eq!(error, ParseError::NotUtf8 { at: 9 });
}

#[test]
fn deep_nesting_is_refused_everywhere() {
    let nested = |depth: usize| format!(r#"{{"type":"t","x":{}{}}}"#, "[".repeat(depth), "]".repeat(depth));
    assert_eq!(refused(&nested(127)), ParseError::TooDeep { limit: 127 });
    assert_eq!(refused(&nested(1_000_000)), ParseError::TooDeep { limit: 127 });
    let deepest = any(&nested(126));
    assert!(serde_json::from_str::<serde_json::Value>(deepest.as_str()).is_ok());
}

#[test]
fn untyped_event_has_builders_envelope() {
    let builder = EventBuilder::new("shop", "2").with_stamper(stamp).with_correlation_id("c");
    let event = builder.untyped("order.placed", json!({"total": 0, "gift": false})).unwrap();
    assert_eq!(
        encode(&event),
        concat!(
            r#"{"id":"0190163d-8694-739b-aea5-966c26f8ad91","type":"order.placed","source":"shop","version":"2","#,
            r#""timestamp":"2024-01-15T10:00:00Z","correlation_id":"c","data":{"total":0,"gift":false}}"#
        )
    );
    assert!(matches!(builder.untyped("", json!({})), Err(ParseError::Invalid { field: "type", .. })));
    for no_object in [json!(null), json!(7), json!("x"), json!([{}])] {
        let refused = builder.untyped("t", no_object).unwrap_err();
        assert!(matches!(&refused, ParseError::Invalid { field: "data", .. }), "{refused}");
    }
}

#[derive(serde::Serialize, serde::Deserialize, PartialEq, Debug)]
struct OrderPlaced {
    order_id: String,
    gift: bool,
}
event_data!(OrderPlaced, "order.placed", key = order_id);

#[derive(serde::Serialize)]
struct Heartbeat {
    beat: u64,
}
event_data!(Heartbeat, "heartbeat");

#[test]
fn event_data_takes_one_line() {
    let builder = EventBuilder::new("shop", "1");
    let event = builder.custom(OrderPlaced { order_id: "o-1".into(), gift: false });
    assert_eq!((event.event_type(), key(&event).as_deref()), ("order.placed", Some("o-1")));
    assert_eq!(Envelope::from_json(encode(&event).as_bytes()).unwrap(), event);
    let beat = builder.custom(Heartbeat { beat: 0 });
    assert_eq!(key(&beat), None);
    assert!(encode(&beat).ends_with(r#""data":{"beat":0}}"#));
}

#[test]
fn wrong_type_or_missing_field_fails() {
    let read = |json: &str| Envelope::<OrderPlaced>::from_json(json.as_bytes()).unwrap_err().to_string();
    let head = r#""id":"1","source":"s","version":"1","timestamp":"2024-01-15T10:00:00Z""#;
    assert_eq!(
        read(&format!(r#"{{{head},"type":"order.paid","data":{{}}}}"#)),
        r#"field "type" is "order.paid", expected "order.placed""#
    );
    assert_eq!(
        read(&format!(r#"{{{head},"type":"order.placed","data":{{"order_id":"o"}}}}"#)),
        r#"field "data" does not fit type order.placed: missing field `gift` at line 1 column 16"#
    );
    assert_eq!(read(r#"{"type":"order.placed","data":{}}"#), r#"field "id" is missing: add it, a string"#);
    assert_eq!(read(&format!(r#"{{{head},"type":"order.placed"}}"#)), r#"field "data" is missing: add it, an object"#);
}

#[test]
fn envelope_names_are_reserved() {
    let mut event = EventBuilder::new("s", "1").custom(Heartbeat { beat: 1 });
    assert!(event.set_extra("id", 1).is_err());
    event.set_extra("region", "eu").unwrap();
    assert_eq!(event.extra()["region"], "eu");
}

#[test]
fn encode_error_leaves_buffer_unchanged() {
    struct Broken;
    impl serde::Serialize for Broken {
        fn serialize<S: serde::Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
            Err(serde::ser::Error::custom("no"))
        }
    }
    impl EventData for Broken {
        const TYPE: &'static str = "broken";
        fn key(&self) -> Option<std::borrow::Cow<'_, str>> {
            None
        }
    }
    let mut out = b"before".to_vec();
    let error = EventBuilder::new("s", "1").custom(Broken).encode_into(&mut out).unwrap_err();
    assert_eq!(error.to_string(), "event of type broken cannot be written as JSON: no");
    assert_eq!(out, b"before");
}

#[test]
fn references_and_boxes_are_events() {
    fn publish(event: impl Event) -> String {
        encode(&event)
    }
    let event = any(r#"{"type":"t"}"#);
    let boxed: Box<dyn Event> = Box::new(event.clone());
    assert_eq!(publish(&event), publish(boxed));
    assert_eq!(publish(std::sync::Arc::new(event.clone())), publish(event));
}

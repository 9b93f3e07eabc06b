//! A letter's JSON keeps every byte, stays on one line, and is refused if it is ambiguous.

use kafka_courier_dlq::{Bytes, Header, Letter, LetterId, Outcome, ReplayState, Timestamp, Uuid};
use proptest::prelude::*;
use serde_json::{Value, json};

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn letter(value: impl Into<Option<Bytes>>) -> Letter {
    Letter::new("orders", value, "broker not available", at("2024-01-15T10:00:00Z"))
}

fn json_of(letter: &Letter) -> Value {
    serde_json::from_slice(&letter.to_json().unwrap()).unwrap()
}

fn assert_round_trip(letter: &Letter) {
    let json = letter.to_json().unwrap();
    assert!(!json.contains(&b'\n') && !json.contains(&b'\r'), "{}", String::from_utf8_lossy(&json));
    let again = Letter::from_json(&json).unwrap();
    assert_eq!(&again, letter);
    assert_eq!(again.to_json().unwrap(), json);
}

#[test]
fn json_field_names_are_stable() {
    let mut letter = letter(Bytes::from_static(br#"{"id":1}"#));
    letter.attempt_count = 3;
    letter.last_attempt = at("2024-01-15T10:01:30Z");
    letter.key = Some(Bytes::from_static(b"k"));
    letter.partition = Some(2);
    letter.error_code = Some("REQUEST_TIMED_OUT".into());
    letter.headers = vec![Header { name: "h".into(), value: Some(Bytes::from_static(b"v")) }];
    letter.producer_id = Some(4000);
    assert_eq!(
        json_of(&letter),
        json!({
            "id": letter.id.to_string(),
            "event": {"id": 1}, "topic": "orders", "failure_reason": "broker not available", "attempt_count": 3,
            "first_attempt": "2024-01-15T10:00:00Z", "last_attempt": "2024-01-15T10:01:30Z",
            "partition": 2, "key": "k", "headers": [{"name": "h", "value": "v"}],
            "timestamp_ms": 1705312800000_i64, "error_code": "REQUEST_TIMED_OUT", "outcome": "unknown",
            "retriable": false, "event_id": null, "event_type": null, "correlation_id": null, "replay_count": 0,
            "producer_id": 4000, "format": 2,
        })
    );
    assert_round_trip(&letter);
}

#[test]
fn changed_json_has_base64() {
    for (value, event) in
        [(&b"{\n  \"a\": 1\r\n}"[..], r#"{   "a": 1  }"#), (b" {\"a\":1}", r#"{"a":1}"#), (b"1\n", "1")]
    {
        let letter = letter(Bytes::from_static(value));
        let json = String::from_utf8(letter.to_json().unwrap()).unwrap();
        assert!(json.contains(&format!("\"event\":{event},\"event_base64\":\"")), "{json}");
        assert_round_trip(&letter);
    }
}

#[test]
fn json_text_is_kept() {
    for value in [
        r#"{"a":1,"a":2}"#,
        "123456789012345678901234567890.000e-7",
        r#"{ "a" : [ 1 ,2 ] , "b":"\u00e9\ud83d\/" }"#,
        "\"\u{2028}\"",
        "-0.0",
        "true",
    ] {
        let letter = letter(Bytes::from(value));
        let json = String::from_utf8(letter.to_json().unwrap()).unwrap();
        assert!(json.contains(&format!("\"event\":{value},\"topic\"")), "{json}");
        assert_round_trip(&letter);
    }
}

#[test]
fn other_bytes_are_base64() {
    for value in [&b"plain text"[..], b"", b"\xff\xfe", b"{\"a\":1} {", b"null", b" null "] {
        let letter = letter(Bytes::from_static(value));
        let json = json_of(&letter);
        assert_eq!((&json["event"], json["event_base64"].is_string()), (&Value::Null, true), "{json}");
        assert_round_trip(&letter);
    }
}

#[test]
fn tombstone_empty_and_null_differ() {
    for value in [None, Some(Bytes::new()), Some(Bytes::from_static(b"null"))] {
        assert_round_trip(&letter(value));
    }
    assert!(json_of(&letter(None)).get("event_base64").is_none());
}

#[test]
fn null_and_empty_keys_differ() {
    for key in [None, Some(Bytes::new()), Some(Bytes::from_static(b"\xff"))] {
        let mut letter = letter(None);
        letter.headers = vec![Header { name: String::new(), value: key.clone() }];
        letter.key = key;
        assert_round_trip(&letter);
    }
}

#[test]
fn deeply_nested_json_is_kept() {
    let deep = "[".repeat(200_000) + &"]".repeat(200_000);
    assert_round_trip(&letter(Bytes::from(deep)));
}

#[test]
fn unknown_fields_are_ignored() {
    let letter = letter(Bytes::from_static(b"1"));
    let mut json = json_of(&letter);
    json["colour"] = json!("blue");
    assert_eq!(Letter::from_json(&serde_json::to_vec(&json).unwrap()).unwrap(), letter);
}

/// Fields of a newer format may change the meaning of known ones.
#[test]
fn newer_format_is_refused() {
    let mut json = json_of(&letter(Bytes::from_static(b"1")));
    json["format"] = json!(3);
    assert_refused(&json, "`format` is 3");
}

#[test]
fn unknown_replay_state_is_refused() {
    let mut json = json_of(&letter(Bytes::from_static(b"1")));
    json["replay"] = json!({"state": "later"});
    assert_refused(&json, "later");
}

#[test]
fn invalid_fields_are_named() {
    let without = |field: &str| {
        let mut json = json_of(&letter(Bytes::from_static(b"1")));
        json.as_object_mut().unwrap().remove(field);
        json
    };
    for field in ["id", "topic", "failure_reason", "attempt_count", "first_attempt", "last_attempt", "outcome", "event"]
    {
        assert_refused(&without(field), field);
    }
    let with = |field: &str, value: Value| {
        let mut json = without(field);
        json[field] = value;
        json
    };
    assert_refused(&with("event_base64", json!("not base64!")), "event_base64");
    let mut both = with("key", json!("a"));
    both["key_base64"] = json!("YQ==");
    assert_refused(&both, "key_base64");
    assert_refused(&with("outcome", json!("delivered")), "not_written");
    assert_refused(&with("first_attempt", json!("yesterday")), "yesterday");
    assert_refused(&with("attempt_count", json!(-1)), "-1");
}

fn assert_refused(json: &Value, named: &str) {
    let error = Letter::from_json(&serde_json::to_vec(json).unwrap()).unwrap_err().to_string();
    assert!(error.starts_with("not a dead letter: ") && error.contains(named), "{named}: {error}");
}

fn any_bytes() -> impl Strategy<Value = Bytes> {
    prop_oneof![
        ".{0,20}".prop_map(Bytes::from),
        "[ \\n\\r]{0,2}(null|true|-?[0-9]{1,30}(\\.[0-9]{1,9})?|\"[a-z\\\\n]{0,4}\")[ \\n\\r]{0,2}"
            .prop_map(Bytes::from),
        "\\{[ \\n]?\"a\"[ \\r]?:[ \\n]{0,2}[0-9]{1,3},\"a\":\\[\\]\\}".prop_map(Bytes::from),
        prop::collection::vec(any::<u8>(), 0..40).prop_map(Bytes::from),
    ]
}

fn any_time() -> impl Strategy<Value = Timestamp> {
    (0..253_402_300_799_i64, 0..1_000_000_000_i32).prop_map(|(second, nano)| Timestamp::new(second, nano).unwrap())
}

fn any_replay() -> impl Strategy<Value = ReplayState> {
    let stamped = any::<(i64, i16, i32)>().prop_map(|(producer_id, producer_epoch, sequence)| ReplayState::Stamped {
        producer_id,
        producer_epoch,
        sequence,
    });
    prop_oneof![Just(ReplayState::Idle), Just(ReplayState::InProgress), stamped]
}

prop_compose! {
    fn any_letter()(
        id in any::<u128>(),
        texts in (".{0,9}", ".{0,30}", prop::option::of(".{0,9}"), prop::option::of(".{0,9}"), prop::option::of(".{0,9}")),
        error_code in prop::option::of("[A-Z_]{1,9}"),
        key in prop::option::of(any_bytes()),
        value in prop::option::of(any_bytes()),
        headers in prop::collection::vec((".{0,5}", prop::option::of(any_bytes())), 0..4),
        times in (any_time(), any_time(), any::<i64>()),
        counts in (any::<u32>(), any::<u32>(), any::<bool>(), any::<bool>()),
        place in (any::<Option<i32>>(), any::<Option<u128>>(), any::<Option<i64>>()),
        stamp in (any::<Option<i64>>(), any::<Option<i16>>(), any::<Option<i32>>()),
        replay in any_replay(),
    ) -> Letter {
        Letter {
            id: LetterId::from(Uuid::from_u128(id)), topic: texts.0, failure_reason: texts.1,
            event_id: texts.2, event_type: texts.3, correlation_id: texts.4, error_code, key, value,
            headers: headers.into_iter().map(|(name, value)| Header { name, value }).collect(),
            first_attempt: times.0, last_attempt: times.1, timestamp_ms: times.2,
            attempt_count: counts.0, replay_count: counts.1, retriable: counts.2,
            outcome: if counts.3 { Outcome::Unknown } else { Outcome::NotWritten },
            partition: place.0, topic_id: place.1.map(Uuid::from_u128), search_from: place.2,
            producer_id: stamp.0, producer_epoch: stamp.1, sequence: stamp.2, replay,
        }
    }
}

proptest! {
    #[test]
    fn every_letter_round_trips(letter in any_letter()) {
        assert_round_trip(&letter);
    }

    #[test]
    fn parser_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = Letter::from_json(&bytes);
    }
}

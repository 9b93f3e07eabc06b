//! Events survive their JSON, and arbitrary bytes never make a reader panic.

use std::time::Duration;

use jiff::Timestamp;
use kafka_courier_event_model::{
    AnyEvent, ApiError, ApiRequest, Envelope, Event, EventBuilder, SystemAlert, UserLoggedIn,
};
use proptest::option::of;
use proptest::prelude::*;
use serde_json::{Map, Number, Value};

fn encode(event: &dyn Event) -> Vec<u8> {
    let mut out = Vec::new();
    event.encode_into(&mut out).unwrap();
    out
}

fn text() -> impl Strategy<Value = String> {
    prop_oneof![any::<String>(), "[a-z\"\\\\\n\u{0}é]{0,8}"]
}

fn timestamp() -> impl Strategy<Value = Timestamp> {
    (0_i64..=253_402_207_200, 0_i32..1_000_000_000).prop_map(|(s, ns)| Timestamp::new(s, ns).unwrap())
}

fn number() -> impl Strategy<Value = Number> {
    let spelt = prop_oneof!["-?(0|[1-9][0-9]{0,40})", "-?(0|[1-9][0-9]{0,3})\\.[0-9]{1,30}", "[1-9]e\\+[1-9][0-9]{2}"];
    spelt.prop_map(|text| serde_json::from_str(&text).unwrap())
}

fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        text().prop_map(Value::from),
        number().prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 24, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::vec((text(), inner), 0..4).prop_map(|fields| Value::Object(fields.into_iter().collect())),
        ]
    })
}

/// Fields that belong to no type.
fn unknown() -> impl Strategy<Value = Map<String, Value>> {
    prop::collection::vec(("x-[a-z]{1,4}", value()), 0..4).prop_map(|fields| fields.into_iter().collect())
}

fn logged_in() -> impl Strategy<Value = UserLoggedIn> {
    let texts = (text(), of(text()), of(text()), of(text()), of(text()), of(text()));
    let not_null = |value: Value| Some(value).filter(|value| !value.is_null());
    let rest = (timestamp(), any::<bool>(), value().prop_map(not_null), value().prop_map(not_null), unknown());
    (texts, rest).prop_map(|((user_id, email, ip_address, user_agent, session_id, login_method), rest)| {
        let (login_time, remember_me, device_info, location, extra) = rest;
        UserLoggedIn {
            user_id,
            email,
            ip_address,
            user_agent,
            login_time,
            session_id,
            remember_me,
            login_method,
            device_info,
            location,
            extra,
        }
    })
}

fn alert() -> impl Strategy<Value = SystemAlert> {
    (text(), text(), of(unknown()), any::<bool>(), timestamp(), unknown()).prop_map(
        |(service, message, metadata, resolved, alert_time, extra)| SystemAlert {
            service,
            message,
            metadata,
            resolved,
            alert_time,
            extra,
            ..Default::default()
        },
    )
}

proptest! {
    #[test]
    fn typed_event_survives_its_json(
        data in logged_in(),
        key in of(text()),
        correlation_id in of(text()),
        extra in unknown(),
    ) {
        let mut event = EventBuilder::new("s", "1").user_logged_in(data);
        event.partition_key = key.map(Into::into);
        event.correlation_id = correlation_id.map(Into::into);
        for (name, value) in extra {
            event.set_extra(name, value).unwrap();
        }
        let json = encode(&event);
        let typed = Envelope::<UserLoggedIn>::from_json(&json).unwrap();
        prop_assert_eq!(&encode(&typed), &json);
        prop_assert_eq!(typed, event.clone());
        let any = AnyEvent::from_json(&json).unwrap();
        prop_assert_eq!(&encode(&any), &json);
        prop_assert_eq!(any.key(), event.key());
    }

    #[test]
    fn alert_metadata_survives_its_json(data in alert()) {
        let event = EventBuilder::new("s", "1").system_alert(data);
        let typed = Envelope::<SystemAlert>::from_json(&encode(&event)).unwrap();
        prop_assert_eq!(typed, event);
    }

    #[test]
    fn durations_are_exact_below_eleven_days(nanos in 0_u64..1_000_000_000_000_000) {
        let duration = Duration::from_nanos(nanos);
        let event = EventBuilder::new("s", "1").api_request(ApiRequest { duration, ..Default::default() });
        let json = encode(&event);
        prop_assert_eq!(Envelope::<ApiRequest>::from_json(&json).unwrap().data.duration, duration);
        let exact = format!("{}.{:06}", nanos / 1_000_000, nanos % 1_000_000);
        let written = format!("\"duration_ms\":{},", exact.trim_end_matches('0').trim_end_matches('.'));
        prop_assert!(String::from_utf8(json).unwrap().contains(&written), "{}", written);
    }

    #[test]
    fn untyped_data_survives_its_json(data in value()) {
        let data = serde_json::json!({"value": data});
        let event = EventBuilder::new("s", "1").untyped("t", data.clone()).unwrap();
        let read: Value = serde_json::from_slice(&encode(&event)).unwrap();
        prop_assert_eq!(&read["data"], &data);
        prop_assert_eq!(AnyEvent::from_json(&encode(&event)).unwrap(), event);
    }

    #[test]
    fn pretty_and_compact_events_are_equal(data in value()) {
        let value = serde_json::json!({"type": "t", "id": "1", "timestamp": "2024-01-15T10:00:00Z", "data": {"value": data}});
        let pretty = AnyEvent::from_json(serde_json::to_string_pretty(&value).unwrap().as_bytes()).unwrap();
        prop_assert_eq!(pretty.as_str(), value.to_string());
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = AnyEvent::from_json(&bytes);
        let _ = Envelope::<UserLoggedIn>::from_json(&bytes);
    }

    #[test]
    fn damaged_event_never_panics(data in logged_in(), at in any::<prop::sample::Index>(), byte: u8) {
        let mut json = encode(&EventBuilder::new("s", "1").user_logged_in(data));
        let at = at.index(json.len());
        json[at] = byte;
        let _ = Envelope::<UserLoggedIn>::from_json(&json);
        if let Ok(event) = AnyEvent::from_json(&json) {
            prop_assert!(serde_json::from_str::<&serde_json::value::RawValue>(event.as_str()).is_ok());
            prop_assert_eq!(AnyEvent::from_json(event.as_str().as_bytes()).unwrap(), event);
        }
    }

    #[test]
    fn invalid_durations_are_refused(text in "-[1-9][0-9]{0,3}(\\.[0-9]+)?|[1-9]e\\+[2-9][0-9]{2}|\"1\"|null|\\[\\]") {
        let event = EventBuilder::new("s", "1").api_request(ApiRequest::default());
        let json = String::from_utf8(encode(&event)).unwrap();
        let json = json.replace("\"duration_ms\":0,", &format!("\"duration_ms\":{text},"));
        prop_assert!(Envelope::<ApiRequest>::from_json(json.as_bytes()).is_err(), "{}", json);
    }
}

#[test]
fn only_missing_time_becomes_events_own() {
    let builder = EventBuilder::new("test", "1.0");
    let event = builder.user_logged_in(UserLoggedIn::default());
    assert_eq!(event.data.login_time, event.timestamp);
    let then: Timestamp = "2024-01-15T10:00:00Z".parse().unwrap();
    let event = builder.api_error(ApiError { error_time: then, ..Default::default() });
    assert_eq!(event.data.error_time, then);
}

//! The documented JSON of each built-in type. The golden files change by additions only.
//! The first line of each file has every field, the second line only the required fields.

use std::collections::BTreeSet;
use std::fmt::Debug;
use std::time::Duration;

use kafka_courier_event_model::{
    AnyEvent, ApiError, ApiRequest, BUILT_IN, Envelope, Event, EventBuilder, EventData, SystemAlert, TraceContext,
    UserLoggedIn, UserLoggedOut, UserRegistered, UserTokenRefreshed,
};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};

fn golden(event_type: &str) -> Vec<String> {
    let path = format!("{}/tests/golden/{event_type}.ndjson", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
    text.lines().map(str::to_owned).collect()
}

fn builder(last_digit: u128) -> EventBuilder {
    let id = uuid::Uuid::from_u128(0x0190163d_8694_739b_aea5_966c26f8ad90 + last_digit);
    EventBuilder::new("golden-service", "1.0").with_stamper(move || (id, time("2024-01-15T10:00:00.123Z")))
}

fn time(text: &str) -> jiff::Timestamp {
    text.parse().unwrap()
}

fn text(text: &str) -> Option<String> {
    Some(text.to_owned())
}

/// Parses an object and keeps the spelling of its members.
fn object(json: &str) -> Map<String, Value> {
    serde_json::from_str(json).unwrap()
}

fn encode(event: &dyn Event) -> String {
    let mut out = b"before".to_vec();
    event.encode_into(&mut out).unwrap();
    String::from_utf8(out).unwrap().strip_prefix("before").unwrap().to_owned()
}

/// Asserts that both events are written as their golden lines, and that both readers return the same events.
fn check<T>(make: impl Fn(&EventBuilder, T) -> Envelope<T>, full: T, least: T)
where
    T: EventData + DeserializeOwned + PartialEq + Debug,
{
    let lines = golden(T::TYPE);
    assert_eq!(lines.len(), 2);
    let trace = TraceContext::new("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", Some("congo=t61rcWkgMzE"));
    let with_all = builder(1).with_correlation_id("req-7f3a").with_trace_context(trace.unwrap());
    let mut full = make(&with_all, full).with_key("tenant-9");
    full.set_extra("region", "eu-1").unwrap();
    let least = make(&builder(2), least);
    for (event, line) in [(&full, &lines[0]), (&least, &lines[1])] {
        assert_eq!(&encode(event), line);
        assert_eq!(&serde_json::to_string(event).unwrap(), line, "Serialize differs from encode_into");
        assert_eq!(&Envelope::<T>::from_json(line.as_bytes()).unwrap(), event);
        let any = AnyEvent::from_json(line.as_bytes()).unwrap();
        assert_eq!(&encode(&any), line);
        assert_same(&any, event);
        assert_eq!(&any.decode::<T>().unwrap(), event);
    }
}

fn assert_same(left: &dyn Event, right: &dyn Event) {
    assert_eq!(left.id(), right.id());
    assert_eq!(left.event_type(), right.event_type());
    assert_eq!(left.correlation_id(), right.correlation_id());
    assert_eq!(left.trace(), right.trace());
    assert_eq!(left.timestamp_ms(), right.timestamp_ms());
    assert_eq!(left.key(), right.key());
}

#[test]
fn user_logged_in_matches_golden() {
    let full = UserLoggedIn {
        user_id: "u-42".into(),
        email: text("zoë@example.org"),
        ip_address: text("203.0.113.7"),
        user_agent: text("Mozilla/5.0 \"X\""),
        login_time: time("2024-01-15T09:59:59.5Z"),
        session_id: text("s-1"),
        remember_me: true,
        login_method: text("password"),
        device_info: Some(json!({"os": "linux", "cores": 8, "touch": false})),
        location: Some("Bern\nCH".into()),
        extra: object(r#"{"risk":0.10}"#),
    };
    let least = UserLoggedIn { user_id: "u-42".into(), login_time: time("2024-01-15T10:00:00Z"), ..Default::default() };
    check(EventBuilder::user_logged_in, full, least);
}

#[test]
fn user_registered_matches_golden() {
    let full = UserRegistered {
        user_id: "u-43".into(),
        email: text("ada@example.org"),
        first_name: text("Ada"),
        last_name: text("Lovelace"),
        registration_time: time("2024-01-15T10:00:00Z"),
        ip_address: text("2001:db8::7"),
        registration_source: text("web"),
        email_verified: true,
        organization_id: text("org-5"),
        extra: object(r#"{"referrer":null}"#),
    };
    let least = UserRegistered { registration_time: time("2024-01-15T10:00:00Z"), ..Default::default() };
    check(EventBuilder::user_registered, full, least);
}

#[test]
fn user_logged_out_matches_golden() {
    let full = UserLoggedOut {
        user_id: "u-42".into(),
        session_id: text("s-1"),
        logout_time: time("2024-01-15T18:30:00Z"),
        logout_reason: text("timeout"),
        all_sessions: true,
        ip_address: text("203.0.113.7"),
        user_agent: text("curl/8.5.0"),
        extra: object(r#"{"idle_seconds":1800}"#),
    };
    let least =
        UserLoggedOut { user_id: "u-42".into(), logout_time: time("2024-01-15T18:30:00Z"), ..Default::default() };
    check(EventBuilder::user_logged_out, full, least);
}

#[test]
fn user_token_refreshed_matches_golden() {
    let full = UserTokenRefreshed {
        user_id: "u-42".into(),
        session_id: text("s-1"),
        token_id: text("t-2"),
        previous_token_id: text("t-1"),
        refresh_time: time("2024-01-15T11:00:00Z"),
        expires_at: Some(time("2024-01-15T12:00:00Z")),
        client_id: text("web-app"),
        ip_address: text("203.0.113.7"),
        user_agent: text("curl/8.5.0"),
        extra: object(r#"{"scopes":["read","write"]}"#),
    };
    let least =
        UserTokenRefreshed { user_id: "u-42".into(), refresh_time: time("2024-01-15T11:00:00Z"), ..Default::default() };
    check(EventBuilder::user_token_refreshed, full, least);
}

#[test]
fn api_request_matches_golden() {
    let full = ApiRequest {
        request_id: "r-1".into(),
        user_id: text("u-42"),
        method: "GET".into(),
        path: "/v1/users".into(),
        status_code: 200,
        duration: Duration::from_micros(150_250),
        ip_address: text("203.0.113.7"),
        request_time: time("2024-01-15T10:00:00Z"),
        response_size: Some(u64::MAX),
        request_size: Some(0),
        extra: object(r#"{"trace_number":90071992547409931234567890}"#),
    };
    let least = ApiRequest {
        request_id: "r-2".into(),
        method: "HEAD".into(),
        request_time: time("2024-01-15T10:00:00Z"),
        ..Default::default()
    };
    check(EventBuilder::api_request, full, least);
}

#[test]
fn api_error_matches_golden() {
    let full = ApiError {
        request_id: "r-1".into(),
        method: "POST".into(),
        path: "/v1/orders".into(),
        status_code: 503,
        error_type: "upstream".into(),
        error_message: text("no answer in 10 s"),
        error_code: text("E1042"),
        error_time: time("2024-01-15T10:00:00Z"),
        extra: object(r#"{"retries":3}"#),
    };
    let least = ApiError {
        request_id: "r-2".into(),
        method: "GET".into(),
        path: "/".into(),
        status_code: 500,
        error_type: "internal".into(),
        error_time: time("2024-01-15T10:00:00Z"),
        ..Default::default()
    };
    check(EventBuilder::api_error, full, least);
}

#[test]
fn system_alert_matches_golden() {
    let full = SystemAlert {
        alert_id: "a-1".into(),
        alert_type: "high_latency".into(),
        service: "checkout".into(),
        component: text("db"),
        message: "p99 over 2 s".into(),
        severity: "critical".into(),
        alert_time: time("2024-01-15T10:00:00Z"),
        metadata: Some(object(r#"{"p99_ms":2150.5,"hosts":["a","b"],"limits":{"soft":9007199254740993}}"#)),
        resolved: true,
        extra: object(r#"{"runbook":"https://example.org/r/1"}"#),
    };
    let least = SystemAlert {
        alert_id: "a-2".into(),
        alert_type: "disk_full".into(),
        service: "search".into(),
        severity: "warning".into(),
        alert_time: time("2024-01-15T10:00:00Z"),
        metadata: Some(Map::new()),
        ..Default::default()
    };
    check(EventBuilder::system_alert, full, least);
}

#[test]
fn golden_files_match_built_in_types() {
    let files = std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden")).unwrap();
    let files: BTreeSet<_> = files.map(|file| file.unwrap().file_name().into_string().unwrap()).collect();
    let types = BUILT_IN.iter().map(|built_in| format!("{}.ndjson", built_in.event_type)).collect();
    assert_eq!(files, types);
}

/// Holds for every type, without a struct's values.
#[test]
fn golden_lines_fit_their_type() {
    for built_in in BUILT_IN {
        let lines = golden(built_in.event_type);
        assert_eq!(lines.len(), 2, "{}: one line with every field, one with the required fields", built_in.event_type);
        for line in &lines {
            let any = AnyEvent::from_json(line.as_bytes()).unwrap();
            let typed = built_in.decode(&any).unwrap();
            assert_eq!((&encode(&any), &encode(&*typed)), (line, line));
            assert_same(&any, &typed);
            let event: Value = serde_json::from_str(line).unwrap();
            let time = event["data"][built_in.time_field].as_str().unwrap();
            assert!(time.parse::<jiff::Timestamp>().is_ok(), "{time}");
        }
    }
}

#[test]
fn other_types_are_not_decoded() {
    let event = AnyEvent::from_json(golden("user.logged_in")[0].as_bytes()).unwrap();
    for built_in in BUILT_IN {
        assert_eq!(built_in.decode(&event).is_ok(), built_in.event_type == "user.logged_in", "{built_in:?}");
    }
}

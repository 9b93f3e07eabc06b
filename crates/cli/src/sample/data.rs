//! The data of sample events: users, requests and services, drawn at random.
//!
//! - There are about 1000 keys. No key is in two default topics, so numbers have no gaps per key even if all events are
//!   published to one topic.

use std::time::Duration;

use fastrand::Rng;
use jiff::{SignedDuration, Timestamp};
use kafka_courier_event_model::{
    ApiError, ApiRequest, BuiltIn, SystemAlert, UserLoggedIn, UserLoggedOut, UserRegistered, UserTokenRefreshed,
};
use serde_json::{Map, Value, json};

/// Users of the web site, who log in and out.
const WEB_USERS: u32 = 500;
/// Users of the app, whose tokens are refreshed.
const APP_USERS: u32 = 150;
/// Answered requests. A request passes several services, and each service reports it.
const REQUESTS: u32 = 250;
/// Requests that failed.
const FAILED_REQUESTS: u32 = 80;
/// Keys of a type without realistic data.
const EXAMPLE_KEYS: u32 = 10;

const SERVICES: [&str; 20] = [
    "accounts",
    "billing",
    "cart",
    "catalog",
    "checkout",
    "delivery",
    "fraud",
    "gateway",
    "identity",
    "inventory",
    "invoices",
    "mail",
    "media",
    "orders",
    "payments",
    "pricing",
    "reviews",
    "search",
    "stock",
    "tracking",
];
const FIRST_NAMES: [&str; 12] =
    ["Ada", "Björn", "Chloé", "Dmitri", "Emeka", "Fatima", "Grace", "Hiro", "Inés", "Jörg", "Keiko", "Zoë"];
const LAST_NAMES: [&str; 10] =
    ["Abe", "Brown", "Diallo", "García", "Hopper", "Ivanova", "Lovelace", "Müller", "Okafor", "Virtanen"];
const AGENTS: [&str; 5] = [
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/131.0.0.0 Safari/537.36",
    "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/18.1 Safari/605.1.15",
    "Mozilla/5.0 (X11; Linux x86_64; rv:133.0) Gecko/20100101 Firefox/133.0",
    "ShopApp/7.2 (iPhone; iOS 18.1)",
    "curl/8.11.0",
];
const METHODS: [&str; 8] = ["GET", "GET", "GET", "GET", "POST", "POST", "PUT", "DELETE"];
const PATHS: [&str; 8] = [
    "/v1/orders",
    "/v1/orders/8812",
    "/v1/cart",
    "/v1/catalog/items",
    "/v1/users/me",
    "/v1/search",
    "/v1/payments",
    "/healthz",
];
const STATUSES: [u16; 8] = [200, 200, 200, 200, 201, 204, 304, 404];
const FAILURES: [(u16, &str, &str, Option<&str>); 5] = [
    (400, "validation", "field \"quantity\" must be at least 1", Some("E1001")),
    (401, "authentication", "token expired", Some("E1100")),
    (429, "rate_limit", "more than 100 requests in a second", None),
    (502, "upstream", "connection reset by peer", Some("E2002")),
    (504, "timeout", "no answer within 10 s", Some("E2004")),
];
const ALERTS: [(&str, &str, &str); 4] = [
    ("high_latency", "warning", "p99 latency is over 2 s"),
    ("disk_full", "critical", "less than 5 % of the disk is free"),
    ("error_rate", "error", "more than 1 % of requests fail"),
    ("certificate", "info", "certificate ends in 14 days"),
];
const PLACES: [(&str, &str); 5] =
    [("Bern", "CH"), ("São Paulo", "BR"), ("Osaka", "JP"), ("Lagos", "NG"), ("Tampere", "FI")];

/// The random source of the events' data.
pub(super) struct SampleData {
    rng: Rng,
    /// The time of the next event.
    pub(super) now: Timestamp,
}

impl SampleData {
    pub(super) fn new(rng: Rng, now: Timestamp) -> Self {
        Self { rng, now }
    }

    pub(super) fn user_logged_in(&mut self) -> UserLoggedIn {
        let (user_id, email) = self.web_user();
        UserLoggedIn {
            user_id,
            email: Some(email),
            ip_address: Some(self.ip_address()),
            user_agent: Some(self.pick(&AGENTS).into()),
            login_time: self.moments_ago(50),
            session_id: Some(self.id("sess")),
            remember_me: self.rng.bool(),
            login_method: Some(self.pick(&["password", "password", "sso", "passkey"]).into()),
            device_info: self.rng.bool().then(|| json!({"os": "linux", "mobile": false, "screen": [1920, 1080]})),
            location: self.rng.bool().then(|| self.place()),
            extra: Map::new(),
        }
    }

    pub(super) fn user_registered(&mut self) -> UserRegistered {
        let (user_id, email) = self.web_user();
        UserRegistered {
            user_id,
            email: Some(email),
            first_name: Some(self.pick(&FIRST_NAMES).into()),
            last_name: Some(self.pick(&LAST_NAMES).into()),
            registration_time: self.moments_ago(50),
            ip_address: Some(self.ip_address()),
            registration_source: Some(self.pick(&["web", "mobile", "invitation"]).into()),
            email_verified: self.rng.bool(),
            organization_id: self.rng.bool().then(|| format!("org-{}", self.rng.u32(1..40))),
            extra: Map::new(),
        }
    }

    pub(super) fn user_logged_out(&mut self) -> UserLoggedOut {
        UserLoggedOut {
            user_id: self.web_user().0,
            session_id: Some(self.id("sess")),
            logout_time: self.moments_ago(50),
            logout_reason: Some(self.pick(&["user", "user", "timeout", "revoked"]).into()),
            all_sessions: self.rng.u8(..10) == 0,
            ip_address: Some(self.ip_address()),
            user_agent: Some(self.pick(&AGENTS).into()),
            extra: Map::new(),
        }
    }

    pub(super) fn user_token_refreshed(&mut self) -> UserTokenRefreshed {
        let refresh_time = self.moments_ago(20);
        UserTokenRefreshed {
            user_id: format!("app-{:05}", self.rng.u32(..APP_USERS)),
            session_id: Some(self.id("sess")),
            token_id: Some(self.id("tok")),
            previous_token_id: self.rng.bool().then(|| self.id("tok")),
            refresh_time,
            expires_at: refresh_time.checked_add(SignedDuration::from_hours(1)).ok(),
            client_id: Some(self.pick(&["shop-ios", "shop-android"]).into()),
            ip_address: Some(self.ip_address()),
            user_agent: None,
            extra: Map::new(),
        }
    }

    pub(super) fn api_request(&mut self) -> ApiRequest {
        ApiRequest {
            request_id: format!("req-{:05}", self.rng.u32(..REQUESTS)),
            user_id: self.rng.bool().then(|| self.web_user().0),
            method: self.pick(&METHODS).into(),
            path: self.pick(&PATHS).into(),
            status_code: self.pick(&STATUSES),
            duration: Duration::from_micros(self.rng.u64(300..900_000)),
            ip_address: Some(self.ip_address()),
            request_time: self.moments_ago(900),
            response_size: Some(self.rng.u64(..64_000)),
            request_size: self.rng.bool().then(|| self.rng.u64(..4_000)),
            extra: Map::new(),
        }
    }

    pub(super) fn api_error(&mut self) -> ApiError {
        let (status_code, error_type, error_message, error_code) = self.pick(&FAILURES);
        ApiError {
            request_id: format!("bad-{:05}", self.rng.u32(..FAILED_REQUESTS)),
            method: self.pick(&METHODS).into(),
            path: self.pick(&PATHS).into(),
            status_code,
            error_type: error_type.into(),
            error_message: Some(error_message.into()),
            error_code: error_code.map(Into::into),
            error_time: self.moments_ago(30),
            extra: Map::new(),
        }
    }

    pub(super) fn system_alert(&mut self) -> SystemAlert {
        let (alert_type, severity, message) = self.pick(&ALERTS);
        SystemAlert {
            alert_id: self.id("alert"),
            alert_type: alert_type.into(),
            service: self.pick(&SERVICES).into(),
            component: self.rng.bool().then(|| self.pick(&["db", "cache", "api", "worker"]).into()),
            message: message.into(),
            severity: severity.into(),
            alert_time: self.moments_ago(2_000),
            metadata: Some(self.metadata()),
            resolved: self.rng.bool(),
            extra: Map::new(),
        }
    }

    /// Returns the data of one of the type's examples, with a key that no other type has and a time before the event.
    pub(super) fn example(&mut self, built_in: &BuiltIn) -> Option<Value> {
        let examples: Vec<&str> = built_in.examples.lines().collect();
        let mut event: Map<String, Value> = serde_json::from_str(self.pick(&examples)).ok()?;
        let mut data = event.remove("data")?;
        let fields = data.as_object_mut()?;
        let key = format!("{}-{:05}", built_in.event_type, self.rng.u32(..EXAMPLE_KEYS));
        fields.insert(built_in.key_field.to_owned(), key.into());
        fields.insert(built_in.time_field.to_owned(), self.moments_ago(50).to_string().into());
        Some(data)
    }

    fn web_user(&mut self) -> (String, String) {
        let number = self.rng.u32(..WEB_USERS);
        (format!("user-{number:05}"), format!("user{number}@example.org"))
    }

    /// Returns an address of a documentation network (RFC 5737, RFC 3849).
    fn ip_address(&mut self) -> String {
        match self.rng.u8(..4) {
            0 => format!("2001:db8::{:x}", self.rng.u16(1..)),
            1 => format!("198.51.100.{}", self.rng.u8(1..255)),
            _ => format!("203.0.113.{}", self.rng.u8(1..255)),
        }
    }

    fn id(&mut self, prefix: &str) -> String {
        format!("{prefix}-{:012x}", self.rng.u64(..1 << 48))
    }

    fn place(&mut self) -> Value {
        let (city, country) = self.pick(&PLACES);
        json!({ "city": city, "country": country })
    }

    fn metadata(&mut self) -> Map<String, Value> {
        let mut metadata = Map::new();
        if self.rng.bool() {
            metadata.insert("host".into(), format!("node-{}", self.rng.u8(1..9)).into());
            metadata.insert("value".into(), (f64::from(self.rng.u16(..)) / 8.0).into());
        }
        metadata
    }

    /// Returns a time up to `millis` milliseconds before the event.
    fn moments_ago(&mut self, millis: i64) -> Timestamp {
        let ago = SignedDuration::from_millis(self.rng.i64(0..millis));
        self.now.checked_sub(ago).unwrap_or(self.now)
    }

    fn pick<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.rng.usize(..choices.len())]
    }
}

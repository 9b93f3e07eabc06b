//! The measured records, the same in every run and on every machine.
//!
//! Rule: values are JSON with a realistic compression ratio, and there are a thousand keys.

use std::time::Duration;

use kafka_courier::events::{ApiRequest, Envelope, EventBuilder};
use kafka_courier_batcher::Limits;

/// Bytes of a raw record's value.
pub const VALUE_LEN: usize = 100;

/// Returns limits of `records` records or 1 MiB without a linger deadline.
pub fn limits(records: u32) -> Limits {
    Limits { max_records: records, max_bytes: 1 << 20, linger: Duration::from_secs(3600) }
}

/// Returns `count` keys.
pub fn keys(count: usize) -> Vec<Vec<u8>> {
    (0..count).map(|i| format!("user-{:05}", i.wrapping_mul(2_654_435_761) % 100_000).into_bytes()).collect()
}

/// Returns `count` values of [`VALUE_LEN`] bytes.
pub fn values(count: usize) -> Vec<Vec<u8>> {
    let value = |n: usize| {
        let user = n.wrapping_mul(2_654_435_761) % 100_000;
        let text =
            format!(r#"{{"user_id":"user-{user:05}","session":"{:016x}","method":"GET","path":"/api/v1/items"#, n * n);
        format!("{text:~<98}\"}}").into_bytes()
    };
    (0..count).map(value).collect()
}

/// Builds a typed event of some 430 bytes, as a service does for each request.
pub fn api_request(builder: &EventBuilder, n: usize) -> Envelope<ApiRequest> {
    let mut event = builder.api_request(ApiRequest {
        request_id: format!("req-{n:08x}"),
        user_id: Some(format!("user-{:05}", n % 1000)),
        method: "GET".to_owned(),
        path: "/api/v1/orders/current".to_owned(),
        status_code: 200,
        duration: Duration::from_micros(1250 + n as u64),
        ip_address: Some("10.1.2.3".to_owned()),
        response_size: Some(2048),
        ..ApiRequest::default()
    });
    event.data.request_time = event.timestamp;
    event
}

//! Events of an API: requests and errors.

use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::duration_ms;

/// `api.request`: a request was answered.
#[derive(Clone, PartialEq, Default, Debug, Serialize, Deserialize)]
pub struct ApiRequest {
    /// The request's id.
    pub request_id: String,
    /// The user's id, if known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user_id: Option<String>,
    /// The HTTP method.
    pub method: String,
    /// The path, without the query.
    pub path: String,
    /// The response's HTTP status.
    pub status_code: u16,
    /// Duration of the request in milliseconds, with a fraction down to nanoseconds (`150.25`).
    #[serde(rename = "duration_ms", with = "duration_ms")]
    pub duration: Duration,
    /// The client's IP address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ip_address: Option<String>,
    /// Arrival time of the request.
    #[serde(serialize_with = "crate::rfc3339::serialize")]
    pub request_time: Timestamp,
    /// Size of the response's body, in bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub response_size: Option<u64>,
    /// Size of the request's body, in bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request_size: Option<u64>,
    /// Fields that this version does not know.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

/// `api.error`: a request failed.
#[derive(Clone, PartialEq, Default, Debug, Serialize, Deserialize)]
pub struct ApiError {
    /// The request's id.
    pub request_id: String,
    /// The HTTP method.
    pub method: String,
    /// The path, without the query.
    pub path: String,
    /// The response's HTTP status.
    pub status_code: u16,
    /// The kind of error: `validation`, `timeout`, `upstream` and so on.
    pub error_type: String,
    /// The error's message.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error_message: Option<String>,
    /// The application's own error code.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error_code: Option<String>,
    /// Time of the error.
    #[serde(serialize_with = "crate::rfc3339::serialize")]
    pub error_time: Timestamp,
    /// Fields that this version does not know.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

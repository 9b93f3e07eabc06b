//! What an API answers: requests and errors.

use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::duration_ms;

/// `api.request`: a request has been answered.
#[derive(Clone, PartialEq, Default, Debug, Serialize, Deserialize)]
pub struct ApiRequest {
    /// Which request.
    pub request_id: String,
    /// Whose, if the user is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user_id: Option<String>,
    /// The HTTP method.
    pub method: String,
    /// The path, without the query.
    pub path: String,
    /// The answer's HTTP status.
    pub status_code: u16,
    /// How long it took. In JSON `duration_ms`, a number of milliseconds with its fraction.
    #[serde(rename = "duration_ms", with = "duration_ms")]
    pub duration: Duration,
    /// Where the request came from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ip_address: Option<String>,
    /// When it came.
    #[serde(serialize_with = "crate::rfc3339::serialize")]
    pub request_time: Timestamp,
    /// Size of the answer's body, in bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub response_size: Option<u64>,
    /// Size of the request's body, in bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request_size: Option<u64>,
    /// Fields that this version does not know.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

/// `api.error`: a request has failed.
#[derive(Clone, PartialEq, Default, Debug, Serialize, Deserialize)]
pub struct ApiError {
    /// Which request.
    pub request_id: String,
    /// The HTTP method.
    pub method: String,
    /// The path, without the query.
    pub path: String,
    /// The answer's HTTP status.
    pub status_code: u16,
    /// What kind of error: `validation`, `timeout`, `upstream` and so on.
    pub error_type: String,
    /// What the error says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error_message: Option<String>,
    /// The application's own code for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error_code: Option<String>,
    /// When.
    #[serde(serialize_with = "crate::rfc3339::serialize")]
    pub error_time: Timestamp,
    /// Fields that this version does not know.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

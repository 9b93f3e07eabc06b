//! What systems report of themselves.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// `system.alert`: something is wrong with a service, or right again.
#[derive(Clone, PartialEq, Default, Debug, Serialize, Deserialize)]
pub struct SystemAlert {
    /// Which alert: the same id when it is resolved.
    pub alert_id: String,
    /// What kind: `high_latency`, `disk_full` and so on.
    pub alert_type: String,
    /// The service concerned.
    pub service: String,
    /// The part of it concerned.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub component: Option<String>,
    /// What a person reads.
    pub message: String,
    /// `info`, `warning`, `error` or `critical`; others are passed on.
    pub severity: String,
    /// When.
    #[serde(serialize_with = "crate::rfc3339::serialize")]
    pub alert_time: Timestamp,
    /// Whatever else is known, as a JSON object.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub metadata: Option<Map<String, Value>>,
    /// Whether it is over.
    pub resolved: bool,
    /// Fields that this version does not know.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

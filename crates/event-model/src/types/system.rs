//! Events of systems.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// `system.alert`: an alert of a service was raised or resolved.
#[derive(Clone, PartialEq, Default, Debug, Serialize, Deserialize)]
pub struct SystemAlert {
    /// The alert's id. The alert keeps it when it is resolved.
    pub alert_id: String,
    /// The kind of alert: `high_latency`, `disk_full` and so on.
    pub alert_type: String,
    /// The affected service.
    pub service: String,
    /// The affected part of the service.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub component: Option<String>,
    /// The message for people.
    pub message: String,
    /// The severity: `info`, `warning`, `error`, `critical`, or the application's own.
    pub severity: String,
    /// Time of the alert.
    #[serde(serialize_with = "crate::rfc3339::serialize")]
    pub alert_time: Timestamp,
    /// Further details, as a JSON object.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub metadata: Option<Map<String, Value>>,
    /// Whether the alert is resolved.
    pub resolved: bool,
    /// Fields that this version does not know.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

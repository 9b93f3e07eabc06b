//! Names of the record headers that the engine writes.

/// The event's id.
pub const EVENT_ID: &str = "event_id";
/// The event's type.
pub const EVENT_TYPE: &str = "event_type";
/// The event's correlation id, if there is one.
pub const CORRELATION_ID: &str = "correlation_id";

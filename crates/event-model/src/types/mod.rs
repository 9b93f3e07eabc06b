//! The table of built-in types. A new type is one struct in this folder, one line in the table, and one golden file.
//!
//! - Fields have their names in JSON. Optional fields are `Option` and left out when absent. Other fields are always
//!   written.
//! - A struct ends with `extra`, which keeps the fields of `data` that the struct does not know.

mod api;
mod duration_ms;
mod system;
mod user;

pub use api::*;
pub use system::*;
pub use user::*;

use jiff::Timestamp;
use serde::de::DeserializeOwned;

use crate::{AnyEvent, Envelope, Event, EventBuilder, EventData, ParseError, event_data};

/// A row of the table of built-in types.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct BuiltIn {
    /// The type's name.
    pub event_type: &'static str,
    /// The topic of its events, unless the mapping changes it.
    pub default_topic: &'static str,
    /// The field of `data` that holds the record's key.
    pub key_field: &'static str,
    /// The field of `data` that holds the event's own time.
    pub time_field: &'static str,
    /// Two events as JSON, one on each line: one with every field, one with only the required fields.
    pub examples: &'static str,
    read: Reader,
}

type Reader = fn(&AnyEvent) -> Result<Box<dyn Event>, ParseError>;

impl BuiltIn {
    /// Reads an event of this type from its JSON, with every field of its data.
    ///
    /// # Errors
    /// Returns a [`ParseError`] if the event has another type, or if its data does not fit the type.
    pub fn decode(&self, event: &AnyEvent) -> Result<Box<dyn Event>, ParseError> {
        (self.read)(event)
    }
}

/// The table has one row for each type.
impl PartialEq for BuiltIn {
    fn eq(&self, other: &Self) -> bool {
        self.event_type == other.event_type
    }
}

impl Eq for BuiltIn {}

fn read<T: EventData + DeserializeOwned + 'static>(event: &AnyEvent) -> Result<Box<dyn Event>, ParseError> {
    Ok(Box::new(event.decode::<T>()?))
}

macro_rules! built_in_events {
    ($($data:ident, $method:ident, $event_type:literal => $topic:literal, key = $key:ident, time = $time:ident;)+) => {
        /// All built-in types.
        pub const BUILT_IN: &[BuiltIn] = &[$(BuiltIn {
            event_type: $event_type,
            default_topic: $topic,
            key_field: stringify!($key),
            time_field: stringify!($time),
            examples: include_str!(concat!("../../tests/golden/", $event_type, ".ndjson")),
            read: read::<$data>,
        }),+];

        $(event_data!($data, $event_type, key = $key);)+

        impl EventBuilder {$(
            #[doc = concat!("Builds an event of type `", $event_type, "`, keyed by its `", stringify!($key), "`.\n\n",
                "A `", stringify!($time), "` at its default (1970-01-01) becomes the event's own timestamp.")]
            pub fn $method(&self, data: $data) -> Envelope<$data> {
                let mut event = self.custom(data);
                if event.data.$time == Timestamp::UNIX_EPOCH {
                    event.data.$time = event.timestamp;
                }
                event
            }
        )+}
    };
}

built_in_events! {
    UserLoggedIn, user_logged_in, "user.logged_in" => "user-events", key = user_id, time = login_time;
    UserRegistered, user_registered, "user.registered" => "user-events", key = user_id, time = registration_time;
    UserLoggedOut, user_logged_out, "user.logged_out" => "user-events", key = user_id, time = logout_time;
    UserTokenRefreshed, user_token_refreshed, "user.token_refreshed" => "auth-events", key = user_id, time = refresh_time;
    ApiRequest, api_request, "api.request" => "api-events", key = request_id, time = request_time;
    ApiError, api_error, "api.error" => "error-events", key = request_id, time = error_time;
    SystemAlert, system_alert, "system.alert" => "system-events", key = service, time = alert_time;
}

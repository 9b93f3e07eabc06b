//! The table of built-in types. A new type is one struct in this folder and one line in the table.
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

use crate::{Envelope, EventBuilder, event_data};

/// A row of the table of built-in types.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct BuiltIn {
    /// The type's name.
    pub event_type: &'static str,
    /// The topic of its events, unless the mapping changes it.
    pub default_topic: &'static str,
    /// The field of `data` that holds the record's key.
    pub key_field: &'static str,
}

macro_rules! built_in_events {
    ($($data:ident, $method:ident, $event_type:literal => $topic:literal, key = $key:ident, time = $time:ident;)+) => {
        /// All built-in types.
        pub const BUILT_IN: &[BuiltIn] = &[$(BuiltIn {
            event_type: $event_type,
            default_topic: $topic,
            key_field: stringify!($key),
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

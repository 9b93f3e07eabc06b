//! The traits of an event: [`Event`] for publishers, [`EventData`] for the data of one type.

use std::borrow::Cow;
use std::sync::Arc;

use serde::Serialize;
use thiserror::Error;

use crate::id::EventId;
use crate::trace::TraceContext;

/// An event that can be published. Dyn compatible.
pub trait Event: Send + Sync {
    /// Returns the event's id.
    fn id(&self) -> &EventId;

    /// Returns the type's name, such as `user.logged_in`.
    fn event_type(&self) -> &str;

    /// Returns the correlation id, which connects events of the same request or process.
    fn correlation_id(&self) -> Option<&str>;

    /// Returns the trace of the event.
    fn trace(&self) -> Option<&TraceContext>;

    /// Returns the time of the event, in milliseconds since 1970-01-01 UTC.
    fn timestamp_ms(&self) -> i64;

    /// Returns the record's key. Events of one key stay in order. An empty key is a key.
    fn key(&self) -> Option<Cow<'_, [u8]>>;

    /// Appends the event's JSON to `out`.
    ///
    /// # Errors
    /// Returns an [`EncodeError`] if the data has no JSON. `out` is unchanged in that case.
    fn encode_into(&self, out: &mut Vec<u8>) -> Result<(), EncodeError>;
}

macro_rules! delegate_event {
    ($($pointer:ty),+) => {$(
        impl<E: Event + ?Sized> Event for $pointer {
            fn id(&self) -> &EventId {
                (**self).id()
            }
            fn event_type(&self) -> &str {
                (**self).event_type()
            }
            fn correlation_id(&self) -> Option<&str> {
                (**self).correlation_id()
            }
            fn trace(&self) -> Option<&TraceContext> {
                (**self).trace()
            }
            fn timestamp_ms(&self) -> i64 {
                (**self).timestamp_ms()
            }
            fn key(&self) -> Option<Cow<'_, [u8]>> {
                (**self).key()
            }
            fn encode_into(&self, out: &mut Vec<u8>) -> Result<(), EncodeError> {
                (**self).encode_into(out)
            }
        }
    )+};
}

delegate_event!(&E, Box<E>, Arc<E>);

/// The data of one event type. [`event_data!`](crate::event_data) implements this trait in one line.
pub trait EventData: Serialize + Send + Sync {
    /// The type's name: lower-case words joined by dots and underscores, such as `order.placed`. Not empty.
    const TYPE: &'static str;

    /// Returns the record's key. Events of one key stay in order. The producer spreads events without a key.
    fn key(&self) -> Option<Cow<'_, str>>;
}

/// Implements [`EventData`]: the struct, the type's name, and the field (anything that is `AsRef<str>`) to key by.
///
/// ```
/// use kafka_courier_event_model::{EventBuilder, event_data};
///
/// #[derive(serde::Serialize)]
/// struct OrderPlaced {
///     order_id: String,
///     total_cents: u64,
/// }
/// event_data!(OrderPlaced, "order.placed", key = order_id);
///
/// let builder = EventBuilder::new("shop", "1.0");
/// let event = builder.custom(OrderPlaced { order_id: "o-1".into(), total_cents: 0 });
/// ```
///
/// An event may borrow its data.
///
/// ```
/// # use kafka_courier_event_model::{Event, EventBuilder, event_data};
/// #[derive(serde::Serialize)]
/// struct PageViewed<'a> {
///     path: &'a str,
///     referrer: Option<&'a str>,
/// }
/// event_data!(PageViewed<'_>, "page.viewed", key = path);
///
/// let request = String::from("/pricing");
/// let event = EventBuilder::new("web", "1.0").custom(PageViewed { path: &request, referrer: None });
/// assert_eq!(event.key().as_deref(), Some(b"/pricing".as_slice()));
/// ```
#[macro_export]
macro_rules! event_data {
    ($data:ty, $event_type:literal) => {
        $crate::event_data!(@ $data, $event_type, |_data| None);
    };
    ($data:ty, $event_type:literal, key = $key:ident) => {
        $crate::event_data!(@ $data, $event_type, |data| Some(::std::borrow::Cow::Borrowed(
            ::core::convert::AsRef::<str>::as_ref(&data.$key)
        )));
    };
    (@ $data:ty, $event_type:literal, |$this:ident| $key:expr) => {
        impl $crate::EventData for $data {
            const TYPE: &'static str = $event_type;

            fn key(&self) -> ::core::option::Option<::std::borrow::Cow<'_, str>> {
                let $this = self;
                $key
            }
        }
    };
}

/// An event without JSON, because its data's `Serialize` failed.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
#[error("event of type {event_type} cannot be written as JSON: {reason}")]
#[non_exhaustive]
pub struct EncodeError {
    /// The event's type.
    pub event_type: Box<str>,
    /// The error of `Serialize`.
    pub reason: String,
}

//! Typed business events: envelope, builder, topic mapping, JSON. No IO, no Kafka, no async.
//!
//! An [`EventBuilder`] makes events: one method for each built-in type, [`EventBuilder::custom`] for the application's
//! own types, and [`EventBuilder::untyped`] for types known only at run time. [`AnyEvent`] reads events from other
//! writers and keeps their JSON. Every event implements [`Event`]. [`TopicMapping`] names the topic of each type.
//!
//! ```
//! use kafka_courier_event_model::{Event, EventBuilder, UserLoggedIn};
//!
//! let builder = EventBuilder::new("auth-service", "1.0").with_correlation_id("req-7");
//! let event = builder.user_logged_in(UserLoggedIn {
//!     user_id: "u-42".into(),
//!     login_time: "2024-01-15T10:00:00Z".parse()?,
//!     login_method: Some("password".into()),
//!     ..Default::default()
//! });
//! assert_eq!(event.key().as_deref(), Some(&b"u-42"[..]));
//! let mut json = Vec::new();
//! event.encode_into(&mut json)?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
#![deny(missing_docs)]

mod any_event;
mod builder;
mod compact;
mod envelope;
mod event;
mod fields;
mod id;
mod json;
mod parse_error;
mod rfc3339;
mod stamper;
mod topic_mapping;
mod topic_name;
mod trace;
mod types;

pub use any_event::AnyEvent;
pub use builder::EventBuilder;
pub use envelope::{Envelope, ReservedField};
pub use event::{EncodeError, Event, EventData};
pub use id::{EmptyEventId, EventId};
pub use jiff::Timestamp;
pub use parse_error::ParseError;
pub use stamper::{Stamper, SystemStamper};
pub use topic_mapping::{TopicMapping, TopicMappingError, TopicMappingProblem};
pub use topic_name::{TopicNameError, validate_topic_name};
pub use trace::{TraceContext, TraceContextError};
pub use types::*;

//! The APIs, each in its own file. An API turns a request and the cluster's state into an answer.
//!
//! Rules: APIs never wait. An answer's size is bounded by the size of the cluster or of the request, not by their
//! product, because repeated items of a request are answered once.

mod api_versions;
mod create_topics;
mod describe_configs;
mod describe_producers;
mod fetch;
mod init_producer_id;
mod list_offsets;
mod metadata;
mod offset_for_leader_epoch;
mod produce;
mod request;
mod sasl;

pub(crate) use api_versions::unsupported as unsupported_api_versions;
pub(crate) use fetch::MAX_ANSWER as MAX_FETCH_ANSWER;
pub(crate) use request::DecodedRequest;
pub(crate) use sasl::SaslSession;

use std::time::Duration;

use bytes::Bytes;
use kafka_protocol::ResponseError;
use kafka_protocol::protocol::StrBytes;

use crate::fault::Rule;
use crate::shared::SharedState;

/// The error code of success, Kafka's `NONE`.
const NO_ERROR: i16 = 0;

/// The context of a request.
pub(crate) struct Call<'a> {
    pub(crate) shared: &'a SharedState,
    pub(crate) broker: i32,
    pub(crate) version: i16,
    pub(crate) correlation_id: i32,
    /// The error that a fault demands.
    pub(crate) refuse: Option<Refuse<'a>>,
    pub(crate) throttle: Duration,
}

/// The error that a fault demands as the answer.
#[derive(Clone, Copy)]
pub(crate) struct Refuse<'a> {
    pub(crate) code: ResponseError,
    /// Whether the request is applied first.
    pub(crate) applied: bool,
    pub(crate) rule: &'a Rule,
}

impl Call<'_> {
    fn throttle_ms(&self) -> i32 {
        i32::try_from(self.throttle.as_millis()).unwrap_or(i32::MAX)
    }

    /// Returns the demanded error of a request with nothing to apply.
    fn refused(&self) -> Option<i16> {
        self.refuse.map(|refuse| refuse.code.code())
    }
}

/// The broker's reaction to a request.
pub(crate) enum Reply {
    /// The broker sends these bytes.
    Frame(Bytes),
    /// The broker sends no answer (acks=0).
    None,
    /// The broker ends the connection, because an error under acks=0 has no answer.
    Close,
}

fn text(text: impl Into<String>) -> StrBytes {
    StrBytes::from_string(text.into())
}

//! The APIs: a request and the state of the cluster in, an answer out. One file for each.
//!
//! Rules: nothing here waits; an answer's size is bounded by the cluster's or the request's, never by their product, so
//! what a request repeats is answered once.

mod api_versions;
mod create_topics;
mod describe_configs;
mod describe_producers;
mod fetch;
mod init_producer_id;
mod list_offsets;
mod metadata;
mod produce;
mod request;
mod sasl;

pub(crate) use api_versions::unsupported as unsupported_api_versions;
pub(crate) use fetch::MAX_ANSWER as MAX_FETCH_ANSWER;
pub(crate) use request::Request;
pub(crate) use sasl::Session;

use std::time::Duration;

use bytes::Bytes;
use kafka_protocol::ResponseError;
use kafka_protocol::protocol::StrBytes;

use crate::fault::Rule;
use crate::shared::Shared;

/// What an API needs to know besides its request.
pub(crate) struct Call<'a> {
    pub(crate) shared: &'a Shared,
    pub(crate) broker: i32,
    pub(crate) version: i16,
    pub(crate) correlation_id: i32,
    /// An error to answer instead.
    pub(crate) refuse: Option<Refuse<'a>>,
    pub(crate) throttle: Duration,
}

/// An error that a fault wants to be answered.
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

    /// The error for requests that have nothing to apply.
    fn refused(&self) -> Option<i16> {
        self.refuse.map(|refuse| refuse.code.code())
    }
}

/// What becomes of a request.
pub(crate) enum Answer {
    /// These bytes go out.
    Frame(Bytes),
    /// Nothing goes out (acks=0).
    None,
    /// The connection ends (acks=0 and an error, or a client that may not go on).
    Close,
}

fn text(text: impl Into<String>) -> StrBytes {
    StrBytes::from_string(text.into())
}

//! The keys of requests, as the rest of the producer and its callers see them.
//!
//! Rule: plain data. The journal keeps the keys, and the stage adds those of a batch to the batch's round.

/// The key of a request, for one of the request's events. The spool stores the key together with the event, so that a later
/// process knows whether the event is published.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RequestKey {
    /// A digest of the key and its client.
    pub digest: [u8; 16],
    /// A digest of the request's payload.
    pub payload: [u8; 16],
    /// The time of the request, in milliseconds since 1970-01-01 UTC. Its events have the same time.
    pub at_ms: u64,
    /// The spool forgets keys from before this time, in milliseconds since 1970-01-01 UTC.
    pub forget_before_ms: u64,
    /// The place of the event in the request, from 0.
    pub index: u32,
    /// The number of events in the request.
    pub count: u32,
}

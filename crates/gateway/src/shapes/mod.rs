//! Requests and answers as data: bytes in, records out; verdicts in, status and body out.
//!
//! Rules:
//! - The module is pure: no IO, no clock, no async.
//! - A request is read whole before its first record exists, except NDJSON, whose lines are independent.
//! - An answer never has a status of success for an event that failed.

pub mod ack;
pub mod answer;
pub mod certificate;
pub mod cloudevents;
pub mod content;
pub mod dead_letters;
pub mod depth;
pub mod event;
pub mod failure;
pub(crate) mod key_stamper;
pub mod ndjson;
pub mod openapi;
pub mod openmetrics;
pub mod percent;
pub mod principal;
pub mod problem;
pub mod query;
pub mod raw;
pub mod record;
pub mod records;
pub mod route;
mod topic_pattern;
pub mod verdict;

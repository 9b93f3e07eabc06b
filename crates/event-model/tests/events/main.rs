//! Events, their JSON and their topics.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod document;
mod golden;
mod round_trip;
mod topic_mapping;
mod untyped;

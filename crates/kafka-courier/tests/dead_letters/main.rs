//! Dead letters: how they are stored, verified and replayed.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod awaited;
mod gated_store;
mod replay;
mod replay_interrupted;
mod replay_order;
mod replay_reroute;
mod replay_topic;
mod storing;
#[path = "../support/mod.rs"]
mod support;
mod topic;
mod verify;

//! Tests that need no Kafka: the rules of the workspace, and the proxy of the other tests.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod audited;
mod dependencies;
mod module_directions;
mod proxy;

//! The driver and the log client on a cluster inside the process.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod connections;
mod log_client;

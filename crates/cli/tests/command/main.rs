//! The command `courier`, run as a process on a cluster inside the test's process.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod config;
#[cfg(unix)]
mod dlq;
#[cfg(unix)]
mod dlq_crash;
#[cfg(unix)]
mod dlq_stores;
#[cfg(unix)]
mod files;
#[path = "../../../kafka-courier/tests/support/leak.rs"]
mod leak;
mod logging;
mod pace;
mod publish;
#[cfg(unix)]
mod publish_spool;
#[cfg(unix)]
mod publish_spool_lines;
mod receipts;
mod secrets;
#[cfg(unix)]
mod serve;
#[cfg(unix)]
mod serve_kills;
mod serve_repeats;
#[cfg(unix)]
mod signals;
#[cfg(unix)]
mod spool;
mod support;
mod unreachable;

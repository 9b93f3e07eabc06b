//! Metrics, spans and log lines.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod metrics;
mod metrics_dead_letters;
mod metrics_document;
mod metrics_spool;
mod outage_log;
#[path = "../support/mod.rs"]
mod support;
mod tracing;
mod tracing_dead_letters;

//! Connections with SASL and TLS, and secrets that no message shows.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod sasl;
#[cfg(feature = "tls")]
mod secrets_in_files;
#[path = "../support/mod.rs"]
mod support;
#[cfg(feature = "tls")]
mod tls;
#[cfg(feature = "tls")]
mod tls_messages;

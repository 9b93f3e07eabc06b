//! Publishing to a cluster inside the process: delivery, errors, outages, limits and malformed answers.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod bounds;
#[cfg(target_os = "linux")]
mod endless;
mod errors;
mod expedite;
mod health;
#[cfg(target_os = "linux")]
mod hostile;
mod lifetime;
#[cfg(feature = "mock")]
mod mock;
mod outages;
mod publish;
mod round_trip;
#[path = "../support/mod.rs"]
mod support;
mod unknown_topics;
mod versions;

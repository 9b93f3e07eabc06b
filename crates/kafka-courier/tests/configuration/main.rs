//! Options: their sources, their documentation and their effects. Secrets among them.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod document;
#[cfg(feature = "config-file")]
mod file;
mod options;
mod options_coverage;
mod options_dead_letters;
#[cfg(feature = "config-file")]
mod secrets_in_settings;
#[path = "../support/mod.rs"]
mod support;

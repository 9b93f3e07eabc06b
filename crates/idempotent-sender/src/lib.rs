//! The idempotent delivery of record batches to Kafka: a pure core that decides, and a thin tokio
//! driver on rskafka's Messenger that moves bytes and time in and out of it.
//!
//! - [`core`] is everything that can be wrong: sequences, windows, retries, leaders. No IO, no clock.
//! - [`driver`] is all the IO there is: one task, its connections, its timers.
#![deny(missing_docs)]

pub mod core;
pub mod driver;
mod secret;
mod wire;

pub use secret::{HIDDEN, Secret, may_be_content, shown_file, shown_path};
pub use wire::{WireError, decode_anything};

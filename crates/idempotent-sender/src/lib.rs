//! Delivers record batches to Kafka idempotently. A pure core decides, and a thin tokio driver on rskafka's Messenger
//! moves bytes and time in and out of the core.
//!
//! - [`core`] decides everything that can be wrong: sequences, windows, retries, leaders. It has no IO and no clock.
//! - [`driver`] does all IO: one task, its connections, its timers.
#![deny(missing_docs)]

pub mod core;
pub mod driver;
mod secret;
mod wire;

pub use secret::{HIDDEN, Secret, may_be_content, shown_file, shown_path};
pub use wire::{WireError, decode_anything};

//! Delivers record batches to Kafka idempotently. A pure core decides, and a thin tokio driver moves bytes and time in
//! and out of the core, over the connections of kafka-client.
//!
//! - [`core`] decides everything that can be wrong: sequences, windows, retries, leaders. It has no IO and no clock.
//! - [`driver`] does all IO: one task, its connections, its timers.
//! - [`append_batch`] appends single batches without a driver.
#![deny(missing_docs)]

mod append;
pub mod core;
pub mod driver;

pub use append::append_batch;

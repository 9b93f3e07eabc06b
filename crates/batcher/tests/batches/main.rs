//! Batches: accumulation, encoding, decoding, and comparisons with Apache Kafka's Java client.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod accumulator;
mod arbitrary;
mod cases;
mod decode;
mod golden;
mod round_trip;

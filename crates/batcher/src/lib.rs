//! Kafka record batches: encoding, decoding, partitioners, accumulation, snappy. No IO, no clock, no async.
#![deny(missing_docs)]

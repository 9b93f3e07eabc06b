//! Arbitrary bytes as every answer that a broker gives the sender, in every version.
//!
//! Rules: no input panics or asks for more memory than its bound.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| kafka_courier_idempotent_sender::decode_anything(data));

//! Decodes arbitrary bytes as every response that the sender reads, in every version.
//!
//! Rule: no input panics or reserves more memory than its bound.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| kafka_courier_client::decode_anything(data));

//! Kafka's messages, as far as delivery needs them, fitted to rskafka's Messenger.
//!
//! Rules:
//! - Everything that comes from a broker is decoded here, by `reader`, and by nothing else: generated
//!   decoders reserve memory by the lengths that they read.
//! - Messages are plain values; this module knows no sockets.

pub(crate) mod aside;
pub(crate) mod fetch;
pub(crate) mod list_offsets;
pub(crate) mod messenger;
pub(crate) mod metadata;
pub(crate) mod produce;
mod reader;
pub(crate) mod sasl;
pub(crate) mod small;
#[cfg(test)]
mod tests;
mod writer;

pub use reader::WireError;
pub(crate) use reader::shown;

pub(crate) fn port(port: i32) -> Result<u16, WireError> {
    u16::try_from(port).map_err(|_| WireError::Malformed { what: "port" })
}

/// Decodes bytes as every answer that the sender reads, in every version: for fuzzing.
#[doc(hidden)]
pub fn decode_anything(bytes: &[u8]) {
    for version in produce::VERSIONS.0..=produce::VERSIONS.1 {
        let _ = produce::ProduceResponse::decode(bytes, version);
    }
    for version in metadata::VERSIONS.0..=metadata::VERSIONS.1 {
        let _ = metadata::decode(bytes, version);
    }
    for version in 0..=small::api_versions::VERSIONS.1 {
        let _ = small::api_versions::decode(bytes, version);
    }
    for version in 0..=small::init_producer_id::VERSIONS.1 {
        let _ = small::init_producer_id::decode(bytes, version);
    }
    let _ = sasl::handshake::decode(bytes, sasl::handshake::VERSIONS.1);
    for version in sasl::authenticate::VERSIONS.0..=sasl::authenticate::VERSIONS.1 {
        let _ = sasl::authenticate::decode(bytes, version);
    }
    let _ = small::describe_producers::decode(bytes, 0);
    for version in fetch::VERSIONS.0..=fetch::VERSIONS.1 {
        let _ = fetch::decode(bytes, version);
    }
    for version in list_offsets::VERSIONS.0..=list_offsets::VERSIONS.1 {
        let _ = list_offsets::decode(bytes, version);
    }
    for version in small::describe_configs::VERSIONS.0..=small::describe_configs::VERSIONS.1 {
        let _ = small::describe_configs::decode(bytes, version);
    }
}

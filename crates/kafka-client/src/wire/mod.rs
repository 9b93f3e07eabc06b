//! The Kafka messages of the client, for rskafka's Messenger.
//!
//! Rules:
//! - `reader` decodes all bytes from brokers. Generated decoders are not used, because they reserve memory by the
//!   lengths that they read.
//! - Messages are plain values. This module knows no sockets.
//! - A message imports `reader`, `writer` and the ids. `messenger` imports the messages. Nothing imports this parent.

pub(crate) mod api_versions;
pub(crate) mod describe_configs;
pub(crate) mod describe_producers;
pub(crate) mod fetch;
pub(crate) mod init_producer_id;
pub(crate) mod list_offsets;
pub(crate) mod messenger;
pub(crate) mod metadata;
pub(crate) mod offset_for_leader_epoch;
pub(crate) mod produce;
mod reader;
pub(crate) mod sasl;
pub(crate) mod splice;
#[cfg(test)]
mod tests;
mod writer;

pub use reader::WireError;
pub(crate) use reader::displayable;

/// Decodes bytes as each answer type in each version, for fuzzing.
#[doc(hidden)]
pub fn decode_anything(bytes: &[u8]) {
    for version in produce::VERSIONS.0..=produce::VERSIONS.1 {
        let _ = produce::ProduceResponse::decode(bytes, version);
    }
    for version in metadata::VERSIONS.0..=metadata::VERSIONS.1 {
        let _ = metadata::decode(bytes, version);
    }
    for version in 0..=api_versions::VERSIONS.1 {
        let _ = api_versions::decode(bytes, version);
    }
    for version in 0..=init_producer_id::VERSIONS.1 {
        let _ = init_producer_id::decode(bytes, version);
    }
    let _ = sasl::handshake::decode(bytes, sasl::handshake::VERSIONS.1);
    for version in sasl::authenticate::VERSIONS.0..=sasl::authenticate::VERSIONS.1 {
        let _ = sasl::authenticate::decode(bytes, version);
    }
    let _ = describe_producers::decode(bytes, 0);
    for version in fetch::VERSIONS.0..=fetch::VERSIONS.1 {
        let _ = fetch::decode(bytes, version);
    }
    for version in list_offsets::VERSIONS.0..=list_offsets::VERSIONS.1 {
        let _ = list_offsets::decode(bytes, version);
    }
    for version in offset_for_leader_epoch::VERSIONS.0..=offset_for_leader_epoch::VERSIONS.1 {
        let _ = offset_for_leader_epoch::decode(bytes, version);
    }
    for version in describe_configs::VERSIONS.0..=describe_configs::VERSIONS.1 {
        let _ = describe_configs::decode(bytes, version);
    }
}

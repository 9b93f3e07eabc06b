//! Each message in each version of its range, checked against kafka-protocol's generated schema.
//!
//! Rules:
//! - The client encodes requests, and kafka-protocol decodes them. kafka-protocol encodes answers with all options,
//!   and the client decodes them.
//! - Each tested answer is also decoded truncated at each byte, with bytes after its end, and with the largest counts
//!   at each byte.

mod api_versions;
mod describe_configs;
mod describe_producers;
mod fetch;
mod frames;
mod init_producer_id;
mod metadata;
mod offset_for_leader_epoch;
mod produce;
mod sasl;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;

use kafka_protocol::messages::TopicName;
use kafka_protocol::protocol::{Encodable, Request, StrBytes};
use rskafka::protocol::api_version::ApiVersion;
use rskafka::protocol::messages::{RequestBody, WriteVersionedType};
use rskafka::protocol::primitives::Int16;

use super::WireError;
use crate::ids::TopicUuid;

const UUIDS: [TopicUuid; 3] = [[1; 16], [2; 16], [0xf3; 16]];

/// Returns the versions that the Messenger may use.
fn versions<R: RequestBody>() -> std::ops::RangeInclusive<i16> {
    R::API_VERSION_RANGE.min().0.0..=R::API_VERSION_RANGE.max().0.0
}

/// Decodes the client's request by kafka-protocol. Encoding it again must return the same bytes.
fn read_back<Theirs: Request>(ours: &impl WriteVersionedType<Vec<u8>>, version: i16) -> Theirs {
    let mut bytes = Vec::new();
    ours.write_versioned(&mut bytes, ApiVersion(Int16(version))).unwrap();
    let mut rest = bytes.as_slice();
    let theirs = Theirs::decode(&mut rest, version).unwrap();
    assert_eq!(rest, [0; 0], "bytes are left over in version {version}");
    assert_eq!(encoded(&theirs, version), bytes, "version {version}");
    theirs
}

fn encoded(message: &impl Encodable, version: i16) -> Vec<u8> {
    let mut bytes = Vec::new();
    message.encode(&mut bytes, version).unwrap();
    bytes
}

/// Decodes a valid answer, after checks that each damage to its length and its counts is an error. `arrays` names all
/// arrays in the answer.
fn decoded<A: PartialEq + Debug>(
    bytes: &[u8],
    arrays: &[&'static str],
    decode: impl Fn(&[u8]) -> Result<A, WireError>,
) -> A {
    for end in 0..bytes.len() {
        assert!(decode(&bytes[..end]).is_err(), "{end} of {} bytes", bytes.len());
    }
    let followed = decode(&[bytes, &[0xff; 3]].concat());
    assert_eq!(followed, decode(bytes), "bytes after an answer are ignored");
    let refused = too_large_anywhere(bytes, &decode);
    for array in arrays {
        assert!(refused.contains(array), "a huge count of {array} is not refused, only {refused:?}");
    }
    decode(bytes).unwrap()
}

/// Writes the largest counts over each place of an answer. Returns the fields that fail for lack of more than 1 GiB.
/// If a count had reserved memory, the error would be one of an element, or the process would have died.
fn too_large_anywhere<A>(bytes: &[u8], decode: impl Fn(&[u8]) -> Result<A, WireError>) -> BTreeSet<&'static str> {
    let counts: [&[u8]; 5] = [
        &i32::MAX.to_be_bytes(),
        &i32::MIN.to_be_bytes(),
        &[0xff, 0xff, 0xff, 0xff, 0x07],
        &[0xff, 0xff, 0xff, 0xff, 0x0f],
        &[0xff, 0xff, 0xff, 0xff, 0xff],
    ];
    let mut refused = BTreeSet::new();
    for (at, count) in (0..bytes.len()).flat_map(|at| counts.map(|count| (at, count))) {
        let followed = [&bytes[..at], count, bytes.get(at + count.len()..).unwrap_or_default()].concat();
        for damaged in [&followed, &followed[..at + count.len()]] {
            if let Err(WireError::Truncated { what, missing: 0x4000_0000.. }) = decode(damaged) {
                refused.insert(what);
            }
        }
    }
    refused
}

/// Tagged fields that no version of any message defines (KIP-482).
fn tags<B: From<&'static [u8]>>() -> BTreeMap<i32, B> {
    BTreeMap::from([(77, b"unknown".as_slice().into()), (1_000_000, b"".as_slice().into())])
}

fn topic(name: &'static str) -> TopicName {
    TopicName(StrBytes::from_static_str(name))
}

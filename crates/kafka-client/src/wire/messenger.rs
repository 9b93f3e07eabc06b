//! Adapts the messages to rskafka's Messenger.
//!
//! Rule: one macro call for each message. Nothing here decides.

use std::collections::HashMap;
use std::io::Cursor;
use std::sync::Arc;

use rskafka::protocol::api_key::ApiKey;
use rskafka::protocol::api_version::{ApiVersion, ApiVersionRange};
use rskafka::protocol::messages::{
    ReadVersionedError, ReadVersionedType, RequestBody, WriteVersionedError, WriteVersionedType,
};
use rskafka::protocol::primitives::Int16;
use rskafka::protocol::traits::ReadError;

use super::fetch::{self, FetchAnswer, FetchRequest};
use super::list_offsets::{self, ListOffsetsRequest, ListedOffset};
use super::metadata::{MetadataAnswer, MetadataRequest};
use super::offset_for_leader_epoch::{self, EpochEnd, EpochEndRequest};
use super::produce::{ProduceRequest, ProduceResponse};
use super::sasl::{authenticate, handshake};
use super::{api_versions, describe_configs, describe_producers, init_producer_id};

const fn version(v: i16) -> ApiVersion {
    ApiVersion(Int16(v))
}

/// Passes the rest of an answer to its decoder.
fn read_rest<A, E: std::error::Error + Send + Sync + 'static>(
    cursor: &mut Cursor<Vec<u8>>,
    decode: impl FnOnce(&[u8]) -> Result<A, E>,
) -> Result<A, ReadVersionedError> {
    let start = usize::try_from(cursor.position()).unwrap_or(usize::MAX);
    let answer = decode(cursor.get_ref().get(start..).unwrap_or_default())
        .map_err(|error| ReadError::Malformed(Box::new(error)))?;
    cursor.set_position(cursor.get_ref().len() as u64);
    Ok(answer)
}

macro_rules! message {
    ($request:ty => $response:ident($body:ty), $key:ident, $versions:expr, flexible $flexible:expr, header $header:expr,
     $encode:expr, $decode:expr) => {
        #[derive(Debug)]
        pub(crate) struct $response(pub(crate) $body);

        impl RequestBody for $request {
            type ResponseBody = $response;
            const API_KEY: ApiKey = ApiKey::$key;
            const API_VERSION_RANGE: ApiVersionRange = ApiVersionRange::new(version($versions.0), version($versions.1));
            const FIRST_TAGGED_FIELD_IN_REQUEST_VERSION: ApiVersion = version($flexible);
            const FIRST_TAGGED_FIELD_IN_RESPONSE_VERSION: ApiVersion = version($header);
        }

        impl WriteVersionedType<Vec<u8>> for $request {
            fn write_versioned(&self, out: &mut Vec<u8>, version: ApiVersion) -> Result<(), WriteVersionedError> {
                let encode: fn(&$request, &mut Vec<u8>, i16) = $encode;
                encode(self, out, version.0.0);
                Ok(())
            }
        }

        impl ReadVersionedType<Cursor<Vec<u8>>> for $response {
            fn read_versioned(cursor: &mut Cursor<Vec<u8>>, version: ApiVersion) -> Result<Self, ReadVersionedError> {
                read_rest(cursor, |bytes| $decode(bytes, version.0.0)).map(Self)
            }
        }
    };
}

#[derive(Debug)]
pub(crate) struct ApiVersionsRequest;

#[derive(Debug)]
pub(crate) struct InitProducerIdRequest;

message!(ProduceRequest => Produced(ProduceResponse), Produce, super::produce::VERSIONS,
    flexible super::produce::FIRST_FLEXIBLE, header super::produce::FIRST_FLEXIBLE,
    ProduceRequest::encode, ProduceResponse::decode);
message!(MetadataRequest => Metadata(MetadataAnswer), Metadata, super::metadata::VERSIONS,
    flexible super::metadata::FIRST_FLEXIBLE, header super::metadata::FIRST_FLEXIBLE,
    MetadataRequest::encode, super::metadata::decode);
// The header of an ApiVersions answer never has tags (KIP-511).
message!(ApiVersionsRequest => ApiVersions((i16, Vec<api_versions::ApiRange>)), ApiVersions, api_versions::VERSIONS,
    flexible api_versions::FIRST_FLEXIBLE, header i16::MAX,
    |_, out, version| api_versions::encode(out, version), api_versions::decode);
message!(InitProducerIdRequest => ProducerId((i16, i64)), InitProducerId, init_producer_id::VERSIONS,
    flexible init_producer_id::FIRST_FLEXIBLE, header init_producer_id::FIRST_FLEXIBLE,
    |_, out, version| init_producer_id::encode(out, version), init_producer_id::decode);
message!(describe_producers::DescribeProducersRequest => Producers(Vec<describe_producers::DescribedPartition>), DescribeProducers,
    describe_producers::VERSIONS, flexible describe_producers::FIRST_FLEXIBLE, header describe_producers::FIRST_FLEXIBLE,
    describe_producers::DescribeProducersRequest::encode, describe_producers::decode);

message!(FetchRequest => Fetched(FetchAnswer), Fetch, fetch::VERSIONS,
    flexible fetch::FIRST_FLEXIBLE, header fetch::FIRST_FLEXIBLE, FetchRequest::encode, fetch::decode);
message!(ListOffsetsRequest => ListedOffsets(Vec<ListedOffset>), ListOffsets, list_offsets::VERSIONS,
    flexible list_offsets::FIRST_FLEXIBLE, header list_offsets::FIRST_FLEXIBLE,
    ListOffsetsRequest::encode, list_offsets::decode);
message!(EpochEndRequest => EpochEnds(Vec<EpochEnd>), OffsetForLeaderEpoch, offset_for_leader_epoch::VERSIONS,
    flexible offset_for_leader_epoch::FIRST_FLEXIBLE, header offset_for_leader_epoch::FIRST_FLEXIBLE,
    EpochEndRequest::encode, offset_for_leader_epoch::decode);

message!(describe_configs::DescribeConfigsRequest => TopicConfigs(describe_configs::TopicSettings), DescribeConfigs, describe_configs::VERSIONS,
    flexible describe_configs::FIRST_FLEXIBLE, header describe_configs::FIRST_FLEXIBLE,
    describe_configs::DescribeConfigsRequest::encode, describe_configs::decode);

message!(handshake::Request => Mechanisms((i16, Vec<Arc<str>>)), SaslHandshake, handshake::VERSIONS,
    flexible handshake::FIRST_FLEXIBLE, header handshake::FIRST_FLEXIBLE, handshake::Request::encode, handshake::decode);

message!(authenticate::Request => Authenticated(authenticate::Answer), SaslAuthenticate, authenticate::VERSIONS,
    flexible authenticate::FIRST_FLEXIBLE, header authenticate::FIRST_FLEXIBLE,
    authenticate::Request::encode, authenticate::decode);

/// Returns the API of a broker's numeric key.
pub(crate) fn api_key(key: i16) -> ApiKey {
    ApiKey::from(Int16(key))
}

/// Converts a broker's ranges for the Messenger. Ranges with a lowest version above the highest are left out.
pub(crate) fn version_ranges(ranges: &[api_versions::ApiRange]) -> HashMap<ApiKey, ApiVersionRange> {
    ranges
        .iter()
        .filter(|(_, lowest, highest)| lowest <= highest)
        .map(|(key, lowest, highest)| {
            (ApiKey::from(Int16(*key)), ApiVersionRange::new(version(*lowest), version(*highest)))
        })
        .collect()
}

/// Returns the versions to use before the broker's versions are known: ApiVersions up to `highest` only.
pub(crate) fn api_versions_only(highest: i16) -> HashMap<ApiKey, ApiVersionRange> {
    HashMap::from([(ApiKey::ApiVersions, ApiVersionRange::new(version(0), version(highest)))])
}

/// A request with its name, and the versions that the client supports.
type SupportedApi = (ApiKey, &'static str, (i16, i16));

/// Requests that delivery needs.
pub(crate) const REQUIRED_APIS: [SupportedApi; 3] = [
    (ApiKey::Produce, "Produce", super::produce::VERSIONS),
    (ApiKey::Metadata, "Metadata", super::metadata::VERSIONS),
    (ApiKey::InitProducerId, "InitProducerId", init_producer_id::VERSIONS),
];
/// Requests that are optional: each is checked when it is sent.
pub(crate) const OPTIONAL_APIS: [SupportedApi; 5] = [
    (ApiKey::Fetch, "Fetch", fetch::VERSIONS),
    (ApiKey::ListOffsets, "ListOffsets", list_offsets::VERSIONS),
    (ApiKey::DescribeConfigs, "DescribeConfigs", describe_configs::VERSIONS),
    (ApiKey::DescribeProducers, "DescribeProducers", describe_producers::VERSIONS),
    (ApiKey::OffsetForLeaderEpoch, "OffsetForLeaderEpoch", offset_for_leader_epoch::VERSIONS),
];

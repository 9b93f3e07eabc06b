//! Decoding of all requests by API key and version, and dispatch to their APIs.
//!
//! Rules: a request is decoded completely before any part of it is applied.

use std::time::Duration;

use bytes::Bytes;
use kafka_protocol::messages::{
    ApiKey, ApiVersionsRequest, CreateTopicsRequest, DescribeConfigsRequest, DescribeProducersRequest, FetchRequest,
    InitProducerIdRequest, ListOffsetsRequest, MetadataRequest, OffsetForLeaderEpochRequest, ProduceRequest,
    SaslAuthenticateRequest, SaslHandshakeRequest,
};
use kafka_protocol::protocol::{Encodable, HeaderVersion};

use super::{
    Call, Reply, SaslSession, api_versions, create_topics, describe_configs, describe_producers, fetch,
    init_producer_id, list_offsets, metadata, offset_for_leader_epoch, produce, sasl,
};
use crate::model::ClusterModel;
use crate::wire::{self, Malformed, Schema};

/// A decoded request.
pub(crate) enum DecodedRequest {
    Produce(ProduceRequest),
    Fetch(FetchRequest),
    ListOffsets(ListOffsetsRequest),
    Metadata(MetadataRequest),
    SaslHandshake(SaslHandshakeRequest),
    ApiVersions(ApiVersionsRequest),
    CreateTopics(CreateTopicsRequest),
    InitProducerId(InitProducerIdRequest),
    OffsetForLeaderEpoch(OffsetForLeaderEpochRequest),
    DescribeConfigs(DescribeConfigsRequest),
    SaslAuthenticate(SaslAuthenticateRequest),
    DescribeProducers(DescribeProducersRequest),
}

impl DecodedRequest {
    /// Decodes a body. The schema must contain the version.
    pub(crate) fn decode(schema: &Schema, version: i16, body: Bytes) -> Result<Self, Malformed> {
        Ok(match schema.key {
            ApiKey::Produce => Self::Produce(wire::decode(schema, version, body)?),
            ApiKey::Fetch => Self::Fetch(wire::decode(schema, version, body)?),
            ApiKey::ListOffsets => Self::ListOffsets(wire::decode(schema, version, body)?),
            ApiKey::Metadata => Self::Metadata(wire::decode(schema, version, body)?),
            ApiKey::SaslHandshake => Self::SaslHandshake(wire::decode(schema, version, body)?),
            ApiKey::ApiVersions => Self::ApiVersions(wire::decode(schema, version, body)?),
            ApiKey::CreateTopics => Self::CreateTopics(wire::decode(schema, version, body)?),
            ApiKey::InitProducerId => Self::InitProducerId(wire::decode(schema, version, body)?),
            ApiKey::OffsetForLeaderEpoch => Self::OffsetForLeaderEpoch(wire::decode(schema, version, body)?),
            ApiKey::DescribeConfigs => Self::DescribeConfigs(wire::decode(schema, version, body)?),
            ApiKey::SaslAuthenticate => Self::SaslAuthenticate(wire::decode(schema, version, body)?),
            ApiKey::DescribeProducers => Self::DescribeProducers(wire::decode(schema, version, body)?),
            _ => return Err(Malformed("API key")),
        })
    }

    /// Returns the partitions of the request's batches, by topic name and index as in fault rules.
    pub(crate) fn partitions(&self, cluster: &ClusterModel, version: i16) -> Vec<(String, i32)> {
        let Self::Produce(request) = self else { return Vec::new() };
        let topics = request.topic_data.iter();
        let named = topics.filter_map(|topic| Some((produce::topic_name(cluster, topic, version)?, topic)));
        named
            .flat_map(|(name, topic)| topic.partition_data.iter().map(move |data| (name.clone(), data.index)))
            .collect()
    }

    /// Returns the time that a Fetch answer may wait for records. `None` for all other requests.
    pub(crate) fn max_wait(&self) -> Option<Duration> {
        let Self::Fetch(request) = self else { return None };
        Some(Duration::from_millis(u64::try_from(request.max_wait_ms).unwrap_or(0)))
    }

    /// Applies the request. The flag is true if the answer should wait for more records (Fetch).
    pub(crate) fn apply(&self, call: &Call<'_>, session: &mut SaslSession) -> Result<(Reply, bool), Malformed> {
        let answer = match self {
            Self::Produce(request) => return produce_reply(call, request).map(|answer| (answer, false)),
            Self::Fetch(request) => {
                let (response, wait) = fetch::answer(call, request);
                return Ok((encode(call, &response)?, wait));
            }
            Self::ListOffsets(request) => encode(call, &list_offsets::answer(call, request))?,
            Self::Metadata(request) => encode(call, &metadata::answer(call, request))?,
            Self::SaslHandshake(request) => encode(call, &sasl::handshake(call, session, request))?,
            Self::ApiVersions(request) => encode(call, &api_versions::answer(call, request))?,
            Self::CreateTopics(request) => encode(call, &create_topics::answer(call, request))?,
            Self::InitProducerId(request) => encode(call, &init_producer_id::answer(call, request))?,
            Self::OffsetForLeaderEpoch(request) => encode(call, &offset_for_leader_epoch::answer(call, request))?,
            Self::DescribeConfigs(request) => encode(call, &describe_configs::answer(call, request))?,
            Self::SaslAuthenticate(request) => encode(call, &sasl::authenticate(call, session, request))?,
            Self::DescribeProducers(request) => encode(call, &describe_producers::answer(call, request))?,
        };
        Ok((answer, false))
    }
}

fn encode<R: Encodable + HeaderVersion>(call: &Call<'_>, response: &R) -> Result<Reply, Malformed> {
    wire::encode(call.correlation_id, call.version, response).map(Reply::Frame)
}

/// Applies a Produce request. A request with acks=0 gets no answer, and its error ends the connection.
fn produce_reply(call: &Call<'_>, request: &ProduceRequest) -> Result<Reply, Malformed> {
    let response = produce::answer(call, request);
    match request.acks {
        0 if produce::has_errors(&response) => Ok(Reply::Close),
        0 => Ok(Reply::None),
        _ => encode(call, &response),
    }
}

//! All requests as one type: decoding by key and version, and the way to their APIs.
//!
//! Rules: a request is decoded whole before any of it is applied.

use std::time::Duration;

use bytes::Bytes;
use kafka_protocol::messages::{
    ApiKey, ApiVersionsRequest, CreateTopicsRequest, DescribeConfigsRequest, DescribeProducersRequest, FetchRequest,
    InitProducerIdRequest, ListOffsetsRequest, MetadataRequest, ProduceRequest, SaslAuthenticateRequest,
    SaslHandshakeRequest,
};
use kafka_protocol::protocol::{Encodable, HeaderVersion};

use super::{
    Answer, Call, Session, api_versions, create_topics, describe_configs, describe_producers, fetch, init_producer_id,
    list_offsets, metadata, produce, sasl,
};
use crate::model::Cluster;
use crate::wire::{self, Malformed, Schema};

/// A decoded request.
pub(crate) enum Request {
    Produce(ProduceRequest),
    Fetch(FetchRequest),
    ListOffsets(ListOffsetsRequest),
    Metadata(MetadataRequest),
    SaslHandshake(SaslHandshakeRequest),
    ApiVersions(ApiVersionsRequest),
    CreateTopics(CreateTopicsRequest),
    InitProducerId(InitProducerIdRequest),
    DescribeConfigs(DescribeConfigsRequest),
    SaslAuthenticate(SaslAuthenticateRequest),
    DescribeProducers(DescribeProducersRequest),
}

impl Request {
    /// Decodes a body. The schema must have this version.
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
            ApiKey::DescribeConfigs => Self::DescribeConfigs(wire::decode(schema, version, body)?),
            ApiKey::SaslAuthenticate => Self::SaslAuthenticate(wire::decode(schema, version, body)?),
            ApiKey::DescribeProducers => Self::DescribeProducers(wire::decode(schema, version, body)?),
            _ => return Err(Malformed("the API key")),
        })
    }

    /// The partitions that it brings batches for, as rules for faults name them.
    pub(crate) fn partitions(&self, cluster: &Cluster, version: i16) -> Vec<(String, i32)> {
        let Self::Produce(request) = self else { return Vec::new() };
        let topics = request.topic_data.iter();
        let named = topics.filter_map(|topic| Some((produce::topic_name(cluster, topic, version)?, topic)));
        named
            .flat_map(|(name, topic)| topic.partition_data.iter().map(move |data| (name.clone(), data.index)))
            .collect()
    }

    /// How long its answer may wait for records.
    pub(crate) fn patience(&self) -> Option<Duration> {
        let Self::Fetch(request) = self else { return None };
        Some(Duration::from_millis(u64::try_from(request.max_wait_ms).unwrap_or(0)))
    }

    /// Applies it. The flag says that the answer should rather wait for records (Fetch).
    pub(crate) fn apply(&self, call: &Call<'_>, session: &mut Session) -> Result<(Answer, bool), Malformed> {
        let answer = match self {
            Self::Produce(request) => return produced(call, request).map(|answer| (answer, false)),
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
            Self::DescribeConfigs(request) => encode(call, &describe_configs::answer(call, request))?,
            Self::SaslAuthenticate(request) => encode(call, &sasl::authenticate(call, session, request))?,
            Self::DescribeProducers(request) => encode(call, &describe_producers::answer(call, request))?,
        };
        Ok((answer, false))
    }
}

fn encode<R: Encodable + HeaderVersion>(call: &Call<'_>, response: &R) -> Result<Answer, Malformed> {
    wire::encode(call.correlation_id, call.version, response).map(Answer::Frame)
}

/// With acks=0 there is no answer; an error can only be told by ending the connection.
fn produced(call: &Call<'_>, request: &ProduceRequest) -> Result<Answer, Malformed> {
    let response = produce::answer(call, request);
    match request.acks {
        0 if produce::has_errors(&response) => Ok(Answer::Close),
        0 => Ok(Answer::None),
        _ => encode(call, &response),
    }
}

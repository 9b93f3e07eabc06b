//! The properties of each message that the Messenger uses: API key, versions, and header versions.

use kafka_protocol::messages as theirs;
use kafka_protocol::protocol::{HeaderVersion, Message, Request};
use rskafka::protocol::api_key::ApiKey;
use rskafka::protocol::api_version::{ApiVersion, ApiVersionRange};
use rskafka::protocol::messages::RequestBody;
use rskafka::protocol::primitives::Int16;

use super::versions;
use crate::wire::fetch::FetchRequest;
use crate::wire::list_offsets::ListOffsetsRequest;
use crate::wire::messenger::{ApiVersionsRequest, InitProducerIdRequest, api_versions_only, version_ranges};
use crate::wire::metadata::MetadataRequest;
use crate::wire::offset_for_leader_epoch::EpochEndRequest;
use crate::wire::produce::ProduceRequest;
use crate::wire::sasl::{authenticate, handshake};
use crate::wire::{describe_configs, describe_producers};

fn agree<Ours: RequestBody, Theirs: Request>(lowest: i16, highest: i16) {
    assert_eq!(Int16::from(Ours::API_KEY).0, Theirs::KEY);
    assert_eq!(versions::<Ours>(), lowest..=highest);
    assert!(Theirs::VERSIONS.min <= lowest && highest <= Theirs::VERSIONS.max);
    assert!(Theirs::Response::VERSIONS.min <= lowest && highest <= Theirs::Response::VERSIONS.max);
    for version in lowest..=highest {
        let ours = ApiVersion(Int16(version));
        let (request, answer) = (Theirs::header_version(version), Theirs::Response::header_version(version));
        assert_eq!(ours >= Ours::FIRST_TAGGED_FIELD_IN_REQUEST_VERSION, request >= 2, "request {version}");
        assert_eq!(ours >= Ours::FIRST_TAGGED_FIELD_IN_RESPONSE_VERSION, answer >= 1, "answer {version}");
    }
}

#[test]
fn keys_versions_headers_match_the_schema() {
    agree::<ProduceRequest, theirs::ProduceRequest>(3, 13);
    agree::<MetadataRequest, theirs::MetadataRequest>(4, 13);
    agree::<ApiVersionsRequest, theirs::ApiVersionsRequest>(0, 3);
    agree::<InitProducerIdRequest, theirs::InitProducerIdRequest>(0, 5);
    agree::<describe_producers::DescribeProducersRequest, theirs::DescribeProducersRequest>(0, 0);
    agree::<FetchRequest, theirs::FetchRequest>(5, 13);
    agree::<ListOffsetsRequest, theirs::ListOffsetsRequest>(1, 7);
    agree::<EpochEndRequest, theirs::OffsetForLeaderEpochRequest>(2, 4);
    agree::<describe_configs::DescribeConfigsRequest, theirs::DescribeConfigsRequest>(1, 4);
    agree::<handshake::Request, theirs::SaslHandshakeRequest>(1, 1);
    agree::<authenticate::Request, theirs::SaslAuthenticateRequest>(0, 2);
}

#[test]
fn inverted_version_ranges_are_dropped() {
    let ranges = version_ranges(&[(0, 3, 13), (3, 5, 4), (22, 2, 2)]);
    let range = |lowest, highest| ApiVersionRange::new(ApiVersion(Int16(lowest)), ApiVersion(Int16(highest)));
    assert_eq!(ranges.len(), 2);
    assert_eq!(ranges[&ApiKey::Produce], range(3, 13));
    assert_eq!(ranges[&ApiKey::InitProducerId], range(2, 2));
    assert_eq!(api_versions_only(3), [(ApiKey::ApiVersions, range(0, 3))].into());
}

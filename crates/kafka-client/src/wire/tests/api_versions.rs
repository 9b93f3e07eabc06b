//! ApiVersions, versions 0 to 3.

use kafka_protocol::messages as theirs;
use kafka_protocol::messages::api_versions_response::{ApiVersion, FinalizedFeatureKey, SupportedFeatureKey};

use super::{decoded, encoded, read_back, tags, versions};
use crate::wire::api_versions;
use crate::wire::messenger::ApiVersionsRequest;

#[test]
fn request_names_the_client_software() {
    for version in versions::<ApiVersionsRequest>() {
        let read: theirs::ApiVersionsRequest = read_back(&ApiVersionsRequest, version);
        let name = (&*read.client_software_name, &*read.client_software_version);
        let expected = if version >= 3 { ("kafka-courier", env!("CARGO_PKG_VERSION")) } else { ("", "") };
        assert_eq!(name, expected, "version {version}");
    }
}

fn api(key: i16, lowest: i16, highest: i16) -> ApiVersion {
    let api = ApiVersion::default().with_api_key(key).with_min_version(lowest).with_max_version(highest);
    api.with_unknown_tagged_fields(tags())
}

#[test]
fn ranges_are_read_with_all_options() {
    for version in versions::<ApiVersionsRequest>() {
        let apis = vec![api(0, 3, 13), api(i16::MAX, 0, 0)];
        let mut answer = theirs::ApiVersionsResponse::default().with_error_code(3).with_api_keys(apis);
        if version >= 1 {
            answer = answer.with_throttle_time_ms(9);
        }
        if version >= 3 {
            let supported = SupportedFeatureKey::default().with_name("transaction.version".into()).with_max_version(2);
            let finalized = FinalizedFeatureKey::default().with_name("kraft.version".into()).with_max_version_level(1);
            answer = answer.with_supported_features(vec![supported]).with_finalized_features(vec![finalized]);
            answer = answer.with_finalized_features_epoch(5).with_zk_migration_ready(true);
            answer = answer.with_unknown_tagged_fields(tags());
        }
        let read = decoded(&encoded(&answer, version), &["api keys"], |bytes| api_versions::decode(bytes, version));
        assert_eq!(read, (3, vec![(0, 3, 13), (i16::MAX, 0, 0)]), "version {version}");
    }
}

#[test]
fn unsupported_version_needs_only_its_code() {
    let answer = theirs::ApiVersionsResponse::default().with_error_code(35).with_api_keys(vec![api(18, 0, 2)]);
    let kafkas = encoded(&answer, 0);
    // librdkafka's mock cluster answers with compact lengths and without tags.
    let mocks = [0, 35, 2, 0, 18, 0, 0, 0, 2, 0, 0, 0, 0];
    for version in versions::<ApiVersionsRequest>() {
        for bytes in [&kafkas[..], &mocks, &[0, 35]] {
            assert_eq!(api_versions::decode(bytes, version), Ok((35, vec![])), "version {version}");
        }
    }
}

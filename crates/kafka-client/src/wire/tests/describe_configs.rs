//! DescribeConfigs, versions 1 to 4.

use kafka_protocol::messages as theirs;
use kafka_protocol::messages::describe_configs_response::{
    DescribeConfigsResourceResult, DescribeConfigsResult, DescribeConfigsSynonym,
};

use super::{decoded, encoded, read_back, tags, versions};
use crate::wire::describe_configs;

#[test]
fn request_is_for_one_topic() {
    let settings = &[describe_configs::CLEANUP_POLICY, describe_configs::RETENTION_MS];
    let request = describe_configs::DescribeConfigsRequest { topic: "orders".into(), settings };
    for version in versions::<describe_configs::DescribeConfigsRequest>() {
        let read: theirs::DescribeConfigsRequest = read_back(&request, version);
        assert!(!read.include_synonyms && !read.include_documentation);
        assert_eq!(read.resources.len(), 1);
        assert_eq!((read.resources[0].resource_type, &*read.resources[0].resource_name), (2, "orders"));
        assert_eq!(read.resources[0].configuration_keys, Some(vec!["cleanup.policy".into(), "retention.ms".into()]));
    }
}

fn config(version: i16, name: &'static str, value: Option<&'static str>) -> DescribeConfigsResourceResult {
    let synonym = DescribeConfigsSynonym::default().with_name("message.max.bytes".into()).with_value(None);
    let synonyms = vec![synonym.clone().with_source(5), synonym.with_value(Some("1".into()))];
    let config = DescribeConfigsResourceResult::default().with_name(name.into()).with_value(value.map(Into::into));
    let config = config.with_synonyms(synonyms).with_config_source(5).with_read_only(true).with_is_sensitive(true);
    let config = config.with_unknown_tagged_fields(tags());
    if version >= 3 { config.with_config_type(3).with_documentation(Some("most bytes".into())) } else { config }
}

fn configs(version: i16, code: i16, configs: Vec<DescribeConfigsResourceResult>) -> Vec<u8> {
    let result = DescribeConfigsResult::default().with_error_code(code).with_configs(configs).with_resource_type(2);
    let result = result.with_resource_name("orders".into()).with_error_message((code != 0).then(|| "no".into()));
    let result = vec![result.with_unknown_tagged_fields(tags())];
    let answer = theirs::DescribeConfigsResponse::default().with_results(result).with_throttle_time_ms(2);
    encoded(&answer.with_unknown_tagged_fields(tags()), version)
}

#[test]
fn settings_are_read_with_all_options() {
    for version in versions::<describe_configs::DescribeConfigsRequest>() {
        let other = config(version, "retention.ms", Some("604800000"));
        let bytes =
            configs(version, 0, vec![other.clone(), config(version, "max.message.bytes", Some("1048588")), other]);
        let read =
            decoded(&bytes, &["results", "configs", "synonyms"], |bytes| describe_configs::decode(bytes, version));
        assert_eq!(read.value("max.message.bytes"), Some("1048588"), "version {version}");
        assert_eq!((read.code, read.settings.len(), read.value("retention.bytes")), (0, 3, None));
    }
}

#[test]
fn null_settings_have_no_value() {
    for version in versions::<describe_configs::DescribeConfigsRequest>() {
        let bytes = configs(version, 0, vec![config(version, "max.message.bytes", None)]);
        let read = describe_configs::decode(&bytes, version).unwrap();
        assert_eq!((read.code, read.value("max.message.bytes")), (0, None));
        let refused = configs(version, 29, Vec::new());
        let read = decoded(&refused, &["results", "configs"], |bytes| describe_configs::decode(bytes, version));
        assert_eq!((read.code, read.settings.len()), (29, 0));
    }
}

//! ApiVersions (KIP-35, KIP-511).
//!
//! Rules: what is named comes from the table by which requests are walked.

use kafka_protocol::ResponseError;
use kafka_protocol::messages::api_versions_response::ApiVersion;
use kafka_protocol::messages::{ApiVersionsRequest, ApiVersionsResponse};

use super::Call;
use crate::wire::SCHEMAS;

pub(super) fn answer(call: &Call<'_>, _request: &ApiVersionsRequest) -> ApiVersionsResponse {
    response(call.refused().unwrap_or(0)).with_throttle_time_ms(call.throttle_ms())
}

/// The answer, in version 0, to a version that is not known here.
pub(crate) fn unsupported() -> ApiVersionsResponse {
    response(ResponseError::UnsupportedVersion.code())
}

fn response(error_code: i16) -> ApiVersionsResponse {
    let keys = SCHEMAS.iter().map(|schema| {
        ApiVersion::default()
            .with_api_key(schema.key as i16)
            .with_min_version(schema.named_from)
            .with_max_version(schema.max)
    });
    ApiVersionsResponse::default().with_error_code(error_code).with_api_keys(keys.collect())
}

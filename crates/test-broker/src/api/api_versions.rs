//! ApiVersions (KIP-35, KIP-511).
//!
//! Rules: the answer lists the versions in [`SCHEMAS`], the table that validates requests.

use kafka_protocol::ResponseError;
use kafka_protocol::messages::api_versions_response::ApiVersion;
use kafka_protocol::messages::{ApiVersionsRequest, ApiVersionsResponse};

use super::Call;
use crate::wire::SCHEMAS;

pub(super) fn answer(call: &Call<'_>, _request: &ApiVersionsRequest) -> ApiVersionsResponse {
    response(call.refused().unwrap_or(0)).with_throttle_time_ms(call.throttle_ms())
}

/// Returns the answer to an unknown version of ApiVersions, encoded as version 0.
pub(crate) fn unsupported() -> ApiVersionsResponse {
    response(ResponseError::UnsupportedVersion.code())
}

fn response(error_code: i16) -> ApiVersionsResponse {
    let keys = SCHEMAS.iter().map(|schema| {
        ApiVersion::default()
            .with_api_key(schema.key as i16)
            .with_min_version(schema.listed_from)
            .with_max_version(schema.max)
    });
    ApiVersionsResponse::default().with_error_code(error_code).with_api_keys(keys.collect())
}

//! InitProducerId (KIP-98, KIP-360).
//!
//! Rules: every answer is a new id with epoch 0, whatever id the request names. Transactional ids are refused.

use kafka_protocol::ResponseError;
use kafka_protocol::messages::{InitProducerIdRequest, InitProducerIdResponse};

use super::Call;

pub(super) fn answer(call: &Call<'_>, request: &InitProducerIdRequest) -> InitProducerIdResponse {
    let response = InitProducerIdResponse::default().with_throttle_time_ms(call.throttle_ms());
    let transactional = request.transactional_id.is_some().then_some(ResponseError::InvalidRequest.code());
    match call.refused().or(transactional) {
        Some(code) => response.with_error_code(code).with_producer_id((-1).into()).with_producer_epoch(-1),
        None => response.with_producer_id(call.shared.lock().cluster.new_producer_id().into()).with_producer_epoch(0),
    }
}

//! InitProducerId, versions 0 to 5.

use kafka_protocol::messages as theirs;

use super::{decoded, encoded, read_back, tags, versions};
use crate::wire::messenger::InitProducerIdRequest;
use crate::wire::{WireError, init_producer_id};

#[test]
fn request_is_for_a_new_id() {
    for version in versions::<InitProducerIdRequest>() {
        let read: theirs::InitProducerIdRequest = read_back(&InitProducerIdRequest, version);
        assert_eq!((read.transactional_id, read.transaction_timeout_ms), (None, i32::MAX));
        assert_eq!((read.producer_id.0, read.producer_epoch), (-1, -1));
    }
}

fn producer_id(code: i16, id: i64) -> theirs::InitProducerIdResponse {
    let answer = theirs::InitProducerIdResponse::default().with_error_code(code).with_producer_id(id.into());
    answer.with_throttle_time_ms(3).with_producer_epoch(0).with_unknown_tagged_fields(tags())
}

#[test]
fn producer_id_or_error_is_read() {
    for version in versions::<InitProducerIdRequest>() {
        for (code, id) in [(0, 0), (0, i64::MAX), (14, -1)] {
            let bytes = encoded(&producer_id(code, id), version);
            let read = decoded(&bytes, &[], |bytes| init_producer_id::decode(bytes, version));
            assert_eq!(read, (code, id), "version {version}");
        }
        let read = init_producer_id::decode(&encoded(&producer_id(0, -1), version), version);
        assert_eq!(read, Err(WireError::Malformed { what: "producer id" }));
    }
}

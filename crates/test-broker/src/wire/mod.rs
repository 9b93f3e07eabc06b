//! Decoding of requests and encoding of answers.
//!
//! Rules: `walk` validates all lengths of a request before generated code decodes any part of it.

mod header;
mod schema;
mod walk;

pub(crate) use header::RequestHeader;
pub(crate) use schema::{SCHEMAS, Schema};
pub(crate) use walk::Malformed;

use bytes::{BufMut, Bytes, BytesMut};
use kafka_protocol::protocol::{Decodable, Encodable, HeaderVersion};

/// Validates a request's lengths and decodes its body.
pub(crate) fn decode<R: Decodable>(schema: &Schema, version: i16, mut body: Bytes) -> Result<R, Malformed> {
    walk::walk(schema, version, &body)?;
    let request = R::decode(&mut body, version).map_err(|_| Malformed("value"))?;
    if body.is_empty() { Ok(request) } else { Err(Malformed("length")) }
}

/// Encodes an answer as a frame with its length prefix.
pub(crate) fn encode<R: Encodable + HeaderVersion>(
    correlation_id: i32,
    version: i16,
    answer: &R,
) -> Result<Bytes, Malformed> {
    let too_big = |_| Malformed("answer size");
    let header = if R::header_version(version) >= 1 { 5 } else { 4 };
    let size = header + answer.compute_size(version).map_err(too_big)?;
    let mut frame = BytesMut::with_capacity(4 + size);
    frame.put_i32(i32::try_from(size).map_err(|_| Malformed("answer size"))?);
    frame.put_i32(correlation_id);
    if header == 5 {
        frame.put_u8(0); // no tagged fields
    }
    answer.encode(&mut frame, version).map_err(too_big)?;
    Ok(frame.freeze())
}

/// Returns a frame with this body after the correlation id.
pub(crate) fn frame(correlation_id: i32, body: &[u8]) -> Result<Bytes, Malformed> {
    let mut frame = BytesMut::with_capacity(8 + body.len());
    frame.put_i32(i32::try_from(4 + body.len()).map_err(|_| Malformed("answer size"))?);
    frame.put_i32(correlation_id);
    frame.extend_from_slice(body);
    Ok(frame.freeze())
}

//! InitProducerId, versions 0 to 5 (KIP-98, 360).

use super::api_versions::NONE;
use super::reader::{WireError, WireReader};
use super::writer::WireWriter;

pub(crate) const FIRST_FLEXIBLE: i16 = 2;
pub(crate) const VERSIONS: (i16, i16) = (0, 5);

pub(crate) fn encode(out: &mut Vec<u8>, version: i16) {
    let mut writer = WireWriter::new(out, version >= FIRST_FLEXIBLE);
    writer.null_string(); // transactional id
    writer.i32(i32::MAX); // transaction timeout: unused without a transaction
    if version >= 3 {
        writer.i64(-1);
        writer.i16(-1);
    }
    writer.no_tags();
}

/// Returns the error code and the producer id. The epoch of a new id is 0.
pub(crate) fn decode(bytes: &[u8], version: i16) -> Result<(i16, i64), WireError> {
    let mut reader = WireReader::new(bytes, version >= FIRST_FLEXIBLE);
    reader.i32("throttle time")?;
    let code = reader.i16("error code")?;
    let id = reader.i64("producer id")?;
    reader.i16("producer epoch")?;
    reader.skip_tags()?;
    reader.finish("InitProducerId");
    if code == NONE && id < 0 {
        return Err(WireError::Malformed { what: "producer id" });
    }
    Ok((code, id))
}

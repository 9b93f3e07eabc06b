//! ApiVersions, versions 0 to 3 (KIP-35, 511).

use super::reader::{WireError, WireReader};
use super::writer::WireWriter;

/// A range of versions of an API: key, lowest version, highest version.
pub(crate) type ApiRange = (i16, i16, i16);

pub(crate) const FIRST_FLEXIBLE: i16 = 3;
pub(crate) const VERSIONS: (i16, i16) = (0, 3);

pub(crate) fn encode(out: &mut Vec<u8>, version: i16) {
    let mut writer = WireWriter::new(out, version >= FIRST_FLEXIBLE);
    if version >= 3 {
        writer.string("kafka-courier");
        writer.string(env!("CARGO_PKG_VERSION"));
    }
    writer.no_tags();
}

/// The code of a broker that does not support the version of the request (KIP-511).
pub(crate) const UNSUPPORTED_VERSION: i16 = 35;
/// `NONE`: success.
pub(crate) const NONE: i16 = 0;

/// Returns the error code and the broker's ranges. A broker that does not support the version answers in version 0 or
/// in another version, so nothing is read after that code.
pub(crate) fn decode(bytes: &[u8], version: i16) -> Result<(i16, Vec<ApiRange>), WireError> {
    let mut reader = WireReader::new(bytes, version >= FIRST_FLEXIBLE);
    let code = reader.i16("error code")?;
    if code == UNSUPPORTED_VERSION {
        return Ok((code, Vec::new()));
    }
    let ranges = reader.vec("api keys", 6, |reader| {
        let range = (reader.i16("api key")?, reader.i16("lowest version")?, reader.i16("highest version")?);
        reader.skip_tags()?;
        Ok(range)
    })?;
    if version >= 1 {
        reader.i32("throttle time")?;
    }
    reader.skip_tags()?;
    reader.finish("ApiVersions");
    Ok((code, ranges))
}

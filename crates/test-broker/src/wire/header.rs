//! A request's header (KIP-482).
//!
//! Rules: every header version begins with API key, version and correlation id, so an unsupported request can still be
//! answered. The rest of the header depends on the version.

use super::walk::{Malformed, Walker};

/// The fields at the start of every request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RequestHeader {
    pub(crate) api_key: i16,
    pub(crate) version: i16,
    pub(crate) correlation_id: i32,
}

impl RequestHeader {
    /// Bytes of key, version and correlation id.
    const FIXED: usize = 8;

    /// Reads the fields at the start of a request.
    pub(crate) fn parse(frame: &[u8]) -> Result<Self, Malformed> {
        let [a, b, c, d, rest @ ..] = *frame.first_chunk::<{ Self::FIXED }>().ok_or(Malformed("header"))?;
        Ok(Self {
            api_key: i16::from_be_bytes([a, b]),
            version: i16::from_be_bytes([c, d]),
            correlation_id: i32::from_be_bytes(rest),
        })
    }

    /// Returns the position of the body: after the client id and, in flexible versions, the header's tagged fields.
    pub(crate) fn body_at(frame: &[u8], flexible: bool) -> Result<usize, Malformed> {
        let rest = frame.get(Self::FIXED..).ok_or(Malformed("header"))?;
        let mut walker = Walker::new(rest, false);
        walker.string()?;
        walker.set_flexible(flexible);
        walker.tags(&[])?;
        Ok(frame.len() - walker.remaining())
    }
}

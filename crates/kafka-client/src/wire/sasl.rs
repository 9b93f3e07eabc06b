//! SaslHandshake, version 1, and SaslAuthenticate, versions 0 to 2 (KIP-43, 152, 368).

use std::sync::Arc;

use super::reader::{WireError, WireReader};
use super::writer::WireWriter;

pub(crate) mod handshake {
    use super::{Arc, WireError, WireReader, WireWriter};

    pub(crate) const FIRST_FLEXIBLE: i16 = i16::MAX;
    /// Version 0 is excluded, because bare SASL tokens without Kafka's framing follow it.
    pub(crate) const VERSIONS: (i16, i16) = (1, 1);

    /// Requests a mechanism.
    #[derive(Debug)]
    pub(crate) struct Request {
        pub(crate) mechanism: &'static str,
    }

    impl Request {
        pub(crate) fn encode(&self, out: &mut Vec<u8>, _: i16) {
            WireWriter::new(out, false).string(self.mechanism);
        }
    }

    /// Returns the error code, and the mechanisms that the broker offers.
    pub(crate) fn decode(bytes: &[u8], _: i16) -> Result<(i16, Vec<Arc<str>>), WireError> {
        let mut reader = WireReader::new(bytes, false);
        let code = reader.i16("error code")?;
        let mechanisms = reader.vec("mechanisms", 2, |reader| reader.string("mechanism"))?;
        reader.finish("SaslHandshake");
        Ok((code, mechanisms))
    }
}

pub(crate) mod authenticate {
    use zeroize::Zeroizing;

    use super::{Arc, WireError, WireReader, WireWriter};

    pub(crate) const FIRST_FLEXIBLE: i16 = 2;
    pub(crate) const VERSIONS: (i16, i16) = (0, 2);

    /// One message of the mechanism.
    pub(crate) struct Request {
        pub(crate) message: Zeroizing<Vec<u8>>,
    }

    impl std::fmt::Debug for Request {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("SaslAuthenticate(***)")
        }
    }

    impl Request {
        pub(crate) fn encode(&self, out: &mut Vec<u8>, version: i16) {
            // The buffer must not grow: growing would leave copies of a password behind.
            out.reserve(self.message.len() + 16);
            let mut writer = WireWriter::new(out, version >= FIRST_FLEXIBLE);
            writer.bytes(&self.message);
            writer.no_tags();
        }
    }

    /// The broker's answer to one message.
    #[derive(Clone, PartialEq, Eq, Debug, Default)]
    pub(crate) struct Answer {
        pub(crate) code: i16,
        pub(crate) error: Option<Arc<str>>,
        /// The mechanism's next message.
        pub(crate) message: Vec<u8>,
        /// The session's lifetime, in ms. 0: unlimited.
        pub(crate) session_lifetime_ms: i64,
    }

    pub(crate) fn decode(bytes: &[u8], version: i16) -> Result<Answer, WireError> {
        let mut reader = WireReader::new(bytes, version >= FIRST_FLEXIBLE);
        let code = reader.i16("error code")?;
        let error = reader.nullable_string("error message")?;
        let message = reader.nullable_bytes("authentication bytes")?.unwrap_or_default().to_vec();
        let session_lifetime_ms = if version >= 1 { reader.i64("session lifetime")? } else { 0 };
        reader.skip_tags()?;
        reader.finish("SaslAuthenticate");
        Ok(Answer { code, error, message, session_lifetime_ms })
    }
}

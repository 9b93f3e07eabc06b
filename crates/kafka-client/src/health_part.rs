//! The parts of the path to the cluster, and how far a connection or a health check has come.
//!
//! Rule: each part is recorded before it begins. A part that hangs is named as well as a part that fails.

use std::fmt;
use std::sync::atomic::{AtomicU8, Ordering};

/// A part of the path to the cluster. The parts are listed in the order of a check.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[non_exhaustive]
#[repr(u8)]
pub enum HealthPart {
    /// The producer: it is closed, or its task does not run.
    Producer,
    /// The lookup of a broker's name.
    Dns,
    /// The TCP connection.
    Connect,
    /// The TLS handshake, with the certificates.
    Tls,
    /// ApiVersions: the versions that the broker supports.
    ApiVersions,
    /// SASL: the authentication of the client.
    Sasl,
    /// Metadata: brokers, topics and leaders.
    Metadata,
    /// The right to write: to the topics, and to get a producer id.
    WriteAuthorization,
}

impl HealthPart {
    const ALL: [Self; 8] = [
        Self::Producer,
        Self::Dns,
        Self::Connect,
        Self::Tls,
        Self::ApiVersions,
        Self::Sasl,
        Self::Metadata,
        Self::WriteAuthorization,
    ];

    /// Returns the name: `DNS`, `connect`, `TLS`, `ApiVersions`, `SASL`, `metadata`, `write authorization` or
    /// `producer`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Producer => "producer",
            Self::Dns => "DNS",
            Self::Connect => "connect",
            Self::Tls => "TLS",
            Self::ApiVersions => "ApiVersions",
            Self::Sasl => "SASL",
            Self::Metadata => "metadata",
            Self::WriteAuthorization => "write authorization",
        }
    }
}

impl fmt::Display for HealthPart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The current part of a check, readable after a timeout.
#[derive(Debug, Default)]
pub struct HealthProgress(AtomicU8);

impl HealthProgress {
    /// Returns the current part.
    pub fn part(&self) -> HealthPart {
        let at = usize::from(self.0.load(Ordering::Relaxed));
        HealthPart::ALL.get(at).copied().unwrap_or(HealthPart::Producer)
    }

    /// Enters a part.
    pub fn enter(&self, part: HealthPart) {
        self.0.store(part as u8, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_holds_the_last_part() {
        let progress = HealthProgress::default();
        assert_eq!(progress.part(), HealthPart::Producer);
        for part in HealthPart::ALL {
            progress.enter(part);
            assert_eq!(progress.part(), part);
        }
    }
}

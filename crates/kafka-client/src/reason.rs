//! Why a connection, a request or a batch failed.
//!
//! Rules:
//! - A reason is data. Its caller decides about a retry.
//! - A text that a broker sent is only shown, never read.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::error_code::ErrorCode;
use crate::ids::BrokerId;
use crate::no_common_version::NoCommonVersion;

/// Why an attempt, or a batch, failed.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Reason {
    /// A broker answered with an error.
    Broker {
        /// Kafka's error code.
        code: ErrorCode,
        /// The broker's message, if it sent one.
        message: Option<Arc<str>>,
    },
    /// No answer arrived: the connection ended after the whole request was sent.
    NoAnswer(Arc<str>),
    /// The request was not sent: no connection to the leader was available.
    NotAvailable(Arc<str>),
    /// The TLS handshake failed: one side does not trust the other.
    Tls(Arc<str>),
    /// The broker and kafka-courier have no version of a request in common. A retry fails the same way.
    NoCommonVersion(Arc<NoCommonVersion>),
    /// The partition has no known leader.
    NoLeader,
    /// The leader throttled this client for longer than the records could wait (a quota of the cluster).
    Throttled {
        /// The leader.
        broker: BrokerId,
        /// The throttle time in the leader's last answer (KIP-219).
        last: Duration,
    },
    /// The cluster assigned no producer id.
    NoProducerId(Arc<str>),
    /// The producer was closed before the records were delivered.
    Closed,
    /// The spool could not be written, so the batch was not sent.
    NotStored(Arc<str>),
    /// The batch could not be decoded. This is a defect of kafka-courier.
    Corrupt(Arc<str>),
}

impl Reason {
    /// Returns Kafka's error code, if a broker sent one.
    pub fn code(&self) -> Option<ErrorCode> {
        match self {
            Self::Broker { code, .. } => Some(*code),
            _ => None,
        }
    }

    /// Returns Kafka's name of the error, or the name of another cause: `MESSAGE_TOO_LARGE`, `no_leader`. Metrics and
    /// dead letters have these names.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Broker { code, .. } => code.name(),
            Self::NoAnswer(_) => "no_answer",
            Self::NotAvailable(_) => "not_available",
            Self::Tls(_) => "tls",
            Self::NoCommonVersion(_) => "no_common_version",
            Self::NoLeader => "no_leader",
            Self::Throttled { .. } => "throttled",
            Self::NoProducerId(_) => "no_producer_id",
            Self::Closed => "closed",
            Self::NotStored(_) => "not_stored",
            Self::Corrupt(_) => "corrupt",
        }
    }

    /// Returns whether the cluster, or the leader of the partition, was unavailable to this client.
    pub fn is_absence(&self) -> bool {
        match self {
            Self::NoAnswer(_) | Self::NotAvailable(_) | Self::NoLeader | Self::NoProducerId(_) => true,
            Self::Tls(_) | Self::NoCommonVersion(_) | Self::Throttled { .. } => true,
            Self::Broker { code, .. } => code.is_client_refusal(),
            Self::Closed | Self::NotStored(_) | Self::Corrupt(_) => false,
        }
    }

    /// Returns whether the cause is the cluster and not the records: the cluster was unavailable or accepted no records
    /// then.
    pub fn is_outage(&self) -> bool {
        match self {
            Self::Broker { code, .. } => code.is_outage(),
            Self::Closed => true,
            _ => self.is_absence(),
        }
    }

    /// Returns whether the same records may be accepted later.
    pub fn is_retriable(&self) -> bool {
        match self {
            Self::Broker { code, .. } => code.is_retriable(),
            Self::Corrupt(_) | Self::NotStored(_) | Self::Tls(_) | Self::NoCommonVersion(_) => false,
            _ => true,
        }
    }

    /// Returns whether the cluster refuses this client (authentication, authorization), or this client refuses the
    /// broker (TLS). An administrator of the cluster must fix both.
    pub fn is_refusal(&self) -> bool {
        match self {
            Self::Broker { code, .. } => code.is_refusal(),
            Self::Tls(_) => true,
            _ => false,
        }
    }
}

impl std::error::Error for Reason {}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Broker { code, message } => {
                write!(f, "{code}: {}", message.as_deref().unwrap_or(code.description()))?;
                code.remedy().map_or(Ok(()), |remedy| write!(f, ": {remedy}"))
            }
            Self::NoAnswer(why) => write!(f, "no answer from the broker: {why}"),
            Self::NotAvailable(why) => write!(f, "broker not available: {why}"),
            Self::Tls(why) => write!(f, "TLS: {why}"),
            Self::NoCommonVersion(which) => write!(f, "{which}"),
            Self::NoLeader => f.write_str("broker not available: the partition has no leader"),
            Self::Throttled { broker, last } => write!(
                f,
                "broker {} throttles this client, most recently for {last:?}: raise its quota (producer_byte_rate), or \
                 publish more slowly",
                broker.0
            ),
            Self::NoProducerId(why) => write!(f, "broker not available: no producer id: {why}"),
            Self::Closed => f.write_str("the producer was closed before the record was delivered"),
            Self::NotStored(why) => write!(f, "the spool could not be written, so the record was not sent: {why}"),
            Self::Corrupt(why) => write!(f, "the batch could not be decoded: {why}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refused_client_is_an_outage() {
        for code in [
            ErrorCode::CLUSTER_AUTHORIZATION_FAILED,
            ErrorCode::UNSUPPORTED_SASL_MECHANISM,
            ErrorCode::ILLEGAL_SASL_STATE,
            ErrorCode::SASL_AUTHENTICATION_FAILED,
        ] {
            let reason = Reason::Broker { code, message: None };
            assert!(code.is_outage() && reason.is_outage(), "{code} counts against the records");
            assert!(reason.is_absence() && reason.is_refusal(), "{code}");
        }
        for code in [
            ErrorCode::TOPIC_AUTHORIZATION_FAILED,
            ErrorCode::GROUP_AUTHORIZATION_FAILED,
            ErrorCode::TRANSACTIONAL_ID_AUTHORIZATION_FAILED,
            ErrorCode(54), // SECURITY_DISABLED
            ErrorCode::DELEGATION_TOKEN_AUTHORIZATION_FAILED,
        ] {
            let reason = Reason::Broker { code, message: None };
            assert!(!code.is_outage() && !reason.is_outage() && !reason.is_absence(), "{code}");
        }
    }
}

//! Why an attempt of the log client failed, and whether another attempt may succeed.
//!
//! Rule: the code decides, never a text.

use std::fmt;

use super::error::LogErrorKind;
use crate::error_code::ErrorCode;
use crate::reason::Reason;

/// Transient errors of a leader that changes or was just elected, in addition to the codes that Kafka calls retriable.
const TRANSIENT: &[ErrorCode] = &[
    ErrorCode::NOT_LEADER_OR_FOLLOWER,
    ErrorCode::FENCED_LEADER_EPOCH,
    ErrorCode::UNKNOWN_LEADER_EPOCH,
    ErrorCode::LEADER_NOT_AVAILABLE,
    ErrorCode::KAFKA_STORAGE_ERROR,
];

/// Why an attempt failed.
#[derive(Debug)]
pub(super) enum AttemptError {
    /// An error that may pass.
    Transient(ErrorCode),
    /// An error that does not pass.
    Permanent(ErrorCode),
    OutOfRange,
    /// The answer does not contain the requested partition or setting.
    PartitionMissing,
    /// The deadline passed before the answer arrived.
    DeadlineExceeded,
    /// There is no connection, or the connection ended before the answer.
    Lost(String),
    /// The cluster refuses the client, or no broker can be trusted.
    ClusterRefused(Reason),
}

impl AttemptError {
    /// Classifies an error code of any API but Produce. The caller of an append decides about the codes of
    /// Produce.
    pub(super) fn from_code(code: i16) -> Self {
        let error = ErrorCode(code);
        match error {
            ErrorCode::OFFSET_OUT_OF_RANGE => Self::OutOfRange,
            _ if TRANSIENT.contains(&error) || error.is_retriable() => Self::Transient(error),
            _ => Self::Permanent(error),
        }
    }

    /// Converts the error of a failed dial.
    pub(super) fn from_connect(reason: Reason) -> Self {
        match reason {
            Reason::NotAvailable(why) => Self::Lost(why.to_string()),
            reason => Self::ClusterRefused(reason),
        }
    }

    pub(super) fn permanent_kind(&self) -> Option<LogErrorKind> {
        match self {
            Self::Permanent(code) => Some(LogErrorKind::Refused(*code)),
            Self::OutOfRange => Some(LogErrorKind::OutOfRange),
            Self::ClusterRefused(reason) => Some(LogErrorKind::ClusterRefused(reason.clone())),
            Self::Transient(_) | Self::PartitionMissing | Self::DeadlineExceeded | Self::Lost(_) => None,
        }
    }

    pub(super) fn final_kind(&self) -> LogErrorKind {
        self.permanent_kind().unwrap_or_else(|| LogErrorKind::Unavailable(self.to_string().into()))
    }
}

impl fmt::Display for AttemptError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Transient(code) | Self::Permanent(code) => write!(f, "{code}: {}", code.description()),
            Self::OutOfRange => f.write_str("offset out of range"),
            Self::PartitionMissing => f.write_str("the answer does not contain the partition"),
            Self::DeadlineExceeded => f.write_str("no answer"),
            Self::Lost(why) => f.write_str(why),
            Self::ClusterRefused(reason) => write!(f, "{reason}"),
        }
    }
}

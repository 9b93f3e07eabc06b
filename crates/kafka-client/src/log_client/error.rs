//! Errors of the log client.
//!
//! Rule: an error names the operation, the partition and the cause, with a remedy where there is one.

use std::fmt;
use std::sync::Arc;

use crate::error_code::ErrorCode;
use crate::reason::Reason;

/// Why a log could not be read or appended to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LogError {
    pub(super) step: LogOperation,
    pub(super) kind: LogErrorKind,
    pub(super) open: bool,
}

/// The operation that failed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LogOperation {
    doing: &'static str,
    topic: Arc<str>,
    partition: Option<i32>,
    offset: Option<i64>,
}

/// The cause of an error.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LogErrorKind {
    /// The broker refuses the request permanently.
    #[error("{0}: {desc}", desc = .0.description())]
    Refused(ErrorCode),
    /// The offset is not in the log: retention deleted it, or it is above the high watermark.
    #[error("the offset is not in the log: it was deleted, or is above the high watermark")]
    OutOfRange,
    /// The cluster refuses the client, no broker can be trusted, or no version of the request is in common.
    #[error("{0}")]
    ClusterRefused(Reason),
    /// The operation did not succeed before the deadline. Holds the last failure.
    #[error("broker not available in time: {0}")]
    Unavailable(Arc<str>),
}

impl LogError {
    /// Returns the cause.
    pub fn kind(&self) -> &LogErrorKind {
        &self.kind
    }

    /// Returns whether a batch that failed to append may be in the log.
    pub fn is_open(&self) -> bool {
        self.open
    }

    /// Returns whether the cluster is the cause, not the request: brokers were unavailable or could not serve the
    /// request.
    pub fn is_outage(&self) -> bool {
        match &self.kind {
            LogErrorKind::Refused(code) => code.is_outage(),
            LogErrorKind::ClusterRefused(reason) => reason.is_outage(),
            LogErrorKind::Unavailable(_) => true,
            LogErrorKind::OutOfRange => false,
        }
    }

    /// Returns Kafka's code, if a broker's refusal is the cause.
    pub fn code(&self) -> Option<ErrorCode> {
        match self.kind {
            LogErrorKind::Refused(code) => Some(code),
            LogErrorKind::ClusterRefused(ref reason) => reason.code(),
            LogErrorKind::OutOfRange | LogErrorKind::Unavailable(_) => None,
        }
    }
}

impl LogOperation {
    pub(super) fn of(doing: &'static str, topic: &str, partition: Option<i32>) -> Self {
        Self { doing, topic: topic.into(), partition, offset: None }
    }

    pub(super) fn at(mut self, offset: i64) -> Self {
        self.offset = Some(offset);
        self
    }

    pub(super) fn topic(&self) -> &str {
        &self.topic
    }
}

impl fmt::Display for LogOperation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.doing)?;
        if !self.topic.is_empty() {
            write!(f, " {}", self.topic)?;
        }
        if let Some(partition) = self.partition {
            write!(f, "-{partition}")?;
        }
        if let Some(offset) = self.offset {
            write!(f, " from offset {offset}")?;
        }
        Ok(())
    }
}

impl fmt::Display for LogError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.step, self.kind)
    }
}

impl std::error::Error for LogError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.kind)
    }
}

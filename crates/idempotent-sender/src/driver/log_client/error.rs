//! What went wrong, with whom, while doing what.
//!
//! Rules: an error names the step, the partition, the cause, and what can be done about it.

use std::fmt;
use std::sync::Arc;

use crate::core::{ErrorCode, Reason};

/// Why a log could not be read or appended to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LogError {
    pub(super) step: Step,
    pub(super) kind: LogErrorKind,
    pub(super) open: bool,
}

/// What was being done.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Step {
    doing: &'static str,
    topic: Arc<str>,
    partition: Option<i32>,
    offset: Option<i64>,
}

/// The cause.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LogErrorKind {
    /// The broker refuses, and will go on to.
    #[error("{0}: {desc}", desc = .0.description())]
    Refused(ErrorCode),
    /// The offset is not in the log: it was deleted from its start, or the log does not reach so far.
    #[error("the log does not hold that offset, or holds it no more")]
    OutOfRange,
    /// No broker takes us, none is to be trusted, or none speaks a version of the request that we speak.
    #[error("{0}")]
    NoTrust(Reason),
    /// Nothing came of it until the deadline; the last failure.
    #[error("broker not available in time: {0}")]
    Unavailable(Arc<str>),
}

impl LogError {
    /// The cause.
    pub fn kind(&self) -> &LogErrorKind {
        &self.kind
    }

    /// Whether a batch that was to be appended may be in the log all the same.
    pub fn is_open(&self) -> bool {
        self.open
    }

    /// Whether the cluster is the cause and not what was asked: it was not there, or could do nothing at that time.
    pub fn is_outage(&self) -> bool {
        match &self.kind {
            LogErrorKind::Refused(code) => code.is_outage(),
            LogErrorKind::NoTrust(reason) => reason.is_outage(),
            LogErrorKind::Unavailable(_) => true,
            LogErrorKind::OutOfRange => false,
        }
    }

    /// Kafka's code, where a broker's refusal is the cause.
    pub fn code(&self) -> Option<ErrorCode> {
        match self.kind {
            LogErrorKind::Refused(code) => Some(code),
            LogErrorKind::NoTrust(ref reason) => reason.code(),
            LogErrorKind::OutOfRange | LogErrorKind::Unavailable(_) => None,
        }
    }
}

impl Step {
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

impl fmt::Display for Step {
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

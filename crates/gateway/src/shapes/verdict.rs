//! [`Verdict`], the result of one event, and the table from verdicts to the status of an answer.
//!
//! Rules:
//! - An answer has a status of success only if no event of the request failed.
//! - 207 only where some event succeeded. If none did: 504 if any may be written, else 503 if any may be retried, else the
//!   status of the first failure.

use std::sync::Arc;

use super::ack::Ack;
use super::failure::Failure;
use super::problem::Problem;

/// The result of one event.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// The event is in the log of every in-sync replica.
    Written {
        /// The topic.
        topic: Arc<str>,
        /// The partition.
        partition: i32,
        /// The offset. `None` if every answer with the offset was lost.
        offset: Option<i64>,
    },
    /// The event is in the spool, on disk, and is delivered later.
    Stored {
        /// The topic.
        topic: Arc<str>,
    },
    /// The event is in memory, and is delivered later unless the process dies.
    Accepted {
        /// The topic.
        topic: Arc<str>,
    },
    /// The event failed.
    Failed(Failure),
}

impl Verdict {
    /// Returns the status of an answer with this verdict alone.
    pub fn status(&self) -> u16 {
        match self {
            Self::Written { .. } => 200,
            Self::Stored { .. } | Self::Accepted { .. } => 202,
            Self::Failed(failure) => failure.problem.status(),
        }
    }

    /// Returns the acknowledgement that was given.
    pub fn ack(&self) -> Option<Ack> {
        match self {
            Self::Written { .. } => Some(Ack::Broker),
            Self::Stored { .. } => Some(Ack::Disk),
            Self::Accepted { .. } => Some(Ack::Memory),
            Self::Failed(_) => None,
        }
    }

    /// Returns the failure, if the event failed.
    pub fn failure(&self) -> Option<&Failure> {
        match self {
            Self::Failed(failure) => Some(failure),
            _ => None,
        }
    }
}

/// Returns the status of an answer with these verdicts.
pub fn status(verdicts: impl Iterator<Item = u16>) -> u16 {
    let (mut succeeded, mut later) = (false, false);
    let (mut first, mut unknown, mut retriable) = (None, false, false);
    for status in verdicts {
        match status {
            200..300 => {
                succeeded = true;
                later |= status == 202;
            }
            _ => {
                first.get_or_insert(status);
                unknown |= status == Problem::Unknown.status();
                retriable |= status == 503;
            }
        }
    }
    match first {
        None => {
            if later {
                202
            } else {
                200
            }
        }
        Some(_) if succeeded => 207,
        Some(_) if unknown => 504,
        Some(_) if retriable => 503,
        Some(first) => first,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(statuses: &[u16]) -> u16 {
        status(statuses.iter().copied())
    }

    #[test]
    fn table_is_complete() {
        for (verdicts, answer) in [
            (&[][..], 200),
            (&[200, 200], 200),
            (&[202, 202], 202),
            (&[200, 202], 202),
            (&[200, 422], 207),
            (&[504, 202], 207),
            (&[503, 200, 504], 207),
            (&[422, 504, 503], 504),
            (&[422, 503, 413], 503),
            (&[413, 422], 413),
            (&[404, 403], 404),
            (&[403], 403),
        ] {
            assert_eq!(of(verdicts), answer, "{verdicts:?}");
        }
    }

    /// Every sequence of up to four kinds of verdicts.
    #[test]
    fn failure_is_never_success() {
        const KINDS: [u16; 6] = [200, 202, 413, 422, 503, 504];
        for number in 0..6_usize.pow(4) {
            let verdicts: Vec<u16> = (0..4).map(|at| KINDS[number / 6_usize.pow(at) % 6]).collect();
            let (answer, succeeded) = (of(&verdicts), verdicts.iter().any(|status| *status < 300));
            match verdicts.iter().any(|status| *status >= 400) {
                true if succeeded => assert_eq!(answer, 207, "{verdicts:?}"),
                true => assert!(answer >= 400 && verdicts.contains(&answer), "{verdicts:?}: {answer}"),
                false => assert!(answer == 200 || answer == 202, "{verdicts:?}: {answer}"),
            }
            if answer == 200 {
                assert!(verdicts.iter().all(|status| *status == 200), "{verdicts:?}");
            }
            if !succeeded && verdicts.contains(&504) {
                assert_eq!(answer, 504, "{verdicts:?}: an event may be written");
            }
        }
    }
}

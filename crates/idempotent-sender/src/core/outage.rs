//! Outages of brokers, and the reports of their start and end.
//!
//! Rules:
//!  - An outage starts when a connection can't be opened, a request is not answered, or the cluster no longer names the
//!    broker after its connection was lost. No outage starts while another connection to the broker is open.
//!  - An outage ends when a connection is open, or when the cluster names the broker again. An outage that started with
//!    an unanswered request ends with an answer instead of a connection.
//!  - The duration counts from the first failure: a connection that could not be opened, or the end of the last open
//!    connection while records wait for the broker. The end of an idle connection is no failure.
//!  - Each outage is reported once when it starts and once when it ends, however many connections and attempts fail
//!    meanwhile.

use std::sync::Arc;
use std::time::{Duration, Instant};

use kafka_courier_client::BrokerAddress;

/// How long a broker with an outage is kept after the cluster stops naming it.
const UNNAMED_OUTAGE_MAX: Duration = Duration::from_secs(60 * 60);

/// The cause of an outage.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum OutageCause {
    /// A connection could not be opened.
    NoConnection,
    /// A request was not answered.
    NoAnswer,
    /// The cluster no longer names the broker.
    NotNamed,
}

/// The outage of a broker.
#[derive(Debug)]
struct Outage {
    since: Instant,
    cause: OutageCause,
    /// Whether the cluster has stopped naming the broker since.
    unnamed: bool,
}

/// Whether a broker is reached. An outage follows from this state.
#[derive(Debug, Default)]
pub(crate) struct BrokerContact {
    /// Whether the last connection was lost or could not be opened, and none has been opened since.
    is_lost: bool,
    /// The first failure since the broker was last reached. An outage counts from this time.
    failing_since: Option<Instant>,
    outage: Option<Outage>,
}

impl BrokerContact {
    /// Notes that the last connection ended. It counts as a failure if it could not be opened, or if records wait.
    pub(crate) fn lose(&mut self, now: Instant, is_failure: bool) {
        self.is_lost = true;
        if is_failure {
            self.failing_since.get_or_insert(now);
        }
    }

    /// Starts an outage, if there is none. Returns whether one started.
    pub(crate) fn begin_outage(&mut self, now: Instant, cause: OutageCause) -> bool {
        let unnamed = cause == OutageCause::NotNamed;
        if let Some(outage) = &mut self.outage {
            outage.unnamed |= unnamed;
            return false;
        }
        self.outage = Some(Outage { since: self.failing_since.unwrap_or(now), cause, unnamed });
        true
    }

    /// Notes that a connection is open or, with `answered`, that a request was answered. Either may end an outage.
    /// Returns the duration of the outage that ended.
    pub(crate) fn reached(&mut self, now: Instant, answered: bool) -> Option<Duration> {
        match &self.outage {
            Some(outage) if answered || outage.cause != OutageCause::NoAnswer => self.end_outage(now),
            Some(_) => None,
            None => {
                (self.is_lost, self.failing_since) = (false, None);
                None
            }
        }
    }

    /// Notes that the cluster names the broker. Returns the duration of the outage that ended.
    pub(crate) fn named(&mut self, now: Instant) -> Option<Duration> {
        if self.outage.as_ref().is_some_and(|outage| outage.unnamed) { self.end_outage(now) } else { None }
    }

    fn end_outage(&mut self, now: Instant) -> Option<Duration> {
        (self.is_lost, self.failing_since) = (false, None);
        self.outage.take().map(|outage| now.saturating_duration_since(outage.since))
    }

    pub(crate) fn is_lost(&self) -> bool {
        self.is_lost
    }

    /// Returns whether something failed and no outage has started.
    pub(crate) fn fails_without_outage(&self) -> bool {
        self.failing_since.is_some() && self.outage.is_none()
    }

    /// Forgets a failure after which no records wait for the broker. A later outage counts from its own failure.
    pub(crate) fn forget_failure(&mut self) {
        self.failing_since = None;
    }

    /// Returns the start of the outage, if there is one.
    pub(crate) fn outage_since(&self) -> Option<Instant> {
        self.outage.as_ref().map(|outage| outage.since)
    }

    /// Returns whether the broker is kept for its outage, although the cluster does not name it.
    pub(crate) fn is_remembered(&self, now: Instant) -> bool {
        self.outage_since().is_some_and(|since| now.saturating_duration_since(since) < UNNAMED_OUTAGE_MAX)
    }
}

/// The records that wait for a broker.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct WaitingRecords {
    /// Records in batches without a verdict.
    pub events: u64,
    /// The time at which the first of these records fails, unless the broker returns earlier.
    pub first_fails_at: Option<Instant>,
}

/// A report of an outage.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum OutageReport {
    /// The outage started.
    Lost {
        /// The broker and its last address.
        broker: BrokerAddress,
        /// The failure that started the outage.
        why: Arc<str>,
        /// The records that wait for the broker.
        waiting: WaitingRecords,
    },
    /// The outage ended.
    Back {
        /// The broker and its address.
        broker: BrokerAddress,
        /// The duration of the outage.
        lasted: Duration,
    },
}

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

use kafka_courier_client::{BrokerAddress, BrokerId};

use super::cluster::BrokerConn;
use super::sender::Sender;

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
pub(crate) struct Outage {
    pub(crate) since: Instant,
    cause: OutageCause,
    /// Whether the cluster has stopped naming the broker since.
    unnamed: bool,
}

impl Outage {
    pub(crate) fn is_remembered(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.since) < UNNAMED_OUTAGE_MAX
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

impl<T: Clone> Sender<T> {
    /// Returns the reports since the last call.
    pub fn take_outage_reports(&mut self) -> Vec<OutageReport> {
        std::mem::take(&mut self.news)
    }

    /// Notes that a connection ended or could not be opened.
    pub(super) fn note_disconnected(&mut self, now: Instant, conn: &BrokerConn, why: &Arc<str>) {
        if self.is_connected(conn.broker) {
            return;
        }
        let is_failure = !conn.up || self.waiting_for(conn.broker).events > 0;
        let Some(broker) = self.brokers.get_mut(&conn.broker) else { return };
        broker.is_lost = true;
        if is_failure {
            broker.failing_since.get_or_insert(now);
        }
        if !conn.up {
            self.begin_outage(now, conn.broker, OutageCause::NoConnection, why);
        }
    }

    fn is_connected(&self, id: BrokerId) -> bool {
        let Some(broker) = self.brokers.get(&id) else { return false };
        broker.conns.iter().any(|conn| self.conns.get(conn).is_some_and(|conn| conn.up))
    }

    /// Starts an outage, unless a connection to the broker is open.
    pub(super) fn begin_outage(&mut self, now: Instant, id: BrokerId, cause: OutageCause, why: &Arc<str>) {
        if self.is_connected(id) {
            return;
        }
        let Some(broker) = self.brokers.get_mut(&id) else { return };
        let unnamed = cause == OutageCause::NotNamed;
        if let Some(outage) = &mut broker.outage {
            outage.unnamed |= unnamed;
            return;
        }
        let since = broker.failing_since.unwrap_or(now);
        broker.outage = Some(Outage { since, cause, unnamed });
        let broker = broker.address.clone();
        let waiting = self.waiting_for(id);
        self.news.push(OutageReport::Lost { broker, why: why.clone(), waiting });
    }

    /// Notes that a connection is open or, with `answered`, that a request was answered. Either may end an outage.
    pub(super) fn note_reached(&mut self, now: Instant, id: BrokerId, answered: bool) {
        let Some(broker) = self.brokers.get_mut(&id) else { return };
        if broker.outage.as_ref().is_some_and(|outage| answered || outage.cause != OutageCause::NoAnswer) {
            self.end_outage(now, id);
        } else if broker.outage.is_none() {
            (broker.is_lost, broker.failing_since) = (false, None);
        }
    }

    /// Compares the known brokers with the brokers that the cluster names. The difference starts and ends outages.
    pub(super) fn note_named(&mut self, now: Instant, named: &[BrokerAddress]) {
        let is_named = |id: BrokerId| named.iter().any(|address| address.id == id);
        let lost = self.brokers.iter().filter(|(_, broker)| broker.is_lost);
        for id in lost.map(|(id, _)| *id).collect::<Vec<_>>() {
            let is_unnamed = self.brokers.get(&id).and_then(|broker| broker.outage.as_ref()).is_some_and(|o| o.unnamed);
            match (is_named(id), is_unnamed) {
                (false, _) => {
                    self.begin_outage(now, id, OutageCause::NotNamed, &"the cluster no longer names the broker".into())
                }
                (true, true) => self.end_outage(now, id),
                (true, false) => {}
            }
        }
    }

    /// Forgets the failure of each broker without an outage for which no records wait any more, because its partitions
    /// have other leaders. A later outage counts from its own failure.
    pub(super) fn forget_failures(&mut self) {
        let failing =
            self.brokers.iter().filter(|(_, broker)| broker.failing_since.is_some() && broker.outage.is_none());
        for id in failing.map(|(id, _)| *id).collect::<Vec<_>>() {
            if self.waiting_for(id).events == 0
                && let Some(broker) = self.brokers.get_mut(&id)
            {
                broker.failing_since = None;
            }
        }
    }

    fn end_outage(&mut self, now: Instant, id: BrokerId) {
        let Some(broker) = self.brokers.get_mut(&id) else { return };
        (broker.is_lost, broker.failing_since) = (false, None);
        if let Some(outage) = broker.outage.take() {
            let lasted = now.saturating_duration_since(outage.since);
            self.news.push(OutageReport::Back { broker: broker.address.clone(), lasted });
        }
    }

    /// Returns the records that wait for a broker: those of the partitions that it leads.
    pub(super) fn waiting_for(&self, id: BrokerId) -> WaitingRecords {
        let lanes = self.topics.iter().flat_map(|topic| &topic.lanes);
        let led = lanes.map(|lane| &lane.partition).filter(|partition| partition.leader() == Some(id));
        led.fold(WaitingRecords::default(), |waiting, partition| {
            let deadline = partition.deadline(self.config.delivery_timeout);
            let first_fails_at = [waiting.first_fails_at, deadline].into_iter().flatten().min();
            WaitingRecords { events: waiting.events + partition.unsettled(), first_fails_at }
        })
    }
}

#[cfg(test)]
mod tests;

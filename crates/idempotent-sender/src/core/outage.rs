//! Which brokers are away, and the news of it.
//!
//! Rules:
//! - A broker is away when a connection to it can't be opened, a request goes unanswered, or, after its connection was lost,
//!   the cluster no longer names it; in each case only while no other connection to it is open.
//! - It is back with a connection, or, where it had left a request unanswered, with an answer; also when the cluster names it
//!   again.
//! - An outage lasts from its first failure: a connection that could not be opened, or the end of the last open connection
//!   while records wait for the broker. The end of an idle connection is no failure.
//! - One piece of news when it goes and one when it is back, however many connections and attempts fail meanwhile.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::cluster::Conn;
use super::sender::Sender;
use super::types::{BrokerAddress, BrokerId};

/// How long a broker that is away, and that the cluster no longer names, is remembered.
const REMEMBERED: Duration = Duration::from_secs(60 * 60);

/// How a broker was found to be away.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Sign {
    /// A connection to it could not be opened.
    NoConnection,
    /// It left a request unanswered.
    NoAnswer,
    /// The cluster does not name it any more.
    NotNamed,
}

/// A broker's absence.
#[derive(Debug)]
pub(crate) struct Outage {
    pub(crate) since: Instant,
    sign: Sign,
    /// The cluster has not named it since.
    unnamed: bool,
}

impl Outage {
    pub(crate) fn is_remembered(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.since) < REMEMBERED
    }
}

/// What waits for a broker.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Waiting {
    /// Records in batches without a verdict.
    pub events: u64,
    /// When the first of them fails, unless the broker is back before.
    pub first_fails_at: Option<Instant>,
}

/// What has become of a broker.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum BrokerNews {
    /// It is away.
    Lost {
        /// Which broker, and where it listened.
        broker: BrokerAddress,
        /// Why it counts as away.
        why: Arc<str>,
        /// What waits for it.
        waiting: Waiting,
    },
    /// It is back.
    Back {
        /// Which broker, and where it listens.
        broker: BrokerAddress,
        /// How long it was away.
        lasted: Duration,
    },
}

impl<T: Clone> Sender<T> {
    /// What has become of brokers since the last call.
    pub fn take_news(&mut self) -> Vec<BrokerNews> {
        std::mem::take(&mut self.news)
    }

    /// A connection to a broker has ended, or could not be opened.
    pub(super) fn note_disconnected(&mut self, now: Instant, conn: &Conn, why: &Arc<str>) {
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
            self.note_away(now, conn.broker, Sign::NoConnection, why);
        }
    }

    fn is_connected(&self, id: BrokerId) -> bool {
        let Some(broker) = self.brokers.get(&id) else { return false };
        broker.conns.iter().any(|conn| self.conns.get(conn).is_some_and(|conn| conn.up))
    }

    /// A broker counts as away, unless a connection to it is open.
    pub(super) fn note_away(&mut self, now: Instant, id: BrokerId, sign: Sign, why: &Arc<str>) {
        if self.is_connected(id) {
            return;
        }
        let Some(broker) = self.brokers.get_mut(&id) else { return };
        let unnamed = sign == Sign::NotNamed;
        if let Some(outage) = &mut broker.outage {
            outage.unnamed |= unnamed;
            return;
        }
        let since = broker.failing_since.unwrap_or(now);
        broker.outage = Some(Outage { since, sign, unnamed });
        let broker = broker.address.clone();
        let waiting = self.waiting_for(id);
        self.news.push(BrokerNews::Lost { broker, why: why.clone(), waiting });
    }

    /// A connection to a broker is open, or, with `answered`, a request was answered on one.
    pub(super) fn note_reached(&mut self, now: Instant, id: BrokerId, answered: bool) {
        let Some(broker) = self.brokers.get_mut(&id) else { return };
        if broker.outage.as_ref().is_some_and(|outage| answered || outage.sign != Sign::NoAnswer) {
            self.note_back(now, id);
        } else if broker.outage.is_none() {
            (broker.is_lost, broker.failing_since) = (false, None);
        }
    }

    /// The cluster has named these brokers, and no others.
    pub(super) fn note_named(&mut self, now: Instant, named: &[BrokerAddress]) {
        let is_named = |id: BrokerId| named.iter().any(|address| address.id == id);
        let lost = self.brokers.iter().filter(|(_, broker)| broker.is_lost);
        for id in lost.map(|(id, _)| *id).collect::<Vec<_>>() {
            let is_unnamed = self.brokers.get(&id).and_then(|broker| broker.outage.as_ref()).is_some_and(|o| o.unnamed);
            match (is_named(id), is_unnamed) {
                (false, _) => self.note_away(now, id, Sign::NotNamed, &"the cluster does not name it any more".into()),
                (true, true) => self.note_back(now, id),
                (true, false) => {}
            }
        }
    }

    /// Forgets the failure of each broker that is not away and that nothing waits for any more, because its partitions have
    /// other leaders: a later outage counts from its own failure.
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

    fn note_back(&mut self, now: Instant, id: BrokerId) {
        let Some(broker) = self.brokers.get_mut(&id) else { return };
        (broker.is_lost, broker.failing_since) = (false, None);
        if let Some(outage) = broker.outage.take() {
            let lasted = now.saturating_duration_since(outage.since);
            self.news.push(BrokerNews::Back { broker: broker.address.clone(), lasted });
        }
    }

    /// What waits for a broker: the batches of the partitions that it leads.
    pub(super) fn waiting_for(&self, id: BrokerId) -> Waiting {
        let lanes = self.topics.iter().flat_map(|topic| &topic.lanes);
        let led = lanes.map(|lane| &lane.partition).filter(|partition| partition.leader == Some(id));
        led.fold(Waiting::default(), |waiting, partition| {
            let deadline = partition.deadline(self.config.delivery_timeout);
            let first_fails_at = [waiting.first_fails_at, deadline].into_iter().flatten().min();
            Waiting { events: waiting.events + partition.unsettled(), first_fails_at }
        })
    }
}

#[cfg(test)]
mod tests;

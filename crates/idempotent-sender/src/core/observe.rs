//! What can be seen of the core from outside.
//!
//! Rules: looking changes nothing; what is told does not depend on the time of asking.

use std::sync::Arc;
use std::time::Instant;

use super::outage::{Outage, Waiting};
use super::sender::Sender;
use super::topics::TopicState;
use super::types::{BrokerAddress, BrokerId, ConnId};

/// How it stands with a broker.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum Reachability {
    /// There is no connection, and none was needed yet, or the last one was closed for being idle.
    Idle,
    /// The first connection is being opened.
    Connecting,
    /// There is a connection.
    Connected,
    /// The last connection was lost or could not be opened, or the broker is away.
    Unreachable,
}

impl Reachability {
    /// `idle`, `connecting`, `connected` or `unreachable`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::Connecting => "connecting",
            Self::Connected => "connected",
            Self::Unreachable => "unreachable",
        }
    }
}

/// A broker and its connections. The connection for questions that any broker can answer is not among them.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BrokerView {
    /// Which broker, and where it listens.
    pub address: BrokerAddress,
    /// How it stands with it.
    pub reachability: Reachability,
    /// Connections that are open.
    pub open: u32,
    /// Connections that are being opened.
    pub opening: u32,
    /// Its absence, while it is away.
    pub outage: Option<OutageView>,
}

/// The absence of a broker.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct OutageView {
    /// Since when.
    pub since: Instant,
    /// What waits for it.
    pub waiting: Waiting,
}

impl<T: Clone> Sender<T> {
    /// Every broker that the cluster named, by node id.
    pub fn broker_views(&self) -> Vec<BrokerView> {
        let view = |(id, broker): (&BrokerId, &super::cluster::Broker)| {
            let is_up = |conn: &&ConnId| self.conns.get(conn).is_some_and(|conn| conn.up);
            let open = broker.conns.iter().filter(is_up).count();
            let opening = broker.conns.len() - open;
            let away = |outage: &Outage| OutageView { since: outage.since, waiting: self.waiting_for(*id) };
            let outage = broker.outage.as_ref().map(away);
            let reachability = match (open, opening, broker.failures) {
                (1.., ..) => Reachability::Connected,
                _ if outage.is_some() => Reachability::Unreachable,
                (0, _, 1..) => Reachability::Unreachable,
                (0, 1.., 0) => Reachability::Connecting,
                (0, 0, 0) => Reachability::Idle,
            };
            BrokerView {
                address: broker.address.clone(),
                reachability,
                open: u32::try_from(open).unwrap_or(u32::MAX),
                opening: u32::try_from(opening).unwrap_or(u32::MAX),
                outage,
            }
        };
        self.brokers.iter().map(view).collect()
    }

    /// The broker that a connection leads to, while it is known.
    pub fn broker_of(&self, conn: ConnId) -> Option<BrokerId> {
        self.conns.get(&conn).map(|conn| conn.broker)
    }

    /// Produce requests that wait for their answer.
    pub fn requests_in_flight(&self) -> usize {
        self.conns.values().map(|conn| conn.inflight.len()).sum()
    }

    /// The topics that can be published to.
    pub fn ready_topics(&self) -> Vec<Arc<str>> {
        let ready = self.topics.iter().filter(|topic| topic.state == TopicState::Ready);
        ready.map(|topic| topic.name.clone()).collect()
    }
}

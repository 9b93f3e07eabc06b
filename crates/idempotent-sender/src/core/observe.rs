//! Views of the core for monitoring.
//!
//! Rules:
//!  - A view changes nothing.
//!  - A view does not depend on the time of the call.

use std::sync::Arc;
use std::time::Instant;

use kafka_courier_client::{BrokerAddress, BrokerId};

use super::outage::{Outage, WaitingRecords};
use super::sender::Sender;
use super::topics::TopicState;
use super::types::ConnId;

/// The state of the connections to a broker.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum Reachability {
    /// There is no connection: none was needed yet, or the last one was closed because it was idle.
    Idle,
    /// The first connection is being opened.
    Connecting,
    /// A connection is open.
    Connected,
    /// The last connection was lost or could not be opened, or the broker has an outage.
    Unreachable,
}

impl Reachability {
    /// Returns `idle`, `connecting`, `connected` or `unreachable`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::Connecting => "connecting",
            Self::Connected => "connected",
            Self::Unreachable => "unreachable",
        }
    }
}

/// A broker and its connections, without the connection for requests that any broker can answer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BrokerView {
    /// The broker and its address.
    pub address: BrokerAddress,
    /// The state of the connections.
    pub reachability: Reachability,
    /// Open connections.
    pub open: u32,
    /// Connections that are being opened.
    pub opening: u32,
    /// The outage, if there is one.
    pub outage: Option<OutageView>,
}

/// The outage of a broker.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct OutageView {
    /// The start of the outage.
    pub since: Instant,
    /// The records that wait for the broker.
    pub waiting: WaitingRecords,
}

impl<T: Clone> Sender<T> {
    /// Returns every broker that the cluster named, by node id.
    pub fn broker_views(&self) -> Vec<BrokerView> {
        let view = |(id, broker): (&BrokerId, &super::cluster::KnownBroker)| {
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

    /// Returns the broker of a connection, if the connection exists.
    pub fn broker_of(&self, conn: ConnId) -> Option<BrokerId> {
        self.conns.get(&conn).map(|conn| conn.broker)
    }

    /// Returns the number of Produce requests in flight.
    pub fn requests_in_flight(&self) -> usize {
        self.conns.values().map(|conn| conn.inflight.len()).sum()
    }

    /// Returns the names of the topics that are ready.
    pub fn ready_topics(&self) -> Vec<Arc<str>> {
        let ready = self.topics.iter().filter(|topic| topic.state == TopicState::Ready);
        ready.map(|topic| topic.name.clone()).collect()
    }
}

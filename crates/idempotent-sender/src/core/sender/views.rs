//! Views of the sender for monitoring.
//!
//! Rule: a view changes nothing.

use std::sync::Arc;

use kafka_courier_client::BrokerId;

use super::super::cluster::{BrokerConn, KnownBroker};
use super::super::ids::ConnId;
use super::super::topics::TopicState;
use super::super::views::{BrokerView, OutageView, Reachability};
use super::Sender;

impl<T: Clone> Sender<T> {
    /// Returns every broker that the cluster named, by node id.
    pub fn broker_views(&self) -> Vec<BrokerView> {
        let view = |(id, broker): (&BrokerId, &KnownBroker)| {
            let open = self.cluster.conns_of(*id).filter(|(_, conn)| conn.is_up()).count();
            let opening = broker.conns().len() - open;
            let outage =
                broker.contact.outage_since().map(|since| OutageView { since, waiting: self.waiting_for(*id) });
            let reachability = match (open, opening, broker.failures()) {
                (1.., ..) => Reachability::Connected,
                _ if outage.is_some() => Reachability::Unreachable,
                (0, _, 1..) => Reachability::Unreachable,
                (0, 1.., 0) => Reachability::Connecting,
                (0, 0, 0) => Reachability::Idle,
            };
            BrokerView {
                address: broker.address().clone(),
                reachability,
                open: u32::try_from(open).unwrap_or(u32::MAX),
                opening: u32::try_from(opening).unwrap_or(u32::MAX),
                outage,
            }
        };
        self.cluster.brokers().map(view).collect()
    }

    /// Returns the broker of a connection, if the connection exists.
    pub fn broker_of(&self, conn: ConnId) -> Option<BrokerId> {
        self.cluster.conn(conn).map(BrokerConn::broker)
    }

    /// Returns the number of Produce requests in flight.
    pub fn requests_in_flight(&self) -> usize {
        self.cluster.conns().map(|conn| conn.inflight().len()).sum()
    }

    /// Returns the names of the topics that are ready.
    pub fn ready_topics(&self) -> Vec<Arc<str>> {
        let ready = self.topics.iter().filter(|topic| topic.state == TopicState::Ready);
        ready.map(|topic| topic.name.clone()).collect()
    }
}

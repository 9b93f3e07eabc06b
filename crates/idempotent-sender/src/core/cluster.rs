//! Brokers, connections, and the requests in flight on them.
//!
//! Rules:
//!  - A connection belongs to one broker, which lists it until the connection is removed.
//!  - A connection is opened only if none is being opened, the limit is not reached, and no pause runs.
//!  - Nothing here decides which batch is sent.

mod broker;
mod conn;

use std::collections::BTreeMap;
use std::time::Instant;

use kafka_courier_client::{BrokerAddress, BrokerId};

pub(crate) use self::broker::KnownBroker;
pub(crate) use self::conn::{BrokerConn, InFlightRequest};
use super::config::Config;
use super::ids::{ConnId, RequestId};

/// The load from which a connection is busy, so that another connection pays off. A whole request also makes it busy.
const BUSY_BYTES: usize = 512 << 10;

/// The brokers that the cluster named, and the connections to them.
#[derive(Debug)]
pub(crate) struct KnownCluster {
    brokers: BTreeMap<BrokerId, KnownBroker>,
    conns: BTreeMap<ConnId, BrokerConn>,
    /// Brokers to which something may be sent.
    dirty: Vec<BrokerId>,
    next_conn: u64,
    next_request: u64,
}

impl KnownCluster {
    pub(crate) fn new() -> Self {
        Self { brokers: BTreeMap::new(), conns: BTreeMap::new(), dirty: Vec::new(), next_conn: 0, next_request: 0 }
    }

    pub(crate) fn broker(&self, id: BrokerId) -> Option<&KnownBroker> {
        self.brokers.get(&id)
    }

    pub(crate) fn broker_mut(&mut self, id: BrokerId) -> Option<&mut KnownBroker> {
        self.brokers.get_mut(&id)
    }

    pub(crate) fn brokers(&self) -> impl Iterator<Item = (&BrokerId, &KnownBroker)> {
        self.brokers.iter()
    }

    pub(crate) fn conn(&self, id: ConnId) -> Option<&BrokerConn> {
        self.conns.get(&id)
    }

    pub(crate) fn conn_mut(&mut self, id: ConnId) -> Option<&mut BrokerConn> {
        self.conns.get_mut(&id)
    }

    pub(crate) fn conns(&self) -> impl Iterator<Item = &BrokerConn> {
        self.conns.values()
    }

    /// Returns a broker and one of its connections.
    pub(crate) fn broker_and_conn(
        &mut self,
        broker: BrokerId,
        conn: ConnId,
    ) -> Option<(&mut KnownBroker, &mut BrokerConn)> {
        Some((self.brokers.get_mut(&broker)?, self.conns.get_mut(&conn)?))
    }

    /// Begins the ids of connections and requests at `first`.
    pub(crate) fn start_ids_at(&mut self, first: u64) {
        (self.next_conn, self.next_request) = (first, first);
    }

    /// Returns a new id for a request.
    pub(crate) fn new_request(&mut self) -> RequestId {
        self.next_request += 1;
        RequestId(self.next_request)
    }

    /// Notes that something may be sent to a broker.
    pub(crate) fn mark_dirty(&mut self, id: BrokerId) {
        if let Some(broker) = self.brokers.get_mut(&id)
            && broker.mark_dirty()
        {
            self.dirty.push(id);
        }
    }

    pub(crate) fn pop_dirty(&mut self) -> Option<BrokerId> {
        self.dirty.pop()
    }

    /// Adopts an address.
    pub(crate) fn learn(&mut self, address: &BrokerAddress) {
        let broker = self.brokers.entry(address.id).or_insert_with(|| KnownBroker::new(address.clone()));
        broker.learn_address(address);
    }

    /// Forgets each broker that is not named, unless it is in use or refused this client a moment ago.
    pub(crate) fn forget_unnamed(&mut self, now: Instant, named: &[BrokerAddress]) {
        self.brokers.retain(|id, broker| broker.is_kept(now) || named.iter().any(|address| address.id == *id));
    }

    /// Returns whether a connection to the broker is open.
    pub(crate) fn is_connected(&self, id: BrokerId) -> bool {
        self.conns_of(id).any(|(_, conn)| conn.is_up())
    }

    /// Returns the connections of a broker, from the oldest to the newest.
    pub(crate) fn conns_of(&self, id: BrokerId) -> impl Iterator<Item = (ConnId, &BrokerConn)> {
        let ids = self.brokers.get(&id).map(KnownBroker::conns).unwrap_or_default();
        ids.iter().filter_map(|id| Some((*id, self.conns.get(id)?)))
    }

    /// Returns the connection with the least load that takes requests.
    pub(crate) fn least_loaded(&self, id: BrokerId) -> Option<ConnId> {
        let open = self.conns_of(id).filter(|(_, conn)| conn.is_open());
        open.min_by_key(|(_, conn)| conn.load()).map(|(id, _)| id)
    }

    /// Adds a connection to open, unless one is being opened, the limit is reached, or the pause has not ended.
    pub(crate) fn add_conn(&mut self, id: BrokerId, limit: u32, now: Instant) -> Option<(ConnId, BrokerAddress)> {
        let opening = self.conns_of(id).any(|(_, conn)| !conn.is_up());
        let kept = self.conns_of(id).filter(|(_, conn)| !conn.is_retiring()).count();
        let broker = self.brokers.get_mut(&id)?;
        if opening || kept >= limit as usize || broker.must_wait(now) {
            return None;
        }
        self.next_conn += 1;
        let conn = ConnId(self.next_conn);
        broker.add_conn(conn);
        self.conns.insert(conn, BrokerConn::new(id, now));
        Some((conn, broker.address().clone()))
    }

    pub(crate) fn remove_conn(&mut self, id: ConnId) -> Option<BrokerConn> {
        let conn = self.conns.remove(&id)?;
        if let Some(broker) = self.brokers.get_mut(&conn.broker()) {
            broker.remove_conn(id);
        }
        Some(conn)
    }

    /// Returns whether a connection is busy.
    pub(crate) fn is_busy(conn: &BrokerConn, config: &Config) -> bool {
        conn.load() >= BUSY_BYTES.min(config.max_request_bytes)
    }

    /// Returns whether all connections to a broker are busy.
    pub(crate) fn is_all_busy(&self, id: BrokerId, config: &Config) -> bool {
        self.conns_of(id).all(|(_, conn)| Self::is_busy(conn, config))
    }

    /// Returns the time of the next check of a connection. The timeout of a request does not run while the broker
    /// throttles this client.
    pub(crate) fn conn_deadline(&self, conn: &BrokerConn, config: &Config) -> Instant {
        conn.deadline(self.brokers.get(&conn.broker()).and_then(KnownBroker::throttled_until), config)
    }

    /// Returns the time for a new timer of a connection, if no earlier timer is set.
    pub(crate) fn arm_conn(&mut self, id: ConnId, config: &Config) -> Option<Instant> {
        let at = self.conn_deadline(self.conns.get(&id)?, config);
        self.conns.get_mut(&id)?.arm(at).then_some(at)
    }

    #[cfg(test)]
    pub(crate) fn add_second_conn(&mut self, broker: BrokerId, conn: ConnId, now: Instant) {
        self.conns.insert(conn, BrokerConn::new(broker, now));
        if let Some(broker) = self.brokers.get_mut(&broker) {
            broker.add_conn(conn);
        }
    }
}

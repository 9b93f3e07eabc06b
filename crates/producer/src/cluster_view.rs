//! What the sender's task last reported of the cluster.

use kafka_courier_idempotent_sender::core::BrokerView;

use crate::sync::Mutex;

/// The brokers and producer ids as of the sender's last reports.
#[derive(Debug, Default)]
pub(crate) struct ClusterView {
    /// All producer ids so far, the present one last. Batches of earlier ids may be in flight.
    producer_ids: Mutex<Vec<i64>>,
    brokers: Mutex<Vec<BrokerView>>,
}

impl ClusterView {
    /// Stores a new producer id.
    pub(crate) fn add_producer_id(&self, id: i64) {
        self.producer_ids.lock().push(id);
    }

    /// Returns the present producer id, if the cluster has assigned one.
    pub(crate) fn producer_id(&self) -> Option<i64> {
        self.producer_ids.lock().last().copied()
    }

    /// Returns all producer ids so far.
    pub(crate) fn producer_ids(&self) -> Vec<i64> {
        self.producer_ids.lock().clone()
    }

    /// Replaces the brokers.
    pub(crate) fn set_brokers(&self, brokers: &[BrokerView]) {
        *self.brokers.lock() = brokers.to_vec();
    }

    /// Returns the brokers.
    pub(crate) fn brokers(&self) -> Vec<BrokerView> {
        self.brokers.lock().clone()
    }
}

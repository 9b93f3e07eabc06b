//! Outages: which of the sender's inputs start and end them, and which records wait.
//!
//! Rule: `BrokerContact` decides about the outage of one broker. This file adds the connections and the partitions.

use std::sync::Arc;
use std::time::Instant;

use kafka_courier_client::{BrokerAddress, BrokerId};

use super::super::cluster::BrokerConn;
use super::super::outage::{OutageCause, OutageReport, WaitingRecords};
use super::Sender;

impl<T: Clone> Sender<T> {
    /// Returns the reports since the last call.
    pub fn take_outage_reports(&mut self) -> Vec<OutageReport> {
        std::mem::take(&mut self.outage_reports)
    }

    /// Notes that a connection ended or could not be opened.
    pub(super) fn note_disconnected(&mut self, now: Instant, conn: &BrokerConn, why: &Arc<str>) {
        let id = conn.broker();
        if self.cluster.is_connected(id) {
            return;
        }
        let is_failure = !conn.is_up() || self.waiting_for(id).events > 0;
        let Some(broker) = self.cluster.broker_mut(id) else { return };
        broker.contact.lose(now, is_failure);
        if !conn.is_up() {
            self.begin_outage(now, id, OutageCause::NoConnection, why);
        }
    }

    /// Starts an outage, unless a connection to the broker is open.
    pub(super) fn begin_outage(&mut self, now: Instant, id: BrokerId, cause: OutageCause, why: &Arc<str>) {
        if self.cluster.is_connected(id) {
            return;
        }
        let Some(broker) = self.cluster.broker_mut(id) else { return };
        if broker.contact.begin_outage(now, cause) {
            let broker = broker.address().clone();
            let waiting = self.waiting_for(id);
            self.outage_reports.push(OutageReport::Lost { broker, why: why.clone(), waiting });
        }
    }

    /// Notes that a connection is open or, with `answered`, that a request was answered. Either may end an outage.
    pub(super) fn note_reached(&mut self, now: Instant, id: BrokerId, answered: bool) {
        let Some(broker) = self.cluster.broker_mut(id) else { return };
        if let Some(lasted) = broker.contact.reached(now, answered) {
            self.outage_reports.push(OutageReport::Back { broker: broker.address().clone(), lasted });
        }
    }

    /// Compares the known brokers with the brokers that the cluster names. The difference starts and ends outages.
    pub(super) fn note_named(&mut self, now: Instant, named: &[BrokerAddress]) {
        let lost = self.cluster.brokers().filter(|(_, broker)| broker.contact.is_lost());
        for id in lost.map(|(id, _)| *id).collect::<Vec<_>>() {
            if !named.iter().any(|address| address.id == id) {
                self.begin_outage(now, id, OutageCause::NotNamed, &"the cluster no longer names the broker".into());
            } else if let Some(broker) = self.cluster.broker_mut(id)
                && let Some(lasted) = broker.contact.named(now)
            {
                self.outage_reports.push(OutageReport::Back { broker: broker.address().clone(), lasted });
            }
        }
    }

    /// Forgets the failure of each broker without an outage for which no records wait any more, because its partitions
    /// have other leaders.
    pub(super) fn forget_failures(&mut self) {
        let failing = self.cluster.brokers().filter(|(_, broker)| broker.contact.fails_without_outage());
        for id in failing.map(|(id, _)| *id).collect::<Vec<_>>() {
            if self.waiting_for(id).events == 0
                && let Some(broker) = self.cluster.broker_mut(id)
            {
                broker.contact.forget_failure();
            }
        }
    }

    /// Returns the records that wait for a broker: those of the partitions that it leads.
    pub(super) fn waiting_for(&self, id: BrokerId) -> WaitingRecords {
        let lanes = self.topics.iter().flat_map(|topic| topic.lanes());
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

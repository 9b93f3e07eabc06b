//! Lookups: at which broker they start, and their results.
//!
//! Rule: a lookup without a known leader is unavailable.

use std::time::Instant;

use kafka_courier_client::PartitionId;

use super::super::effects::{LookupRequest, LookupTarget};
use super::super::ids::LookupId;
use super::super::lookup::{LogSearch, SearchAnswer, StateLookup, StateLookupAnswer};
use super::super::types::Action;
use super::Sender;

impl<T: Clone> Sender<T> {
    /// Handles the result of a producer state lookup.
    pub fn on_state_lookup(&mut self, now: Instant, partition: PartitionId, look: LookupId, answer: StateLookupAnswer) {
        self.with_lane(partition, now, |lane, cx| lane.partition.on_state_lookup(look, answer, cx));
    }

    /// Handles the result of a log search.
    pub fn on_log_search(&mut self, now: Instant, partition: PartitionId, look: LookupId, answer: &SearchAnswer) {
        self.with_lane(partition, now, |lane, cx| lane.partition.on_log_search(look, answer, cx));
    }

    /// Starts a lookup at the leader of the partition, if there is one.
    pub(super) fn start_lookup(&mut self, now: Instant, LookupRequest { partition, id: look, target }: LookupRequest) {
        let topic = self.topics.get(partition.topic).map(|topic| topic.name.clone());
        let lane = self.topics.lane(partition).map(|lane| &lane.partition);
        let led = lane.and_then(|known| Some((known.leader()?, known.leader_epoch(), known.log().topic_uuid)));
        let (Some(topic), Some((id, leader_epoch, topic_uuid))) = (topic, led) else {
            return self.fail_lookup(now, partition, look, &target);
        };
        let Some(leader) = self.cluster.broker(id).map(|broker| broker.address().clone()) else {
            return self.fail_lookup(now, partition, look, &target);
        };
        self.out.actions.push_back(match target {
            LookupTarget::Producer(producer_id) => {
                Action::LookUpState(StateLookup { partition, topic, leader, leader_epoch, look, producer_id })
            }
            LookupTarget::Log(wanted) => {
                Action::SearchLog(LogSearch { partition, topic, topic_uuid, leader, leader_epoch, look, wanted })
            }
        });
    }

    fn fail_lookup(&mut self, now: Instant, partition: PartitionId, look: LookupId, target: &LookupTarget) {
        match target {
            LookupTarget::Producer(_) => self.on_state_lookup(now, partition, look, StateLookupAnswer::Unavailable),
            LookupTarget::Log(_) => self.on_log_search(now, partition, look, &SearchAnswer::Unavailable),
        }
    }
}

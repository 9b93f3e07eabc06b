//! The controller and the states of brokers: elections, fencing, pauses, kills, restarts, metadata updates.
//!
//! Rules (KRaft):
//! - Only a member of the ISR is elected.
//! - A broker is fenced after `session_timeout` without a heartbeat, and at its start. A fenced broker leads nothing.
//! - Brokers and their metadata answers follow the updates that have arrived, and may be stale.
//! - A paused broker receives no updates, and continues to believe itself a leader.

use std::collections::BTreeSet;
use std::sync::Arc;

use kafka_courier_client::{BrokerId, ClusterMetadata, ErrorCode, PartitionMetadata, Reason, TopicMetadata};

use crate::cluster::{
    BROKERS, MS, Micros, PARTITIONS, Replica, SECOND, TOPICS, View, partition_of, partitions_of, topic_by_name,
    topic_name, topic_of, uuid,
};
use crate::log::Producers;
use crate::produce::address;
use crate::world::{Event, World};

impl World {
    /// Changes the controller's truth about a partition, and schedules the brokers' updates.
    pub(crate) fn change(&mut self, partition: usize, change: impl FnOnce(&mut View)) {
        change(&mut self.partitions[partition].truth);
        self.trace(|| format!("p{partition} is now {:?}", self.partitions[partition].truth));
        for broker in 0..BROKERS {
            let delay = self.brokers[broker].update_delay;
            if delay > 0 {
                self.note_effect("late_updates", broker);
            }
            let wait = self.rng.range(MS / 2..50 * MS) + delay;
            self.schedule_after(wait, Event::Update(broker, partition));
        }
    }

    pub(crate) fn apply_update(&mut self, broker: usize, partition: usize) {
        let truth = self.partitions[partition].truth;
        let before = self.brokers[broker].views[partition];
        let is_other = truth.incarnation != before.incarnation || truth.exists != before.exists;
        // All partitions of a topic are created and deleted together.
        let others = (0..PARTITIONS).filter(|p| is_other && topic_of(*p) == topic_of(partition));
        for p in std::iter::once(partition).chain(others) {
            self.apply_partition_update(broker, p);
        }
    }

    fn apply_partition_update(&mut self, broker: usize, partition: usize) {
        let truth = self.partitions[partition].truth;
        let before = self.brokers[broker].views[partition];
        if !self.brokers[broker].runs() || truth == before {
            return;
        }
        self.brokers[broker].views[partition] = truth;
        let led = before.leader == Some(broker);
        let leads = truth.leader == Some(broker);
        if truth.incarnation != before.incarnation || !truth.exists {
            self.complete_waits(broker, partition, |_| Some(3));
        }
        if truth.incarnation != self.partitions[partition].replicas[broker].incarnation {
            let replica = Replica { incarnation: truth.incarnation, ..Replica::default() };
            self.partitions[partition].replicas[broker] = replica;
        }
        if led && !leads {
            self.complete_waits(broker, partition, |_| Some(6));
        }
        let is_other_incarnation = truth.incarnation != before.incarnation || !before.exists;
        if leads && (truth.epoch != before.epoch || is_other_incarnation) {
            self.become_leader(broker, partition);
        }
        if leads {
            self.advance_high_watermark(broker, partition);
        }
        self.schedule_fetches(partition);
    }

    fn become_leader(&mut self, broker: usize, partition: usize) {
        let epoch = self.partitions[partition].truth.epoch;
        let replica = &mut self.partitions[partition].replicas[broker];
        replica.fetched = [0; BROKERS];
        replica.caught_up = [self.now; BROKERS];
        self.schedule_after(self.plan.rules.replica_lag_max, Event::CheckIsr(broker, partition, epoch));
    }

    /// Elects `to`, if that broker is in the ISR and not fenced. Returns whether the leader has changed.
    pub(crate) fn elect(&mut self, partition: usize, to: usize) -> bool {
        let truth = self.partitions[partition].truth;
        let may = truth.exists && truth.leader != Some(to) && truth.in_isr(to) && !self.brokers[to].fenced;
        if may {
            self.change(partition, |truth| {
                truth.leader = Some(to);
                truth.epoch += 1;
            });
        }
        may
    }

    pub(crate) fn fence(&mut self, broker: usize) {
        if std::mem::replace(&mut self.brokers[broker].fenced, true) {
            return;
        }
        for partition in 0..PARTITIONS {
            let truth = self.partitions[partition].truth;
            let others: Vec<usize> =
                (0..BROKERS).filter(|b| *b != broker && truth.in_isr(*b) && !self.brokers[*b].fenced).collect();
            let next = if others.is_empty() { None } else { Some(self.rng.pick(&others)) };
            let led = truth.leader == Some(broker);
            if !led && (!truth.in_isr(broker) || truth.isr_len() == 1) {
                continue;
            }
            self.change(partition, |truth| {
                if truth.isr_len() > 1 {
                    truth.isr &= !(1 << broker);
                }
                if led {
                    truth.leader = next;
                    truth.epoch += 1;
                }
            });
        }
    }

    pub(crate) fn fence_if_unchanged(&mut self, broker: usize, incarnation: u32, pauses: u32) {
        let state = &self.brokers[broker];
        if state.incarnation == incarnation && state.pauses == pauses && !state.runs() {
            self.fence(broker);
        }
    }

    pub(crate) fn unfence_if_unchanged(&mut self, broker: usize, incarnation: u32, pauses: u32) {
        let state = &mut self.brokers[broker];
        if state.incarnation != incarnation || state.pauses != pauses || !state.runs() {
            return;
        }
        state.fenced = false;
        for partition in 0..PARTITIONS {
            let truth = self.partitions[partition].truth;
            if truth.leader.is_none() && truth.in_isr(broker) {
                self.elect(partition, broker);
            }
            let wait = self.rng.range(MS..50 * MS);
            self.schedule_after(wait, Event::Update(broker, partition));
            self.schedule_fetches(partition);
        }
    }

    fn schedule_fence(&mut self, broker: usize) {
        let Self { brokers, plan, .. } = self;
        let event = Event::Fence(broker, brokers[broker].incarnation, brokers[broker].pauses);
        let wait = plan.rules.session_timeout;
        self.schedule_after(wait, event);
    }

    fn schedule_unfence(&mut self, broker: usize) {
        let event = Event::Unfence(broker, self.brokers[broker].incarnation, self.brokers[broker].pauses);
        let wait = self.rng.range(50 * MS..SECOND);
        self.schedule_after(wait, event);
    }

    pub(crate) fn pause(&mut self, broker: usize, time: Micros) -> bool {
        if !self.brokers[broker].runs() {
            return false;
        }
        self.trace(|| format!("broker {broker} is paused for {} ms", time / MS));
        self.brokers[broker].paused = true;
        self.brokers[broker].pauses += 1;
        self.schedule_after(time, Event::Resume(broker, self.brokers[broker].pauses));
        self.schedule_fence(broker);
        true
    }

    pub(crate) fn resume(&mut self, broker: usize, pauses: u32) {
        if !self.brokers[broker].paused || self.brokers[broker].pauses != pauses {
            return;
        }
        self.trace(|| format!("broker {broker} resumes"));
        self.brokers[broker].paused = false;
        self.brokers[broker].pauses += 1;
        for partition in 0..PARTITIONS {
            let wait = self.rng.range(0..300 * MS);
            self.schedule_after(wait, Event::Update(broker, partition));
            self.schedule_fetches(partition);
        }
        for conn in self.links_of(broker) {
            let wait = self.rng.range(0..20 * MS);
            self.schedule_after(wait, Event::Serve(conn));
        }
        self.schedule_unfence(broker);
    }

    /// Stops a broker. A clean stop hands over the leaderships first.
    pub(crate) fn stop(&mut self, broker: usize, clean: bool, down: Micros) -> bool {
        if !self.brokers[broker].up {
            return false;
        }
        self.trace(|| format!("broker {broker} stops, clean: {clean}"));
        if clean {
            self.fence(broker);
        }
        let state = &mut self.brokers[broker];
        state.up = false;
        state.paused = false;
        state.incarnation += 1;
        self.delayed.retain(|_, delayed| delayed.broker != broker);
        for conn in self.links_of(broker) {
            if let Some(link) = self.links.get_mut(&conn) {
                link.inbox.clear();
            }
            self.cut(conn);
        }
        self.schedule_fence(broker);
        self.schedule_after(down, Event::Restart(broker));
        true
    }

    pub(crate) fn restart(&mut self, broker: usize) {
        if self.brokers[broker].up {
            return;
        }
        self.trace(|| format!("broker {broker} starts"));
        self.brokers[broker].up = true;
        self.brokers[broker].incarnation += 1;
        self.fence(broker);
        for partition in 0..PARTITIONS {
            // The broker knows no leader until its first update.
            self.brokers[broker].views[partition].leader = None;
            let replica = &self.partitions[partition].replicas[broker];
            // A restarted broker loads a snapshot of its whole log, after a kill and after an orderly stop. It
            // remembers one batch of each producer. It removes a snapshot that is not behind the log's start.
            let is_empty = self.partitions[partition].log_start >= replica.end();
            let model = &mut self.partitions[partition];
            let replica = &mut model.replicas[broker];
            let rebuilt = Producers::rebuild(&replica.log, replica.log.len());
            model.purges += u32::from(is_empty && !rebuilt.is_empty());
            replica.producers = if is_empty { Producers::default() } else { rebuilt };
            replica.offline = false;
            self.expire_ids(partition, broker);
        }
        self.schedule_unfence(broker);
    }

    /// Deletes a topic.
    pub(crate) fn delete_topic(&mut self, topic: usize) {
        for partition in partitions_of(topic) {
            self.change(partition, |truth| truth.exists = false);
        }
    }

    /// Recreates a topic with `count` partitions.
    pub(crate) fn recreate_topic(&mut self, topic: usize, count: usize) {
        for (index, partition) in partitions_of(topic).enumerate() {
            let incarnation = self.partitions[partition].truth.incarnation + 1;
            if index < count {
                self.create_partition(partition, incarnation);
            } else {
                self.change(partition, |truth| {
                    *truth = View { leader: None, epoch: 0, isr: 0b111, incarnation, exists: false };
                });
            }
        }
    }

    /// Adds a partition to a topic. Returns false if the topic does not exist, or has the maximum number of partitions.
    pub(crate) fn grow_topic(&mut self, topic: usize) -> bool {
        let exists = |partition: &usize| self.partitions[*partition].truth.exists;
        let (Some(first), Some(next)) =
            (partitions_of(topic).find(exists), partitions_of(topic).find(|partition| !exists(partition)))
        else {
            return false;
        };
        self.create_partition(next, self.partitions[first].truth.incarnation);
        true
    }

    fn create_partition(&mut self, partition: usize, incarnation: u32) {
        let alive: Vec<usize> = (0..BROKERS).filter(|b| !self.brokers[*b].fenced).collect();
        let leader = if alive.is_empty() { None } else { Some(self.rng.pick(&alive)) };
        let isr = alive.iter().fold(0, |isr, b| isr | 1 << b);
        let isr = if isr == 0 { 0b111 } else { isr };
        self.partitions[partition].log_start = 0;
        self.change(partition, |truth| *truth = View { leader, epoch: 0, isr, incarnation, exists: true });
    }

    /// Elects a replica outside the ISR. Batches and producers that this replica lacks are lost.
    pub(crate) fn elect_uncleanly(&mut self, partition: usize, to: usize) -> bool {
        let truth = self.partitions[partition].truth;
        if !truth.exists || truth.in_isr(to) || !self.brokers[to].runs() || self.brokers[to].fenced {
            return false;
        }
        let model = &mut self.partitions[partition];
        let kept: BTreeSet<u64> = model.replicas[to].log.iter().map(|entry| entry.append).collect();
        let committed = model.committed.iter().filter(|(incarnation, _)| *incarnation == truth.incarnation);
        model.lost.extend(committed.map(|(_, entry)| entry.append).filter(|append| !kept.contains(append)));
        model.forgets += 1;
        model.unclean = (truth.incarnation, truth.epoch + 1);
        self.change(partition, |truth| {
            truth.leader = Some(to);
            truth.epoch += 1;
            truth.isr = 1 << to;
        });
        true
    }

    /// Sends a metadata request. Returns an error if the sender did not back off after a refusal or a failure.
    pub(crate) fn refresh_metadata(&mut self, names: &[Arc<str>]) -> Result<(), String> {
        if self.history.metadata_refused_at.is_some_and(|at| self.now < at + Self::refusal_pause()) {
            return Err("metadata is requested without backoff after refused credentials".into());
        }
        let pause = self.min_backoff();
        let topics: Vec<usize> = names.iter().filter_map(|name| topic_by_name(name)).collect();
        self.history.pace.metadata.request(&topics, self.now, pause).map_err(|why| format!("metadata is {why}"))?;
        self.metadata_requests += 1;
        let broker = self.rng.index(BROKERS);
        let wait = self.latency(broker);
        self.schedule_after(wait, Event::ServeMetadata(broker, topics));
        Ok(())
    }

    pub(crate) fn serve_metadata(&mut self, broker: usize, topics: &[usize]) {
        let state = &self.brokers[broker];
        if !state.runs() || state.refuses_until > self.now || state.stalls_until > self.now {
            let wait = if state.up { self.rng.range(SECOND..10 * SECOND) } else { MS };
            self.schedule_after(wait, Event::Metadata(None));
            return;
        }
        if state.refuses_credentials_until > self.now {
            let wait = self.latency(broker);
            return self.schedule_after(wait, Event::MetadataRefused);
        }
        let mut cluster = self.metadata_of(broker);
        cluster.topics.retain(|found| topic_by_name(&found.name).is_some_and(|topic| topics.contains(&topic)));
        let wait = self.latency(broker);
        self.schedule_after(wait, Event::Metadata(Some(cluster)));
    }

    /// Returns the metadata of all topics in a broker's view.
    pub(crate) fn metadata_of(&self, broker: usize) -> ClusterMetadata {
        let topics = (0..TOPICS).map(|topic| self.topic_metadata(broker, topic)).collect();
        let brokers = (0..BROKERS).filter(|b| !self.brokers[*b].fenced).map(address).collect();
        ClusterMetadata { brokers, topics }
    }

    pub(crate) fn refuse_metadata(&mut self) {
        self.history.pace.metadata.note_failure(self.now);
        self.history.metadata_refused_at = Some(self.now);
        self.history.control_refusals += 1;
        self.sender.on_metadata_refused(self.instant(), &refusal());
    }

    /// Delivers a metadata answer to the sender.
    pub(crate) fn deliver_metadata(&mut self, cluster: ClusterMetadata) {
        self.history.pace.metadata.note_answer(self.now);
        self.trace(|| format!("metadata: {:?}", cluster.topics));
        let named = cluster.topics.iter().filter_map(|found| Some((topic_by_name(&found.name)?, found)));
        for (topic, found) in named.filter(|(_, found)| found.code == 0) {
            self.history.learn_incarnation(topic, found.uuid.unwrap_or_default(), found.partitions.len());
            for metadata in &found.partitions {
                let leader = metadata.leader.map(|leader| leader.0 as usize - 1);
                let partition = partition_of(topic, metadata.index as usize);
                self.history.known_leaders[partition].note_metadata(leader, metadata.leader_epoch.unwrap_or(-1));
                self.history.denials[partition] = 0;
            }
        }
        self.sender.on_metadata(self.instant(), cluster);
    }

    fn topic_metadata(&self, broker: usize, topic: usize) -> TopicMetadata {
        let views = partitions_of(topic).map(|partition| self.brokers[broker].views[partition]);
        let views: Vec<(usize, View)> = views.enumerate().filter(|(_, view)| view.exists).collect();
        let incarnation = views.first().map(|(_, view)| view.incarnation);
        let partition = |(index, view): (usize, View)| PartitionMetadata {
            index: index as i32,
            code: if view.leader.is_some() { 0 } else { 5 },
            leader: view.leader.map(|leader| BrokerId(leader as i32 + 1)),
            leader_epoch: Some(view.epoch),
        };
        TopicMetadata {
            name: topic_name(topic).into(),
            uuid: incarnation.map(|incarnation| uuid(topic, incarnation)),
            code: if incarnation.is_none() { 3 } else { 0 },
            partitions: views.into_iter().map(partition).collect(),
        }
    }

    /// Sends a request for a producer id. Returns an error if the sender did not back off after a refusal or a failure.
    pub(crate) fn init_producer_id(&mut self) -> Result<(), String> {
        if self.history.producer_id_refused_at.is_some_and(|at| self.now < at + Self::refusal_pause()) {
            return Err("a producer id is requested without backoff after refused credentials".into());
        }
        let pause = self.min_backoff();
        self.history.pace.producer_id.request(self.now, pause).map_err(|why| format!("a producer id is {why}"))?;
        let broker = self.rng.index(BROKERS);
        let wait = self.latency(broker);
        let state = &self.brokers[broker];
        let answer = if !state.runs() || state.refuses_until > self.now {
            Err(0)
        } else if state.refuses_credentials_until > self.now {
            Err(58)
        } else if self.plan.rules.failing_ids > 0 {
            self.plan.rules.failing_ids -= 1;
            Err(14)
        } else {
            self.next_producer_id += 1;
            Ok(self.next_producer_id)
        };
        self.schedule_after(wait, Event::ProducerId(answer));
        Ok(())
    }

    pub(crate) fn refuse_producer_id(&mut self) {
        self.history.pace.producer_id.note_answer(self.now, true);
        self.history.producer_id_refused_at = Some(self.now);
        self.history.control_refusals += 1;
        self.sender.on_producer_id_refused(self.instant(), &refusal());
    }
}

/// Returns the error of a broker that refuses the credentials.
pub(crate) fn refusal() -> Reason {
    Reason::Broker { code: ErrorCode::SASL_AUTHENTICATION_FAILED, message: None }
}

//! The controller and the lives of brokers: elections, fencing, pauses, kills, restarts, news.
//!
//! Rules (KRaft): only a member of the ISR is elected; a broker that is silent for `session_timeout`, or
//! that starts anew, is fenced, and leads nothing until it is back; brokers and metadata answers go by
//! what they have heard, which may be old; a paused broker hears nothing and believes itself a leader.

use std::collections::BTreeSet;
use std::sync::Arc;

use kafka_courier_idempotent_sender::core::{
    BrokerId, ClusterMetadata, ErrorCode, PartitionMetadata, Reason, TopicMetadata,
};

use crate::cluster::{
    BROKERS, MS, Micros, PARTITIONS, Replica, SECOND, TOPICS, View, partition_of, partitions_of, topic_name,
    topic_named, topic_of, uuid,
};
use crate::log::Producers;
use crate::produce::address;
use crate::world::{Event, World};

impl World {
    /// Changes the truth about a partition; the brokers hear of it by and by.
    pub(crate) fn change(&mut self, partition: usize, change: impl FnOnce(&mut View)) {
        change(&mut self.partitions[partition].truth);
        self.trace(|| format!("p{partition} is now {:?}", self.partitions[partition].truth));
        for broker in 0..BROKERS {
            let delay = self.brokers[broker].news_delay;
            if delay > 0 {
                self.felt("late_news", broker);
            }
            let wait = self.rng.range(MS / 2..50 * MS) + delay;
            self.after(wait, Event::News(broker, partition));
        }
    }

    pub(crate) fn learn_news(&mut self, broker: usize, partition: usize) {
        let truth = self.partitions[partition].truth;
        let before = self.brokers[broker].views[partition];
        let another = truth.incarnation != before.incarnation || truth.exists != before.exists;
        // A topic comes and goes as a whole.
        let others = (0..PARTITIONS).filter(|p| another && topic_of(*p) == topic_of(partition));
        for p in std::iter::once(partition).chain(others) {
            self.learn_news_of(broker, p);
        }
    }

    fn learn_news_of(&mut self, broker: usize, partition: usize) {
        let truth = self.partitions[partition].truth;
        let before = self.brokers[broker].views[partition];
        if !self.brokers[broker].runs() || truth == before {
            return;
        }
        self.brokers[broker].views[partition] = truth;
        let led = before.leader == Some(broker);
        let leads = truth.leader == Some(broker);
        if truth.incarnation != before.incarnation || !truth.exists {
            self.end_waits(broker, partition, |_| Some(3));
        }
        if truth.incarnation != self.partitions[partition].replicas[broker].incarnation {
            let replica = Replica { incarnation: truth.incarnation, ..Replica::default() };
            self.partitions[partition].replicas[broker] = replica;
        }
        if led && !leads {
            self.end_waits(broker, partition, |_| Some(6));
        }
        let another_life = truth.incarnation != before.incarnation || !before.exists;
        if leads && (truth.epoch != before.epoch || another_life) {
            self.begin_to_lead(broker, partition);
        }
        if leads {
            self.advance(broker, partition);
        }
        self.fetch_soon(partition);
    }

    fn begin_to_lead(&mut self, broker: usize, partition: usize) {
        let epoch = self.partitions[partition].truth.epoch;
        let replica = &mut self.partitions[partition].replicas[broker];
        replica.fetched = [0; BROKERS];
        replica.caught_up = [self.now; BROKERS];
        self.after(self.plan.rules.replica_lag_max, Event::WatchIsr(broker, partition, epoch));
    }

    /// Elects `to`, if it is in the ISR and alive. Returns whether it now leads and did not before.
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

    pub(crate) fn fence_if_still(&mut self, broker: usize, incarnation: u32, pauses: u32) {
        let state = &self.brokers[broker];
        if state.incarnation == incarnation && state.pauses == pauses && !state.runs() {
            self.fence(broker);
        }
    }

    pub(crate) fn unfence_if_still(&mut self, broker: usize, incarnation: u32, pauses: u32) {
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
            self.after(wait, Event::News(broker, partition));
            self.fetch_soon(partition);
        }
    }

    fn fence_later(&mut self, broker: usize) {
        let Self { brokers, plan, .. } = self;
        let event = Event::Fence(broker, brokers[broker].incarnation, brokers[broker].pauses);
        let wait = plan.rules.session_timeout;
        self.after(wait, event);
    }

    fn unfence_later(&mut self, broker: usize) {
        let event = Event::Unfence(broker, self.brokers[broker].incarnation, self.brokers[broker].pauses);
        let wait = self.rng.range(50 * MS..SECOND);
        self.after(wait, event);
    }

    pub(crate) fn pause(&mut self, broker: usize, time: Micros) -> bool {
        if !self.brokers[broker].runs() {
            return false;
        }
        self.trace(|| format!("broker {broker} is paused for {} ms", time / MS));
        self.brokers[broker].paused = true;
        self.brokers[broker].pauses += 1;
        self.after(time, Event::Resume(broker, self.brokers[broker].pauses));
        self.fence_later(broker);
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
            self.after(wait, Event::News(broker, partition));
            self.fetch_soon(partition);
        }
        for conn in self.links_of(broker) {
            let wait = self.rng.range(0..20 * MS);
            self.after(wait, Event::Serve(conn));
        }
        self.unfence_later(broker);
    }

    /// `clean`: its leaderships are handed over first.
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
        self.fence_later(broker);
        self.after(down, Event::Restart(broker));
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
            // It knows nobody as leader until it has heard who leads.
            self.brokers[broker].views[partition].leader = None;
            let replica = &mut self.partitions[partition].replicas[broker];
            // After a kill as after an orderly stop it loads a snapshot of all of its log: one batch is remembered.
            replica.producers = Producers::rebuild(&replica.log, replica.log.len());
            replica.offline = false;
            self.expire_ids(partition, broker);
        }
        self.unfence_later(broker);
    }

    /// The topic is deleted.
    pub(crate) fn delete_topic(&mut self, topic: usize) {
        for partition in partitions_of(topic) {
            self.change(partition, |truth| truth.exists = false);
        }
    }

    /// The topic is made anew, with so many partitions.
    pub(crate) fn make_anew(&mut self, topic: usize, count: usize) {
        for (index, partition) in partitions_of(topic).enumerate() {
            let incarnation = self.partitions[partition].truth.incarnation + 1;
            if index < count {
                self.make_partition(partition, incarnation);
            } else {
                self.change(partition, |truth| {
                    *truth = View { leader: None, epoch: 0, isr: 0b111, incarnation, exists: false };
                });
            }
        }
    }

    /// The topic gets one partition more, if it may.
    pub(crate) fn grow(&mut self, topic: usize) -> bool {
        let exists = |partition: &usize| self.partitions[*partition].truth.exists;
        let (Some(first), Some(next)) =
            (partitions_of(topic).find(exists), partitions_of(topic).find(|partition| !exists(partition)))
        else {
            return false;
        };
        self.make_partition(next, self.partitions[first].truth.incarnation);
        true
    }

    fn make_partition(&mut self, partition: usize, incarnation: u32) {
        let alive: Vec<usize> = (0..BROKERS).filter(|b| !self.brokers[*b].fenced).collect();
        let leader = if alive.is_empty() { None } else { Some(self.rng.pick(&alive)) };
        let isr = alive.iter().fold(0, |isr, b| isr | 1 << b);
        let isr = if isr == 0 { 0b111 } else { isr };
        self.change(partition, |truth| *truth = View { leader, epoch: 0, isr, incarnation, exists: true });
    }

    /// A replica leads that is not in the ISR: what it lacks is lost, and whom it never heard of is forgotten.
    pub(crate) fn elect_uncleanly(&mut self, partition: usize, to: usize) -> bool {
        let truth = self.partitions[partition].truth;
        if !truth.exists || truth.in_isr(to) || !self.brokers[to].runs() || self.brokers[to].fenced {
            return false;
        }
        let model = &mut self.partitions[partition];
        let kept: BTreeSet<u64> = model.replicas[to].log.iter().map(|entry| entry.append).collect();
        let committed = model.committed.iter().filter(|(life, _)| *life == truth.incarnation);
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

    /// Errors: who was asked last has refused us, and nobody is to be asked for a while.
    pub(crate) fn refresh_metadata(&mut self, names: &[Arc<str>]) -> Result<(), String> {
        if self.history.metadata_refused_at.is_some_and(|at| self.now < at + Self::refused_pause()) {
            return Err("we were refused, and ask for metadata again too soon".into());
        }
        let pause = self.least_pause();
        let topics: Vec<usize> = names.iter().filter_map(|name| topic_named(name)).collect();
        self.history.pace.metadata.ask(&topics, self.now, pause).map_err(|why| format!("metadata is {why}"))?;
        self.metadata_asked += 1;
        let broker = self.rng.index(BROKERS);
        let wait = self.latency(broker);
        self.after(wait, Event::AskMetadata(broker, topics));
        Ok(())
    }

    pub(crate) fn ask_metadata(&mut self, broker: usize, topics: &[usize]) {
        let state = &self.brokers[broker];
        if !state.runs() || state.refuses_until > self.now || state.requests_stall_until > self.now {
            let wait = if state.up { self.rng.range(SECOND..10 * SECOND) } else { MS };
            self.after(wait, Event::Metadata(None));
            return;
        }
        if state.distrusts_until > self.now {
            let wait = self.latency(broker);
            return self.after(wait, Event::MetadataRefused);
        }
        let mut cluster = self.metadata_of(broker);
        cluster.topics.retain(|found| topic_named(&found.name).is_some_and(|topic| topics.contains(&topic)));
        let wait = self.latency(broker);
        self.after(wait, Event::Metadata(Some(cluster)));
    }

    /// The cluster as the broker has it, with all topics.
    pub(crate) fn metadata_of(&self, broker: usize) -> ClusterMetadata {
        let topics = (0..TOPICS).map(|topic| self.topic_metadata(broker, topic)).collect();
        let brokers = (0..BROKERS).filter(|b| !self.brokers[*b].fenced).map(address).collect();
        ClusterMetadata { brokers, topics }
    }

    pub(crate) fn metadata_refused(&mut self) {
        self.history.pace.metadata.failed(self.now);
        self.history.metadata_refused_at = Some(self.now);
        self.history.control_refusals += 1;
        self.sender.on_metadata_refused(self.instant(), &refusal());
    }

    /// The answer reaches the sender.
    pub(crate) fn tell_metadata(&mut self, cluster: ClusterMetadata) {
        self.history.pace.metadata.answered(self.now);
        self.trace(|| format!("metadata: {:?}", cluster.topics));
        let named = cluster.topics.iter().filter_map(|found| Some((topic_named(&found.name)?, found)));
        for (topic, found) in named.filter(|(_, found)| found.code == 0) {
            self.history.told_life(topic, found.uuid, found.partitions.len());
            for told in &found.partitions {
                let leader = told.leader.map(|leader| leader.0 as usize - 1);
                let partition = partition_of(topic, told.index as usize);
                self.history.told_leaders[partition].metadata(leader, told.leader_epoch);
                self.history.denials[partition] = 0;
            }
        }
        self.sender.on_metadata(self.instant(), cluster);
    }

    fn topic_metadata(&self, broker: usize, topic: usize) -> TopicMetadata {
        let views = partitions_of(topic).map(|partition| self.brokers[broker].views[partition]);
        let views: Vec<(usize, View)> = views.enumerate().filter(|(_, view)| view.exists).collect();
        let life = views.first().map(|(_, view)| view.incarnation);
        let partition = |(index, view): (usize, View)| PartitionMetadata {
            index: index as i32,
            code: if view.leader.is_some() { 0 } else { 5 },
            leader: view.leader.map(|leader| BrokerId(leader as i32 + 1)),
            leader_epoch: view.epoch,
        };
        TopicMetadata {
            name: topic_name(topic).into(),
            uuid: life.map_or([0; 16], |life| uuid(topic, life)),
            code: if life.is_none() { 3 } else { 0 },
            partitions: views.into_iter().map(partition).collect(),
        }
    }

    /// Errors: as for metadata.
    pub(crate) fn init_producer_id(&mut self) -> Result<(), String> {
        if self.history.producer_id_refused_at.is_some_and(|at| self.now < at + Self::refused_pause()) {
            return Err("we were refused, and ask for a producer id again too soon".into());
        }
        let pause = self.least_pause();
        self.history.pace.producer_id.ask(self.now, pause).map_err(|why| format!("a producer id is {why}"))?;
        let broker = self.rng.index(BROKERS);
        let wait = self.latency(broker);
        let state = &self.brokers[broker];
        let answer = if !state.runs() || state.refuses_until > self.now {
            Err(0)
        } else if state.distrusts_until > self.now {
            Err(58)
        } else if self.plan.rules.failing_ids > 0 {
            self.plan.rules.failing_ids -= 1;
            Err(14)
        } else {
            self.next_producer_id += 1;
            Ok(self.next_producer_id)
        };
        self.after(wait, Event::ProducerId(answer));
        Ok(())
    }

    pub(crate) fn producer_id_refused(&mut self) {
        self.history.pace.producer_id.answered(self.now, true);
        self.history.producer_id_refused_at = Some(self.now);
        self.history.control_refusals += 1;
        self.sender.on_producer_id_refused(self.instant(), &refusal());
    }
}

/// What a broker says that takes no credentials.
pub(crate) fn refusal() -> Reason {
    Reason::Broker { code: ErrorCode::SASL_AUTHENTICATION_FAILED, message: None }
}

//! Replication: followers fetch, the high watermark advances, and waiting requests are answered.
//!
//! Rules (Apache Kafka's `Partition`, `ReplicaFetcherThread`):
//! - A follower fetches only from the leader of the epoch that it knows. It first truncates its log to the part that
//!   the leader has, and then rebuilds its producer state from a snapshot and the rest of its log.
//! - The high watermark is the smallest log end offset of the ISR, as the leader knows it, and never decreases. It does
//!   not advance in Kafka 3.7 and newer while the ISR is smaller than `min.insync.replicas`.

use crate::cluster::{BROKERS, MS};
use crate::log::Producers;
use crate::produce::{PartState, appended};
use crate::world::{Event, World};

impl World {
    /// Schedules a fetch of every follower without a scheduled fetch.
    pub(crate) fn schedule_fetches(&mut self, partition: usize) {
        for follower in 0..BROKERS {
            let model = &mut self.partitions[partition];
            if !std::mem::replace(&mut model.fetching[follower], true) {
                let delay = model.replication_delay;
                if delay > 0 {
                    self.note_effect("slow_replication", partition);
                }
                let wait =
                    self.rng.range(MS / 5..3 * MS) + if delay > 0 { self.rng.range(delay / 2..delay) } else { 0 };
                self.schedule_after(wait, Event::Fetch(partition, follower));
            }
        }
    }

    pub(crate) fn fetch(&mut self, partition: usize, follower: usize) {
        self.partitions[partition].fetching[follower] = false;
        let view = self.brokers[follower].views[partition];
        let Some(leader) = view.leader else { return self.retry_fetch(partition, follower) };
        if leader == follower {
            return;
        }
        let both_run = self.brokers[follower].runs() && self.brokers[leader].runs();
        let leads = self.brokers[leader].views[partition];
        let agreed = leads.leader == Some(leader) && leads.epoch == view.epoch && leads.incarnation == view.incarnation;
        let disks = &self.partitions[partition].replicas;
        if !both_run || !agreed || !view.exists || disks[leader].offline || disks[follower].offline {
            return self.retry_fetch(partition, follower);
        }
        self.copy(partition, leader, follower);
        let now = self.now;
        let replica = &mut self.partitions[partition].replicas[leader];
        replica.fetched[follower] = replica.end();
        replica.caught_up[follower] = now;
        self.join_isr(partition, leader, follower);
        self.advance_high_watermark(leader, partition);
    }

    /// Schedules another fetch of a follower that is outside the ISR.
    fn retry_fetch(&mut self, partition: usize, follower: usize) {
        let truth = self.partitions[partition].truth;
        if truth.exists && !truth.in_isr(follower) && self.brokers[follower].runs() {
            self.partitions[partition].fetching[follower] = true;
            self.schedule_after(250 * MS, Event::Fetch(partition, follower));
        }
    }

    fn copy(&mut self, partition: usize, leader: usize, follower: usize) {
        let snapshot = self.rng.next() as usize;
        let replicas = &mut self.partitions[partition].replicas;
        let mut copy = std::mem::take(&mut replicas[follower]);
        let mut loaded = false;
        let source = &replicas[leader];
        let mut same = copy.log.len().min(source.log.len());
        while same > 0 && copy.log[same - 1].append != source.log[same - 1].append {
            same -= 1;
        }
        if same < copy.log.len() {
            copy.log.truncate(same);
            copy.committed = copy.committed.min(same);
            copy.producers = Producers::rebuild(&copy.log, snapshot % (same + 1));
            loaded = true;
        }
        for entry in &source.log[same..] {
            copy.producers.learn(entry);
            copy.log.push(entry.clone());
        }
        copy.high_watermark = source.high_watermark.min(copy.end());
        replicas[follower] = copy;
        if loaded {
            self.expire_ids(partition, follower);
        }
    }

    /// Adds a follower that has reached the log's end to the ISR again.
    fn join_isr(&mut self, partition: usize, leader: usize, follower: usize) {
        let truth = self.partitions[partition].truth;
        let view = self.brokers[leader].views[partition];
        let same = truth.leader == Some(leader) && truth.epoch == view.epoch && truth.incarnation == view.incarnation;
        if same && !truth.in_isr(follower) && !self.brokers[follower].fenced {
            self.change(partition, |truth| truth.isr |= 1 << follower);
            self.apply_update(leader, partition);
        }
    }

    /// Advances a leader's high watermark to the slowest replica of its ISR.
    pub(crate) fn advance_high_watermark(&mut self, leader: usize, partition: usize) {
        let view = self.brokers[leader].views[partition];
        if view.leader != Some(leader) || !view.exists {
            return;
        }
        let model = &mut self.partitions[partition];
        let replica = &mut model.replicas[leader];
        replica.fetched[leader] = replica.end();
        let least = (0..BROKERS).filter(|b| view.in_isr(*b)).map(|b| replica.fetched[b]).min().unwrap_or(0);
        if !self.plan.rules.waits_for_min_isr || view.isr_len() >= model.min_isr {
            replica.high_watermark = replica.high_watermark.max(least);
        }
        while let Some(entry) = replica.log.get(replica.committed).filter(|e| e.end() <= replica.high_watermark) {
            model.committed.push((view.incarnation, entry.clone()));
            if view.incarnation == model.unclean.0 && view.epoch < model.unclean.1 {
                model.lost.insert(entry.append);
            }
            replica.committed += 1;
        }
        self.answer_committed(leader, partition);
    }

    /// Answers the requests that have waited for the high watermark.
    fn answer_committed(&mut self, leader: usize, partition: usize) {
        let enough = self.brokers[leader].views[partition].isr_len() >= self.partitions[partition].min_isr;
        let reached = self.partitions[partition].replicas[leader].high_watermark;
        self.complete_waits(leader, partition, |required| (reached >= required).then_some(if enough { 0 } else { 20 }));
    }

    /// Ends the waits on a partition for which `code` returns a code.
    pub(crate) fn complete_waits(&mut self, broker: usize, partition: usize, code: impl Fn(i64) -> Option<i16>) {
        let mut touched = Vec::new();
        for (id, delayed) in self.delayed.iter_mut().filter(|(_, delayed)| delayed.broker == broker) {
            for part in &mut delayed.parts {
                let PartState::Waiting { partition: p, base_offset, required, time } = part else { continue };
                if let Some(code) = code(*required).filter(|_| *p == partition) {
                    *part = PartState::Answered(appended(code, *base_offset, *time));
                    touched.push(*id);
                }
            }
        }
        for id in touched {
            self.answer_if_done(id);
        }
    }

    /// Removes from the ISR the followers that have been behind the end of the leader's log for too long.
    pub(crate) fn check_isr(&mut self, leader: usize, partition: usize, epoch: i32) {
        let view = self.brokers[leader].views[partition];
        let truth = self.partitions[partition].truth;
        if view.leader != Some(leader) || view.epoch != epoch || truth.epoch != epoch || truth.leader != Some(leader) {
            return;
        }
        let lag_max = self.plan.rules.replica_lag_max;
        if self.brokers[leader].runs() {
            self.remove_laggards(leader, partition);
        }
        if !self.healed || self.sender.unsettled() > 0 {
            self.schedule_after(lag_max / 2, Event::CheckIsr(leader, partition, epoch));
        }
    }

    fn remove_laggards(&mut self, leader: usize, partition: usize) {
        let lag_max = self.plan.rules.replica_lag_max;
        let replica = &self.partitions[partition].replicas[leader];
        let truth = self.partitions[partition].truth;
        let lags = |b: &usize| {
            let behind = replica.fetched[*b] < replica.end();
            *b != leader && truth.in_isr(*b) && behind && replica.caught_up[*b] + lag_max < self.now
        };
        let laggards: Vec<usize> = (0..BROKERS).filter(lags).collect();
        if !laggards.is_empty() {
            self.change(partition, |truth| laggards.iter().for_each(|b| truth.isr &= !(1 << b)));
            self.apply_update(leader, partition);
        }
    }
}

//! Faults and their end.
//!
//! Rule: a fault changes the model cluster only. The sender notices the fault like a sender on a real cluster.

use crate::cluster::{BROKERS, Forced, MS, Micros, PARTITIONS, PARTITIONS_AT_FIRST, SECOND, topic_of};
use crate::world::{Event, World};

/// The minimum number of faults with an effect in a schedule.
pub(crate) const MIN_FAULTS: u64 = 3;

#[derive(Clone, Debug)]
pub(crate) enum Fault {
    Kill {
        broker: usize,
        down: Micros,
    },
    CleanRestart {
        broker: usize,
        down: Micros,
    },
    Pause {
        broker: usize,
        time: Micros,
    },
    Elect {
        partition: usize,
        to: usize,
    },
    CutConnections {
        broker: usize,
    },
    LoseAnswers {
        broker: usize,
        time: Micros,
    },
    StallRequests {
        broker: usize,
        time: Micros,
    },
    Slow {
        broker: usize,
        time: Micros,
        by: Micros,
    },
    RefuseConnections {
        broker: usize,
        time: Micros,
    },
    /// The broker refuses the sender's credentials.
    RefuseCredentials {
        broker: usize,
        time: Micros,
    },
    Throttle {
        broker: usize,
        time: Micros,
    },
    LateUpdates {
        broker: usize,
        by: Micros,
    },
    OmitParts {
        broker: usize,
        time: Micros,
    },
    /// The partition's next answers are these errors.
    Force {
        partition: usize,
        forced: Forced,
        times: usize,
    },
    /// The partition refuses all batches with this code for a time.
    Refuse {
        partition: usize,
        code: i16,
        time: Micros,
    },
    LimitMessage {
        partition: usize,
        bytes: usize,
        time: Micros,
    },
    LimitSegment {
        partition: usize,
        bytes: usize,
        time: Micros,
    },
    SlowReplication {
        partition: usize,
        by: Micros,
        time: Micros,
    },
    FailDisk {
        broker: usize,
        partition: usize,
        time: Micros,
    },
    /// The partition refuses records without a key, and may name their indexes (KIP-467).
    Compact {
        partition: usize,
        names_rejected: bool,
        time: Micros,
    },
    /// The partition refuses records older than `message.timestamp.before.max.ms` at their arrival, and names their
    /// indexes.
    LimitAge {
        partition: usize,
        ms: i64,
        time: Micros,
    },
    /// The topic is deleted.
    DeleteTopic {
        topic: usize,
    },
    /// The deleted topic is created again with this number of partitions.
    CreateTopic {
        topic: usize,
        partitions: usize,
    },
    /// The topic gets one more partition.
    /// Deletes all committed records of a partition (DeleteRecords).
    DeleteRecords {
        partition: usize,
    },
    GrowTopic {
        topic: usize,
    },
    /// Another process fences the sender's producer id, as a later check does.
    FenceId {
        partition: usize,
    },
    /// A replica outside the ISR is elected.
    ElectUncleanly {
        partition: usize,
        to: usize,
    },
}

impl Fault {
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Kill { .. } => "kill",
            Self::CleanRestart { .. } => "clean_restart",
            Self::Pause { .. } => "pause",
            Self::Elect { .. } => "election",
            Self::CutConnections { .. } => "cut_connections",
            Self::LoseAnswers { .. } => "lost_answers",
            Self::StallRequests { .. } => "stalled_requests",
            Self::Slow { .. } => "slow_link",
            Self::RefuseConnections { .. } => "refused_connections",
            Self::RefuseCredentials { .. } => "refused_credentials",
            Self::Throttle { .. } => "throttle",
            Self::LateUpdates { .. } => "late_updates",
            Self::OmitParts { .. } => "omitted_parts",
            Self::Force { .. } => "forced_error",
            Self::Refuse { .. } => "refusal",
            Self::LimitMessage { .. } => "message_limit",
            Self::LimitSegment { .. } => "segment_limit",
            Self::SlowReplication { .. } => "slow_replication",
            Self::FailDisk { .. } => "disk_failure",
            Self::Compact { .. } => "compaction",
            Self::LimitAge { .. } => "age_limit",
            Self::DeleteRecords { .. } => "records_deleted",
            Self::DeleteTopic { .. } => "topic_deleted",
            Self::CreateTopic { .. } => "topic_recreated",
            Self::GrowTopic { .. } => "topic_grown",
            Self::ElectUncleanly { .. } => "unclean_election",
            Self::FenceId { .. } => "fence",
        }
    }
}

impl Fault {
    /// Returns the broker, partition or topic that the fault hits.
    fn target(&self) -> usize {
        match self {
            Self::Kill { broker, .. }
            | Self::CleanRestart { broker, .. }
            | Self::Pause { broker, .. }
            | Self::CutConnections { broker }
            | Self::LoseAnswers { broker, .. }
            | Self::StallRequests { broker, .. }
            | Self::Slow { broker, .. }
            | Self::RefuseConnections { broker, .. }
            | Self::RefuseCredentials { broker, .. }
            | Self::Throttle { broker, .. }
            | Self::LateUpdates { broker, .. }
            | Self::OmitParts { broker, .. } => *broker,
            Self::Elect { partition, .. }
            | Self::ElectUncleanly { partition, .. }
            | Self::FenceId { partition }
            | Self::Force { partition, .. }
            | Self::Refuse { partition, .. }
            | Self::LimitMessage { partition, .. }
            | Self::LimitSegment { partition, .. }
            | Self::SlowReplication { partition, .. }
            | Self::FailDisk { partition, .. }
            | Self::LimitAge { partition, .. }
            | Self::DeleteRecords { partition }
            | Self::Compact { partition, .. } => *partition,
            Self::DeleteTopic { topic } | Self::CreateTopic { topic, .. } | Self::GrowTopic { topic } => *topic,
        }
    }
}

impl World {
    pub(crate) fn inject(&mut self, fault: Fault) {
        if self.healed {
            return;
        }
        self.trace(|| format!("FAULT {fault:?}"));
        let (name, target) = (fault.name(), fault.target());
        self.history.pending_faults.push((name, target));
        if self.apply_fault(fault) {
            self.note_effect(name, target);
        }
    }

    /// Notes an effect of a fault with this name and target. Each fault counts once.
    pub(crate) fn note_effect(&mut self, name: &'static str, target: usize) {
        let pending = &mut self.history.pending_faults;
        if let Some(position) = pending.iter().position(|fault| *fault == (name, target)) {
            pending.swap_remove(position);
            *self.history.faults.entry(name).or_default() += 1;
        }
    }

    /// Applies a fault. Returns whether the fault has an effect already. Any other fault has its effect later, or
    /// never.
    fn apply_fault(&mut self, fault: Fault) -> bool {
        let now = self.now;
        match fault {
            Fault::Kill { broker, down } => return self.stop(broker, false, down),
            Fault::CleanRestart { broker, down } => return self.stop(broker, true, down),
            Fault::Pause { broker, time } => return self.pause(broker, time),
            Fault::Elect { partition, to } => return self.elect(partition, to),
            Fault::ElectUncleanly { partition, to } => return self.elect_uncleanly(partition, to),
            Fault::CutConnections { broker } => return self.cut_all(broker),
            Fault::LoseAnswers { broker, time } => self.brokers[broker].answers_lost_until = now + time,
            Fault::StallRequests { broker, time } => self.brokers[broker].stalls_until = now + time,
            Fault::Slow { broker, time, by } => {
                self.brokers[broker].slow_until = now + time;
                self.brokers[broker].added_latency = by;
            }
            Fault::RefuseConnections { broker, time } => self.brokers[broker].refuses_until = now + time,
            Fault::RefuseCredentials { broker, time } => self.brokers[broker].refuses_credentials_until = now + time,
            Fault::Throttle { broker, time } => self.brokers[broker].throttles_until = now + time,
            Fault::LateUpdates { broker, by } => self.brokers[broker].update_delay = by,
            Fault::OmitParts { broker, time } => self.brokers[broker].omits_parts_until = now + time,
            other => return self.apply_partition_fault(other),
        }
        false
    }

    fn cut_all(&mut self, broker: usize) -> bool {
        let links = self.links_of(broker);
        let alive = links.iter().filter_map(|conn| self.links.get(conn)).any(|link| link.client_open && !link.cut);
        links.into_iter().for_each(|conn| self.cut(conn));
        alive
    }

    fn apply_partition_fault(&mut self, fault: Fault) -> bool {
        match fault {
            Fault::Force { partition, forced, times } => {
                self.partitions[partition].forced.extend(std::iter::repeat_n(forced, times));
            }
            Fault::Refuse { partition, code, time } => {
                self.partitions[partition].refused = Some(code);
                self.schedule_after(time, Event::LiftLimits(partition));
            }
            Fault::LimitMessage { partition, bytes, time } => {
                self.partitions[partition].max_bytes = bytes;
                self.schedule_after(time, Event::LiftLimits(partition));
            }
            Fault::LimitSegment { partition, bytes, time } => {
                self.partitions[partition].segment_bytes = bytes;
                self.schedule_after(time, Event::LiftLimits(partition));
            }
            Fault::SlowReplication { partition, by, time } => {
                self.partitions[partition].replication_delay = by;
                self.schedule_after(time, Event::LiftLimits(partition));
            }
            Fault::Compact { partition, names_rejected, time } => {
                self.partitions[partition].compacted = true;
                self.partitions[partition].names_rejected &= names_rejected;
                self.schedule_after(time, Event::LiftLimits(partition));
            }
            Fault::LimitAge { partition, ms, time } => {
                self.partitions[partition].max_age_ms = ms;
                self.schedule_after(time, Event::LiftLimits(partition));
            }
            Fault::FenceId { partition } => return self.fence_id(partition),
            Fault::FailDisk { broker, partition, time } => return self.fail_disk(broker, partition, time),
            Fault::DeleteRecords { partition } => return self.delete_records(partition),
            Fault::GrowTopic { topic } => return self.topic_exists(topic) && self.grow_topic(topic),
            Fault::DeleteTopic { topic } if self.topic_exists(topic) => {
                self.delete_topic(topic);
                return true;
            }
            Fault::CreateTopic { topic, partitions } if !self.topic_exists(topic) => {
                self.recreate_topic(topic, partitions);
                return true;
            }
            _ => {}
        }
        false
    }

    fn delete_records(&mut self, partition: usize) -> bool {
        let Some(leader) = self.partitions[partition].truth.leader else { return false };
        let model = &mut self.partitions[partition];
        let before = std::mem::replace(&mut model.log_start, model.replicas[leader].high_watermark);
        model.log_start > before
    }

    fn topic_exists(&self, topic: usize) -> bool {
        (0..PARTITIONS).any(|p| topic_of(p) == topic && self.partitions[p].truth.exists)
    }

    /// Fails the disk under one replica. The requests that wait there are answered with 56, and another replica leads.
    fn fail_disk(&mut self, broker: usize, partition: usize, time: Micros) -> bool {
        let truth = self.partitions[partition].truth;
        if !self.brokers[broker].runs() || truth.isr_len() < 2 || !truth.exists {
            return false;
        }
        self.partitions[partition].replicas[broker].offline = true;
        self.complete_waits(broker, partition, |_| Some(56));
        let others: Vec<usize> =
            (0..BROKERS).filter(|b| *b != broker && truth.in_isr(*b) && !self.brokers[*b].fenced).collect();
        let next = if others.is_empty() { None } else { Some(self.rng.pick(&others)) };
        self.change(partition, |truth| {
            truth.isr &= !(1 << broker);
            if truth.leader == Some(broker) {
                truth.leader = next;
                truth.epoch += 1;
            }
        });
        self.schedule_after(time, Event::RestoreDisk(broker, partition));
        true
    }

    pub(crate) fn restore_disk(&mut self, broker: usize, partition: usize) {
        self.partitions[partition].replicas[broker].offline = false;
        self.schedule_fetches(partition);
    }

    /// Ends the refusals, limits and delays of a partition.
    pub(crate) fn lift_limits(&mut self, partition: usize) {
        let model = &mut self.partitions[partition];
        model.refused = None;
        model.compacted = false;
        model.max_age_ms = i64::MAX;
        model.max_bytes = usize::MAX;
        model.segment_bytes = usize::MAX;
        model.replication_delay = 0;
    }

    /// Ends all faults, or injects the faults that are missing to `MIN_FAULTS` and tries again later.
    pub(crate) fn heal_after_enough_faults(&mut self) {
        match self.add_missing_faults() {
            true => self.schedule_after(SECOND, Event::Heal),
            false => self.heal(),
        }
    }

    /// Pauses as many brokers as faults are missing. Returns whether it paused any.
    fn add_missing_faults(&mut self) -> bool {
        let missing = MIN_FAULTS.saturating_sub(self.history.faults.values().sum());
        let first = self.rng.index(BROKERS);
        let running = (0..BROKERS).map(|n| (first + n) % BROKERS).filter(|broker| self.brokers[*broker].runs());
        let paused: Vec<usize> = running.take(missing as usize).collect();
        for broker in &paused {
            let time = self.rng.range(50..900) * MS;
            self.inject(Fault::Pause { broker: *broker, time });
        }
        !paused.is_empty()
    }

    /// Ends all faults. Every record must then get its verdict, and new records must be delivered.
    pub(crate) fn heal(&mut self) {
        self.trace(|| "all faults end".to_owned());
        self.healed = true;
        self.plan.rules.failing_ids = 0;
        for partition in 0..PARTITIONS {
            self.lift_limits(partition);
            self.partitions[partition].forced.clear();
            for broker in 0..BROKERS {
                self.restore_disk(broker, partition);
            }
        }
        for broker in 0..BROKERS {
            self.heal_broker(broker);
        }
        for topic in 0..crate::cluster::TOPICS {
            if !self.topic_exists(topic) {
                self.recreate_topic(topic, PARTITIONS_AT_FIRST);
            }
        }
    }

    fn heal_broker(&mut self, broker: usize) {
        let now = self.now;
        let state = &mut self.brokers[broker];
        state.answers_lost_until = 0;
        state.stalls_until = state.stalls_until.min(now);
        state.slow_until = 0;
        state.refuses_until = 0;
        state.refuses_credentials_until = 0;
        state.throttles_until = 0;
        state.update_delay = 0;
        state.omits_parts_until = 0;
        let (up, pauses) = (state.up, state.pauses);
        if up {
            self.resume(broker, pauses);
        } else {
            self.restart(broker);
        }
        for partition in 0..PARTITIONS {
            self.schedule_after(SECOND, Event::Update(broker, partition));
        }
    }

    /// Makes the brokers forget the producers whose last batch is too old.
    pub(crate) fn check_ids(&mut self) {
        for partition in 0..PARTITIONS {
            (0..BROKERS).for_each(|broker| self.expire_ids(partition, broker));
        }
    }

    pub(crate) fn expire_ids(&mut self, partition: usize, broker: usize) {
        let Some(expiration) = self.plan.rules.id_expiration_ms else { return };
        let oldest = self.clock_ms() - expiration;
        let model = &mut self.partitions[partition];
        let aged = model.replicas[broker].producers.expire(oldest);
        model.expiries += u32::from(aged);
    }

    /// Schedules, with some probability, a check right after the append of a batch that is too old.
    pub(crate) fn check_ids_after(&mut self, max_timestamp: i64) {
        let Some(expiration) = self.plan.rules.id_expiration_ms else { return };
        if max_timestamp <= self.clock_ms() - expiration && self.rng.percent(50) {
            let wait = self.rng.range(0..5 * MS);
            self.schedule_after(wait, Event::CheckIds { again: false });
        }
    }
}

//! What goes wrong, and how it is lifted again.
//!
//! Rule: a fault changes the model cluster only; the sender learns of it as a real one would.

use crate::cluster::{BROKERS, Forced, MS, Micros, PARTITIONS, PARTITIONS_AT_FIRST, SECOND, topic_of};
use crate::world::{Event, STARTED_MS, World};

/// A schedule has at least so many faults of which something has come.
pub(crate) const ENOUGH_FAULTS: u64 = 3;

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
    /// The broker refuses our credentials.
    Distrust {
        broker: usize,
        time: Micros,
    },
    Throttle {
        broker: usize,
        time: Micros,
    },
    LateNews {
        broker: usize,
        by: Micros,
    },
    LeaveOutParts {
        broker: usize,
        time: Micros,
    },
    /// The partition's next answers are other than they should be.
    Force {
        partition: usize,
        forced: Forced,
        times: usize,
    },
    /// Every batch of the partition is refused with this code for a while.
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
    DiskFails {
        broker: usize,
        partition: usize,
        time: Micros,
    },
    /// Records without a key are refused, each by its index (KIP-467) or all together.
    Compact {
        partition: usize,
        names_guilty: bool,
        time: Micros,
    },
    /// `message.timestamp.before.max.ms` is set: records that are older when they arrive are refused, each by its index.
    LimitAge {
        partition: usize,
        ms: i64,
        time: Micros,
    },
    /// The topic is deleted.
    DeleteTopic {
        topic: usize,
    },
    /// And made anew, with so many partitions.
    CreateTopic {
        topic: usize,
        partitions: usize,
    },
    /// The topic gets one more partition.
    GrowTopic {
        topic: usize,
    },
    /// Somebody else, who looks for lost records, fences the sender's producer id.
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
            Self::Distrust { .. } => "refused_credentials",
            Self::Throttle { .. } => "throttle",
            Self::LateNews { .. } => "late_news",
            Self::LeaveOutParts { .. } => "left_out_parts",
            Self::Force { .. } => "forced_error",
            Self::Refuse { .. } => "refusal",
            Self::LimitMessage { .. } => "message_limit",
            Self::LimitSegment { .. } => "segment_limit",
            Self::SlowReplication { .. } => "slow_replication",
            Self::DiskFails { .. } => "disk_failure",
            Self::Compact { .. } => "compaction",
            Self::LimitAge { .. } => "age_limit",
            Self::DeleteTopic { .. } => "topic_deleted",
            Self::CreateTopic { .. } => "topic_made_anew",
            Self::GrowTopic { .. } => "topic_grown",
            Self::ElectUncleanly { .. } => "unclean_election",
            Self::FenceId { .. } => "fence",
        }
    }
}

impl Fault {
    /// The broker, partition or topic that it strikes.
    fn place(&self) -> usize {
        match self {
            Self::Kill { broker, .. }
            | Self::CleanRestart { broker, .. }
            | Self::Pause { broker, .. }
            | Self::CutConnections { broker }
            | Self::LoseAnswers { broker, .. }
            | Self::StallRequests { broker, .. }
            | Self::Slow { broker, .. }
            | Self::RefuseConnections { broker, .. }
            | Self::Distrust { broker, .. }
            | Self::Throttle { broker, .. }
            | Self::LateNews { broker, .. }
            | Self::LeaveOutParts { broker, .. } => *broker,
            Self::Elect { partition, .. }
            | Self::ElectUncleanly { partition, .. }
            | Self::FenceId { partition }
            | Self::Force { partition, .. }
            | Self::Refuse { partition, .. }
            | Self::LimitMessage { partition, .. }
            | Self::LimitSegment { partition, .. }
            | Self::SlowReplication { partition, .. }
            | Self::DiskFails { partition, .. }
            | Self::LimitAge { partition, .. }
            | Self::Compact { partition, .. } => *partition,
            Self::DeleteTopic { topic } | Self::CreateTopic { topic, .. } | Self::GrowTopic { topic } => *topic,
        }
    }
}

impl World {
    pub(crate) fn strike(&mut self, fault: Fault) {
        if self.healed {
            return;
        }
        self.trace(|| format!("FAULT {fault:?}"));
        let (name, place) = (fault.name(), fault.place());
        self.history.waiting_faults.push((name, place));
        if self.strike_at_once(fault) {
            self.felt(name, place);
        }
    }

    /// Something has come of a fault of this kind there. It counts once.
    pub(crate) fn felt(&mut self, name: &'static str, place: usize) {
        let waiting = &mut self.history.waiting_faults;
        if let Some(position) = waiting.iter().position(|fault| *fault == (name, place)) {
            waiting.swap_remove(position);
            *self.history.faults.entry(name).or_default() += 1;
        }
    }

    /// Returns whether something has come of it already; what only lies in wait is felt later, or never.
    fn strike_at_once(&mut self, fault: Fault) -> bool {
        let now = self.now;
        match fault {
            Fault::Kill { broker, down } => return self.stop(broker, false, down),
            Fault::CleanRestart { broker, down } => return self.stop(broker, true, down),
            Fault::Pause { broker, time } => return self.pause(broker, time),
            Fault::Elect { partition, to } => return self.elect(partition, to),
            Fault::ElectUncleanly { partition, to } => return self.elect_uncleanly(partition, to),
            Fault::CutConnections { broker } => return self.cut_all(broker),
            Fault::LoseAnswers { broker, time } => self.brokers[broker].answers_lost_until = now + time,
            Fault::StallRequests { broker, time } => self.brokers[broker].requests_stall_until = now + time,
            Fault::Slow { broker, time, by } => {
                self.brokers[broker].slow_until = now + time;
                self.brokers[broker].slowness = by;
            }
            Fault::RefuseConnections { broker, time } => self.brokers[broker].refuses_until = now + time,
            Fault::Distrust { broker, time } => self.brokers[broker].distrusts_until = now + time,
            Fault::Throttle { broker, time } => self.brokers[broker].throttles_until = now + time,
            Fault::LateNews { broker, by } => self.brokers[broker].news_delay = by,
            Fault::LeaveOutParts { broker, time } => self.brokers[broker].forgets_parts_until = now + time,
            on_a_partition => return self.strike_partition(on_a_partition),
        }
        false
    }

    fn cut_all(&mut self, broker: usize) -> bool {
        let links = self.links_of(broker);
        let alive = links.iter().filter_map(|conn| self.links.get(conn)).any(|link| link.client_open && !link.cut);
        links.into_iter().for_each(|conn| self.cut(conn));
        alive
    }

    fn strike_partition(&mut self, fault: Fault) -> bool {
        match fault {
            Fault::Force { partition, forced, times } => {
                self.partitions[partition].forced.extend(std::iter::repeat_n(forced, times));
            }
            Fault::Refuse { partition, code, time } => {
                self.partitions[partition].refused = Some(code);
                self.after(time, Event::Lift(partition));
            }
            Fault::LimitMessage { partition, bytes, time } => {
                self.partitions[partition].max_bytes = bytes;
                self.after(time, Event::Lift(partition));
            }
            Fault::LimitSegment { partition, bytes, time } => {
                self.partitions[partition].segment_bytes = bytes;
                self.after(time, Event::Lift(partition));
            }
            Fault::SlowReplication { partition, by, time } => {
                self.partitions[partition].replication_delay = by;
                self.after(time, Event::Lift(partition));
            }
            Fault::Compact { partition, names_guilty, time } => {
                self.partitions[partition].compacted = true;
                self.partitions[partition].names_guilty &= names_guilty;
                self.after(time, Event::Lift(partition));
            }
            Fault::LimitAge { partition, ms, time } => {
                self.partitions[partition].max_age_ms = ms;
                self.after(time, Event::Lift(partition));
            }
            Fault::FenceId { partition } => return self.fence_id(partition),
            Fault::DiskFails { broker, partition, time } => return self.disk_fails(broker, partition, time),
            Fault::GrowTopic { topic } => return self.topic_exists(topic) && self.grow(topic),
            Fault::DeleteTopic { topic } if self.topic_exists(topic) => {
                self.delete_topic(topic);
                return true;
            }
            Fault::CreateTopic { topic, partitions } if !self.topic_exists(topic) => {
                self.make_anew(topic, partitions);
                return true;
            }
            _ => {}
        }
        false
    }

    fn topic_exists(&self, topic: usize) -> bool {
        (0..PARTITIONS).any(|p| topic_of(p) == topic && self.partitions[p].truth.exists)
    }

    /// The disk under one replica fails: what waits there is answered 56, and another leads.
    fn disk_fails(&mut self, broker: usize, partition: usize, time: Micros) -> bool {
        let truth = self.partitions[partition].truth;
        if !self.brokers[broker].runs() || truth.isr_len() < 2 || !truth.exists {
            return false;
        }
        self.partitions[partition].replicas[broker].offline = true;
        self.end_waits(broker, partition, |_| Some(56));
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
        self.after(time, Event::DiskBack(broker, partition));
        true
    }

    pub(crate) fn disk_back(&mut self, broker: usize, partition: usize) {
        self.partitions[partition].replicas[broker].offline = false;
        self.fetch_soon(partition);
    }

    /// Lifts what lies on a partition.
    pub(crate) fn lift(&mut self, partition: usize) {
        let model = &mut self.partitions[partition];
        model.refused = None;
        model.compacted = false;
        model.max_age_ms = i64::MAX;
        model.max_bytes = usize::MAX;
        model.segment_bytes = usize::MAX;
        model.replication_delay = 0;
    }

    /// A schedule has three faults at least of which something has come: what is missing is made up for.
    pub(crate) fn heal_once_enough_was_felt(&mut self) {
        match self.make_up_for_faults() {
            true => self.after(SECOND, Event::Heal),
            false => self.heal(),
        }
    }

    /// Brokers pause, as many as there are faults missing. Returns whether any was.
    fn make_up_for_faults(&mut self) -> bool {
        let missing = ENOUGH_FAULTS.saturating_sub(self.history.faults.values().sum());
        let first = self.rng.index(BROKERS);
        let running = (0..BROKERS).map(|n| (first + n) % BROKERS).filter(|broker| self.brokers[*broker].runs());
        let struck: Vec<usize> = running.take(missing as usize).collect();
        for broker in &struck {
            let time = self.rng.range(50..900) * MS;
            self.strike(Fault::Pause { broker: *broker, time });
        }
        !struck.is_empty()
    }

    /// All faults are over: from here on everything has to come to an end, and to go well.
    pub(crate) fn heal(&mut self) {
        self.trace(|| "all faults are lifted".to_owned());
        self.healed = true;
        self.plan.rules.failing_ids = 0;
        for partition in 0..PARTITIONS {
            self.lift(partition);
            self.partitions[partition].forced.clear();
            for broker in 0..BROKERS {
                self.disk_back(broker, partition);
            }
        }
        for broker in 0..BROKERS {
            self.heal_broker(broker);
        }
        for topic in 0..crate::cluster::TOPICS {
            if !self.topic_exists(topic) {
                self.make_anew(topic, PARTITIONS_AT_FIRST);
            }
        }
    }

    fn heal_broker(&mut self, broker: usize) {
        let now = self.now;
        let state = &mut self.brokers[broker];
        state.answers_lost_until = 0;
        state.requests_stall_until = state.requests_stall_until.min(now);
        state.slow_until = 0;
        state.refuses_until = 0;
        state.distrusts_until = 0;
        state.throttles_until = 0;
        state.news_delay = 0;
        state.forgets_parts_until = 0;
        let (up, pauses) = (state.up, state.pauses);
        if up {
            self.resume(broker, pauses);
        } else {
            self.restart(broker);
        }
        for partition in 0..PARTITIONS {
            self.after(SECOND, Event::News(broker, partition));
        }
    }

    /// The brokers forget producers whose last batch is too old.
    pub(crate) fn check_ids(&mut self) {
        for partition in 0..PARTITIONS {
            (0..BROKERS).for_each(|broker| self.expire_ids(partition, broker));
        }
    }

    pub(crate) fn expire_ids(&mut self, partition: usize, broker: usize) {
        let Some(expiration) = self.plan.rules.id_expiration_ms else { return };
        let oldest = self.clock_ms() - expiration;
        let model = &mut self.partitions[partition];
        let aged = model.replicas[broker].producers.expire(oldest, STARTED_MS);
        model.expiries += u32::from(aged);
    }

    /// A broker may check right after it has appended a batch that is too old.
    pub(crate) fn check_ids_after(&mut self, max_timestamp: i64) {
        let Some(expiration) = self.plan.rules.id_expiration_ms else { return };
        if max_timestamp <= self.clock_ms() - expiration && self.rng.percent(50) {
            let wait = self.rng.range(0..5 * MS);
            self.after(wait, Event::CheckIds { again: false });
        }
    }
}

//! What goes wrong, and how it is lifted again.
//!
//! Rule: a fault changes the model cluster only; the sender learns of it as a real one would.

use crate::cluster::{BROKERS, Forced, MS, Micros, PARTITIONS, SECOND, topic_of};
use crate::world::{Event, STARTED_MS, World};

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
    /// The topic is deleted.
    DeleteTopic {
        topic: usize,
    },
    /// And made anew.
    CreateTopic {
        topic: usize,
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
            Self::DeleteTopic { .. } => "topic_deleted",
            Self::CreateTopic { .. } => "topic_made_anew",
        }
    }
}

impl World {
    pub(crate) fn strike(&mut self, fault: Fault) {
        if self.healed {
            return;
        }
        self.trace(|| format!("FAULT {fault:?}"));
        *self.history.faults.entry(fault.name()).or_default() += 1;
        let now = self.now;
        match fault {
            Fault::Kill { broker, down } => self.stop(broker, false, down),
            Fault::CleanRestart { broker, down } => self.stop(broker, true, down),
            Fault::Pause { broker, time } => self.pause(broker, time),
            Fault::Elect { partition, to } => self.elect(partition, to),
            Fault::CutConnections { broker } => self.links_of(broker).into_iter().for_each(|conn| self.cut(conn)),
            Fault::LoseAnswers { broker, time } => self.brokers[broker].answers_lost_until = now + time,
            Fault::StallRequests { broker, time } => self.brokers[broker].requests_stall_until = now + time,
            Fault::Slow { broker, time, by } => {
                self.brokers[broker].slow_until = now + time;
                self.brokers[broker].slowness = by;
            }
            Fault::RefuseConnections { broker, time } => self.brokers[broker].refuses_until = now + time,
            Fault::Throttle { broker, time } => self.brokers[broker].throttles_until = now + time,
            Fault::LateNews { broker, by } => self.brokers[broker].news_delay = by,
            Fault::LeaveOutParts { broker, time } => self.brokers[broker].forgets_parts_until = now + time,
            on_a_partition => self.strike_partition(on_a_partition),
        }
    }

    fn strike_partition(&mut self, fault: Fault) {
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
            Fault::DiskFails { broker, partition, time } => self.disk_fails(broker, partition, time),
            Fault::DeleteTopic { topic } if self.topic_exists(topic) => self.make_anew(topic, true),
            Fault::CreateTopic { topic } if !self.topic_exists(topic) => self.make_anew(topic, false),
            _ => {}
        }
    }

    fn topic_exists(&self, topic: usize) -> bool {
        (0..PARTITIONS).any(|p| topic_of(p) == topic && self.partitions[p].truth.exists)
    }

    /// The disk under one replica fails: what waits there is answered 56, and another leads.
    fn disk_fails(&mut self, broker: usize, partition: usize, time: Micros) {
        let truth = self.partitions[partition].truth;
        if !self.brokers[broker].runs() || truth.isr_len() < 2 || !truth.exists {
            return;
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
        model.max_bytes = usize::MAX;
        model.segment_bytes = usize::MAX;
        model.replication_delay = 0;
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
                self.make_anew(topic, false);
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
        state.throttles_until = 0;
        state.news_delay = 0;
        state.forgets_parts_until = 0;
        let (up, pauses) = (state.up, state.pauses);
        if up {
            self.resume(broker, pauses);
        } else {
            self.restart(broker, false);
        }
        for partition in 0..PARTITIONS {
            self.after(SECOND, Event::News(broker, partition));
        }
    }

    /// The brokers forget producers whose newest record is too old.
    pub(crate) fn forget_old(&mut self) {
        let Some(expiration) = self.plan.rules.id_expiration_ms else { return };
        let oldest = STARTED_MS + (self.now / MS) as i64 - expiration;
        for model in &mut self.partitions {
            let mut aged = false;
            for replica in &mut model.replicas {
                aged |= replica.producers.expire(oldest, STARTED_MS);
            }
            model.forgets += u32::from(aged);
        }
        if !self.healed || self.sender.unsettled() > 0 {
            self.after(2 * SECOND, Event::ForgetOld);
        }
    }
}

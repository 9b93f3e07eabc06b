//! Lives: processes that end at any moment and are followed by others, and the durable log that they share.
//!
//! Rules:
//! - A batch reaches the sender once the log has it. The log writes in order, and a death loses what it has not written.
//! - The log has what a spool has: batches, marks, records that are out, moves of stamps, and leader epochs. The stamps of an earlier life
//!   follow from it alone.
//! - Every sent record is in the log, under the stamp that follows from the log. So is the epoch of its leader.
//! - The log gives a partition another topic number now and then. The sender gets the batches of a number once all of the
//!   former number are settled.
//! - Written requests of a dead process may still arrive. Nothing else of it remains.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use kafka_courier_client::ProducePart;
use kafka_courier_idempotent_sender::core::{
    ConnId, Counters, InheritedStamp, LeaderMove, Sender, Settlement, StampMove, StoredBatch, Submission, Verdict,
    is_old,
};

use crate::cluster::{MS, Micros, PARTITIONS, TOPICS, topic_name};
use crate::history::numbers_in;
use crate::known_leaders::KnownLeaders;
use crate::plan::Reading;
use crate::sending::Pace;
use crate::stored_log::{LoggedSubmission, StampRun, StoredPartition};
use crate::world::{World, core_partition, model_partition};

/// Ids of the senders are this far apart.
const IDS_PER_LIFE: u64 = 1 << 32;
/// The time after which a publisher that found no process tries again.
const PUBLISHER_INTERVAL: Micros = 10 * MS;

/// How the last life ends, and when the next one begins.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LifeEnd {
    pub(crate) at: Micros,
    /// The time until the next process starts.
    pub(crate) down: Micros,
    /// The process closes, and the log writes everything that it was given.
    pub(crate) is_orderly: bool,
}

/// A write to the log.
#[derive(Debug)]
enum LogWrite {
    Batch(usize, Box<Submission<usize>>, LoggedSubmission),
    Mark(usize, u64, Option<i64>),
    /// Failed records.
    Out(usize, Vec<u64>),
    /// The stamps, and the settled records behind the mark.
    Move(usize, StampMove, BTreeSet<u64>),
    /// A leader epoch, for a number of the topic.
    Leader(usize, u32, LeaderMove),
}

/// The lives of a schedule.
#[derive(Debug, Default)]
pub(crate) struct Lives {
    pub(crate) life: u64,
    pub(crate) partitions: [StoredPartition; PARTITIONS],
    writes: VecDeque<LogWrite>,
    /// The time at which the last write ends.
    busy_until: Micros,
    /// The ordinals of all records that the log has or is given.
    ordinals: BTreeMap<u32, u64>,
    /// The records that the log has.
    durable: BTreeSet<u32>,
    /// Old records of earlier lives, with a stamp.
    old_inherited: BTreeSet<u32>,
    /// The same of all lives.
    ever_old: BTreeSet<u32>,
    /// The plan's batches that wait for a process, each with the time at which it found none.
    waiting: Vec<(Micros, usize)>,
    /// The batches of earlier lives are submitted.
    is_resumed: bool,
    is_down: bool,
    pub(crate) deaths: u64,
    pub(crate) inherited: u64,
    /// Records that were sent with new timestamps.
    pub(crate) renewed: u64,
    pub(crate) counters: Counters,
}

impl Lives {
    pub(crate) fn is_settled(&self) -> bool {
        self.is_resumed && self.writes.is_empty() && self.partitions.iter().all(|stored| stored.held.is_empty())
    }

    /// Returns whether the record was old when a later life sent it.
    pub(crate) fn was_old(&self, number: u32) -> bool {
        self.ever_old.contains(&number)
    }

    /// Returns whether the log has the record. Otherwise the record was never accepted.
    pub(crate) fn has(&self, number: u32) -> bool {
        self.durable.contains(&number)
    }
}

impl World {
    /// Gives a batch to the log.
    pub(crate) fn store(&mut self, submission: Submission<usize>) -> Result<(), String> {
        let numbers = numbers_in(submission.batch.as_bytes())?;
        let partition = model_partition(submission.partition);
        let published_at = self.micros(submission.published_at);
        let is_renumbered = self.plan.renumbers && self.rng.percent(4);
        let Some(lives) = &mut self.lives else { return Err("no log".to_owned()) };
        let stored = &mut lives.partitions[partition];
        let number = *numbers.first().ok_or("an empty batch")?;
        stored.accepting += u32::from(is_renumbered);
        let logged = LoggedSubmission {
            first: stored.next,
            topic: stored.accepting,
            life: lives.life,
            number,
            published_at,
            is_aged: submission.aged,
            batch: submission.batch.clone(),
        };
        for (ordinal, number) in (stored.next..).zip(&numbers) {
            lives.ordinals.insert(*number, ordinal);
        }
        stored.next += numbers.len() as u64;
        self.write_log(LogWrite::Batch(partition, Box::new(submission), logged));
        Ok(())
    }

    fn write_log(&mut self, write: LogWrite) {
        let wait = self.rng.pick(&[100, 800, 3_000, 20_000]);
        let took = self.rng.range(1..wait);
        let Some(lives) = &mut self.lives else { return };
        lives.busy_until = lives.busy_until.max(self.now) + took;
        lives.writes.push_back(write);
        let (at, life) = (lives.busy_until, lives.life);
        self.schedule_at(at, crate::world::Event::LogWritten(life));
    }

    /// Handles the end of the log's first write.
    pub(crate) fn log_written(&mut self, life: u64) -> Result<(), String> {
        let Some(lives) = self.lives.as_mut().filter(|lives| lives.life == life && !lives.is_down) else {
            return Ok(());
        };
        let Some(write) = lives.writes.pop_front() else { return Ok(()) };
        self.apply_write(write)
    }

    fn apply_write(&mut self, write: LogWrite) -> Result<(), String> {
        let now = self.instant();
        let Some(lives) = &mut self.lives else { return Ok(()) };
        match write {
            LogWrite::Batch(partition, submission, logged) => {
                let stored = &mut lives.partitions[partition];
                let LoggedSubmission { first, topic, life, .. } = logged;
                let place = StoredBatch { first, topic, life, inherited: None };
                if !stored.begins.values().any(|life| *life == logged.life) {
                    stored.begins.insert(logged.first, logged.life);
                }
                if stored.batches.last().is_some_and(|last| last.topic != topic) {
                    stored.numbers.insert(first);
                }
                lives.durable.extend(logged.number..logged.number + logged.batch.record_count());
                stored.batches.push(logged);
                stored.held.push_back(Submission { stored: Some(Box::new(place)), ..*submission });
                self.send_held(partition)?;
            }
            LogWrite::Mark(partition, mark, end_offset) => {
                let stored = &mut lives.partitions[partition];
                stored.settle(mark);
                stored.end_offset = stored.end_offset.max(end_offset);
            }
            LogWrite::Out(partition, ordinals) => {
                let stored = &mut lives.partitions[partition];
                stored.done.extend(&ordinals);
                stored.known.extend(&ordinals);
                self.advance_mark(partition)?;
            }
            LogWrite::Move(partition, stamps, done) => {
                let stored = &mut lives.partitions[partition];
                stored.runs.split_off(&stamps.from);
                stored.done.extend(&done);
                let skips = stored.done.range(stamps.from..).copied().collect();
                stored.runs.insert(stamps.from, StampRun { stamp: stamps.stamp, skips, has_out: false });
                stored.note_leader(stored.sending, stamps.leader_epoch);
                self.sender.on_persisted(now, stamps.partition, stamps.id);
            }
            LogWrite::Leader(partition, number, leader) => {
                lives.partitions[partition].note_leader(number, Some(leader.leader_epoch));
                self.sender.on_persisted(now, leader.partition, leader.id);
            }
        }
        Ok(())
    }

    /// Writes a mark if the settled records have become more.
    fn advance_mark(&mut self, partition: usize) -> Result<(), String> {
        let Some(lives) = &mut self.lives else { return Ok(()) };
        let stored = &mut lives.partitions[partition];
        let before = stored.known_mark;
        while stored.known.remove(&stored.known_mark) {
            stored.known_mark += 1;
        }
        let (mark, end_offset) = (stored.known_mark, stored.known_end);
        if mark > before {
            self.write_log(LogWrite::Mark(partition, mark, end_offset));
            self.send_held(partition)?;
        }
        Ok(())
    }

    /// Makes stamps durable.
    pub(crate) fn persist(&mut self, stamps: StampMove) -> Result<(), String> {
        self.trace(|| format!("persist {stamps:?}"));
        let partition = model_partition(stamps.partition);
        let lives = self.lives.as_ref().ok_or("stamps are persisted for batches that are not stored")?;
        let done = lives.partitions[partition].known.range(stamps.from..).copied().collect();
        self.write_log(LogWrite::Move(partition, stamps, done));
        Ok(())
    }

    /// Makes a leader epoch durable.
    pub(crate) fn persist_leader(&mut self, leader: LeaderMove) -> Result<(), String> {
        let partition = model_partition(leader.partition);
        let lives = self.lives.as_ref().ok_or("a leader epoch is persisted for batches that are not stored")?;
        let number = lives.partitions[partition].sending;
        self.write_log(LogWrite::Leader(partition, number, leader));
        Ok(())
    }

    /// Notes a verdict.
    pub(crate) fn note_stored(&mut self, settlement: &Settlement<usize>, numbers: &[u32]) -> Result<(), String> {
        let partition = model_partition(settlement.partition);
        let Some(lives) = &mut self.lives else { return Ok(()) };
        let ordinals: Vec<u64> = numbers.iter().filter_map(|number| lives.ordinals.get(number).copied()).collect();
        let stored = &mut lives.partitions[partition];
        stored.with_sender = stored.with_sender.saturating_sub(numbers.len() as u64);
        match &settlement.verdict {
            Verdict::Delivered { base_offset, .. } => {
                let stored = &mut lives.partitions[partition];
                stored.known.extend(&ordinals);
                let end = base_offset.map(|base| base + numbers.len() as i64);
                stored.known_end = stored.known_end.max(end);
                self.advance_mark(partition)?;
            }
            Verdict::Failed(_) => self.write_log(LogWrite::Out(partition, ordinals)),
            Verdict::Stored => return Ok(()),
        }
        self.send_held(partition)
    }

    /// Checks that sent records are in the log, under their stamps.
    pub(crate) fn check_stored(&self, part: &ProducePart) -> Result<(), String> {
        let Some(lives) = &self.lives else { return Ok(()) };
        let partition = model_partition(part.partition);
        let stored = &lives.partitions[partition];
        let leader_epoch = self.sender.leader_epoch(part.partition);
        if leader_epoch > stored.leader_epochs.get(&stored.sending).copied() {
            return Err(format!(
                "p{partition}: a batch is sent to a leader whose epoch {leader_epoch:?} is not durable"
            ));
        }
        let stamp = part.batch.current_stamp().ok_or("a batch without a stamp")?;
        for (n, number) in (0_u32..).zip(numbers_in(part.batch.as_bytes())?) {
            let ordinal = lives.ordinals.get(&number).filter(|_| lives.has(number));
            let Some(ordinal) = ordinal else { return Err(format!("record {number} is sent before it is stored")) };
            let (expected, sent) = (stored.stamp_of(*ordinal), stamp.advance(n));
            if self.plan.rules.reading == Reading::Forbidden && lives.old_inherited.contains(&number) {
                return Err(format!("old record {number} of an earlier life is sent without its leader's state"));
            }
            if expected != Some(sent) {
                return Err(format!(
                    "p{partition}: record {number} ({ordinal}) is sent as {sent:?}, but the log says {expected:?}"
                ));
            }
        }
        Ok(())
    }

    /// Ends the process.
    pub(crate) fn end_life(&mut self, end: LifeEnd) -> Result<(), String> {
        if self.lives.as_ref().is_none_or(|lives| lives.is_down) {
            return Ok(());
        }
        self.trace(|| format!("the process ends: {end:?}"));
        if end.is_orderly {
            self.sender.fail_all(self.instant(), &kafka_courier_client::Reason::Closed);
            self.perform_actions()?;
        }
        let open: Vec<ConnId> = self.links.iter().filter(|(_, link)| link.client_open).map(|(conn, _)| *conn).collect();
        open.into_iter().for_each(|conn| self.disconnect(conn));
        self.forget_client_events();
        self.unsubmitted = 0;
        while end.is_orderly
            && let Some(write) = self.lives.as_mut().and_then(|lives| lives.writes.pop_front())
        {
            if matches!(write, LogWrite::Batch(..)) {
                continue; // its publisher was told that it is not accepted
            }
            self.apply_write(write)?;
        }
        let Some(lives) = &mut self.lives else { return Ok(()) };
        lives.is_down = true;
        lives.is_resumed = false;
        lives.deaths += 1;
        lives.writes.clear();
        let counters = self.sender.counters();
        lives.counters.resumed += counters.resumed;
        lives.counters.searches += counters.searches;
        lives.counters.found_in_log += counters.found_in_log;
        lives.counters.acknowledged_lost += counters.acknowledged_lost;
        lives.counters.splits += counters.splits;
        self.replace_sender()?;
        self.schedule_after(end.down, crate::world::Event::StartLife);
        Ok(())
    }

    /// Replaces the sender by one that knows nothing, and that does nothing yet.
    fn replace_sender(&mut self) -> Result<(), String> {
        let Some(lives) = &self.lives else { return Ok(()) };
        let config = kafka_courier_idempotent_sender::core::Config {
            seed: self.plan.seed.wrapping_add(lives.life + 1),
            ..self.plan.config.clone()
        };
        self.sender = Sender::new(config).map_err(|problems| format!("{problems:?}"))?;
        self.sender.start_ids_at((lives.life + 1) * IDS_PER_LIFE);
        let history = &mut self.history;
        history.in_flight.clear();
        history.known_leaders = std::array::from_fn(|_| KnownLeaders::default());
        history.looks = Default::default();
        history.pace = Pace::default();
        history.throttled_until = Default::default();
        history.denials = Default::default();
        history.last_answered = Default::default();
        (history.metadata_refused_at, history.producer_id_refused_at) = (None, None);
        self.brokers.iter_mut().for_each(|broker| broker.credentials_refused_at = None);
        self.partition_counts = [(0, 0, 0); TOPICS];
        Ok(())
    }

    /// Starts the next process.
    pub(crate) fn start_life(&mut self) {
        let now = self.instant();
        let Some(lives) = &mut self.lives else { return };
        lives.life += 1;
        let life = lives.life;
        (lives.is_down, lives.busy_until) = (false, 0);
        lives.old_inherited.clear();
        lives.partitions.iter_mut().for_each(StoredPartition::reopen);
        let durable = &lives.durable;
        lives.ordinals.retain(|number, _| durable.contains(number));
        self.forget_volatile_verdicts();
        self.start_clock(life);
        for topic in 0..TOPICS {
            self.sender.want_topic(now, topic_name(topic));
        }
    }

    /// Keeps a batch of the plan until a process takes batches. Returns whether none does now.
    pub(crate) fn wait_for_life(&mut self, index: usize) -> bool {
        let now = self.now;
        let Some(lives) = self.lives.as_mut().filter(|lives| lives.is_down || !lives.is_resumed) else { return false };
        lives.waiting.push((now, index));
        true
    }

    /// Schedules the batches that wait. Their publishers try again in regular intervals.
    fn schedule_waiting(&mut self) {
        let Some(lives) = &mut self.lives else { return };
        let mut waiting = std::mem::take(&mut lives.waiting);
        // Of two publishers with the same interval, the later one tries first.
        waiting.sort_by_key(|(since, _)| std::cmp::Reverse(*since));
        for (since, index) in waiting {
            let tries = (self.now - since) / PUBLISHER_INTERVAL + 1;
            self.schedule_at(since + tries * PUBLISHER_INTERVAL, crate::world::Event::Submit(index));
        }
    }

    fn forget_volatile_verdicts(&mut self) {
        let Some(lives) = &self.lives else { return };
        for (number, ordinal) in &lives.ordinals {
            let record = &mut self.history.records[*number as usize];
            record.note_new_life();
            if !lives.partitions[record.partition].is_settled(*ordinal) {
                (record.verdict, record.corrected, record.acknowledged) = (None, None, None);
            }
        }
    }

    /// Submits the unsettled batches of earlier lives, in order.
    pub(crate) fn resume_life(&mut self) -> Result<(), String> {
        let Some(lives) = self.lives.as_mut().filter(|lives| !lives.is_resumed) else { return Ok(()) };
        lives.is_resumed = true;
        for partition in 0..PARTITIONS {
            // The last records that were settled may be behind the mark.
            self.advance_mark(partition)?;
            let Some(lives) = &self.lives else { return Ok(()) };
            let batches = lives.partitions[partition].batches.clone();
            for logged in &batches {
                for part in self.unsettled_parts(partition, logged)? {
                    self.resubmit(partition, logged, part)?;
                }
            }
        }
        self.schedule_waiting();
        Ok(())
    }

    /// Returns the unsettled records of a batch, in parts without gaps and of one run of stamps.
    fn unsettled_parts(
        &self,
        partition: usize,
        logged: &LoggedSubmission,
    ) -> Result<Vec<std::ops::Range<u32>>, String> {
        let Some(lives) = &self.lives else { return Ok(Vec::new()) };
        let stored = &lives.partitions[partition];
        let mut parts: Vec<std::ops::Range<u32>> = Vec::new();
        let run = |index: u32| stored.run_of(logged.first + u64::from(index)).map(|(from, _)| from);
        for index in (0..logged.batch.record_count()).filter(|n| !stored.is_settled(logged.first + u64::from(*n))) {
            match parts.last_mut().filter(|part| part.end == index && run(part.start) == run(index)) {
                Some(part) => part.end += 1,
                None => parts.push(index..index + 1),
            }
        }
        Ok(parts)
    }

    fn resubmit(
        &mut self,
        partition: usize,
        logged: &LoggedSubmission,
        part: std::ops::Range<u32>,
    ) -> Result<(), String> {
        let count = logged.batch.record_count();
        let others: Vec<u32> = (0..count).filter(|index| !part.contains(index)).collect();
        let batch = logged.batch.without(&others).map_err(|error| error.to_string())?.ok_or("an empty part")?;
        let token =
            self.history.add_batch(logged.number + part.start, part.end - part.start, self.now, batch.capacity());
        // The age is known by timestamps and the wall clock alone.
        let (wall_clock, timestamp) = (self.machine_clock_ms(), batch.max_timestamp());
        let age_ms = u64::try_from(wall_clock - timestamp).unwrap_or(0);
        let published_at = self.instant().checked_sub(std::time::Duration::from_millis(age_ms));
        let published_at = published_at.unwrap_or_else(|| self.instant());
        let aged = is_old(timestamp, wall_clock, self.plan.config.id_memory);
        let Some(lives) = &mut self.lives else { return Ok(()) };
        let stored = &mut lives.partitions[partition];
        let first = logged.first + u64::from(part.start);
        // The offsets of another number are those of another topic.
        let search_from = stored.end_offset.filter(|_| stored.mark > stored.number_begin(first));
        let inherited = stored.stamp_of(first).zip(stored.run_of(first)).map(|(stamp, (from, _))| InheritedStamp {
            stamp,
            search_from,
            is_acknowledged: stored.is_acknowledged(from),
            follows_unknown: stored.has_out_before(first, from),
            leader_epoch: stored.leader_epochs.get(&logged.topic).copied(),
        });
        let old_after = self.plan.config.id_memory.as_micros() as Micros;
        let is_aged = logged.is_aged || self.now - logged.published_at >= old_after;
        if is_aged && inherited.is_some() {
            lives.old_inherited.extend(logged.number + part.start..logged.number + part.end);
            lives.ever_old.extend(logged.number + part.start..logged.number + part.end);
        }
        lives.inherited += u64::from(inherited.is_some());
        let LoggedSubmission { topic, life, .. } = *logged;
        stored.held.push_back(Submission {
            partition: core_partition(partition),
            token,
            ordinal: 0,
            published_at,
            batch,
            aged,
            stored: Some(Box::new(StoredBatch { first, topic, life, inherited })),
        });
        self.send_held(partition)
    }

    /// Checks at the end that no record is in a log that the durable log never had.
    pub(crate) fn check_never_stored(&self, number: u32, is_written: bool) -> Result<bool, String> {
        match &self.lives {
            Some(lives) if !lives.has(number) => match is_written {
                true => Err(format!("record {number} was never stored, and is in the log")),
                false => Ok(true),
            },
            _ => Ok(false),
        }
    }
}

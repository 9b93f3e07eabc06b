//! The checker compares every verdict with the logs at the end of a schedule.
//!
//! Rules:
//! - A delivered record is in the log exactly once, at its verdict's offset. A record that is not written is in no log.
//!   An unknown record is in the log at most once. A corrected record is at the correction's offset.
//! - The records of a log are in the order of their publication.
//! - An acknowledgement that reaches the sender corrects an `unknown` verdict, with its offset.
//! - A later check finds an unknown record in the log under the stamp, topic id and offset of its failure.
//! - A record is rejected only if the answer named the record, or no record of its batch.
//! - A delivery has the leader's append time if and only if the topic has LogAppendTime.
//! - The design excuses the following cases only, and never a delivery at an offset:
//!   - The leader forgot the producer id between a record's publication and its append. The cause is an unclean
//!     election, or old records while an attempt of this record was in doubt. The second cause requires that no old
//!     records were sent after this record before its verdict.
//!   - A recreated topic is written by name, and the sender did not know that incarnation when it sent the stamp.
//!   - An unclean election has truncated the log without the sender's knowledge. A record in doubt may then precede the
//!     offset at which its check begins.
//! - Records that an unclean election has lost count as lost.

use std::collections::{BTreeMap, BTreeSet};

use kafka_courier_batcher::Sequence;

use crate::cluster::{PARTITIONS, SECOND, TOPICS, topic_of};
use crate::history::RecordVerdict;
use crate::lives::Lives;
use crate::log::{FOREIGN, LogEntry};
use crate::record::RecordHistory;
use crate::world::World;

/// Batches, each with the topic's incarnation at its append.
type LogEntries = Vec<(u32, LogEntry)>;

/// A record in a log.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Occurrence {
    incarnation: u32,
    offset: i64,
    forgets: u32,
    expiries: u32,
    purges: u32,
    /// The topic's incarnation that the sender knew when it first sent this stamp.
    sent_in: Option<u32>,
    /// An unclean election has lost the record.
    lost: bool,
    /// The search key of the record's failure matches this occurrence.
    found: bool,
    /// The newest timestamp of the record's batch.
    time: i64,
}

impl World {
    /// Runs to the end: all records have verdicts, all requests have arrived or are lost, and the replicas agree.
    pub(crate) fn finish(&mut self) -> Result<(), String> {
        let heal_at = self.plan.heal_at;
        self.run_until(heal_at)?;
        let end = heal_at.max(self.plan.batches.last().map_or(0, |batch| batch.at));
        self.run_until(end)?;
        let patience = self.plan.config.delivery_timeout.as_micros() as u64 + 30 * SECOND;
        let until = self.now + patience;
        let until = if self.lives.is_some() { until + 900 * SECOND } else { until };
        if !self.run_while(until, |world| world.is_working())? {
            return Err(format!("{} records have no verdict after delivery_timeout", self.sender.unsettled()));
        }
        self.run_for(60 * SECOND)
    }

    /// Checks at the end that one more batch for each partition is delivered. If the sender does not know the present
    /// incarnation of a topic, the first such batch may fail and reveal it.
    pub(crate) fn probe(&mut self) -> Result<(), String> {
        let unseen: [bool; TOPICS] = std::array::from_fn(|topic| {
            let of_topic = self.partitions.iter().enumerate().filter(|(p, _)| topic_of(*p) == topic);
            let newest = of_topic.map(|(_, model)| model.truth.incarnation).max();
            newest.is_none_or(|incarnation| !self.history.known_topics[topic].knows(incarnation))
        });
        self.probe_once(unseen)?;
        if unseen.contains(&true) { self.probe_once([false; TOPICS]) } else { Ok(()) }
    }

    fn probe_once(&mut self, excused: [bool; TOPICS]) -> Result<(), String> {
        let first = self.history.records.len();
        for partition in 0..PARTITIONS {
            self.submit(&crate::plan::BatchPlan::of(partition, 2))?;
        }
        let until = self.now + self.plan.config.delivery_timeout.as_micros() as u64 + SECOND;
        self.run_while(until, |world| world.is_working())?;
        self.run_for(5 * SECOND)?;
        for (number, record) in self.history.records.iter().enumerate().skip(first) {
            let failed = !matches!(record.verdict, Some(RecordVerdict::Delivered(_)));
            if failed && !excused[topic_of(record.partition)] {
                return Err(format!("the cluster is healthy, but record {number} is {:?}", record.verdict));
            }
        }
        Ok(())
    }

    fn is_working(&self) -> bool {
        let waits = self.lives.as_ref().is_some_and(|lives| !lives.is_settled());
        self.sender.unsettled() > 0 || self.unsubmitted > 0 || !self.submitting || waits
    }

    pub(crate) fn check(&self) -> Result<(), String> {
        if self.lives.is_none() {
            self.history.check_charges()?;
        }
        (0..PARTITIONS).try_for_each(|partition| self.check_partition(partition))
    }

    fn check_partition(&self, partition: usize) -> Result<(), String> {
        let (entries, lost) = self.final_entries(partition)?;
        let mut occurrences: BTreeMap<u32, Vec<Occurrence>> = BTreeMap::new();
        let all = entries.iter().map(|entry| (entry, false)).chain(lost.iter().map(|entry| (entry, true)));
        for ((incarnation, entry), lost) in all {
            for (index, number) in (0..).zip(entry.records.iter()).filter(|(_, number)| **number != FOREIGN) {
                occurrences.entry(*number).or_default().push(self.occurrence(
                    partition,
                    *incarnation,
                    entry,
                    index,
                    lost,
                ));
            }
        }
        self.check_order(partition, &entries)?;
        for (number, record) in self.history.records.iter().enumerate().filter(|(_, r)| r.partition == partition) {
            let found = occurrences.remove(&(number as u32)).unwrap_or_default();
            if self.check_never_stored(number as u32, !found.is_empty())? {
                continue;
            }
            let verdict = record.verdict.ok_or_else(|| format!("record {number} has no verdict"))?;
            self.check_record(number, verdict, &found).map_err(|why| {
                format!("p{partition} record {number} {verdict:?} {:?}: {why} {found:?}", record.corrected)
            })?;
        }
        match occurrences.first_key_value() {
            Some((number, _)) => Err(format!("p{partition} contains record {number}, which was never submitted")),
            None => Ok(()),
        }
    }

    /// Returns the entry's record at this index.
    fn occurrence(&self, partition: usize, incarnation: u32, entry: &LogEntry, index: u32, lost: bool) -> Occurrence {
        let sequence = Sequence::wrapping(entry.first).advance(index).number();
        let first_use = self.history.first_use(partition, entry.producer_id, entry.epoch, sequence);
        let offset = entry.base_offset + i64::from(index);
        let number = entry.records[index as usize];
        let search = self.history.records.get(number as usize).and_then(|record| record.search);
        let is_cut = !self.partitions[partition].lost.is_empty();
        Occurrence {
            incarnation,
            offset,
            forgets: entry.forgets,
            expiries: entry.expiries,
            purges: entry.purges,
            sent_in: first_use.map(|first_use| first_use.incarnation),
            lost,
            found: search.is_none_or(|search| search.finds((partition, incarnation), entry, index, is_cut)),
            time: entry.max_timestamp,
        }
    }

    /// Returns every batch that is permanently in the partition, by incarnation and offset, and every batch that
    /// unclean elections have lost. Permanent batches are in the leader's log, or were committed in a former
    /// incarnation. Returns an error if the model has lost any other committed batch.
    fn final_entries(&self, partition: usize) -> Result<(LogEntries, LogEntries), String> {
        let model = &self.partitions[partition];
        let now = model.truth.incarnation;
        let log = &model.replicas[model.truth.leader.unwrap_or(0)].log;
        let mut seen: BTreeSet<u64> = log.iter().map(|entry| entry.append).collect();
        let (mut entries, mut lost) = (LogEntries::new(), LogEntries::new());
        for (incarnation, entry) in &model.committed {
            if seen.insert(entry.append) {
                if model.lost.contains(&entry.append) {
                    lost.push((*incarnation, entry.clone()));
                    continue;
                }
                if *incarnation == now {
                    return Err(format!("the model's p{partition} has lost the committed {entry:?}"));
                }
                entries.push((*incarnation, entry.clone()));
            }
        }
        entries.sort_by_key(|(incarnation, entry)| (*incarnation, entry.base_offset));
        entries.extend(log.iter().map(|entry| (now, entry.clone())));
        Ok((entries, lost))
    }

    /// Returns whether the leader forgot an id between the record's publication and this append, or the topic was
    /// recreated without the sender's knowledge.
    fn is_excused(&self, number: u32, occurrence: &Occurrence) -> bool {
        let record = &self.history.records[number as usize];
        let forgotten = occurrence.forgets > record.forgets;
        let expired = occurrence.expiries > record.expiries && record.in_doubt && !record.followed_by_old;
        // A stored batch is sent again only if its leader surely remembers the id. A leader that has forgotten the id takes a
        // request that arrives late.
        let is_late = self.plan.rules.late_arrival_percent > 0;
        let is_old = |lives: &Lives| record.aged || lives.was_old(number);
        let expired = expired && (is_late || self.lives.as_ref().is_none_or(is_old));
        // A record with a new timestamp is remembered for longer than any request is on its way.
        let is_renewed = self.plan.config.renews_timestamps && !self.plan.starts_with_wrong_clock;
        let expired = expired && (!is_renewed || record.aged || self.is_delayed(number));
        // A leader that starts with no record has forgotten the id. It appends the repeat of a batch whose answer was lost.
        let purged = occurrence.purges > record.purges && record.in_doubt;
        forgotten || expired || purged || self.is_other_incarnation(occurrence.sent_in, occurrence.incarnation)
    }

    /// Returns whether a request with the record was on its way for half of the time that a leader surely remembers an id.
    fn is_delayed(&self, number: u32) -> bool {
        let half = self.plan.config.id_memory.as_micros() as u64 / 2;
        self.delays.get(&number).is_some_and(|delay| *delay >= half)
    }

    /// Returns whether a record that was sent by topic name was meant for another incarnation than this one.
    fn is_other_incarnation(&self, sent_in: Option<u32>, incarnation: u32) -> bool {
        !self.plan.rules.by_id && sent_in.is_some_and(|sent_in| sent_in < incarnation)
    }

    /// Returns whether the record failed as unknown after a process ended. Nothing fences a request of that process, so it
    /// may arrive at any time.
    fn is_unknown_of_a_life(&self, number: u32) -> bool {
        let verdict = self.history.records[number as usize].verdict;
        self.lives.is_some() && matches!(verdict, Some(RecordVerdict::Unknown(_)))
    }

    fn check_order(&self, partition: usize, entries: &[(u32, LogEntry)]) -> Result<(), String> {
        let mut last: Option<(u32, Occurrence)> = None;
        for (incarnation, entry) in entries {
            for (index, number) in (0..).zip(entry.records.iter()).filter(|(_, number)| **number != FOREIGN) {
                let here = self.occurrence(partition, *incarnation, entry, index, false);
                if self.is_excused(*number, &here) || self.is_unknown_of_a_life(*number) {
                    continue;
                }
                if let Some((before, there)) =
                    last.filter(|(before, there)| there.incarnation == here.incarnation && before >= number)
                {
                    return Err(format!(
                        "p{partition}: record {number} follows {before} in the log: {there:?} {here:?}"
                    ));
                }
                last = Some((*number, here));
            }
        }
        Ok(())
    }

    fn check_record(&self, number: usize, verdict: RecordVerdict, found: &[Occurrence]) -> Result<(), String> {
        let record = &self.history.records[number];
        let number = number as u32;
        let there = || found.iter().filter(|occurrence| !occurrence.lost);
        if there().filter(|occurrence| !self.is_excused(number, occurrence)).count() > 1 {
            return Err("the record is in the log more than once:".into());
        }
        self.check_acknowledged(verdict, record)?;
        if there().any(|occurrence| !occurrence.found && !self.is_excused(number, occurrence)) {
            return Err(format!("the search key of its failure does not match: {:?}", record.search));
        }
        let expected_offset = match (verdict, record.corrected) {
            (RecordVerdict::Stored, _) => return Err("the record has no verdict:".into()),
            (RecordVerdict::Delivered(offset), _) | (RecordVerdict::Unknown(_), Some(offset)) => offset,
            (RecordVerdict::NotWritten(_), _) if there().any(|occurrence| !self.is_excused(number, occurrence)) => {
                return Err("but the record is in the log:".into());
            }
            (RecordVerdict::NotWritten(_) | RecordVerdict::Unknown(_), _) => return Ok(()),
        };
        if found.is_empty() {
            let model = &self.partitions[record.partition];
            // A later acceptance proves a delivery only if the leader knew the id, in the same incarnation.
            let (forgets, incarnation) = record.settled_in;
            let forgotten = forgets > record.forgets && !model.lost.is_empty();
            let excused = forgotten || self.is_other_incarnation(record.sent_in, incarnation);
            let inferred = expected_offset.is_none();
            return if inferred && excused { Ok(()) } else { Err("but the record is not in the log".into()) };
        }
        match expected_offset {
            Some(offset) if !found.iter().any(|occurrence| occurrence.offset == offset) => {
                Err("but the record is at another offset:".into())
            }
            Some(offset) if verdict == RecordVerdict::Delivered(Some(offset)) => self.check_time(record, offset, found),
            _ => Ok(()),
        }
    }

    /// Checks that an acknowledgement after an unknown verdict, or a later acceptance, has corrected the verdict.
    fn check_acknowledged(&self, verdict: RecordVerdict, record: &RecordHistory) -> Result<(), String> {
        match (verdict, record.acknowledged) {
            (RecordVerdict::Unknown(_), Some(offset)) if record.corrected.is_none() => {
                Err(format!("but the record was acknowledged at {offset}:"))
            }
            _ => Ok(()),
        }
    }

    fn check_time(&self, record: &RecordHistory, offset: i64, found: &[Occurrence]) -> Result<(), String> {
        let by_the_log = self.plan.rules.log_append_time;
        if self.plan.config.renews_timestamps {
            return Ok(()); // an attempt of a dead process may have had other timestamps
        }
        let is_true = match record.append_time {
            // The records may keep their timestamps if the time of the append equals the newest of them.
            None => !by_the_log || found.iter().any(|occurrence| occurrence.time == record.newest),
            Some(time) => {
                by_the_log && found.iter().any(|occurrence| occurrence.offset == offset && occurrence.time == time)
            }
        };
        if is_true { Ok(()) } else { Err(format!("but the append time {:?} is wrong", record.append_time)) }
    }

    /// Checks that every rejected record was named by the answer, or that the answer named no record of the batch.
    pub(crate) fn check_rejections(&self) -> Result<(), String> {
        for (number, record) in self.history.records.iter().enumerate() {
            let Some(RecordVerdict::NotWritten(Some(code))) = record.verdict else { continue };
            let mut rejections = record.answers.iter().filter(|answer| answer.0 == code).peekable();
            if rejections.peek().is_some() && !rejections.any(|answer| answer.1) {
                return Err(format!("record {number} was rejected, but the answer named other records"));
            }
        }
        Ok(())
    }
}

//! The judge: holds every verdict against what the logs say when all is over.
//!
//! Rules:
//! - Delivered: in the log exactly once, at the offset told. Not written: nowhere. Unknown: at most once.
//!   Corrected: there, at the offset told.
//! - What is in a log is in the order in which it was published.
//! - An acknowledgement that reaches the sender corrects an `unknown` verdict, with its offset.
//! - A later check finds what is unknown and in the log under the stamp, topic id and offset of its failure.
//! - A record is rejected for its own fault: it was named, or no record of its batch was.
//! - A delivery gives the leader's append time where the topic has LogAppendTime, and nowhere else.
//! - Excused is only what the design excuses. What was delivered at an offset has no excuse.
//!   - An id that was forgotten between a record's publication and its append: by an unclean election, or because of old
//!     records where an attempt of this one was in doubt, and no old records left behind it before it had its verdict.
//!   - A topic made anew that is written to by name, where the sender had not been told of that life when it sent that stamp.
//!   - A log that an unclean election has cut, where the sender may not have heard of that: a record in doubt may lie before
//!     the offset at which its check begins.
//! - What an unclean election has lost is lost.

use std::collections::{BTreeMap, BTreeSet};

use kafka_courier_batcher::sequence_add;

use crate::cluster::{PARTITIONS, SECOND, TOPICS, topic_of};
use crate::history::Told;
use crate::log::{Entry, FOREIGN};
use crate::record::RecordHistory;
use crate::world::World;

/// Batches, each with the topic's life in which it was appended.
type Entries = Vec<(u32, Entry)>;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Landing {
    incarnation: u32,
    offset: i64,
    forgets: u32,
    expiries: u32,
    /// The life of the topic of which the sender had been told when it first sent this stamp.
    sent_in: Option<u32>,
    /// An unclean election has lost it.
    lost: bool,
    /// The search of its failure finds it here.
    found: bool,
    /// Its batch's newest time.
    time: i64,
}

impl World {
    /// Runs to the end: everything settles, everything sent arrives or is lost, the replicas agree.
    pub(crate) fn finish(&mut self) -> Result<(), String> {
        let heal_at = self.plan.heal_at;
        self.run_until(heal_at)?;
        let end = heal_at.max(self.plan.batches.last().map_or(0, |batch| batch.at));
        self.run_until(end)?;
        let patience = self.plan.config.delivery_timeout.as_micros() as u64 + 30 * SECOND;
        let until = self.now + patience;
        if !self.run_while(until, |world| world.sender.unsettled() > 0 || world.held > 0 || !world.submitting)? {
            return Err(format!("{} records have no verdict, and never will", self.sender.unsettled()));
        }
        self.run_for(60 * SECOND)
    }

    /// After everything is over one more batch for each partition must go through. Where the sender has not been
    /// told of its topic's life the first may be what finds that out.
    pub(crate) fn probe(&mut self) -> Result<(), String> {
        let unseen: [bool; TOPICS] = std::array::from_fn(|topic| {
            let lives = self.partitions.iter().enumerate().filter(|(p, _)| topic_of(*p) == topic);
            let life = lives.map(|(_, model)| model.truth.incarnation).max();
            life.is_none_or(|life| !self.history.told[topic].knows(life))
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
        self.run_while(until, |world| world.sender.unsettled() > 0)?;
        self.run_for(5 * SECOND)?;
        for (number, record) in self.history.records.iter().enumerate().skip(first) {
            let failed = !matches!(record.verdict, Some(Told::Delivered(_)));
            if failed && !excused[topic_of(record.partition)] {
                return Err(format!("the cluster is well, but record {number} got {:?}", record.verdict));
            }
        }
        Ok(())
    }

    pub(crate) fn check(&self) -> Result<(), String> {
        self.history.check_charges()?;
        (0..PARTITIONS).try_for_each(|partition| self.check_partition(partition))
    }

    fn check_partition(&self, partition: usize) -> Result<(), String> {
        let (entries, lost) = self.final_entries(partition)?;
        let mut landings: BTreeMap<u32, Vec<Landing>> = BTreeMap::new();
        let all = entries.iter().map(|entry| (entry, false)).chain(lost.iter().map(|entry| (entry, true)));
        for ((incarnation, entry), lost) in all {
            for (index, number) in (0..).zip(entry.records.iter()).filter(|(_, number)| **number != FOREIGN) {
                landings.entry(*number).or_default().push(self.landing(partition, *incarnation, entry, index, lost));
            }
        }
        self.check_order(partition, &entries)?;
        for (number, record) in self.history.records.iter().enumerate().filter(|(_, r)| r.partition == partition) {
            let found = landings.remove(&(number as u32)).unwrap_or_default();
            let told = record.verdict.ok_or_else(|| format!("record {number} has no verdict"))?;
            self.check_record(number, told, &found).map_err(|why| {
                format!("p{partition} record {number} {told:?} {:?}: {why} {found:?}", record.corrected)
            })?;
        }
        match landings.first_key_value() {
            Some((number, _)) => Err(format!("p{partition} holds record {number}, which was never handed in")),
            None => Ok(()),
        }
    }

    /// The entry's record at this index.
    fn landing(&self, partition: usize, incarnation: u32, entry: &Entry, index: u32, lost: bool) -> Landing {
        let sequence = sequence_add(entry.first, index);
        let stamped = self.history.stamped(partition, entry.producer_id, entry.epoch, sequence);
        let offset = entry.base_offset + i64::from(index);
        let number = entry.records[index as usize];
        let search = self.history.records.get(number as usize).and_then(|record| record.search);
        let is_cut = !self.partitions[partition].lost.is_empty();
        Landing {
            incarnation,
            offset,
            forgets: entry.forgets,
            expiries: entry.expiries,
            sent_in: stamped.map(|stamped| stamped.life),
            lost,
            found: search.is_none_or(|search| search.finds((partition, incarnation), entry, index, is_cut)),
            time: entry.max_timestamp,
        }
    }

    /// Every batch that is in the partition for good, by the topic's life and offset: what is in its leader's
    /// log, and what was committed in its former lives; and what unclean elections have lost. Errors: the model has
    /// lost something committed otherwise.
    fn final_entries(&self, partition: usize) -> Result<(Entries, Entries), String> {
        let model = &self.partitions[partition];
        let now = model.truth.incarnation;
        let log = &model.replicas[model.truth.leader.unwrap_or(0)].log;
        let mut seen: BTreeSet<u64> = log.iter().map(|entry| entry.append).collect();
        let (mut entries, mut lost) = (Entries::new(), Entries::new());
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

    /// Whether between the record's publication and this append an id was forgotten, or the topic was made anew
    /// unseen.
    fn is_excused(&self, number: u32, landing: &Landing) -> bool {
        let record = &self.history.records[number as usize];
        let forgotten = landing.forgets > record.forgets;
        let expired = landing.expiries > record.expiries && record.in_doubt && !record.followed_by_old;
        forgotten || expired || self.is_another_by_name(landing.sent_in, landing.incarnation)
    }

    /// Whether what left by name was meant for another life of its topic than this one.
    fn is_another_by_name(&self, sent_in: Option<u32>, incarnation: u32) -> bool {
        !self.plan.rules.by_id && sent_in.is_some_and(|life| life < incarnation)
    }

    fn check_order(&self, partition: usize, entries: &[(u32, Entry)]) -> Result<(), String> {
        let mut last: Option<(u32, Landing)> = None;
        for (incarnation, entry) in entries {
            for (index, number) in (0..).zip(entry.records.iter()).filter(|(_, number)| **number != FOREIGN) {
                let here = self.landing(partition, *incarnation, entry, index, false);
                if self.is_excused(*number, &here) {
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

    fn check_record(&self, number: usize, told: Told, found: &[Landing]) -> Result<(), String> {
        let record = &self.history.records[number];
        let number = number as u32;
        let there = || found.iter().filter(|landing| !landing.lost);
        if there().filter(|landing| !self.is_excused(number, landing)).count() > 1 {
            return Err("it is in the log more than once:".into());
        }
        self.check_acknowledged(told, record)?;
        if there().any(|landing| !landing.found && !self.is_excused(number, landing)) {
            return Err(format!("but its failure leads a search elsewhere: {:?}", record.search));
        }
        let must_be_at = match (told, record.corrected) {
            (Told::Delivered(offset), _) | (Told::Unknown(_), Some(offset)) => offset,
            (Told::NotWritten(_), _) if there().any(|landing| !self.is_excused(number, landing)) => {
                return Err("but it is in the log:".into());
            }
            (Told::NotWritten(_) | Told::Unknown(_), _) => return Ok(()),
        };
        if found.is_empty() {
            let model = &self.partitions[record.partition];
            // What is proved by a later acceptance is proved by a leader that knew the id, in the same life.
            let (forgets, life) = record.when_told;
            let forgotten = forgets > record.forgets && !model.lost.is_empty();
            let excused = forgotten || self.is_another_by_name(record.sent_in, life);
            let inferred = must_be_at.is_none();
            return if inferred && excused { Ok(()) } else { Err("but it is not in the log".into()) };
        }
        match must_be_at {
            Some(offset) if !found.iter().any(|landing| landing.offset == offset) => {
                Err("but it is elsewhere in the log:".into())
            }
            Some(offset) if told == Told::Delivered(Some(offset)) => self.check_time(record, offset, found),
            _ => Ok(()),
        }
    }

    /// What was acknowledged after its verdict corrects that, unless a later acceptance has done so.
    fn check_acknowledged(&self, told: Told, record: &RecordHistory) -> Result<(), String> {
        match (told, record.acknowledged) {
            (Told::Unknown(_), Some(offset)) if record.corrected.is_none() => {
                Err(format!("but it was acknowledged at {offset}:"))
            }
            _ => Ok(()),
        }
    }

    fn check_time(&self, record: &RecordHistory, offset: i64, found: &[Landing]) -> Result<(), String> {
        let by_the_log = self.plan.rules.log_append_time;
        let is_true = match record.append_time {
            // Where the append's time is its newest record's own, the records may keep their times.
            None => !by_the_log || found.iter().any(|landing| landing.time == record.newest),
            Some(time) => by_the_log && found.iter().any(|landing| landing.offset == offset && landing.time == time),
        };
        if is_true { Ok(()) } else { Err(format!("but its time is told as {:?}", record.append_time)) }
    }

    /// A record may be rejected only for its own fault: it was named, or none of its batch was.
    pub(crate) fn check_guilt(&self) -> Result<(), String> {
        for (number, record) in self.history.records.iter().enumerate() {
            let Some(Told::NotWritten(Some(code))) = record.verdict else { continue };
            let mut accused = record.accused.iter().filter(|accused| accused.0 == code).peekable();
            if accused.peek().is_some() && !accused.any(|accused| accused.1) {
                return Err(format!("record {number} was condemned for another's fault"));
            }
        }
        Ok(())
    }
}

//! The judge: holds every verdict against what the logs say when all is over.
//!
//! Rules:
//! - Delivered: in the log exactly once, at the offset told. Not written: nowhere. Unknown: at most once.
//!   Corrected: there, at the offset told.
//! - What is in a log is in the order in which it was published.
//! - Excused is only what the design excuses: ids that the leader forgot because the records were old when
//!   they were sent, and a topic made anew that was written to by name.

use std::collections::{BTreeMap, BTreeSet};

use crate::cluster::{PARTITIONS, SECOND};
use crate::history::Told;
use crate::log::Entry;
use crate::world::World;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Landing {
    incarnation: u32,
    offset: i64,
    forgets: u32,
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
        if !self.run_while(until, |world| world.sender.unsettled() > 0 || !world.submitting)? {
            return Err(format!("{} records have no verdict, and never will", self.sender.unsettled()));
        }
        self.run_for(60 * SECOND)
    }

    /// After everything is over one more batch for each partition must go through. Where a topic was made
    /// anew the first may be what finds that out.
    pub(crate) fn probe(&mut self) -> Result<(), String> {
        let made_anew = self.partitions.iter().any(|model| model.truth.incarnation > 1);
        match self.probe_once() {
            Err(_) if made_anew => self.probe_once(),
            outcome => outcome,
        }
    }

    fn probe_once(&mut self) -> Result<(), String> {
        let first = self.history.records.len();
        for partition in 0..PARTITIONS {
            self.submit(&crate::plan::BatchPlan::of(partition, 2))?;
        }
        let until = self.now + self.plan.config.delivery_timeout.as_micros() as u64 + SECOND;
        self.run_while(until, |world| world.sender.unsettled() > 0)?;
        self.run_for(5 * SECOND)?;
        for (number, record) in self.history.records.iter().enumerate().skip(first) {
            if !matches!(record.verdict, Some(Told::Delivered(_))) {
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
        let entries = self.final_entries(partition)?;
        let mut landings: BTreeMap<u32, Vec<Landing>> = BTreeMap::new();
        for (incarnation, entry) in &entries {
            for (offset, number) in (entry.base_offset..).zip(entry.records.iter()) {
                let landing = Landing { incarnation: *incarnation, offset, forgets: entry.forgets };
                landings.entry(*number).or_default().push(landing);
            }
        }
        self.check_order(partition, &entries)?;
        for (number, record) in self.history.records.iter().enumerate().filter(|(_, r)| r.partition == partition) {
            let found = landings.remove(&(number as u32)).unwrap_or_default();
            let told = record.verdict.ok_or_else(|| format!("record {number} has no verdict"))?;
            self.check_record(partition, told, record.corrected, &found).map_err(|why| {
                format!("p{partition} record {number} {told:?} {:?}: {why} {found:?}", record.corrected)
            })?;
        }
        match landings.first_key_value() {
            Some((number, _)) => Err(format!("p{partition} holds record {number}, which was never handed in")),
            None => Ok(()),
        }
    }

    /// Every batch that is in the partition for good, by the topic's life and offset: what is in its leader's
    /// log, and what was committed in its former lives. Errors: the model has lost something committed.
    fn final_entries(&self, partition: usize) -> Result<Vec<(u32, Entry)>, String> {
        let model = &self.partitions[partition];
        let now = model.truth.incarnation;
        let log = &model.replicas[model.truth.leader.unwrap_or(0)].log;
        let mut seen: BTreeSet<u64> = log.iter().map(|entry| entry.append).collect();
        let mut entries: Vec<(u32, Entry)> = Vec::new();
        for (incarnation, entry) in &model.committed {
            if seen.insert(entry.append) {
                if *incarnation == now {
                    return Err(format!("the model's p{partition} has lost the committed {entry:?}"));
                }
                entries.push((*incarnation, entry.clone()));
            }
        }
        entries.sort_by_key(|(incarnation, entry)| (*incarnation, entry.base_offset));
        entries.extend(log.iter().map(|entry| (now, entry.clone())));
        Ok(entries)
    }

    /// Whether ids were forgotten here in a way that the design excuses.
    fn is_excused(&self, partition: usize) -> bool {
        self.partitions[partition].forgets > 0 || self.is_another_by_name(partition)
    }

    fn is_another_by_name(&self, partition: usize) -> bool {
        !self.plan.rules.by_id && self.partitions[partition].truth.incarnation > 1
    }

    fn check_order(&self, partition: usize, entries: &[(u32, Entry)]) -> Result<(), String> {
        let mut last: Option<(u32, u32)> = None;
        for (incarnation, entry) in entries {
            for number in entry.records.iter() {
                let here = (*incarnation, *number);
                if last.is_some_and(|last| last.0 == here.0 && last.1 >= here.1) && !self.is_excused(partition) {
                    return Err(format!("p{partition}: record {number} follows {last:?} in the log"));
                }
                last = Some(here);
            }
        }
        Ok(())
    }

    fn check_record(
        &self,
        partition: usize,
        told: Told,
        corrected: Option<Option<i64>>,
        found: &[Landing],
    ) -> Result<(), String> {
        let excused = self.is_excused(partition);
        if found.len() > 1 && !excused {
            return Err("it is in the log more than once:".into());
        }
        let must_be_at = match (told, corrected) {
            (Told::Delivered(offset), _) | (Told::Unknown(_), Some(offset)) => offset,
            (Told::NotWritten(_), _) if !found.is_empty() && !excused => return Err("but it is in the log:".into()),
            (Told::NotWritten(_) | Told::Unknown(_), _) => return Ok(()),
        };
        if found.is_empty() {
            return if self.is_another_by_name(partition) { Ok(()) } else { Err("but it is not in the log".into()) };
        }
        match must_be_at {
            Some(offset) if !found.iter().any(|landing| landing.offset == offset) => {
                Err("but it is elsewhere in the log:".into())
            }
            _ => Ok(()),
        }
    }

    /// A record may be refused as guilty only if it is, wherever the guilty are named.
    pub(crate) fn check_guilt(&self) -> Result<(), String> {
        for (number, record) in self.history.records.iter().enumerate() {
            let named = self.partitions[record.partition].names_guilty;
            if named && record.verdict == Some(Told::NotWritten(Some(87))) && record.has_key {
                return Err(format!("record {number} was condemned for another's fault"));
            }
        }
        Ok(())
    }
}

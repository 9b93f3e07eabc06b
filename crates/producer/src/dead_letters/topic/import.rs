//! Imports into the topic: what is there already is compared, not written again.
//!
//! Rules:
//! - The topic is read before letters are written: whole once, afterwards what has been written since.
//! - A letter of one id is there once, and its newer state wins; see the store's `import_with`.

use std::collections::HashMap;

use kafka_courier_dlq::{
    AppendError, Compared, DeadLetterStore as _, Digest, Edited, Imported, Letter, LetterId, StoreError, Uuid, edited,
    runs,
};

use super::DeadLetterTopic;
use super::index::{Arrival, Found};
use super::record::{self, Entry};
use super::task::{Ask, Place};

/// The letters of the topic, as far as it was read.
#[derive(Debug, Default)]
pub(super) struct Contents {
    /// Where each letter is, and when it arrived.
    found: Found,
    digests: HashMap<LetterId, Digest>,
    /// Where each partition was read to.
    ends: HashMap<i32, i64>,
}

/// Letters that are to be written: new ones, and newer versions with their partitions and arrivals.
#[derive(Default)]
struct Planned {
    fresh: Vec<Letter>,
    changed: Vec<(i32, Uuid, Letter)>,
}

impl DeadLetterTopic {
    pub(super) fn import_letters(&self, letters: &[Letter], how: Edited) -> Result<Imported, AppendError> {
        let mut contents = self.contents.lock();
        let mut imported = Imported::default();
        for run in runs(letters) {
            self.read_contents(&mut contents)?;
            let mut counts = Imported::default();
            let Planned { fresh, changed } = self.plan(&contents, run, how, &mut counts)?;
            let records = changed
                .iter()
                .map(|(partition, arrived, letter)| self.outgoing(letter, Some(*partition), Arrival::Before(*arrived)));
            self.write_all(records.collect())?;
            if !fresh.is_empty() {
                counts.taken = self.append(&fresh)?.taken;
            }
            imported.add(counts);
        }
        Ok(imported)
    }

    fn plan(
        &self,
        contents: &Contents,
        letters: &[Letter],
        how: Edited,
        counts: &mut Imported,
    ) -> Result<Planned, StoreError> {
        let mut planned = Planned::default();
        for letter in letters {
            let digest = contents.digests.get(&letter.id);
            let Some(((at, arrived), there)) = contents.found.newest(letter.id).zip(digest) else {
                planned.fresh.push(letter.clone());
                continue;
            };
            // What headers can't say is not a difference.
            let as_read = record::read_back(letter, &self.client_id).unwrap_or_else(|| letter.clone());
            match (there.compare(&Digest::of(&as_read)), how) {
                (Compared::Same | Compared::Older, _) => counts.known += 1,
                (Compared::Newer, _) => {
                    counts.updated += 1;
                    planned.changed.push((at.0, arrived, letter.clone()));
                }
                (Compared::Different, Edited::Leave) => counts.different.push(letter.id),
                (Compared::Different, Edited::Replace) => {
                    counts.replaced += 1;
                    let letter = edited(&self.read_one(at, letter.id)?, letter).0;
                    planned.changed.push((at.0, arrived, letter));
                }
            }
        }
        Ok(planned)
    }

    /// Reads what was written since.
    fn read_contents(&self, contents: &mut Contents) -> Result<(), StoreError> {
        let Contents { found, digests, ends } = contents;
        self.read_on(ends, |at, entry| {
            found.entry(at, &entry);
            match entry {
                Entry::Letter(letter, _) => _ = digests.insert(letter.id, Digest::of(&letter)),
                Entry::Settled(id) => _ = digests.remove(&id),
                Entry::Claim { .. } => {}
            }
        })
    }

    /// The letter at a place.
    fn read_one(&self, (partition, offset): Place, id: LetterId) -> Result<Letter, StoreError> {
        let page = self.ask(|reply| Ask::Read(partition, Some(offset), reply))?;
        let found = page.entries.into_iter().find_map(|(found, entry)| match entry {
            Entry::Letter(letter, _) if found == offset && letter.id == id => Some(*letter),
            _ => None,
        });
        found.ok_or_else(|| self.failure(format!("the letter {id} is no longer at offset {offset} of {partition}")))
    }
}

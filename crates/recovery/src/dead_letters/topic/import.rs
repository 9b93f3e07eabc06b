//! Imports into the topic. Letters that the topic already has are compared, and not written again.
//!
//! Rules:
//! - The topic is read before letters are written: the first import reads the whole topic, and later imports read the
//!   records since then.
//! - The topic has one letter for each id, and the newer state wins. See the store's `import_with`.

use std::collections::HashMap;

use kafka_courier_dlq::{
    AppendError, Compared, DeadLetterStore as _, Digest, Edited, Imported, Letter, LetterId, StoreError, Uuid, edited,
    runs,
};

use super::DeadLetterTopic;
use super::arrival::{Arrival, LogPosition};
use super::index::FoundLetters;
use super::record::{self, LoggedEntry};
use super::task::TopicRequest;

/// The letters of the topic, up to the offsets that were read.
#[derive(Debug, Default)]
pub(super) struct TopicContents {
    /// The position and arrival of each letter.
    found: FoundLetters,
    digests: HashMap<LetterId, Digest>,
    /// The end offset of the read in each partition.
    ends: HashMap<i32, i64>,
}

/// The writes of an import: new letters, and newer versions of letters with their partitions and arrivals.
#[derive(Default)]
struct ImportPlan {
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
            let ImportPlan { fresh, changed } = self.plan(&contents, run, how, &mut counts)?;
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
        contents: &TopicContents,
        letters: &[Letter],
        how: Edited,
        counts: &mut Imported,
    ) -> Result<ImportPlan, StoreError> {
        let mut planned = ImportPlan::default();
        for letter in letters {
            let digest = contents.digests.get(&letter.id);
            let Some(((at, arrived), there)) = contents.found.newest(letter.id).zip(digest) else {
                planned.fresh.push(letter.clone());
                continue;
            };
            // Parts of a letter that the headers cannot represent are no difference.
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

    /// Reads the records since the last read.
    fn read_contents(&self, contents: &mut TopicContents) -> Result<(), StoreError> {
        let TopicContents { found, digests, ends } = contents;
        self.read_to_ends(ends, |at, entry| {
            found.add_entry(at, &entry);
            match entry {
                LoggedEntry::Letter(letter, _) => _ = digests.insert(letter.id, Digest::of(&letter)),
                LoggedEntry::Settled(id) => _ = digests.remove(&id),
                LoggedEntry::Claim { .. } => {}
            }
        })
    }

    /// Reads the letter at a position.
    fn read_one(&self, (partition, offset): LogPosition, id: LetterId) -> Result<Letter, StoreError> {
        let page = self.request(|reply| TopicRequest::Read(partition, Some(offset), reply))?;
        let found = page.entries.into_iter().find_map(|(found, entry)| match entry {
            LoggedEntry::Letter(letter, _) if found == offset && letter.id == id => Some(*letter),
            _ => None,
        });
        found.ok_or_else(|| {
            self.failure(format!("dead letter {id} is no longer at offset {offset} of partition {partition}"))
        })
    }
}

//! The producer ids that spools hold: a later process resumes their records under these ids.
//!
//! Rules:
//! - A fence ends the life of an id. A spool whose id was fenced can no longer tell by the leader's state which of its records
//!   are written. Such an id is therefore never fenced, whatever the replay's options.
//! - A process that holds a spool may use each of the spool's ids.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use kafka_courier_producer::{SpoolHolder, SpoolView, SpoolViewError};

use super::ReplayError;

/// The spool that holds a producer id.
#[derive(Clone, PartialEq, Eq, Debug)]
enum HoldingSpool {
    /// The spool of the replaying producer.
    Own,
    /// Another spool, and the process that has it.
    Folder(PathBuf, Option<SpoolHolder>),
}

/// The producer ids that spools hold.
#[derive(Clone, Default, Debug)]
pub(super) struct HeldIds(BTreeMap<i64, HoldingSpool>);

impl HeldIds {
    /// Returns the ids that the replaying producer has inherited.
    pub(super) fn of_own(ids: &BTreeSet<i64>) -> Self {
        Self(ids.iter().map(|id| (*id, HoldingSpool::Own)).collect())
    }

    /// Adds the ids of these folders. Blocks.
    pub(super) fn read(mut self, folders: &[PathBuf]) -> Result<Self, ReplayError> {
        for folder in folders {
            self.add(folder).map_err(|error| ReplayError::Spool(Arc::new(error)))?;
        }
        Ok(self)
    }

    fn add(&mut self, folder: &Path) -> Result<(), SpoolViewError> {
        // A process that opens the spool after this look uses the ids of the table, or ids that no letter has.
        let holder = SpoolView::holder_of(folder)?;
        let view = match SpoolView::read(folder) {
            Err(SpoolViewError::Missing { .. }) => return Ok(()),
            view => view?,
        };
        for id in view.producer_ids(holder) {
            self.0.entry(id).or_insert_with(|| HoldingSpool::Folder(folder.to_owned(), holder));
        }
        Ok(())
    }

    /// Returns whether a spool holds this id.
    pub(super) fn contains(&self, producer_id: i64) -> bool {
        self.0.contains_key(&producer_id)
    }

    /// Returns why an id is not fenced and the remedy, if a spool holds the id.
    pub(super) fn reason(&self, producer_id: i64) -> Option<String> {
        Some(match self.0.get(&producer_id)? {
            HoldingSpool::Own => {
                "this producer's spool had events of its producer id when it was opened: replay again in a \
                                  process that starts after they are delivered"
                    .to_owned()
            }
            HoldingSpool::Folder(dir, Some(holder)) => format!(
                "{holder} has the spool {} and may use its producer id: replay again after that process has ended",
                dir.display()
            ),
            HoldingSpool::Folder(dir, None) => format!(
                "the spool {0} has events of its producer id that are not delivered: run courier spool drain {0}, then \
                 replay again",
                dir.display()
            ),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folder_without_spool_holds_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let missing = folder.path().join("none");
        let held = HeldIds::of_own(&BTreeSet::from([7])).read(&[folder.path().to_owned(), missing]).unwrap();
        assert!(held.contains(7) && !held.contains(8));
        assert!(held.reason(7).unwrap().contains("this producer's spool") && held.reason(8).is_none());
    }
}

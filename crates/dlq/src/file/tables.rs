//! The letters in redb's tables. Every change is one durable commit.
//!
//! Rules:
//! - `letters` maps position to entry, and `letters_by_id` maps id to position. `meta` has the format's version, a random
//!   number that identifies the file, the next position, and the bytes of all entries. The totals are therefore known after
//!   a restart without reading the entries.
//! - Positions only grow, also after a restart, and if another file replaces this one.

use std::collections::HashSet;
use std::ops::Bound;

use jiff::Timestamp;
use redb::{
    Database, ReadableDatabase, ReadableTable, ReadableTableMetadata, Table, TableDefinition, WriteTransaction,
};
use uuid::Uuid;

use super::entry::{self, EntryError};
use super::fault::FileFault;
use crate::held::{Held, Position};
use crate::import::{Edited, Imported, decide};
use crate::letter::{Letter, LetterId};
use crate::limits::{Excess, Limits, Overflow, Totals};
use crate::store::SCAN_BYTES;

/// The format of the file.
pub(super) const FORMAT: u64 = 1;

const LETTERS: TableDefinition<u64, &[u8]> = TableDefinition::new("letters");
const BY_ID: TableDefinition<u128, u64> = TableDefinition::new("letters_by_id");
const META: TableDefinition<&str, u64> = TableDefinition::new("meta");

/// An open database with the tables of a store.
#[derive(Debug)]
pub(super) struct Tables(Database);

/// A letter as it is written.
#[derive(Debug)]
pub(super) struct EncodedLetter {
    pub(super) id: LetterId,
    pub(super) json: Vec<u8>,
    pub(super) imported: bool,
}

/// The content after a change.
#[derive(Clone, Copy, Default, Debug)]
pub(super) struct Holdings {
    pub(super) totals: Totals,
    pub(super) oldest: Option<Timestamp>,
    /// The position of the next letter.
    pub(super) next: u64,
    /// The random number that identifies the file.
    pub(super) identity: u64,
    /// Whether the change was written. A change without effect is not.
    pub(super) written: bool,
}

/// The letters and damaged entries that a change drops. They are dropped for certain once the change is committed.
#[derive(Default, Debug)]
pub(super) struct DroppedLetters {
    pub(super) expired: Vec<Result<Letter, DamagedEntry>>,
    pub(super) dropped: Vec<Result<Letter, DamagedEntry>>,
}

/// An entry that is not a letter.
#[derive(Debug)]
pub(super) struct DamagedEntry {
    pub(super) position: u64,
    pub(super) reason: EntryError,
    pub(super) entry: Vec<u8>,
}

impl DroppedLetters {
    pub(super) fn len(&self) -> u64 {
        (self.expired.len() + self.dropped.len()) as u64
    }
}

/// A page of letters, and the damaged entries between them.
pub(super) type ScannedPage = (Vec<Held>, Vec<(Position, EntryError)>);

impl Tables {
    /// Takes a database that is new, or has the tables of a store.
    pub(super) fn new(database: Database) -> Result<Self, FileFault> {
        let tables = Self(database);
        match tables.format()? {
            Some(FORMAT) if tables.holdings()?.identity != 0 => Ok(tables),
            Some(FORMAT) => tables.write(|_| Ok(())).map(|_| tables),
            Some(other) => Err(FileFault::Version(other)),
            None => tables.write(|_| Ok(())).map(|_| tables),
        }
    }

    /// Returns the format's version. `None` in a database without tables.
    fn format(&self) -> Result<Option<u64>, FileFault> {
        let read = self.0.begin_read()?;
        match read.open_table(META) {
            Ok(meta) => match meta.get("format")? {
                Some(format) => Ok(Some(format.value())),
                None => Err(FileFault::Foreign),
            },
            Err(redb::TableError::TableDoesNotExist(_)) if read.list_tables()?.next().is_none() => Ok(None),
            Err(redb::TableError::TableDoesNotExist(_)) => Err(FileFault::Foreign),
            Err(error) => Err(error.into()),
        }
    }

    /// Returns the content.
    pub(super) fn holdings(&self) -> Result<Holdings, FileFault> {
        let read = self.0.begin_read()?;
        let letters = read.open_table(LETTERS)?;
        let meta = read.open_table(META)?;
        let number = |name| Ok::<_, FileFault>(meta.get(name)?.map_or(0, |number| number.value()));
        let totals = Totals { letters: letters.len()?, bytes: number("bytes")? };
        let (next, identity) = (number("next_position")?, number("identity")?);
        Ok(Holdings { totals, oldest: oldest(&letters)?, next, identity, written: false })
    }

    /// Appends all letters, or none with the excess. Letters that are too old are dropped first, and stay dropped if there
    /// is still no room.
    pub(super) fn append(
        &self,
        letters: &[EncodedLetter],
        limits: &Limits,
        now: Timestamp,
        dropped: &mut DroppedLetters,
    ) -> Result<(Result<u64, Excess>, Holdings), FileFault> {
        self.write(|tables| {
            tables.expire(limits, now, dropped)?;
            let fresh = tables.fresh(letters)?;
            let sizes = fresh.iter().map(|letter| (letter.id, entry::length(&letter.json)));
            if let Err(excess) = limits.admit(tables.totals, sizes) {
                return Ok(Err(excess));
            }
            let taken = tables.insert(&fresh, now)?;
            tables.drop_excess(limits, dropped)?;
            Ok(Ok(taken))
        })
    }

    /// Imports letters without a repeated id as [`append`](Self::append) does. Replaces letters that the store has in an older
    /// state or that were edited. `encoded` are the same letters for the case that they are new.
    pub(super) fn import(
        &self,
        letters: &[Letter],
        encoded: &[EncodedLetter],
        edited: Edited,
        (limits, now): (&Limits, Timestamp),
        dropped: &mut DroppedLetters,
    ) -> Result<(Result<Imported, Excess>, Holdings), FileFault> {
        self.write(|tables| {
            tables.expire(limits, now, dropped)?;
            let fresh = tables.fresh(encoded)?;
            let sizes = fresh.iter().map(|letter| (letter.id, entry::length(&letter.json)));
            if let Err(excess) = limits.admit(tables.totals, sizes) {
                return Ok(Err(excess));
            }
            let mut imported = tables.import_known(letters, edited)?;
            imported.taken = tables.insert(&fresh, now)?;
            tables.drop_excess(limits, dropped)?;
            Ok(Ok(imported))
        })
    }

    pub(super) fn expire(
        &self,
        limits: &Limits,
        now: Timestamp,
        dropped: &mut DroppedLetters,
    ) -> Result<((), Holdings), FileFault> {
        self.write(|tables| tables.expire(limits, now, dropped))
    }

    /// Reduces the file to the size that its letters need.
    pub(super) fn compact(&mut self) -> Result<(), FileFault> {
        self.0.compact()?;
        Ok(())
    }

    pub(super) fn remove(&self, positions: &[Position]) -> Result<(usize, Holdings), FileFault> {
        self.write(|tables| {
            let mut removed = 0;
            for position in positions {
                removed += usize::from(tables.remove(position.0)?.is_some());
            }
            Ok(removed)
        })
    }

    /// Restores the state before a failure: removes all entries from the position `next`, if the file has this identity.
    /// All letters of another file stay, at positions that no letter had before.
    pub(super) fn resume(&self, identity: u64, next: u64) -> Result<((), Holdings), FileFault> {
        self.write(|tables| {
            if tables.identity == identity {
                tables.remove_from(next)?;
            } else {
                tables.move_to(next)?;
            }
            tables.reserve_until(next);
            Ok(())
        })
    }

    pub(super) fn update(&self, changed: &[(Position, EncodedLetter)]) -> Result<(usize, Holdings), FileFault> {
        self.write(|tables| {
            let mut updated = 0;
            for (position, letter) in changed {
                updated += usize::from(tables.replace(position.0, letter)?);
            }
            Ok(updated)
        })
    }

    /// Returns the positions of the letters with these ids.
    pub(super) fn find(&self, ids: &[LetterId]) -> Result<Vec<Option<Position>>, FileFault> {
        let by_id = self.0.begin_read()?.open_table(BY_ID)?;
        ids.iter().map(|id| Ok(by_id.get(key(*id))?.map(|position| Position(position.value())))).collect()
    }

    /// Returns a page of letters, and the damaged entries between them.
    pub(super) fn scan(&self, after: Option<Position>, limit: usize) -> Result<ScannedPage, FileFault> {
        let letters = self.0.begin_read()?.open_table(LETTERS)?;
        let from = after.map_or(Bound::Unbounded, |after| Bound::Excluded(after.0));
        let (mut page, mut damaged, mut bytes) = (Vec::new(), Vec::new(), 0);
        for item in letters.range::<u64>((from, Bound::Unbounded))? {
            if page.len() >= limit || bytes >= SCAN_BYTES {
                break;
            }
            let (position, entry) = item?;
            let (position, entry) = (position.value(), entry.value());
            match entry::decode(position, entry) {
                Ok(entry::StoredEntry { letter, imported, .. }) => {
                    bytes += entry.len() as u64;
                    page.push(Held { position: Position(position), letter, imported });
                }
                Err(reason) => damaged.push((Position(position), reason)),
            }
        }
        Ok((page, damaged))
    }

    /// Runs `change` as one durable commit. Nothing is written if `change` fails or changes nothing.
    fn write<R>(
        &self,
        change: impl FnOnce(&mut TableWriter<'_>) -> Result<R, FileFault>,
    ) -> Result<(R, Holdings), FileFault> {
        let transaction = self.0.begin_write()?;
        let (result, holdings) = {
            let mut tables = TableWriter::open(&transaction)?;
            let result = change(&mut tables)?;
            tables.save()?;
            let oldest = oldest(&tables.letters)?;
            let TableWriter { totals, next, identity, changed: written, .. } = tables;
            (result, Holdings { totals, oldest, next, identity, written })
        };
        if holdings.written {
            transaction.commit()?
        } else {
            transaction.abort()?
        }
        Ok((result, holdings))
    }
}

/// The tables within a change.
struct TableWriter<'a> {
    letters: Table<'a, u64, &'static [u8]>,
    by_id: Table<'a, u128, u64>,
    meta: Table<'a, &'static str, u64>,
    totals: Totals,
    next: u64,
    identity: u64,
    changed: bool,
}

impl<'a> TableWriter<'a> {
    fn open(transaction: &'a WriteTransaction) -> Result<Self, FileFault> {
        let (letters, by_id) = (transaction.open_table(LETTERS)?, transaction.open_table(BY_ID)?);
        let meta = transaction.open_table(META)?;
        let number = |name| Ok::<_, FileFault>(meta.get(name)?.map(|number| number.value()));
        let totals = Totals { letters: letters.len()?, bytes: number("bytes")?.unwrap_or(0) };
        let (format, identity) = (number("format")?, number("identity")?.filter(|identity| *identity != 0));
        let (next, changed) = (number("next_position")?.unwrap_or(0), format.is_none() || identity.is_none());
        let identity = identity.unwrap_or_else(random_identity);
        Ok(Self { letters, by_id, meta, totals, next, identity, changed })
    }

    fn save(&mut self) -> Result<(), FileFault> {
        if self.changed {
            self.meta.insert("format", FORMAT)?;
            self.meta.insert("identity", self.identity)?;
            self.meta.insert("next_position", self.next)?;
            self.meta.insert("bytes", self.totals.bytes)?;
        }
        Ok(())
    }

    /// Returns the letters whose ids are not in the store, each once.
    fn fresh<'l>(&self, letters: &'l [EncodedLetter]) -> Result<Vec<&'l EncodedLetter>, FileFault> {
        let mut ids = HashSet::with_capacity(letters.len());
        let mut fresh = Vec::with_capacity(letters.len());
        for letter in letters {
            if ids.insert(letter.id) && self.by_id.get(key(letter.id))?.is_none() {
                fresh.push(letter);
            }
        }
        Ok(fresh)
    }

    /// Returns the arrival of a letter at `now`. A clock that is set back makes no letter older than an earlier one.
    fn arrival(&self, now: Timestamp) -> Result<Timestamp, FileFault> {
        let last = self.letters.last()?.and_then(|(_, entry)| entry::arrived(entry.value()).ok());
        Ok(last.map_or(now, |last| last.max(now)))
    }

    fn insert(&mut self, letters: &[&EncodedLetter], now: Timestamp) -> Result<u64, FileFault> {
        let arrived = self.arrival(now)?;
        for letter in letters {
            let entry = entry::encode(self.next, &letter.json, arrived, letter.imported);
            self.letters.insert(self.next, entry.as_slice())?;
            self.by_id.insert(key(letter.id), self.next)?;
            self.totals.add(entry.len() as u64);
            self.next += 1;
            self.changed = true;
        }
        Ok(letters.len() as u64)
    }

    /// Imports the letters whose ids are in the store.
    fn import_known(&mut self, letters: &[Letter], edited: Edited) -> Result<Imported, FileFault> {
        let mut imported = Imported::default();
        for letter in letters {
            let Some(position) = self.by_id.get(key(letter.id))?.map(|position| position.value()) else { continue };
            let stored = match self.letters.get(position)? {
                Some(entry) => entry::decode(position, entry.value()),
                None => continue,
            };
            let Ok(stored) = stored else {
                imported.different.push(letter.id); // a damaged letter cannot be compared, and stays until it is removed
                continue;
            };
            let taken = imported.count(letter.id, decide(&stored.letter, letter, edited));
            if let Some((letter, has_own_state)) = taken {
                let json = letter.to_json().map_err(|error| FileFault::Damaged(error.to_string()))?;
                self.replace(
                    position,
                    &EncodedLetter { id: letter.id, json, imported: has_own_state || stored.imported },
                )?;
            }
        }
        Ok(imported)
    }

    fn remove(&mut self, position: u64) -> Result<Option<Result<Letter, DamagedEntry>>, FileFault> {
        let Some(removed) = self.letters.remove(position)? else { return Ok(None) };
        let entry = removed.value();
        self.totals.take(entry.len() as u64);
        let letter = entry::decode(position, entry).map(|entry| entry.letter);
        let letter = letter.map_err(|reason| DamagedEntry { position, reason, entry: entry.to_vec() });
        drop(removed);
        self.changed = true;
        match &letter {
            Ok(letter) => _ = self.by_id.remove(key(letter.id))?,
            Err(_) => self.by_id.retain(|_, at| at != position)?,
        }
        Ok(Some(letter))
    }

    fn remove_from(&mut self, position: u64) -> Result<(), FileFault> {
        for position in self.positions_from(position)? {
            self.remove(position)?;
        }
        Ok(())
    }

    fn positions_from(&self, position: u64) -> Result<Vec<u64>, FileFault> {
        self.letters.range(position..)?.map(|item| Ok(item?.0.value())).collect()
    }

    /// Moves all letters so that the first one is at this position, unless it is at or behind the position already.
    fn move_to(&mut self, position: u64) -> Result<(), FileFault> {
        let positions = self.positions_from(0)?;
        let by = positions.first().map_or(0, |first| position.saturating_sub(*first));
        if by == 0 {
            return Ok(());
        }
        let moved = |from: u64| from.checked_add(by).ok_or_else(|| FileFault::Damaged("no positions are left".into()));
        self.next = moved(self.next)?;
        self.changed = true;
        // The last letter moves first, so that every target position is free.
        for from in positions.into_iter().rev() {
            let to = moved(from)?;
            let entry = self.letters.remove(from)?.map(|entry| entry::moved(from, to, entry.value()));
            if let Some(entry) = entry {
                self.letters.insert(to, entry.as_slice())?;
            }
        }
        let by_id = self.by_id.iter()?.map(|item| item.map(|(id, at)| (id.value(), at.value())));
        for (id, from) in by_id.collect::<Result<Vec<(u128, u64)>, _>>()? {
            self.by_id.insert(id, moved(from)?)?;
        }
        Ok(())
    }

    /// Excludes the positions before this one from use.
    fn reserve_until(&mut self, next: u64) {
        if self.next < next {
            self.next = next;
            self.changed = true;
        }
    }

    fn replace(&mut self, position: u64, new: &EncodedLetter) -> Result<bool, FileFault> {
        let Some(old) = self.letters.get(position)? else { return Ok(false) };
        let (old_len, decoded) = (old.value().len(), entry::decode(position, old.value()));
        drop(old);
        let Some(before) = decoded.ok().filter(|entry| entry.letter.id == new.id) else { return Ok(false) };
        let entry = entry::encode(position, &new.json, before.arrived, new.imported);
        self.letters.insert(position, entry.as_slice())?;
        self.totals.bytes = self.totals.bytes.saturating_sub(old_len as u64) + entry.len() as u64;
        self.changed = true;
        Ok(true)
    }

    fn expire(&mut self, limits: &Limits, now: Timestamp, dropped: &mut DroppedLetters) -> Result<(), FileFault> {
        let Some(until) = limits.expired_at(now) else { return Ok(()) };
        // A damaged entry has no age. It expires with the next letter.
        let old = |tables: &Self| Ok(oldest(&tables.letters)?.is_some_and(|arrived| arrived <= until));
        self.pop_while(old, &mut dropped.expired)
    }

    fn drop_excess(&mut self, limits: &Limits, dropped: &mut DroppedLetters) -> Result<(), FileFault> {
        if limits.overflow == Overflow::Refuse {
            return Ok(());
        }
        self.pop_while(|tables| Ok(limits.exceeded(tables.totals)), &mut dropped.dropped)
    }

    fn pop_while(
        &mut self,
        more: impl Fn(&Self) -> Result<bool, FileFault>,
        dropped: &mut Vec<Result<Letter, DamagedEntry>>,
    ) -> Result<(), FileFault> {
        while more(self)? {
            let first = self.letters.first()?.map(|(position, _)| position.value());
            let Some(first) = first else { break };
            dropped.extend(self.remove(first)?);
        }
        Ok(())
    }
}

/// Returns the arrival of the oldest readable letter.
fn oldest(letters: &impl ReadableTable<u64, &'static [u8]>) -> Result<Option<Timestamp>, FileFault> {
    for item in letters.iter()? {
        if let Ok(arrived) = entry::arrived(item?.1.value()) {
            return Ok(Some(arrived));
        }
    }
    Ok(None)
}

/// Returns a random number that is not 0.
fn random_identity() -> u64 {
    let (_, random) = Uuid::now_v7().as_u64_pair();
    random
}

fn key(id: LetterId) -> u128 {
    id.as_uuid().as_u128()
}

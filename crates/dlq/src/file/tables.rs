//! Letters in redb's tables: every change is one durable commit, or nothing.
//!
//! - `letters`: position to entry. `letters_by_id`: id to position. `meta`: the format's version, a random number by which
//!   the file is known from others, the next position, and the bytes of all entries, so that what is held is known at once
//!   after a restart.
//! - Positions only grow, also after a restart, and if another file is put in the place of this one.

use std::collections::HashSet;
use std::ops::Bound;

use jiff::Timestamp;
use redb::{
    Database, ReadableDatabase, ReadableTable, ReadableTableMetadata, Table, TableDefinition, WriteTransaction,
};
use uuid::Uuid;

use super::entry;
use super::fault::Fault;
use crate::import::{Edited, Imported, fate};
use crate::letter::{Letter, LetterId};
use crate::limits::{Excess, Limits, Overflow, Totals};
use crate::store::{Held, Position, SCAN_BYTES};

/// The format of the file.
pub(super) const FORMAT: u64 = 1;

const LETTERS: TableDefinition<u64, &[u8]> = TableDefinition::new("letters");
const BY_ID: TableDefinition<u128, u64> = TableDefinition::new("letters_by_id");
const META: TableDefinition<&str, u64> = TableDefinition::new("meta");

/// An open database with our tables.
#[derive(Debug)]
pub(super) struct Tables(Database);

/// A letter, ready to be written.
#[derive(Debug)]
pub(super) struct Encoded {
    pub(super) id: LetterId,
    pub(super) json: Vec<u8>,
    pub(super) imported: bool,
}

/// What is held after a change.
#[derive(Clone, Copy, Default, Debug)]
pub(super) struct Holdings {
    pub(super) totals: Totals,
    pub(super) oldest: Option<Timestamp>,
    /// Where the next letter goes.
    pub(super) next: u64,
    /// Which file this is.
    pub(super) identity: u64,
    /// Whether there was anything to write.
    pub(super) written: bool,
}

/// What was dropped: letters, or what should have been letters. Filled while a change is made, and true once it is written.
#[derive(Default, Debug)]
pub(super) struct Gone {
    pub(super) expired: Vec<Result<Letter, Damaged>>,
    pub(super) dropped: Vec<Result<Letter, Damaged>>,
}

/// An entry that is no letter.
#[derive(Debug)]
pub(super) struct Damaged {
    pub(super) position: u64,
    pub(super) reason: String,
    pub(super) entry: Vec<u8>,
}

impl Gone {
    pub(super) fn len(&self) -> u64 {
        (self.expired.len() + self.dropped.len()) as u64
    }
}

/// Letters, and where there is something else instead of one.
pub(super) type Page = (Vec<Held>, Vec<(Position, String)>);

impl Tables {
    /// Takes a database that is new, or ours.
    pub(super) fn new(database: Database) -> Result<Self, Fault> {
        let tables = Self(database);
        match tables.format()? {
            Some(FORMAT) if tables.holdings()?.identity != 0 => Ok(tables),
            Some(FORMAT) => tables.write(|_| Ok(())).map(|_| tables),
            Some(other) => Err(Fault::Version(other)),
            None => tables.write(|_| Ok(())).map(|_| tables),
        }
    }

    /// The format's version; none in a database that has no tables at all.
    fn format(&self) -> Result<Option<u64>, Fault> {
        let read = self.0.begin_read()?;
        match read.open_table(META) {
            Ok(meta) => match meta.get("format")? {
                Some(format) => Ok(Some(format.value())),
                None => Err(Fault::Foreign),
            },
            Err(redb::TableError::TableDoesNotExist(_)) if read.list_tables()?.next().is_none() => Ok(None),
            Err(redb::TableError::TableDoesNotExist(_)) => Err(Fault::Foreign),
            Err(error) => Err(error.into()),
        }
    }

    /// What is held.
    pub(super) fn holdings(&self) -> Result<Holdings, Fault> {
        let read = self.0.begin_read()?;
        let letters = read.open_table(LETTERS)?;
        let meta = read.open_table(META)?;
        let number = |name| Ok::<_, Fault>(meta.get(name)?.map_or(0, |number| number.value()));
        let totals = Totals { letters: letters.len()?, bytes: number("bytes")? };
        let (next, identity) = (number("next_position")?, number("identity")?);
        Ok(Holdings { totals, oldest: oldest(&letters)?, next, identity, written: false })
    }

    /// All letters, or none, with what stands against them. What is too old goes first, and stays gone if there is no room
    /// even so.
    pub(super) fn append(
        &self,
        letters: &[Encoded],
        limits: &Limits,
        now: Timestamp,
        gone: &mut Gone,
    ) -> Result<(Result<u64, Excess>, Holdings), Fault> {
        self.write(|tables| {
            tables.expire(limits, now, gone)?;
            let fresh = tables.fresh(letters)?;
            let sizes = fresh.iter().map(|letter| (letter.id, entry::length(&letter.json)));
            let taken = match limits.admit(tables.totals, sizes) {
                Ok(()) => tables.insert(&fresh, now).map(Ok)?,
                Err(excess) => Err(excess),
            };
            tables.drop_excess(limits, gone)?;
            Ok(taken)
        })
    }

    /// As [`append`](Self::append), of letters within which no id repeats; what is here in an older state, or was edited, is
    /// put in its place. `encoded` are the letters as they are if they are new here.
    pub(super) fn import(
        &self,
        letters: &[Letter],
        encoded: &[Encoded],
        edited: Edited,
        (limits, now): (&Limits, Timestamp),
        gone: &mut Gone,
    ) -> Result<(Result<Imported, Excess>, Holdings), Fault> {
        self.write(|tables| {
            tables.expire(limits, now, gone)?;
            let fresh = tables.fresh(encoded)?;
            let sizes = fresh.iter().map(|letter| (letter.id, entry::length(&letter.json)));
            if let Err(excess) = limits.admit(tables.totals, sizes) {
                return Ok(Err(excess));
            }
            let mut imported = tables.import_known(letters, edited)?;
            imported.taken = tables.insert(&fresh, now)?;
            tables.drop_excess(limits, gone)?;
            Ok(Ok(imported))
        })
    }

    pub(super) fn expire(&self, limits: &Limits, now: Timestamp, gone: &mut Gone) -> Result<((), Holdings), Fault> {
        self.write(|tables| tables.expire(limits, now, gone))
    }

    /// Makes the file as small as its letters allow.
    pub(super) fn compact(&mut self) -> Result<(), Fault> {
        self.0.compact()?;
        Ok(())
    }

    pub(super) fn remove(&self, positions: &[Position]) -> Result<(usize, Holdings), Fault> {
        self.write(|tables| {
            let mut removed = 0;
            for position in positions {
                removed += usize::from(tables.remove(position.0)?.is_some());
            }
            Ok(removed)
        })
    }

    /// Takes up the work where it was left, in the file of this identity with `next` as its next position: removes
    /// whatever stands there or behind. In another file all letters stay, at positions that were not used before.
    pub(super) fn go_on(&self, identity: u64, next: u64) -> Result<((), Holdings), Fault> {
        self.write(|tables| {
            if tables.identity == identity {
                tables.remove_from(next)?;
            } else {
                tables.move_behind(next)?;
            }
            tables.leave_out(next);
            Ok(())
        })
    }

    pub(super) fn update(&self, changed: &[(Position, Encoded)]) -> Result<(usize, Holdings), Fault> {
        self.write(|tables| {
            let mut updated = 0;
            for (position, letter) in changed {
                updated += usize::from(tables.replace(position.0, letter)?);
            }
            Ok(updated)
        })
    }

    /// Where the letters of these ids are.
    pub(super) fn find(&self, ids: &[LetterId]) -> Result<Vec<Option<Position>>, Fault> {
        let by_id = self.0.begin_read()?.open_table(BY_ID)?;
        ids.iter().map(|id| Ok(by_id.get(key(*id))?.map(|position| Position(position.value())))).collect()
    }

    /// A page of letters, and what between them is none, with the reason.
    pub(super) fn scan(&self, after: Option<Position>, limit: usize) -> Result<Page, Fault> {
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
                Ok(entry::Entry { letter, imported, .. }) => {
                    bytes += entry.len() as u64;
                    page.push(Held { position: Position(position), letter, imported });
                }
                Err(reason) => damaged.push((Position(position), reason)),
            }
        }
        Ok((page, damaged))
    }

    /// One durable commit of whatever `change` does; nothing of it if that fails. Nothing is written if nothing changed.
    fn write<R>(&self, change: impl FnOnce(&mut Writing<'_>) -> Result<R, Fault>) -> Result<(R, Holdings), Fault> {
        let transaction = self.0.begin_write()?;
        let (result, holdings) = {
            let mut tables = Writing::open(&transaction)?;
            let result = change(&mut tables)?;
            tables.save()?;
            let oldest = oldest(&tables.letters)?;
            let Writing { totals, next, identity, changed: written, .. } = tables;
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
struct Writing<'a> {
    letters: Table<'a, u64, &'static [u8]>,
    by_id: Table<'a, u128, u64>,
    meta: Table<'a, &'static str, u64>,
    totals: Totals,
    next: u64,
    identity: u64,
    changed: bool,
}

impl<'a> Writing<'a> {
    fn open(transaction: &'a WriteTransaction) -> Result<Self, Fault> {
        let (letters, by_id) = (transaction.open_table(LETTERS)?, transaction.open_table(BY_ID)?);
        let meta = transaction.open_table(META)?;
        let number = |name| Ok::<_, Fault>(meta.get(name)?.map(|number| number.value()));
        let totals = Totals { letters: letters.len()?, bytes: number("bytes")?.unwrap_or(0) };
        let (format, identity) = (number("format")?, number("identity")?.filter(|identity| *identity != 0));
        let (next, changed) = (number("next_position")?.unwrap_or(0), format.is_none() || identity.is_none());
        let identity = identity.unwrap_or_else(random);
        Ok(Self { letters, by_id, meta, totals, next, identity, changed })
    }

    fn save(&mut self) -> Result<(), Fault> {
        if self.changed {
            self.meta.insert("format", FORMAT)?;
            self.meta.insert("identity", self.identity)?;
            self.meta.insert("next_position", self.next)?;
            self.meta.insert("bytes", self.totals.bytes)?;
        }
        Ok(())
    }

    /// Those that are not here, each once.
    fn fresh<'l>(&self, letters: &'l [Encoded]) -> Result<Vec<&'l Encoded>, Fault> {
        let mut ids = HashSet::with_capacity(letters.len());
        let mut fresh = Vec::with_capacity(letters.len());
        for letter in letters {
            if ids.insert(letter.id) && self.by_id.get(key(letter.id))?.is_none() {
                fresh.push(letter);
            }
        }
        Ok(fresh)
    }

    /// A clock that is set back makes no letter older than one before it.
    fn arrival(&self, now: Timestamp) -> Result<Timestamp, Fault> {
        let last = self.letters.last()?.and_then(|(_, entry)| entry::arrived(entry.value()).ok());
        Ok(last.map_or(now, |last| last.max(now)))
    }

    fn insert(&mut self, letters: &[&Encoded], now: Timestamp) -> Result<u64, Fault> {
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

    /// What becomes of the letters whose ids are here.
    fn import_known(&mut self, letters: &[Letter], edited: Edited) -> Result<Imported, Fault> {
        let mut imported = Imported::default();
        for letter in letters {
            let Some(position) = self.by_id.get(key(letter.id))?.map(|position| position.value()) else { continue };
            let there = match self.letters.get(position)? {
                Some(entry) => entry::decode(position, entry.value()),
                None => continue,
            };
            let Ok(there) = there else {
                imported.different.push(letter.id); // a damaged one can't be compared, and stays until it is removed
                continue;
            };
            let taken = imported.count(letter.id, fate(&there.letter, letter, edited));
            if let Some((letter, own)) = taken {
                let json = letter.to_json().map_err(|error| Fault::Damaged(error.to_string()))?;
                self.replace(position, &Encoded { id: letter.id, json, imported: own || there.imported })?;
            }
        }
        Ok(imported)
    }

    fn remove(&mut self, position: u64) -> Result<Option<Result<Letter, Damaged>>, Fault> {
        let Some(removed) = self.letters.remove(position)? else { return Ok(None) };
        let entry = removed.value();
        self.totals.take(entry.len() as u64);
        let letter = entry::decode(position, entry).map(|entry| entry.letter);
        let letter = letter.map_err(|reason| Damaged { position, reason, entry: entry.to_vec() });
        drop(removed);
        self.changed = true;
        match &letter {
            Ok(letter) => _ = self.by_id.remove(key(letter.id))?,
            Err(_) => self.by_id.retain(|_, at| at != position)?,
        }
        Ok(Some(letter))
    }

    fn remove_from(&mut self, position: u64) -> Result<(), Fault> {
        for position in self.positions_from(position)? {
            self.remove(position)?;
        }
        Ok(())
    }

    fn positions_from(&self, position: u64) -> Result<Vec<u64>, Fault> {
        self.letters.range(position..)?.map(|item| Ok(item?.0.value())).collect()
    }

    /// Moves all letters, if the first is before this position, so that it comes to be there.
    fn move_behind(&mut self, position: u64) -> Result<(), Fault> {
        let positions = self.positions_from(0)?;
        let by = positions.first().map_or(0, |first| position.saturating_sub(*first));
        if by == 0 {
            return Ok(());
        }
        let moved = |from: u64| from.checked_add(by).ok_or_else(|| Fault::Damaged("its positions are used up".into()));
        self.next = moved(self.next)?;
        self.changed = true;
        // From the last on: where one goes the next has gone from.
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

    /// The positions before this one are used no more.
    fn leave_out(&mut self, next: u64) {
        if self.next < next {
            self.next = next;
            self.changed = true;
        }
    }

    fn replace(&mut self, position: u64, new: &Encoded) -> Result<bool, Fault> {
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

    fn expire(&mut self, limits: &Limits, now: Timestamp, gone: &mut Gone) -> Result<(), Fault> {
        let Some(until) = limits.expired_at(now) else { return Ok(()) };
        // A damaged entry has no age: it goes with the one after it.
        let old = |tables: &Self| Ok(oldest(&tables.letters)?.is_some_and(|arrived| arrived <= until));
        self.pop_while(old, &mut gone.expired)
    }

    fn drop_excess(&mut self, limits: &Limits, gone: &mut Gone) -> Result<(), Fault> {
        if limits.overflow == Overflow::Refuse {
            return Ok(());
        }
        self.pop_while(|tables| Ok(limits.exceeded(tables.totals)), &mut gone.dropped)
    }

    fn pop_while(
        &mut self,
        more: impl Fn(&Self) -> Result<bool, Fault>,
        gone: &mut Vec<Result<Letter, Damaged>>,
    ) -> Result<(), Fault> {
        while more(self)? {
            let first = self.letters.first()?.map(|(position, _)| position.value());
            let Some(first) = first else { break };
            gone.extend(self.remove(first)?);
        }
        Ok(())
    }
}

/// When the oldest letter that can be read arrived.
fn oldest(letters: &impl ReadableTable<u64, &'static [u8]>) -> Result<Option<Timestamp>, Fault> {
    for item in letters.iter()? {
        if let Ok(arrived) = entry::arrived(item?.1.value()) {
            return Ok(Some(arrived));
        }
    }
    Ok(None)
}

/// Never 0.
fn random() -> u64 {
    let (_, random) = Uuid::now_v7().as_u64_pair();
    random
}

fn key(id: LetterId) -> u128 {
    id.as_uuid().as_u128()
}

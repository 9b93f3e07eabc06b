//! A disk that loses, tears and forgets as disks do.
//!
//! Rules:
//!  - A write is visible immediately, and durable after the file's sync. A name is durable after the folder's sync.
//!  - The death of a process keeps everything visible. A loss of power keeps each unsynced sector or not, by chance, and
//!    each unsynced change of a name or not.
//!  - A failed sync leaves its file's sectors visible and clean: a later sync of the file does not write them.
//!  - After [`ModelDisk::crash_after`] operations every operation fails.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::rc::Rc;

use kafka_courier_spool::disk::Disk;

use crate::rng::Rng;

const SECTOR: usize = 512;

#[derive(Clone, Debug, Default)]
struct Inode {
    durable: Vec<u8>,
    visible: Vec<u8>,
    dirty: BTreeSet<usize>,
    /// A sync failed: the file must not be written again.
    has_failed: bool,
}

#[derive(Clone, Debug)]
enum NameChange {
    Link(String, u64),
    Rename(String, String),
    Remove(String),
}

fn apply(names: &mut BTreeMap<String, u64>, change: &NameChange) {
    match change {
        NameChange::Link(name, inode) => {
            names.insert(name.clone(), *inode);
        }
        NameChange::Rename(from, to) => {
            if let Some(inode) = names.remove(from) {
                names.insert(to.clone(), inode);
            }
        }
        NameChange::Remove(name) => {
            names.remove(name);
        }
    }
}

#[derive(Debug)]
struct State {
    inodes: BTreeMap<u64, Inode>,
    durable_names: BTreeMap<String, u64>,
    names: BTreeMap<String, u64>,
    pending: Vec<NameChange>,
    next_inode: u64,
    /// Operations until the process dies.
    fuel: Option<u64>,
    /// Per cent of syncs and writes that fail.
    failing: u64,
    operations: u64,
    /// A file was written again after its sync failed.
    violation: bool,
    rng: Rng,
}

/// The disk of one spool. Clones are handles to the same disk.
#[derive(Clone, Debug)]
pub(crate) struct ModelDisk(Rc<RefCell<State>>);

fn dead() -> io::Error {
    io::Error::other("the process is dead")
}

impl State {
    /// Counts an operation. Returns an error where the process dies before it.
    fn step(&mut self) -> io::Result<()> {
        self.operations += 1;
        match &mut self.fuel {
            Some(0) => Err(dead()),
            Some(fuel) => {
                *fuel -= 1;
                Ok(())
            }
            None => Ok(()),
        }
    }

    fn fails(&mut self) -> io::Result<()> {
        let failing = self.failing;
        if failing > 0 && self.rng.percent(failing) { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
    }
}

impl ModelDisk {
    pub(crate) fn new(seed: u64) -> Self {
        Self(Rc::new(RefCell::new(State {
            inodes: BTreeMap::new(),
            durable_names: BTreeMap::new(),
            names: BTreeMap::new(),
            pending: Vec::new(),
            next_inode: 0,
            fuel: None,
            failing: 0,
            operations: 0,
            violation: false,
            rng: Rng::new(seed),
        })))
    }

    /// The process dies after `operations` operations.
    pub(crate) fn crash_after(&self, operations: Option<u64>) {
        self.0.borrow_mut().fuel = operations;
    }

    /// Writes and syncs fail in `percent` of all cases.
    pub(crate) fn fail(&self, percent: u64) {
        self.0.borrow_mut().failing = percent;
    }

    pub(crate) fn has_violation(&self) -> bool {
        self.0.borrow().violation
    }

    pub(crate) fn operations(&self) -> u64 {
        self.0.borrow().operations
    }

    /// Loses power.
    pub(crate) fn lose_power(&self) {
        let state = &mut *self.0.borrow_mut();
        let rng = &mut state.rng;
        let kept = [0, 30, 70, 100][rng.index(4)];
        for inode in state.inodes.values_mut() {
            for sector in std::mem::take(&mut inode.dirty) {
                if rng.percent(kept) {
                    write_sector(inode, sector);
                }
            }
            inode.visible.clone_from(&inode.durable);
        }
        let kept_names = [0, 50, 100][rng.index(3)];
        for change in std::mem::take(&mut state.pending) {
            if rng.percent(kept_names) {
                apply(&mut state.durable_names, &change);
            }
        }
        state.names.clone_from(&state.durable_names);
    }

    /// Flips a bit of durable bytes. Returns whether the file has that byte.
    pub(crate) fn flip(&self, name: &str, offset: usize, bit: u8) -> bool {
        let state = &mut *self.0.borrow_mut();
        let Some(inode) = state.names.get(name).and_then(|inode| state.inodes.get_mut(inode)) else { return false };
        for bytes in [&mut inode.durable, &mut inode.visible] {
            match bytes.get_mut(offset) {
                Some(byte) => *byte ^= 1 << bit,
                None => return false,
            }
        }
        true
    }
}

fn write_sector(inode: &mut Inode, sector: usize) {
    let (start, end) = (sector * SECTOR, ((sector + 1) * SECTOR).min(inode.visible.len()));
    if start >= end {
        return;
    }
    if inode.durable.len() < end {
        inode.durable.resize(end, 0);
    }
    let (durable, visible) = (&mut inode.durable, &inode.visible);
    durable[start..end].copy_from_slice(&visible[start..end]);
}

impl Disk for ModelDisk {
    type File = u64;

    fn list(&self) -> io::Result<Vec<String>> {
        let state = &mut *self.0.borrow_mut();
        state.step()?;
        Ok(state.names.keys().cloned().collect())
    }

    fn read(&self, name: &str) -> io::Result<Vec<u8>> {
        let state = &mut *self.0.borrow_mut();
        state.step()?;
        let inode = state.names.get(name).ok_or(io::ErrorKind::NotFound)?;
        Ok(state.inodes[inode].visible.clone())
    }

    fn create(&self, name: &str, size: u64) -> io::Result<u64> {
        let state = &mut *self.0.borrow_mut();
        state.step()?;
        if state.names.contains_key(name) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let inode = state.next_inode;
        state.next_inode += 1;
        let zeros = vec![0; size as usize];
        state
            .inodes
            .insert(inode, Inode { durable: zeros.clone(), visible: zeros, dirty: BTreeSet::new(), has_failed: false });
        let change = NameChange::Link(name.to_owned(), inode);
        apply(&mut state.names, &change);
        state.pending.push(change);
        state.fails()?;
        Ok(inode)
    }

    fn open(&self, name: &str) -> io::Result<u64> {
        let state = &mut *self.0.borrow_mut();
        state.step()?;
        state.names.get(name).copied().ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn write_at(&self, file: &u64, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let state = &mut *self.0.borrow_mut();
        // The process may die in the middle of a write.
        let died = state.step().is_err();
        let length = if died { state.rng.index(bytes.len() + 1) } else { bytes.len() };
        let fails = !died && state.fails().is_err();
        let length = if fails { state.rng.index(length + 1) } else { length };
        let inode = state.inodes.get_mut(file).ok_or(io::ErrorKind::NotFound)?;
        state.violation = state.violation || inode.has_failed;
        let (start, end) = (offset as usize, offset as usize + length);
        if inode.visible.len() < end {
            inode.visible.resize(end, 0);
        }
        inode.visible[start..end].copy_from_slice(&bytes[..length]);
        if length > 0 {
            inode.dirty.extend(start / SECTOR..=(end - 1) / SECTOR);
        }
        match (died, fails) {
            (true, _) => Err(dead()),
            (_, true) => Err(io::ErrorKind::StorageFull.into()),
            _ => Ok(()),
        }
    }

    fn sync(&self, file: &u64) -> io::Result<()> {
        let state = &mut *self.0.borrow_mut();
        state.step()?;
        let fails = state.fails();
        let inode = state.inodes.get_mut(file).ok_or(io::ErrorKind::NotFound)?;
        let dirty = std::mem::take(&mut inode.dirty);
        if fails.is_err() {
            inode.has_failed = true;
            let keeps: Vec<usize> = dirty.into_iter().filter(|_| state.rng.percent(50)).collect();
            keeps.into_iter().for_each(|sector| write_sector(inode, sector));
            return fails;
        }
        dirty.into_iter().for_each(|sector| write_sector(inode, sector));
        Ok(())
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let state = &mut *self.0.borrow_mut();
        state.step()?;
        if !state.names.contains_key(from) {
            return Err(io::ErrorKind::NotFound.into());
        }
        let change = NameChange::Rename(from.to_owned(), to.to_owned());
        apply(&mut state.names, &change);
        state.pending.push(change);
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let state = &mut *self.0.borrow_mut();
        state.step()?;
        let change = NameChange::Remove(name.to_owned());
        apply(&mut state.names, &change);
        state.pending.push(change);
        Ok(())
    }

    fn sync_folder(&self) -> io::Result<()> {
        let state = &mut *self.0.borrow_mut();
        state.step()?;
        state.fails()?;
        state.pending.clear();
        state.durable_names.clone_from(&state.names);
        Ok(())
    }
}

//! A disk that loses, tears and forgets as disks do.
//!
//! Rules:
//!  - A write is visible immediately, and durable after the file's sync. A name is durable after the folder's sync.
//!  - The death of a process keeps everything visible. A loss of power keeps each unsynced sector or not, by chance, and
//!    each unsynced change of a name or not.
//!  - A failed sync leaves its file's sectors visible and clean: a later sync of the file does not write them.
//!  - After [`ModelDisk::crash_after`] operations every operation fails. The last one may be done in part.
//!  - The files that have a name take room, and a file that does not fit is created in part.

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
    /// Per cent of operations that change something and fail.
    failing: u64,
    /// Per cent of reads that fail.
    failing_reads: u64,
    /// A file that can't be read.
    unreadable: Option<String>,
    /// The most bytes that files have.
    budget: u64,
    operations: u64,
    /// How often each kind of operation failed, or was done in part.
    failed: BTreeMap<&'static str, u64>,
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

    fn fails(&mut self, operation: &'static str) -> io::Result<()> {
        let failing = self.failing;
        if failing == 0 || !self.rng.percent(failing) {
            return Ok(());
        }
        *self.failed.entry(operation).or_default() += 1;
        Err(self.rng.pick(&[io::ErrorKind::StorageFull, io::ErrorKind::Other]).into())
    }

    fn fails_to_read(&mut self, name: &str) -> io::Result<()> {
        let failing = self.failing_reads;
        if self.unreadable.as_deref() == Some(name) || (failing > 0 && self.rng.percent(failing)) {
            *self.failed.entry("read").or_default() += 1;
            return Err(io::ErrorKind::Other.into());
        }
        Ok(())
    }

    fn free(&self) -> u64 {
        let used: u64 = self.names.values().map(|inode| self.inodes[inode].visible.len() as u64).sum();
        self.budget.saturating_sub(used)
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
            failing_reads: 0,
            unreadable: None,
            budget: u64::MAX,
            operations: 0,
            failed: BTreeMap::new(),
            violation: false,
            rng: Rng::new(seed),
        })))
    }

    /// The process dies after `operations` operations.
    pub(crate) fn crash_after(&self, operations: Option<u64>) {
        self.0.borrow_mut().fuel = operations;
    }

    /// Operations that change something fail in `percent` of all cases.
    pub(crate) fn fail(&self, percent: u64) {
        self.0.borrow_mut().failing = percent;
    }

    /// Reads fail in `percent` of all cases.
    pub(crate) fn fail_reads(&self, percent: u64) {
        self.0.borrow_mut().failing_reads = percent;
    }

    /// The file can't be read any more.
    pub(crate) fn break_file(&self, name: Option<&str>) {
        self.0.borrow_mut().unreadable = name.map(str::to_owned);
    }

    /// Files have `bytes` bytes at most.
    pub(crate) fn limit(&self, bytes: u64) {
        self.0.borrow_mut().budget = bytes;
    }

    /// Returns how often each kind of operation failed, or was done in part.
    pub(crate) fn failed(&self) -> BTreeMap<&'static str, u64> {
        self.0.borrow().failed.clone()
    }

    /// Runs `inspect` while no operation fails or counts.
    pub(crate) fn without_faults<T>(&self, inspect: impl FnOnce() -> T) -> T {
        let exchange = |(fuel, failing, failing_reads, operations)| {
            let state = &mut *self.0.borrow_mut();
            let before = (state.fuel, state.failing, state.failing_reads, state.operations);
            (state.fuel, state.failing, state.failing_reads, state.operations) =
                (fuel, failing, failing_reads, operations);
            before
        };
        let before = exchange((None, 0, 0, 0));
        let result = inspect();
        exchange(before);
        result
    }

    /// Returns whether the process died.
    pub(crate) fn is_dead(&self) -> bool {
        self.0.borrow().fuel == Some(0)
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
            inode.has_failed = false;
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
        state.fails_to_read(name)?;
        let inode = state.names.get(name).ok_or(io::ErrorKind::NotFound)?;
        Ok(state.inodes[inode].visible.clone())
    }

    fn read_at(&self, name: &str, offset: u64, length: usize) -> io::Result<Vec<u8>> {
        let state = &mut *self.0.borrow_mut();
        state.step()?;
        state.fails_to_read(name)?;
        let inode = state.names.get(name).ok_or(io::ErrorKind::NotFound)?;
        let bytes = &state.inodes[inode].visible;
        let start = (offset as usize).min(bytes.len());
        Ok(bytes[start..(start + length).min(bytes.len())].to_vec())
    }

    fn free(&self) -> io::Result<u64> {
        Ok(self.0.borrow().free())
    }

    fn create(&self, name: &str, size: u64) -> io::Result<u64> {
        let state = &mut *self.0.borrow_mut();
        let died = state.step();
        if died.is_err() && state.rng.percent(50) {
            return died.map(|()| 0);
        }
        if state.names.contains_key(name) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let failed = died.and_then(|()| {
            state.fails("create")?;
            if state.free() < size { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
        });
        // A failure in the middle leaves a part of the file.
        let whole = size as usize;
        let length = if failed.is_err() { state.rng.index(whole).min(state.free() as usize) } else { whole };
        if failed.is_err() {
            *state.failed.entry("create in part").or_default() += 1;
        }
        let inode = state.next_inode;
        state.next_inode += 1;
        let zeros = vec![0; length];
        state
            .inodes
            .insert(inode, Inode { durable: zeros.clone(), visible: zeros, dirty: BTreeSet::new(), has_failed: false });
        let change = NameChange::Link(name.to_owned(), inode);
        apply(&mut state.names, &change);
        state.pending.push(change);
        failed.map(|()| inode)
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
        let fails = !died && state.fails("write").is_err();
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
        let fails = state.fails("sync");
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
        state.fails("rename")?;
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
        state.fails("remove")?;
        if !state.names.contains_key(name) {
            return Err(io::ErrorKind::NotFound.into());
        }
        let change = NameChange::Remove(name.to_owned());
        apply(&mut state.names, &change);
        state.pending.push(change);
        Ok(())
    }

    fn sync_folder(&self) -> io::Result<()> {
        let state = &mut *self.0.borrow_mut();
        state.step()?;
        state.fails("sync of the folder")?;
        state.pending.clear();
        state.durable_names.clone_from(&state.names);
        Ok(())
    }
}

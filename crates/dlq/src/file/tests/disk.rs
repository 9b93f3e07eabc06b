//! A simulated disk that loses unsynced data at a power cut, and fails at a given step.
//!
//! Rules:
//! - A step is a write, a change of length or a sync. Every operation from step `cut_at` on fails: the power is off.
//! - Each change between the last sync and a cut is kept, lost, or torn at a sector. A seed decides.

use std::io;
use std::sync::Arc;

use parking_lot::Mutex;
use redb::{Database, StorageBackend};

use crate::file::fault::FileFault;
use crate::file::medium::{Medium, builder};

const SECTOR: usize = 512;

#[derive(Debug, Default)]
pub(crate) struct Disk(Mutex<DiskState>);

#[derive(Debug, Default)]
struct DiskState {
    synced: Vec<u8>,
    now: Vec<u8>,
    unsynced: Vec<Change>,
    steps: u64,
    cut_at: Option<u64>,
    fail_at: Option<u64>,
    full: bool,
    uncached: bool,
}

#[derive(Clone, Debug)]
enum Change {
    Write(usize, Vec<u8>),
    Length(usize),
}

impl Change {
    fn apply(&self, image: &mut Vec<u8>) {
        match self {
            Self::Write(offset, data) => {
                let end = offset + data.len();
                image.resize(image.len().max(end), 0);
                image[*offset..end].copy_from_slice(data);
            }
            Self::Length(length) => image.resize(*length, 0),
        }
    }
}

impl Disk {
    pub(crate) fn of(image: Vec<u8>) -> Arc<Self> {
        Arc::new(Self(Mutex::new(DiskState { synced: image.clone(), now: image, ..DiskState::default() })))
    }

    pub(crate) fn steps(&self) -> u64 {
        self.0.lock().steps
    }

    /// Cuts the power at that step.
    pub(crate) fn cut_at(&self, step: u64) {
        self.0.lock().cut_at = Some(step);
    }

    /// Lets that step fail once.
    pub(crate) fn fail_at(&self, step: u64) {
        self.0.lock().fail_at = Some(step);
    }

    /// Sets whether writes fail because the disk is full.
    pub(crate) fn set_full(&self, full: bool) {
        self.0.lock().full = full;
    }

    /// Creates a disk whose database keeps no page in memory, so that every read is a read of the disk.
    pub(crate) fn uncached() -> Arc<Self> {
        Arc::new(Self(Mutex::new(DiskState { uncached: true, ..DiskState::default() })))
    }

    pub(crate) fn image(&self) -> Vec<u8> {
        self.0.lock().now.clone()
    }

    /// Alters bytes at random offsets.
    pub(crate) fn alter(&self, seed: u64) {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut state = self.0.lock();
        for _ in 0..100 {
            let offset = random.usize(..state.now.len());
            state.now[offset] = random.u8(..);
        }
    }

    /// Returns the disk after the cut. Seed 0 keeps no unsynced change, and seed 1 keeps all of them.
    pub(crate) fn after_cut(&self, seed: u64) -> Arc<Self> {
        let state = self.0.lock();
        let mut image = state.synced.clone();
        let mut random = fastrand::Rng::with_seed(seed);
        for change in &state.unsynced {
            match (seed, random.u8(..4), change) {
                (0, ..) => (),
                (1, ..) => change.apply(&mut image),
                (_, 0, _) => (),
                (_, 1, Change::Write(offset, data)) => {
                    let kept = random.usize(..=data.len() / SECTOR) * SECTOR;
                    Change::Write(*offset, data[..kept].to_vec()).apply(&mut image);
                }
                _ => change.apply(&mut image),
            }
        }
        Self::of(image)
    }

    fn change(&self, change: Change) -> io::Result<()> {
        let mut state = self.0.lock();
        state.step()?;
        if state.full {
            return Err(io::ErrorKind::StorageFull.into());
        }
        change.apply(&mut state.now);
        state.unsynced.push(change);
        Ok(())
    }
}

impl DiskState {
    fn step(&mut self) -> io::Result<()> {
        self.check_power()?;
        self.steps += 1;
        if self.fail_at == Some(self.steps) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.check_power()
    }

    fn check_power(&self) -> io::Result<()> {
        match self.cut_at {
            Some(cut) if self.steps >= cut => Err(io::Error::other("the power is off")),
            _ => Ok(()),
        }
    }
}

#[derive(Debug)]
pub(crate) struct DiskMedium(pub(crate) Arc<Disk>);

impl Medium for DiskMedium {
    fn open(&self) -> Result<Database, FileFault> {
        let mut builder = builder();
        if self.0.0.lock().uncached {
            builder.set_cache_size(0);
        }
        Ok(builder.create_with_backend(Backend(self.0.clone()))?)
    }

    fn check_in_place(&self) -> io::Result<()> {
        Ok(())
    }

    fn bytes(&self) -> u64 {
        self.0.0.lock().now.len() as u64
    }
}

#[derive(Debug)]
struct Backend(Arc<Disk>);

impl StorageBackend for Backend {
    fn len(&self) -> io::Result<u64> {
        let state = self.0.0.lock();
        state.check_power()?;
        Ok(state.now.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let state = self.0.0.lock();
        state.check_power()?;
        let offset = usize::try_from(offset).map_err(io::Error::other)?;
        let found = state.now.get(offset..offset.saturating_add(out.len()));
        out.copy_from_slice(found.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        self.0.change(Change::Length(usize::try_from(length).map_err(io::Error::other)?))
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut state = self.0.0.lock();
        state.step()?;
        state.synced = state.now.clone();
        state.unsynced.clear();
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.0.change(Change::Write(usize::try_from(offset).map_err(io::Error::other)?, data.to_vec()))
    }
}

//! Opens a store's file for reading, also on a disk that is full or read-only.
//!
//! Rules:
//! - Nothing is written: no lock file, no socket, no repair. Writes of the database, such as a repair after a crash, stay in
//!   memory and are discarded.
//! - Readers share the file's lock, so that no process can open the file for writing meanwhile. No process has
//!   opened the file for writing yet if there is no lock file.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;
use redb::{Database, StorageBackend};

use super::fault::FileFault;
use super::medium::{Medium, builder};
use super::open::{self, OpenError};
use super::regular;
use super::{FileStore, FileStoreOptions};
use crate::store_error::StoreError;

/// Size of a block in memory. A block is kept once one of its bytes was written.
const BLOCK: usize = 4096;

impl FileStore {
    /// Opens the file at `path` for reading. Every change of the store is an error. Writes nothing, and creates no file.
    ///
    /// # Errors
    /// Returns an error if the file does not exist, another process has it open for writing, or it is not a readable file of
    /// dead letters.
    pub fn open_read_only(path: impl AsRef<Path>) -> Result<Self, OpenError> {
        let path = open::canonical(path.as_ref())?;
        let lock = open::share_lock(&path)?;
        let medium = Box::new(Snapshot(path.clone()));
        let mut store = Self::open_medium(path, medium, None, FileStoreOptions::default())?;
        store.read_only = Some(lock);
        Ok(store)
    }

    /// Returns an error if the file was opened for reading only.
    pub(super) fn check_writable(&self) -> Result<(), StoreError> {
        if self.read_only.is_none() {
            return Ok(());
        }
        let error = io::Error::new(io::ErrorKind::ReadOnlyFilesystem, "the file was opened for reading only");
        Err(StoreError::Io { path: self.path.clone(), error: Arc::new(error) })
    }
}

/// The file at a path, with changes in memory.
#[derive(Debug)]
struct Snapshot(PathBuf);

impl Medium for Snapshot {
    fn open(&self) -> Result<Database, FileFault> {
        regular::check(&self.0)?;
        let overlay = Overlay::over(File::open(&self.0)?)?;
        Ok(builder().create_with_backend(overlay)?)
    }

    fn check_in_place(&self) -> io::Result<()> {
        Ok(())
    }

    /// Returns 0, so that the file is never compacted.
    fn bytes(&self) -> u64 {
        0
    }
}

/// A file that is only read, with written blocks in memory.
#[derive(Debug)]
struct Overlay(Mutex<OverlayState>);

#[derive(Debug)]
struct OverlayState {
    file: File,
    /// Bytes of the file that are still part of the content.
    file_len: u64,
    len: u64,
    /// Written blocks by number.
    written: BTreeMap<u64, Box<[u8]>>,
}

impl Overlay {
    fn over(file: File) -> io::Result<Self> {
        let len = file.metadata()?.len();
        Ok(Self(Mutex::new(OverlayState { file, file_len: len, len, written: BTreeMap::new() })))
    }
}

impl OverlayState {
    /// Reads from the file, and zeros behind its end.
    fn read_file(&mut self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let available = self.file_len.saturating_sub(offset).min(out.len() as u64) as usize;
        let (of_file, behind) = out.split_at_mut(available);
        self.file.seek(SeekFrom::Start(offset))?;
        self.file.read_exact(of_file)?;
        behind.fill(0);
        Ok(())
    }

    fn read_block(&mut self, block: u64) -> io::Result<Box<[u8]>> {
        let mut bytes = vec![0; BLOCK].into_boxed_slice();
        self.read_file(block * BLOCK as u64, &mut bytes)?;
        Ok(bytes)
    }

    fn read(&mut self, mut offset: u64, mut out: &mut [u8]) -> io::Result<()> {
        if offset.checked_add(out.len() as u64).is_none_or(|end| end > self.len) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let (first, last) = (offset / BLOCK as u64, (offset + out.len() as u64) / BLOCK as u64);
        if self.written.range(first..=last).next().is_none() {
            return self.read_file(offset, out);
        }
        while !out.is_empty() {
            let (block, within) = (offset / BLOCK as u64, (offset % BLOCK as u64) as usize);
            let (now, rest) = out.split_at_mut(out.len().min(BLOCK - within));
            match self.written.get(&block) {
                Some(written) => now.copy_from_slice(&written[within..within + now.len()]),
                None => now.copy_from_slice(&self.read_block(block)?[within..within + now.len()]),
            }
            offset += now.len() as u64;
            out = rest;
        }
        Ok(())
    }

    fn write(&mut self, mut offset: u64, mut data: &[u8]) -> io::Result<()> {
        while !data.is_empty() {
            let (block, within) = (offset / BLOCK as u64, (offset % BLOCK as u64) as usize);
            let (now, rest) = data.split_at(data.len().min(BLOCK - within));
            let mut bytes = match self.written.remove(&block) {
                Some(bytes) => bytes,
                None => self.read_block(block)?,
            };
            bytes[within..within + now.len()].copy_from_slice(now);
            self.written.insert(block, bytes);
            offset += now.len() as u64;
            data = rest;
        }
        self.len = self.len.max(offset);
        Ok(())
    }

    /// Sets the length. Bytes that were cut off are zero if the length grows again.
    fn set_len(&mut self, len: u64) -> io::Result<()> {
        if len < self.len {
            let (block, within) = (len / BLOCK as u64, (len % BLOCK as u64) as usize);
            if within > 0 {
                let mut bytes = match self.written.remove(&block) {
                    Some(bytes) => bytes,
                    None => self.read_block(block)?,
                };
                bytes[within..].fill(0);
                self.written.insert(block, bytes);
            }
            self.written.split_off(&len.div_ceil(BLOCK as u64));
            self.file_len = self.file_len.min(len);
        }
        self.len = len;
        Ok(())
    }
}

impl StorageBackend for Overlay {
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.lock().len)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.0.lock().read(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.lock().set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.0.lock().write(offset, data)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::time::SystemTime;

    use super::*;
    use crate::held::Held;
    use crate::letter::Letter;
    use crate::store::DeadLetterStore;

    fn letter(reason: &str) -> Letter {
        Letter::new("t", None, reason, jiff::Timestamp::UNIX_EPOCH)
    }

    /// Returns names, bytes and modification times of a folder's files.
    fn content(folder: &Path) -> Vec<(PathBuf, Vec<u8>, SystemTime)> {
        let mut content: Vec<_> = fs::read_dir(folder)
            .unwrap()
            .map(|entry| {
                let path = entry.unwrap().path();
                let changed = path.metadata().unwrap().modified().unwrap();
                (path.clone(), fs::read(&path).unwrap(), changed)
            })
            .collect();
        content.sort();
        content
    }

    fn reasons(store: &FileStore) -> Vec<String> {
        store.scan(None, 9).unwrap().into_iter().map(|held| held.letter.failure_reason).collect()
    }

    #[test]
    fn reading_writes_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("letters");
        FileStore::open(&path).unwrap().append(&[letter("a"), letter("b")]).unwrap();
        let before = content(folder.path());
        let store = FileStore::open_read_only(&path).unwrap();
        assert_eq!((reasons(&store), store.stats().unwrap().letters), (vec!["a".into(), "b".into()], 2));
        drop(store);
        assert_eq!(content(folder.path()), before);
    }

    #[test]
    fn repair_stays_in_memory() {
        let (folder, copies) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let path = folder.path().join("letters");
        let copy = copies.path().join("letters");
        let crashed = FileStore::open(&path).unwrap();
        crashed.append(&[letter("a"), letter("b")]).unwrap();
        // A copy of the open file is in the state of a crash, and needs a repair.
        fs::copy(&path, &copy).unwrap();
        let before = content(copies.path());
        assert_eq!(reasons(&FileStore::open_read_only(&copy).unwrap()), ["a", "b"]);
        assert_eq!(content(copies.path()), before);
    }

    #[test]
    fn changes_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("letters");
        FileStore::open(&path).unwrap().append(&[letter("a")]).unwrap();
        let store = FileStore::open_read_only(&path).unwrap();
        let Held { position, letter: stored, .. } = store.scan(None, 1).unwrap().remove(0);
        store.append(&[letter("b")]).unwrap_err();
        store.import(&[letter("b")]).unwrap_err();
        store.remove(&[position]).unwrap_err();
        store.update(&[Held::new(position, stored)]).unwrap_err();
        let said = store.expire().unwrap_err().to_string();
        assert!(said.contains("opened for reading only"), "{said}");
        assert_eq!(reasons(&store), ["a"]);
    }

    #[test]
    fn readers_exclude_writers() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("letters");
        drop(FileStore::open(&path).unwrap());
        let (one, other) = (FileStore::open_read_only(&path).unwrap(), FileStore::open_read_only(&path).unwrap());
        assert!(matches!(FileStore::open(&path), Err(OpenError::Held { .. })));
        drop((one, other));
        let writer = FileStore::open(&path).unwrap();
        assert!(matches!(FileStore::open_read_only(&path), Err(OpenError::Held { pid: Some(_), .. })));
        drop(writer);
    }

    #[test]
    fn other_files_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let open = |name: &str| FileStore::open_read_only(folder.path().join(name)).unwrap_err();
        assert!(matches!(open("none"), OpenError::Io { .. }));
        assert!(matches!(open("."), OpenError::Folder { .. }));
        fs::write(folder.path().join("other"), "something else".repeat(1000)).unwrap();
        assert!(matches!(open("other"), OpenError::NotAStore { .. }));
        fs::write(folder.path().join("empty"), "").unwrap();
        assert_eq!(FileStore::open_read_only(folder.path().join("empty")).unwrap().len(), 0);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2);
    }

    #[test]
    fn overlay_behaves_like_a_file() {
        let seed = 7;
        let mut random = fastrand::Rng::with_seed(seed);
        let mut plain: Vec<u8> = (0..3 * BLOCK + 100).map(|_| random.u8(..)).collect();
        let mut file = tempfile::tempfile().unwrap();
        io::Write::write_all(&mut file, &plain).unwrap();
        let overlay = Overlay::over(file).unwrap();
        for step in 0..2000 {
            let offset = random.usize(..=plain.len());
            let length = random.usize(..2 * BLOCK);
            match random.u8(..8) {
                0 => {
                    let len = random.usize(..5 * BLOCK);
                    plain.resize(len, 0);
                    overlay.set_len(len as u64).unwrap();
                }
                1..4 => {
                    let data = vec![random.u8(..); length];
                    plain.resize(plain.len().max(offset + length), 0);
                    plain[offset..offset + length].copy_from_slice(&data);
                    overlay.write(offset as u64, &data).unwrap();
                }
                _ => {
                    let mut read = vec![0; length];
                    let expected = plain.get(offset..offset + length);
                    let done = overlay.read(offset as u64, &mut read).is_ok();
                    assert_eq!(done.then_some(&*read), expected, "step {step}");
                }
            }
            assert_eq!(overlay.len().unwrap(), plain.len() as u64);
        }
    }
}

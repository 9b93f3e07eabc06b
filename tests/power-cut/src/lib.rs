//! Makes kill -9 a power cut for the spool of a process: what the journal has not synced is gone, in whole or in parts.
//!
//! The process loads this library with `LD_PRELOAD`. It replaces the functions `pwrite64`, `fdatasync` and `fsync` of the C
//! library. An operating system that lives on would write the data of a killed process to the disk.
//!
//! Rules:
//! - Only the files of a journal (`journal-…`, `spare`) are touched.
//! - Of a write, every second sector on average is written immediately. The others are in this process's memory until the
//!   file is synced, so that a kill tears writes.
//! - A sync writes the sectors in memory first.
//! - Names are not forgotten: a rename is durable immediately.
//! - The module `clock` changes the wall clock.
#![cfg(target_os = "linux")]

mod clock;

use std::collections::BTreeMap;
use std::ffi::{c_int, c_void};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

const SECTOR: usize = 512;

/// A file, by device and inode.
type FileId = (u64, u64);

/// An offset, and the bytes there.
type Sector = (i64, Vec<u8>);

/// Sectors that are not on the disk yet, in the order of their writes.
static HELD: Mutex<BTreeMap<FileId, Vec<Sector>>> = Mutex::new(BTreeMap::new());
/// The state of the random choice. Each process makes other choices.
static CHOICES: AtomicU64 = AtomicU64::new(0);

/// Writes to a file at an offset, as the function of the C library does.
///
/// # Safety
///
/// `bytes` must point to `count` readable bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pwrite64(fd: c_int, bytes: *const c_void, count: usize, offset: i64) -> isize {
    let Some(file) = journal_file(fd) else {
        // SAFETY: the caller keeps the contract of pwrite64.
        return unsafe { write_now(fd, bytes.cast(), count, offset) };
    };
    // SAFETY: the caller says that the bytes can be read.
    let bytes = unsafe { std::slice::from_raw_parts(bytes.cast::<u8>(), count) };
    let Ok(mut held) = HELD.lock() else { return -1 };
    let mut at = offset;
    for sector in bytes.chunks(SECTOR) {
        if is_written_now() {
            // SAFETY: the slice is readable.
            if unsafe { write_now(fd, sector.as_ptr(), sector.len(), at) } != sector.len() as isize {
                return -1;
            }
        } else {
            held.entry(file).or_default().push((at, sector.to_vec()));
        }
        at += sector.len() as i64;
    }
    count as isize
}

/// Syncs the data of a file.
///
/// # Safety
///
/// As the function of the C library.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fdatasync(fd: c_int) -> c_int {
    if !write_held(fd) {
        return -1;
    }
    // SAFETY: a system call without pointers.
    unsafe { libc::syscall(libc::SYS_fdatasync, fd) as c_int }
}

/// Syncs a file.
///
/// # Safety
///
/// As the function of the C library.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fsync(fd: c_int) -> c_int {
    if !write_held(fd) {
        return -1;
    }
    // SAFETY: a system call without pointers.
    unsafe { libc::syscall(libc::SYS_fsync, fd) as c_int }
}

/// Writes the sectors of a file that are in memory. Returns whether all could be written.
fn write_held(fd: c_int) -> bool {
    let Some(file) = journal_file(fd) else { return true };
    let Ok(mut held) = HELD.lock() else { return false };
    let sectors = held.remove(&file).unwrap_or_default();
    // SAFETY: the vector is readable.
    sectors.iter().all(|(at, bytes)| unsafe { write_now(fd, bytes.as_ptr(), bytes.len(), *at) } == bytes.len() as isize)
}

/// # Safety
///
/// `bytes` must point to `count` readable bytes.
unsafe fn write_now(fd: c_int, bytes: *const u8, count: usize, offset: i64) -> isize {
    // SAFETY: the caller says that the bytes can be read.
    unsafe { libc::syscall(libc::SYS_pwrite64, fd, bytes, count, offset) as isize }
}

/// Returns the file's identity, if it is a file of a journal.
fn journal_file(fd: c_int) -> Option<FileId> {
    let path = std::fs::read_link(format!("/proc/self/fd/{fd}")).ok()?;
    let name = path.file_name()?.to_str()?;
    if !name.starts_with("journal-") && name != "spare" {
        return None;
    }
    let mut status = std::mem::MaybeUninit::<libc::stat>::uninit();
    // SAFETY: the pointer is valid, and the value is read only if the call has filled it.
    let status = unsafe {
        if libc::fstat(fd, status.as_mut_ptr()) != 0 {
            return None;
        }
        status.assume_init()
    };
    Some((status.st_dev, status.st_ino))
}

/// Splitmix64, from the process's id on.
fn is_written_now() -> bool {
    let step = 0x9E37_79B9_7F4A_7C15_u64;
    let mut mixed = CHOICES.fetch_add(step, Ordering::Relaxed).wrapping_add(u64::from(std::process::id()) << 20);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    (mixed ^ (mixed >> 31)).is_multiple_of(2)
}

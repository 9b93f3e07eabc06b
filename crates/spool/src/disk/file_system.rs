//! Which file system a folder is on.
//!
//! Rules:
//!  - A file system is known by the number that Linux gives its kind. Elsewhere, every file system counts as a disk.
//!  - An unknown kind counts as a disk: a refusal must name a reason.

use std::io;
use std::os::fd::AsFd;

/// How far a sync can be trusted on a file system.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FileSystem {
    /// A sync makes bytes durable, as far as is known.
    Disk,
    /// Files are in memory, and are lost with the machine. The text is the name of the file system.
    Memory(&'static str),
    /// Another machine has the files. A sync and a lock promise what that machine and the mount's options promise.
    Network(&'static str),
    /// A layer above another file system. In a container, the files are lost with the container.
    Layer(&'static str),
    /// A program implements the file system. A sync promises what that program promises.
    Program(&'static str),
}

impl FileSystem {
    /// Returns the file system of an open file.
    ///
    /// # Errors
    /// The operating system's error.
    pub fn of(file: impl AsFd) -> io::Result<Self> {
        kind_of(file)
    }
}

#[cfg(target_os = "linux")]
fn kind_of(file: impl AsFd) -> io::Result<FileSystem> {
    // The type of the field differs between processors, and its numbers have 32 bits.
    let number = rustix::fs::fstatfs(file)?.f_type as u64 & 0xffff_ffff;
    Ok(KINDS.iter().find(|(known, _)| *known == number).map_or(FileSystem::Disk, |(_, kind)| *kind))
}

#[cfg(not(target_os = "linux"))]
fn kind_of(_: impl AsFd) -> io::Result<FileSystem> {
    Ok(FileSystem::Disk)
}

/// The numbers of `linux/magic.h` and of the file systems' own headers.
#[cfg(target_os = "linux")]
const KINDS: &[(u64, FileSystem)] = &[
    (0x0102_1994, FileSystem::Memory("tmpfs")),
    (0x8584_58f6, FileSystem::Memory("ramfs")),
    (0x9584_58f6, FileSystem::Memory("hugetlbfs")),
    (0x0000_6969, FileSystem::Network("nfs")),
    (0x0000_517b, FileSystem::Network("smb")),
    (0xff53_4d42, FileSystem::Network("cifs")),
    (0xfe53_4d42, FileSystem::Network("smb")),
    (0x00c3_6400, FileSystem::Network("ceph")),
    (0x0bd0_0bd0, FileSystem::Network("lustre")),
    (0x0102_1997, FileSystem::Network("9p")),
    (0x5346_414f, FileSystem::Network("afs")),
    (0x6b41_4653, FileSystem::Network("afs")),
    (0x7375_7245, FileSystem::Network("coda")),
    (0x0000_564c, FileSystem::Network("ncpfs")),
    (0x794c_7630, FileSystem::Layer("overlay")),
    (0x6573_5546, FileSystem::Program("fuse")),
];

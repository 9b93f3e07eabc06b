//! A write-ahead log for events on their way to Kafka.
//!
//! A process commits sealed batches in rounds: one write, one sync, any number of batches. After a crash the next process
//! opens the same folder and gets every batch of every committed round, with the moves from which the stamps of its records
//! follow. A leader therefore recognises a repeated record, and appends it once.
//!
//! | Module | Contents |
//! |---|---|
//! | [`core`] | Pure: the file format, the table of the durable state, recovery, stamps. No IO, clock or randomness. |
//! | [`disk`] | The trait of all file operations, and its implementation on the operating system. |
//! | [`journal`] | Opens, writes, recycles. Generic over the disk, so that a simulation can crash it at every operation. |
//!
//! The crate knows no Kafka and no async runtime. A [`journal::Journal`] belongs to one thread.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

pub mod core;
pub mod disk;
pub mod journal;

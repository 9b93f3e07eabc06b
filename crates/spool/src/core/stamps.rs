//! The stamps of records.
//!
//! Rules:
//!  - The stamp follows from the durable table alone, so that every process that reads the journal computes the same one.
//!  - A move gives the records from an ordinal on a stamp and the following numbers, apart from the records that it skips.
//!    A record that is out later keeps its number in that run.
//!  - A run holds up to the next move, and for records of one life. A life's first records in a partition have no stamp
//!    before the life's own move. A life that repeats the records of an earlier one therefore never extends its numbers.

use kafka_courier_batcher::Stamp;

use super::entry::Ordinal;
use super::table::PartitionTable;

/// The run of stamps to which a record belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RunOfStamps {
    /// The first ordinal of the run that is not settled.
    pub from: Ordinal,
    /// The stamp of the first record from there on that is not skipped.
    pub stamp: Stamp,
    /// Whether earlier records of the run are settled.
    pub has_settled: bool,
    /// Whether an earlier record of the run is out, although it has a number: no process knows whether it is in Kafka.
    pub has_out: bool,
}

/// Returns the stamp of a record, or `None` where it has none: a move skips it, or no move gives it one.
///
/// The record itself need not be accepted yet.
#[must_use]
pub fn stamp_at(state: &PartitionTable, ordinal: Ordinal) -> Option<Stamp> {
    let (from, run) = state.run_at(ordinal)?;
    if run.skips.contains(ordinal) { None } else { run.stamp_from(from, ordinal) }
}

/// Returns the run to which a record belongs, skipped or not, or `None` where no move gives it a stamp.
#[must_use]
pub fn run_of(state: &PartitionTable, ordinal: Ordinal) -> Option<RunOfStamps> {
    let (from, run) = state.run_at(ordinal)?;
    let has_settled = !state.moves.contains_key(&from);
    let has_out = state.has_out_before(ordinal, from, run);
    Some(RunOfStamps { from, stamp: run.stamp, has_settled, has_out })
}

#[cfg(test)]
mod tests;

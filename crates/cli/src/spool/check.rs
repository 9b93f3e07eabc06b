//! `courier spool check`.

use std::io::{self, Write};

use clap::Args;
use indicatif::HumanCount;
use kafka_courier::spool::{SpoolView, SpoolViewError, unsettled_records};

use super::folder::FolderArgs;
use super::{output_failed, read_failed};
use crate::exit::{CommandError, Exit};
use crate::terminal::printable;

/// Read all of a spool, and name damage
///
/// Reads each file and each event, and prints a line for each damaged part. Changes nothing, and also works while a process
/// has the spool.
#[derive(Args, Debug)]
pub(super) struct CheckArgs {
    #[command(flatten)]
    folder: FolderArgs,
}

pub(super) fn run(args: &CheckArgs) -> Result<Exit, CommandError> {
    let chosen = args.folder.choose()?;
    let view = chosen.read()?;
    let (count, unreadable) = read_all(&view)?;
    let mut damage: Vec<String> = view.damage().iter().map(ToString::to_string).collect();
    damage.extend(unreadable);
    let mut out = io::stdout().lock();
    for line in &damage {
        writeln!(out, "{}", printable(line)).map_err(output_failed)?;
    }
    for name in view.quarantined() {
        crate::say(&format!("{name} is kept because of earlier damage: remove it once you have inspected it"));
    }
    let segments = view.segment_count();
    let plural = if segments == 1 { "" } else { "s" };
    let read = format!("{}: {} in {segments} segment{plural} can be read", chosen.shown(), super::events(count));
    if damage.is_empty() {
        crate::say(&format!("{read}: no damage"));
        return Ok(Exit::Ok);
    }
    let plural = if damage.len() == 1 { "" } else { "s" };
    crate::say(&format!("{read}: {} damaged part{plural}", HumanCount(damage.len() as u64)));
    Ok(Exit::SomeFailed)
}

/// Reads all events. Returns the number of readable events, and a line for each batch that can't.
fn read_all(view: &SpoolView) -> Result<(u64, Vec<String>), CommandError> {
    let (mut count, mut unreadable) = (0, Vec::new());
    for part in view.parts() {
        match part {
            Ok(part) => match unsettled_records(&part) {
                Ok(records) => count += records.len() as u64,
                Err(error) => unreadable.push(format!(
                    "topic {:?}, partition {}: a stored batch can't be read: {error}",
                    part.topic, part.partition
                )),
            },
            Err(error @ SpoolViewError::Batch { .. }) => unreadable.push(error.to_string()),
            Err(error) => return Err(read_failed(error)),
        }
    }
    Ok((count, unreadable))
}

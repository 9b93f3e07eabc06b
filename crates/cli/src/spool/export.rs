//! `courier spool export`: the events of a spool as NDJSON, in the form of dead letters.
//!
//! Rules:
//! - The spool is not changed. A process that opens it delivers the exported events.
//! - The export fails if a process has or had the spool meanwhile: the outcome of an event may have changed.

use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use clap::Args;
use kafka_courier::shown_file;
use kafka_courier::spool::SpoolView;

use super::folder::{ChosenFolder, FolderArgs};
use super::list::records;
use super::{check_outside, output_failed, read_failed};
use crate::dlq::write_line;
use crate::exit::{CommandError, Exit};
use crate::replacement::Replacement;

/// Write the events in a spool as NDJSON, one per line, in the form of dead letters
///
/// `courier dlq import` reads the lines, and `courier dlq replay` publishes them. The outcome is not_written for an event
/// that certainly was not sent, and unknown otherwise. The events also stay in the spool. An event that is exported and
/// published, and delivered from the spool as well, is published twice: export a spool only if no process will deliver it,
/// and remove its folder afterwards.
#[derive(Args, Debug)]
pub(super) struct ExportArgs {
    #[command(flatten)]
    folder: FolderArgs,
    /// Write to this file (- is standard output)
    ///
    /// An existing file is replaced once all lines are written. It is unchanged if the export fails.
    #[arg(value_name = "FILE", default_value = "-")]
    to: PathBuf,
}

pub(super) fn run(args: &ExportArgs) -> Result<Exit, CommandError> {
    let chosen = args.folder.choose_beside(Some(&args.to))?;
    check_outside(&chosen.dir, "the exported file", &args.to)?;
    chosen.check_free()?;
    let view = chosen.read()?;
    if args.to == Path::new("-") {
        let mut out = BufWriter::new(io::stdout().lock());
        export(&view, &mut out, output_failed)?;
        check_undisturbed(&chosen, &view)?;
        return Ok(Exit::Ok);
    }
    let name = shown_file(&args.to);
    let write_failed = |error: io::Error| CommandError(Exit::Io, format!("cannot write {name}: {error}"));
    let create_failed = |error: io::Error| {
        let why = format!("cannot create {name}: {error}: name a file, or - for standard output");
        CommandError(Exit::CantCreate, why)
    };
    let mut out = Replacement::of(&args.to).map_err(create_failed)?;
    let count = export(&view, &mut out.writer, write_failed)?;
    check_undisturbed(&chosen, &view)?;
    out.commit().map_err(write_failed)?;
    crate::say(&format!("{} written to {name}, and still in the spool", super::events(count)));
    Ok(Exit::Ok)
}

/// Fails if a process has the spool, or had it since it was read.
fn check_undisturbed(chosen: &ChosenFolder, view: &SpoolView) -> Result<(), CommandError> {
    chosen.check_free()?;
    if view.is_unopened().map_err(read_failed)? {
        return Ok(());
    }
    let why = format!("{}: a process had this spool during the export: export the events again", chosen.shown());
    Err(CommandError(Exit::Busy, why))
}

fn export(
    view: &SpoolView,
    out: &mut impl Write,
    failed: impl Fn(io::Error) -> CommandError,
) -> Result<u64, CommandError> {
    let mut count = 0;
    for record in records(view, None) {
        write_line(out, &record?.letter, &failed)?;
        count += 1;
    }
    out.flush().map_err(failed)?;
    Ok(count)
}

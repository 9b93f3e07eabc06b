//! `courier dlq export`: dead letters as NDJSON.
//!
//! Rules:
//! - A line is the dead letter's own JSON, from which an import restores the same dead letter.
//! - The output file is on disk before the command reports success. An existing file is unchanged until then.

use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use clap::Args;
use kafka_courier::dlq::{Letter, letters};
use kafka_courier::shown_file;

use super::select::{ScannedLetter, SelectionArgs};
use super::store::StoreArgs;
use super::{output_failed, store_failed};
use crate::exit::{CommandError, Exit};
use crate::replacement::Replacement;

/// Write dead letters as NDJSON, one per line, for import
#[derive(Args, Debug)]
pub(super) struct ExportArgs {
    /// Write to this file (- is standard output)
    ///
    /// An existing file is replaced once all lines are written. It is unchanged if the export fails or selects no dead letter.
    #[arg(value_name = "FILE", default_value = "-")]
    to: PathBuf,
    #[command(flatten)]
    selection: SelectionArgs,
    #[command(flatten)]
    store: StoreArgs,
}

pub(super) fn run(args: &ExportArgs) -> Result<Exit, CommandError> {
    let selection = args.selection.checked("dlq export")?;
    let opened = args.store.open_to_read_beside(&args.to)?;
    let found = letters(&*opened.store, &selection).take(args.selection.max_items());
    if args.to == Path::new("-") {
        let mut out = BufWriter::new(io::stdout().lock());
        export(found, &mut out, output_failed)?;
        return Ok(Exit::Ok);
    }
    let name = shown_file(&args.to);
    let write_failed = |error: io::Error| CommandError(Exit::Io, format!("cannot write {name}: {error}"));
    let create_failed = |error: io::Error| {
        let why = format!("cannot create {name}: {error}: name a file, or - for standard output");
        CommandError(Exit::CantCreate, why)
    };
    let mut out = Replacement::of(&args.to).map_err(create_failed)?;
    let count = export(found, &mut out.writer, write_failed)?;
    if count == 0 && out.replaces() {
        crate::say(&format!("no dead letter is selected: {name} is unchanged"));
        return Ok(Exit::Ok);
    }
    out.commit().map_err(write_failed)?;
    crate::say(&format!("{} written to {name}", super::dead_letters(count)));
    Ok(Exit::Ok)
}

fn export(
    found: impl Iterator<Item = ScannedLetter>,
    out: &mut impl Write,
    failed: impl Fn(io::Error) -> CommandError,
) -> Result<u64, CommandError> {
    let mut count = 0;
    for held in found {
        write_line(out, &held.map_err(store_failed)?.letter, &failed)?;
        count += 1;
    }
    out.flush().map_err(failed)?;
    Ok(count)
}

/// Writes the line of a dead letter.
pub(crate) fn write_line(
    out: &mut impl Write,
    letter: &Letter,
    failed: impl Fn(io::Error) -> CommandError,
) -> Result<(), CommandError> {
    let mut line =
        letter.to_json().map_err(|error| CommandError(Exit::Data, format!("dead letter {}: {error}", letter.id)))?;
    line.push(b'\n');
    out.write_all(&line).map_err(failed)
}

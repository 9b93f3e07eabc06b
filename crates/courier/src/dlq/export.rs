//! `courier dlq export`: letters as NDJSON.
//!
//! Rules: a line is the letter's own JSON, byte for byte what import makes the same letter of; a file that is written is
//! on disk before the command says so.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use clap::Args;
use kafka_courier::dlq::{Letter, letters};

use super::select::SelectionArgs;
use super::store::StoreArgs;
use super::{output_failed, store_failed};
use crate::exit::{Exit, Refusal};

#[derive(Args, Debug)]
pub(super) struct ExportArgs {
    #[command(flatten)]
    store: StoreArgs,
    #[command(flatten)]
    selection: SelectionArgs,
    /// The file to write, in place of what is in it; - is standard output.
    #[arg(value_name = "FILE", default_value = "-")]
    to: PathBuf,
}

pub(super) fn run(args: &ExportArgs) -> Result<Exit, Refusal> {
    let opened = args.store.open_existing()?;
    if args.to == Path::new("-") {
        let mut out = BufWriter::new(io::stdout().lock());
        export(args, &opened, &mut out, output_failed)?;
        return Ok(Exit::Ok);
    }
    let name = args.to.display().to_string();
    if args.store.owns(&args.to, &opened.config) {
        return Err(Refusal(Exit::Usage, format!("{name} is the store of the letters itself: name another file")));
    }
    let file = File::create(&args.to).map_err(|error| Refusal(Exit::CantCreate, format!("{name}: {error}")))?;
    let failed = |error: io::Error| Refusal(Exit::Io, format!("{name}: {error}"));
    let mut out = BufWriter::new(file);
    let count = export(args, &opened, &mut out, failed)?;
    out.get_ref().sync_all().map_err(failed)?;
    crate::say(&format!("{} written to {name}", super::letters(count)));
    Ok(Exit::Ok)
}

fn export(
    args: &ExportArgs,
    opened: &super::store::Opened,
    out: &mut impl Write,
    failed: impl Fn(io::Error) -> Refusal,
) -> Result<u64, Refusal> {
    let selection = args.selection.selection();
    let mut count = 0;
    for held in letters(&*opened.store, &selection).take(args.selection.most()) {
        write_line(out, &held.map_err(store_failed)?.letter, &failed)?;
        count += 1;
    }
    out.flush().map_err(failed)?;
    Ok(count)
}

/// Writes a letter's line.
pub(super) fn write_line(
    out: &mut impl Write,
    letter: &Letter,
    failed: impl Fn(io::Error) -> Refusal,
) -> Result<(), Refusal> {
    let mut line = letter.to_json().map_err(|error| Refusal(Exit::Data, format!("letter {}: {error}", letter.id)))?;
    line.push(b'\n');
    out.write_all(&line).map_err(failed)
}

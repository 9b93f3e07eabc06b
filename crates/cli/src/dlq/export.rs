//! `courier dlq export`: dead letters as NDJSON.
//!
//! Rules:
//! - A line is the dead letter's own JSON, from which an import restores the same dead letter.
//! - The output file is on disk before the command reports success. An existing file is unchanged until then.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use clap::Args;
use kafka_courier::dlq::{Letter, letters};
use kafka_courier::shown_file;

use super::select::{ScannedLetter, SelectionArgs};
use super::store::StoreArgs;
use super::{output_failed, store_failed};
use crate::exit::{CommandError, Exit};
use crate::files::resolve;

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

/// A file that replaces another one once it is complete. Dropping it earlier removes it.
struct Replacement {
    writer: BufWriter<File>,
    /// The temporary file beside the target. `None` if the target is a device or a pipe, which is written directly.
    beside: Option<PathBuf>,
    /// The target, after all links.
    to: PathBuf,
}

impl Replacement {
    /// Creates the temporary file. An existing target keeps its permissions. A new one is readable by its owner only,
    /// because dead letters are business data.
    fn of(path: &Path) -> io::Result<Self> {
        let to = resolve(path)?;
        let there = to.metadata().ok();
        if there.as_ref().is_some_and(|there| !there.is_file()) {
            let file = OpenOptions::new().write(true).open(&to)?;
            return Ok(Self { writer: BufWriter::new(file), beside: None, to });
        }
        let mut name = to.as_os_str().to_owned();
        name.push(format!(".{}.part", std::process::id()));
        let beside = PathBuf::from(name);
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let file = options.open(&beside)?;
        let made = Self { writer: BufWriter::new(file), beside: Some(beside), to };
        if let Some(there) = there {
            made.writer.get_ref().set_permissions(there.permissions())?;
        }
        Ok(made)
    }

    /// Whether the target exists.
    fn replaces(&self) -> bool {
        self.beside.is_some() && self.to.exists()
    }

    /// Renames the temporary file to the target, and syncs both file and folder.
    fn commit(mut self) -> io::Result<()> {
        self.writer.flush()?;
        let Some(beside) = &self.beside else { return Ok(()) };
        self.writer.get_ref().sync_all()?;
        fs::rename(beside, &self.to)?;
        self.beside = None;
        let folder = self.to.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        if cfg!(unix) { File::open(folder)?.sync_all() } else { Ok(()) }
    }
}

impl Drop for Replacement {
    fn drop(&mut self) {
        if let Some(beside) = &self.beside {
            // A failure leaves an incomplete file that no command reads.
            let _ = fs::remove_file(beside);
        }
    }
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
pub(super) fn write_line(
    out: &mut impl Write,
    letter: &Letter,
    failed: impl Fn(io::Error) -> CommandError,
) -> Result<(), CommandError> {
    let mut line =
        letter.to_json().map_err(|error| CommandError(Exit::Data, format!("dead letter {}: {error}", letter.id)))?;
    line.push(b'\n');
    out.write_all(&line).map_err(failed)
}

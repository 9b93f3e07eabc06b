//! `courier dlq export`: letters as NDJSON.
//!
//! Rules: a line is the letter's own JSON, byte for byte what import makes the same letter of; a file that is written is
//! on disk before the command says so, and until then the file that was there stays as it was.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use clap::Args;
use kafka_courier::dlq::{Letter, letters};
use kafka_courier::shown_file;

use super::select::SelectionArgs;
use super::store::StoreArgs;
use super::{output_failed, store_failed};
use crate::exit::{Exit, Refusal};
use crate::files::resolve;

#[derive(Args, Debug)]
pub(super) struct ExportArgs {
    /// The file to write; - is standard output. A file that is there is replaced once all is written, and stays as it is if
    /// that fails or no letter is selected.
    #[arg(value_name = "FILE", default_value = "-")]
    to: PathBuf,
    #[command(flatten)]
    store: StoreArgs,
    #[command(flatten)]
    selection: SelectionArgs,
}

pub(super) fn run(args: &ExportArgs) -> Result<Exit, Refusal> {
    let opened = args.store.open_to_read_beside(&args.to)?;
    if args.to == Path::new("-") {
        let mut out = BufWriter::new(io::stdout().lock());
        export(args, &opened, &mut out, output_failed)?;
        return Ok(Exit::Ok);
    }
    let name = shown_file(&args.to);
    let failed = |error: io::Error| Refusal(Exit::Io, format!("{name}: {error}"));
    let cannot = |error: io::Error| Refusal(Exit::CantCreate, format!("{name}: {error}"));
    let mut out = Replacement::of(&args.to).map_err(cannot)?;
    let count = export(args, &opened, &mut out.writer, failed)?;
    if count == 0 && out.replaces() {
        crate::say(&format!("no letter is selected: {name} was left as it is"));
        return Ok(Exit::Ok);
    }
    out.commit().map_err(failed)?;
    crate::say(&format!("{} written to {name}", super::letters(count)));
    Ok(Exit::Ok)
}

/// What takes a file's place once it is whole; dropped before, it is removed.
struct Replacement {
    writer: BufWriter<File>,
    /// The file that is written: beside the other one. None: the file itself, which is a device or a pipe.
    beside: Option<PathBuf>,
    /// The file whose place is taken, links followed.
    to: PathBuf,
}

impl Replacement {
    /// Readable by its owner alone: letters are business data. A file that is there keeps its permissions.
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

    /// Whether there is a file whose place it takes.
    fn replaces(&self) -> bool {
        self.beside.is_some() && self.to.exists()
    }

    /// Puts it in its place, on disk.
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
            // What stays is a part that nobody reads.
            let _ = fs::remove_file(beside);
        }
    }
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

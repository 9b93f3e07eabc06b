//! A run with a spool: its folder, its input, and how a run goes on with a file.
//!
//! Rules:
//! - A file has a durable position. A pipe has none: what was read is stored, or becomes a dead letter.
//! - The input is read before anything of it is published, as far as earlier runs published it.

use std::fs::File;
use std::io::{self, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use indicatif::HumanCount;
use kafka_courier::spool::{InputId, SpoolHolder};
use kafka_courier::{ConfigErrors, ConfigProblem, KafkaProducer, SpoolOpenError, shown_file};

use super::input_start::{InputStart, start_of};
use super::known_items::KnownItems;
use super::position::InputPlace;
use super::reader::Source;
use crate::exit::{CommandError, Exit};
use crate::terminal::printable;

/// The spool of a run.
#[derive(Debug)]
pub(super) struct SpoolRun {
    pub(super) dir: PathBuf,
    /// The input, if it is a file.
    pub(super) input: Option<InputId>,
    /// Whether the run stays until everything is delivered.
    pub(super) waits: bool,
}

impl SpoolRun {
    /// Returns the folder as messages show it.
    pub(super) fn shown(&self) -> String {
        shown_file(&self.dir)
    }
}

/// Returns the error of a producer that can't be built.
pub(super) fn build_failed(dir: &Path, errors: &ConfigErrors) -> CommandError {
    match errors.problems().iter().find_map(ConfigProblem::spool_error) {
        Some(SpoolOpenError::Locked { pid, .. }) => {
            let (dir, holder) = (shown_file(dir), SpoolHolder { pid: *pid });
            let why = format!("{dir}: {holder} has this spool: try again later, or name another folder");
            CommandError(Exit::Busy, why)
        }
        Some(error) => CommandError(Exit::Io, error.to_string()),
        None => CommandError(Exit::Config, errors.to_string()),
    }
}

/// Decides how the run goes on with its input, says so, and opens the input there. `file` is the argument. Blocks.
pub(super) fn open_input(
    producer: &KafkaProducer,
    file: &str,
    again: bool,
    opened: Source,
) -> Result<(Source, Option<InputId>), CommandError> {
    let path = Path::new(file);
    if file == "-" || !path.is_file() {
        return Ok((opened, None));
    }
    let shown = shown_file(path);
    let failed = |error: io::Error| CommandError(Exit::Io, format!("cannot read {shown}: {error}"));
    let name = path.canonicalize().map_err(failed)?.display().to_string();
    let read = File::open(path).map_err(failed)?;
    let start = start_of(read, &name, producer.spool_inputs(), again).map_err(failed)?;
    let start = start.map_err(|changed| {
        let why = format!(
            "{shown} has changed since it was published: {changed}: restore the file, or publish it from its start with \
             --again, which publishes its former lines a second time"
        );
        CommandError(Exit::Data, why)
    })?;
    match start {
        InputStart::New => {
            let input = producer.begin_input(&name);
            Ok((Source { items: Some(KnownItems::default()), ..opened }, input))
        }
        InputStart::Finished { input } => {
            let count = HumanCount(input.count());
            let of = renamed(&name, input.name());
            crate::say(&format!(
                "{shown}: all of its {count} items{of} are stored or delivered already: --again publishes them again"
            ));
            let id = Some(input.id());
            Ok((Source { input: Box::new(io::empty()), first: None, items: Some(KnownItems::of(input)) }, id))
        }
        InputStart::Continue { input, at } => {
            let count = HumanCount(input.count());
            let of = renamed(&name, input.name());
            crate::say(&format!(
                "{shown}: continues at {}, byte {}: {count} items{of} are stored or delivered already",
                at.place, at.start
            ));
            let id = Some(input.id());
            let known = Some(KnownItems::of(input));
            // An array is read from its start.
            let InputPlace::Line(number) = at.place else { return Ok((Source { items: known, ..opened }, id)) };
            let mut rest = File::open(path).map_err(failed)?;
            rest.seek(SeekFrom::Start(at.start)).map_err(failed)?;
            Ok((Source { input: Box::new(rest), first: Some((number, at.start)), items: known }, id))
        }
    }
}

/// Returns the note about a file that was published under another name.
fn renamed(name: &str, known: &str) -> String {
    if name == known { String::new() } else { format!(" (as {})", printable(known)) }
}

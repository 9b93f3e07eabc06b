//! A run with a spool: its folder, its input, and the place where a run continues with a file.
//!
//! Rules:
//! - A file has a durable position. A pipe has none: its events are stored, or become dead letters.
//! - The input is read before anything of it is published, as far as earlier runs published it.

use std::fs::File;
use std::io::{self, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::time::Duration;

use indicatif::HumanCount;
use kafka_courier::spool::{InputId, SpooledInput};
use kafka_courier::{ConfigErrors, KafkaConfig, KafkaProducer, SpoolFull, shown_file};

use super::PublishArgs;
use super::input_start::{Again, InputStart, start_of};
use super::known_items::KnownItems;
use super::position::{InputPlace, InputPosition};
use super::reader::Source;
use crate::exit::{CommandError, Exit};
use crate::spool_errors;
use crate::terminal::printable;

/// How long a run waits for Kafka before it reads.
const FIRST_CONTACT: Duration = Duration::from_secs(3);

/// The spool of a run.
#[derive(Debug)]
pub(super) struct SpoolRun {
    pub(super) dir: PathBuf,
    /// The input, if it is a file.
    pub(super) input: Option<InputId>,
    /// Whether the run stays until everything is delivered.
    pub(super) waits: bool,
    /// The time in which a group of lines must be published, unless the run waits.
    pub(super) patience: Duration,
}

impl SpoolRun {
    /// Returns the spool that arguments and settings choose, and sets its options.
    pub(super) fn of(args: &PublishArgs, config: &mut KafkaConfig) -> Result<Option<Self>, CommandError> {
        if let Some(dir) = &args.spool {
            config.spool_dir = dir.display().to_string();
        }
        let option = [(args.wait, "--wait"), (args.again, "--again")].into_iter().find(|(is_set, _)| *is_set);
        match (config.spool_dir.as_str(), option) {
            ("", None) => Ok(None),
            ("", Some((_, option))) => {
                Err(CommandError(Exit::Usage, format!("{option} needs a spool: name its folder with --spool")))
            }
            (dir, _) => {
                let run = Self { dir: dir.into(), input: None, waits: args.wait, patience: args.grace() };
                // Events wait for room, because a refused one would be a dead letter.
                config.spool_full = SpoolFull::Block;
                Ok(Some(run))
            }
        }
    }

    /// Returns the folder as messages show it.
    pub(super) fn shown(&self) -> String {
        shown_file(&self.dir)
    }
}

/// Checks the cluster. Returns whether it is reachable. A run without a spool needs it, and every run ends if the brokers
/// refuse the client.
pub(super) async fn check_cluster(
    producer: &KafkaProducer,
    spool: Option<&SpoolRun>,
    patience: Duration,
) -> Result<bool, CommandError> {
    let Some(spool) = spool else {
        producer.health_check(patience).await?;
        return Ok(true);
    };
    match producer.health_check(patience.min(FIRST_CONTACT)).await {
        Ok(()) => Ok(true),
        Err(error) if error.is_refusal() => Err(error.into()),
        Err(error) => {
            let dir = spool.shown();
            crate::say(&format!("warning: {error}: events are stored in {dir}, and delivered once brokers answer"));
            Ok(false)
        }
    }
}

/// Returns the error of a producer that can't be built.
pub(super) fn build_failed(dir: &Path, errors: &ConfigErrors) -> CommandError {
    spool_errors::build_failed(errors, |holder| {
        let why = format!("{}: {holder} has this spool: try again later, or name another folder", shown_file(dir));
        CommandError(Exit::Busy, why)
    })
}

/// Decides where the run continues with its input, says so, and opens the input there. `file` is the argument. Blocks.
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
    let left = producer.stats().spool.map_or(0, |spool| spool.recovered);
    let how = match again {
        true if left > 0 => Again::IfChanged,
        true => Again::Yes,
        false => Again::No,
    };
    let start = start_of(read, &name, producer.spool_inputs(), is_gone, how).map_err(failed)?;
    let start = start.map_err(|changed| {
        let why = format!(
            "{shown} has changed since it was published: {changed}: restore the file, or publish it from its start with \
             --again, which publishes its former lines a second time"
        );
        CommandError(Exit::Data, why)
    })?;
    let (input, at) = match start {
        InputStart::New => {
            let input = producer.begin_input(&name);
            return Ok((Source { items: Some(KnownItems::default()), ..opened }, input));
        }
        InputStart::Finished { input } => (input, None),
        InputStart::Continue { input, at } => (input, Some(at)),
    };
    let wait = (how == Again::IfChanged).then_some(left);
    crate::say(&format!("{shown}: {}", place_of(&input, &name, at, wait)));
    let id = Some(input.id());
    let items = Some(KnownItems::of(input));
    let source = match at {
        None => Source { input: Box::new(io::empty()), first: None, items },
        Some(InputPosition { place: InputPlace::Line(number), start, .. }) => {
            let mut rest = File::open(path).map_err(failed)?;
            rest.seek(SeekFrom::Start(start)).map_err(failed)?;
            Source { input: Box::new(rest), first: Some((number, start)), items }
        }
        // An array is read from its start.
        Some(_) => Source { items, ..opened },
    };
    Ok((source, id))
}

/// Returns whether no file has the path with which an input was begun. A file that can't be looked up, or whose path is not
/// known in full, is assumed to be there.
fn is_gone(name: &str) -> bool {
    !name.contains(char::REPLACEMENT_CHARACTER) && matches!(Path::new(name).try_exists(), Ok(false))
}

/// Returns the text about the place where the run continues. `at` is `None` at the end of the file. `wait` are the events that
/// are delivered before the file is published again.
fn place_of(input: &SpooledInput, name: &str, at: Option<InputPosition>, wait: Option<u64>) -> String {
    let count = HumanCount(input.count());
    let of = if name == &**input.name() { String::new() } else { format!(" (as {})", printable(input.name())) };
    let state = format!("{count} items{of} are stored or delivered already");
    match at {
        Some(InputPosition { place, start, .. }) => format!("continues at {place}, byte {start}: {state}"),
        None => match wait {
            Some(left) => format!(
                "all of its {state}. The spool still has {} of earlier runs, which are delivered now: repeat the command \
                 afterwards to publish the file again",
                crate::spool::events(left)
            ),
            None => format!("all of its {state}: --again publishes them again"),
        },
    }
}

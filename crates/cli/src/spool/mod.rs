//! `courier spool`: reads, exports and delivers the events that a producer left in its spool.
//!
//! Rules:
//! - Only `drain` opens the spool. `adopt` writes its mark. The other commands write nothing there, and need no right to
//!   write.
//! - A command that reads also works while a process has the spool. It ends with 75 if the process disturbs it.

mod adopt;
mod check;
mod drain;
mod export;
mod folder;
mod list;
mod progress;
mod stats;

use std::io;
use std::path::Path;
use std::process::ExitCode;

use clap::{Args, Subcommand};
use kafka_courier::shown_file;
use kafka_courier::spool::{SpoolHolder, SpoolViewError};

use crate::exit::{CommandError, Exit};
use crate::files::resolve;
use crate::help;

/// Read, export and deliver the events in a spool
///
/// A spool is the folder of the option spool_dir. A producer stores accepted events there before it sends them. The next
/// producer with the same folder delivers the events that are left, and so does `courier spool drain`. `courier spool adopt`
/// takes over a copied folder. The other commands change nothing in the folder.
#[derive(Args, Debug)]
pub(crate) struct SpoolArgs {
    #[command(subcommand)]
    command: SpoolCommand,
}

#[derive(Subcommand, Debug)]
enum SpoolCommand {
    #[command(after_long_help = help::spool_stats())]
    Stats(stats::StatsArgs),
    #[command(after_long_help = help::spool_list())]
    List(list::ListArgs),
    #[command(after_long_help = help::spool_check())]
    Check(check::CheckArgs),
    #[command(after_long_help = help::spool_export())]
    Export(export::ExportArgs),
    #[command(after_long_help = help::spool_drain())]
    Drain(drain::DrainArgs),
    #[command(after_long_help = help::spool_adopt())]
    Adopt(adopt::AdoptArgs),
}

/// Runs the command and prints its error.
pub(crate) fn run(args: &SpoolArgs) -> ExitCode {
    let done = match &args.command {
        SpoolCommand::Stats(args) => stats::run(args),
        SpoolCommand::List(args) => list::run(args),
        SpoolCommand::Check(args) => check::run(args),
        SpoolCommand::Export(args) => export::run(args),
        SpoolCommand::Drain(args) => drain::run(args),
        SpoolCommand::Adopt(args) => adopt::run(args),
    };
    done.unwrap_or_else(CommandError::report).into()
}

/// Returns the error of a spool that can't be read.
fn read_failed(error: SpoolViewError) -> CommandError {
    let exit = match &error {
        SpoolViewError::Missing { .. } | SpoolViewError::Batch { .. } => Exit::Data,
        SpoolViewError::Unsteady { .. } => Exit::Busy,
        _ => Exit::Io,
    };
    CommandError(exit, error.to_string())
}

/// Returns the error of a command that needs a spool that no other process has.
fn held(dir: &str, holder: SpoolHolder) -> CommandError {
    CommandError(
        Exit::Busy,
        format!("{dir}: {holder} has this spool, and delivers its events: try again later, or stop it"),
    )
}

/// Fails if a file that a command writes is in the folder of a spool, where it could replace a segment. `what` names the file.
pub(crate) fn check_outside(spool: &Path, what: &str, file: &Path) -> Result<(), CommandError> {
    let folder = resolve(file).ok().and_then(|file| file.parent().map(Path::to_owned));
    if file != Path::new("-") && folder.is_some() && folder == spool.canonicalize().ok() {
        let why = format!("{what} {} is in the folder of the spool: name another folder", shown_file(file));
        return Err(CommandError(Exit::Usage, why));
    }
    Ok(())
}

/// Returns the error of standard output. A closed pipe is not an error: its reader may have read enough.
fn output_failed(error: io::Error) -> CommandError {
    match error.kind() {
        io::ErrorKind::BrokenPipe => CommandError(Exit::Ok, String::new()),
        _ => CommandError(Exit::Io, format!("cannot write standard output: {error}")),
    }
}

/// Returns `1 event`, `2 events`.
pub(crate) fn events(count: u64) -> String {
    let plural = if count == 1 { "" } else { "s" };
    format!("{} event{plural}", indicatif::HumanCount(count))
}

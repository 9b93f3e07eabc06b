//! `courier dlq`: lists, shows, replays, removes, exports and imports dead letters.
//!
//! Rules:
//! - A command that replays or removes dead letters needs an explicit selection. An empty selection is an error and never
//!   means all.
//! - While another process has the file open, a command reaches the file through that process.
//! - Dead letters are read and stored in pages, so memory is bounded.

mod export;
mod import;
mod list;
mod purge;
mod replay;
mod report;
mod select;
mod show;
mod stats;
mod store;
mod table;

use std::io;
use std::process::ExitCode;

use clap::{Args, Subcommand};
use kafka_courier::dlq::StoreError;

pub(crate) use self::export::write_line;
pub(crate) use self::table::{LetterRow, LetterTable};
use crate::exit::{CommandError, Exit};
use crate::help;

/// List, replay and remove dead letters
///
/// A dead letter is an event that could not be delivered, kept with the reason. `courier publish` keeps dead letters in the
/// file dead-letters.redb in $XDG_STATE_HOME/kafka-courier (~/.local/state/kafka-courier), unless --dlq-file or
/// KAFKA_DLQ_FILE names another file. The commands here use the same file, or the Kafka topic of --store-topic. They also
/// work while a publisher or a service has the file open.
#[derive(Args, Debug)]
pub(crate) struct DlqArgs {
    #[command(subcommand)]
    command: DlqCommand,
}

#[derive(Subcommand, Debug)]
enum DlqCommand {
    #[command(after_long_help = help::dlq_list())]
    List(list::ListArgs),
    #[command(after_long_help = help::dlq_show())]
    Show(show::ShowArgs),
    #[command(after_long_help = help::dlq_stats())]
    Stats(stats::StatsArgs),
    #[command(after_long_help = help::dlq_replay())]
    Replay(replay::ReplayArgs),
    #[command(after_long_help = help::dlq_purge())]
    Purge(purge::PurgeArgs),
    #[command(after_long_help = help::dlq_export())]
    Export(export::ExportArgs),
    #[command(after_long_help = help::dlq_import())]
    Import(import::ImportArgs),
}

/// Runs the command and prints its error.
pub(crate) fn run(args: DlqArgs) -> ExitCode {
    let runtime = match crate::runtime::start() {
        Ok(runtime) => runtime,
        Err(error) => return error.report().into(),
    };
    let entered = runtime.enter();
    let done = match args.command {
        DlqCommand::List(args) => list::run(&args),
        DlqCommand::Show(args) => show::run(&args),
        DlqCommand::Stats(args) => stats::run(&args),
        DlqCommand::Replay(args) => replay::run(&runtime, &args),
        DlqCommand::Purge(args) => purge::run(&args),
        DlqCommand::Export(args) => export::run(&args),
        DlqCommand::Import(args) => import::run(&args),
    };
    drop(entered);
    runtime.shutdown_background();
    done.unwrap_or_else(CommandError::report).into()
}

/// Returns the error of a failed store.
fn store_failed(error: StoreError) -> CommandError {
    CommandError(Exit::Io, error.to_string())
}

/// Returns the error of standard output. A closed pipe is not an error: its reader may have read enough.
fn output_failed(error: io::Error) -> CommandError {
    match error.kind() {
        io::ErrorKind::BrokenPipe => CommandError(Exit::Ok, String::new()),
        _ => CommandError(Exit::Io, format!("cannot write standard output: {error}")),
    }
}

/// Returns `1 dead letter`, `2 dead letters`.
fn dead_letters(count: u64) -> String {
    let plural = if count == 1 { "" } else { "s" };
    format!("{} dead letter{plural}", indicatif::HumanCount(count))
}

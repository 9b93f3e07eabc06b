//! `courier dlq`: dead letters listed, looked at, sent again, removed, and carried elsewhere.
//!
//! Rules:
//! - What is removed, or sent again, was selected by the caller: nothing selected is an error, never everything.
//! - It works on the file while a service has it open, through that service, and then as well as without.
//! - Letters are read and taken in pages: memory is bounded.

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

pub(crate) use self::table::{Row, Table};
use crate::exit::{self, Exit, Refusal};

/// Dead letters: events that were given up, kept with their reason. Lists them, sends them again, removes them.
///
/// They are read from the file that --file names, else KAFKA_DLQ_FILE, else dead-letters.redb in $XDG_STATE_HOME/kafka-courier
/// (~/.local/state/kafka-courier): where courier publish keeps them. A file that a running service holds is reached through
/// that service. --store-topic reads those in a Kafka topic instead.
#[derive(Args, Debug)]
pub(crate) struct DlqArgs {
    #[command(subcommand)]
    command: DlqCommand,
}

#[derive(Subcommand, Debug)]
enum DlqCommand {
    /// Lists letters, in the order in which they arrived.
    #[command(after_long_help = exit::HELP)]
    List(list::ListArgs),
    /// Shows all of a letter.
    #[command(after_long_help = exit::HELP)]
    Show(show::ShowArgs),
    /// Counts letters: by topic, error and outcome.
    #[command(after_long_help = exit::HELP)]
    Stats(stats::StatsArgs),
    /// Sends letters again: each is removed once it is acknowledged.
    #[command(after_long_help = exit::HELP)]
    Replay(replay::ReplayArgs),
    /// Removes letters for ever.
    #[command(after_long_help = exit::HELP)]
    Purge(purge::PurgeArgs),
    /// Writes letters as NDJSON, a line a letter, which import takes.
    #[command(after_long_help = exit::HELP)]
    Export(export::ExportArgs),
    /// Takes letters from NDJSON, as export writes it.
    #[command(after_long_help = exit::HELP)]
    Import(import::ImportArgs),
}

/// Runs the command; prints its error.
pub(crate) fn run(args: DlqArgs) -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            crate::say(&format!("the runtime could not be started: {error}"));
            return Exit::Io.into();
        }
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
    match done {
        Ok(exit) => exit.into(),
        Err(Refusal(exit, why)) => {
            if !why.is_empty() {
                crate::say(&why);
            }
            exit.into()
        }
    }
}

/// A store that failed.
fn store_failed(error: StoreError) -> Refusal {
    Refusal(Exit::Io, error.to_string())
}

/// Standard output that can't be written. Whoever read it may have seen enough.
fn output_failed(error: io::Error) -> Refusal {
    match error.kind() {
        io::ErrorKind::BrokenPipe => Refusal(Exit::Ok, String::new()),
        _ => Refusal(Exit::Io, format!("standard output: {error}")),
    }
}

/// `1 letter`, `2 letters`.
fn letters(count: u64) -> String {
    let plural = if count == 1 { "" } else { "s" };
    format!("{} letter{plural}", indicatif::HumanCount(count))
}

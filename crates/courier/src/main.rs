//! `courier`: publishes business events to Apache Kafka from the command line.
//!
//! Rules: what a command prints for others to read goes to standard output, everything else to standard
//! error; the exit code tells what happened (see `exit`).

mod config;
mod demo;
mod dlq;
mod exit;
mod files;
mod letters;
mod logging;
mod publish;
mod sample;
mod settings;
mod signals;
mod state;
mod terminal;
mod usage;

use std::io::Write;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use kafka_courier_event_model::validate_topic_name;

use crate::exit::Exit;
use crate::terminal::printable;

/// Publishes business events to Apache Kafka: idempotent, in order per key, with a verdict on each.
#[derive(Parser, Debug)]
#[command(name = "courier", version, after_long_help = exit::HELP)]
struct Cli {
    /// What is logged to standard error: off, error, warn, info, debug, trace, or a filter such as rskafka=debug.
    /// Without it RUST_LOG counts, else error.
    #[arg(long, global = true, value_name = "LEVEL")]
    log_level: Option<String>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// Publishes events from a file or standard input.
    #[command(after_long_help = exit::HELP)]
    Publish(publish::PublishArgs),
    /// Dead letters: lists them, sends them again, removes them.
    #[command(after_long_help = exit::HELP)]
    Dlq(Box<dlq::DlqArgs>),
    /// Prints every setting as it is, and where it comes from.
    #[command(after_long_help = exit::HELP)]
    Config(config::ConfigArgs),
    /// Shows it at work on a cluster inside this process: faults, and a ledger that balances. Needs no Kafka.
    #[command(after_long_help = exit::DEMO_HELP)]
    Demo(demo::DemoArgs),
    /// Prints realistic events as NDJSON, the same for the same seed.
    #[command(after_long_help = exit::SAMPLE_HELP)]
    Sample(sample::SampleArgs),
}

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let code = if error.use_stderr() { Exit::Usage } else { Exit::Ok };
            usage::print(error);
            return code.into();
        }
    };
    if let Err(error) = logging::start(cli.log_level.as_deref()) {
        say(&format!("--log-level: {error}"));
        return Exit::Usage.into();
    }
    match cli.command {
        Command::Publish(args) => publish::run(args).into(),
        Command::Dlq(args) => dlq::run(*args),
        Command::Config(args) => config::run(&args).into(),
        Command::Demo(args) => demo::run(&args).into(),
        Command::Sample(args) => match sample::run(&args) {
            Ok(()) => Exit::Ok.into(),
            Err(error) => {
                say(&format!("standard output: {error}"));
                Exit::Io.into()
            }
        },
    }
}

/// A topic's name on the command line.
fn topic_name(name: &str) -> Result<String, String> {
    validate_topic_name(name).map_err(|error| match usage::is_value(name) {
        true => format!("topic: {error}"),
        false => "topic: only a-z, A-Z, 0-9, '.', '_' and '-' are allowed, and at most 249 of them".to_owned(),
    })?;
    Ok(name.to_owned())
}

/// A number on the command line.
fn whole_number<N: std::str::FromStr>(text: &str) -> Result<N, String> {
    text.parse().map_err(|_| "a whole number is expected, such as 100".to_owned())
}

/// Prints to standard error; what has several lines, such as all problems of a configuration, has each by itself. Control
/// characters are escaped.
fn say(text: &str) {
    let mut err = std::io::stderr().lock();
    for line in text.lines() {
        // Nobody is left to tell if that fails, and it changes nothing.
        let _ = writeln!(err, "courier: {}", printable(line));
    }
}

//! `courier`: publishes business events to Apache Kafka from the command line.
//!
//! Rules:
//! - A command prints its result to standard output and everything else to standard error.
//! - The exit code names the outcome (see `exit`).

mod argument;
mod config;
mod demo;
mod dlq;
mod exit;
mod files;
mod health;
mod help;
mod input;
mod logging;
mod publish;
mod replacement;
mod runtime;
mod sample;
mod serve;
mod settings;
mod shared_file;
mod signals;
mod spool;
mod spool_errors;
mod state_folder;
mod table;
mod terminal;
mod topics;
mod usage;

use std::io::Write;
use std::num::{IntErrorKind, NonZeroU32, ParseIntError};
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use kafka_courier_event_model::validate_topic_name;

use crate::argument::ArgumentError;
use crate::exit::Exit;
use crate::terminal::printable;

/// Publish business events to Apache Kafka: idempotent, in order per key, with a verdict on each event
#[derive(Parser, Debug)]
#[command(name = "courier", version, after_long_help = help::courier())]
struct Cli {
    /// Log to standard error at this level [default: RUST_LOG, else error]
    ///
    /// LEVEL is off, error, warn, info, debug or trace, or a filter such as rskafka=debug.
    #[arg(long, global = true, value_name = "LEVEL", display_order = 900)]
    log_level: Option<String>,
    /// Log as text, or as a JSON object in each line, messages of the command included
    #[arg(
        long,
        global = true,
        value_name = "FORMAT",
        value_enum,
        default_value_t,
        env = "COURIER_LOG_FORMAT",
        display_order = 901
    )]
    log_format: logging::LogFormat,
    #[command(subcommand)]
    command: CourierCommand,
}

#[derive(Subcommand, Debug)]
enum CourierCommand {
    #[command(after_long_help = help::publish())]
    Publish(publish::PublishArgs),
    #[command(after_long_help = help::serve())]
    Serve(Box<serve::ServeArgs>),
    #[command(after_long_help = help::health())]
    Health(health::HealthArgs),
    #[command(after_long_help = help::dlq())]
    Dlq(Box<dlq::DlqArgs>),
    #[command(after_long_help = help::spool())]
    Spool(Box<spool::SpoolArgs>),
    #[command(after_long_help = help::config())]
    Config(config::ConfigArgs),
    #[command(after_long_help = help::demo())]
    Demo(demo::DemoArgs),
    #[command(after_long_help = help::sample())]
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
    if let Err(error) = logging::start(cli.log_level.as_deref(), cli.log_format) {
        say(&format!("--log-level: {error}"));
        return Exit::Usage.into();
    }
    match cli.command {
        CourierCommand::Publish(args) => publish::run(args).into(),
        CourierCommand::Serve(args) => serve::run(*args).into(),
        CourierCommand::Health(args) => health::run(&args).into(),
        CourierCommand::Dlq(args) => dlq::run(*args),
        CourierCommand::Spool(args) => spool::run(&args),
        CourierCommand::Config(args) => config::run(&args).into(),
        CourierCommand::Demo(args) => demo::run(&args).into(),
        CourierCommand::Sample(args) => match sample::run(&args) {
            Ok(()) => Exit::Ok.into(),
            Err(error) => {
                say(&format!("cannot write standard output: {error}"));
                Exit::Io.into()
            }
        },
    }
}

/// Parses a topic's name on the command line.
fn topic_name(name: &str) -> Result<String, ArgumentError> {
    validate_topic_name(name).map_err(|error| match usage::is_value(name) {
        true => ArgumentError::TopicName(error),
        false => ArgumentError::HiddenTopicName,
    })?;
    Ok(name.to_owned())
}

/// Parses a number on the command line.
fn whole_number<N: TryFrom<u64>>(text: &str) -> Result<N, ArgumentError> {
    let number: u64 = text.parse().map_err(|error: ParseIntError| match error.kind() {
        IntErrorKind::PosOverflow => ArgumentError::NumberTooLarge,
        _ => ArgumentError::NotANumber,
    })?;
    number.try_into().map_err(|_| ArgumentError::NumberTooLarge)
}

/// Parses a number on the command line that must not be zero.
fn positive_number(text: &str) -> Result<NonZeroU32, ArgumentError> {
    NonZeroU32::new(whole_number(text)?).ok_or(ArgumentError::Zero)
}

/// Prints each line of the text to standard error, with control characters escaped. A text has several lines if, for
/// example, several settings are invalid.
fn say(text: &str) {
    let mut err = std::io::stderr().lock();
    if let Some(line) = logging::json_message(text) {
        // As below.
        let _ = writeln!(err, "{line}");
        return;
    }
    for line in text.lines() {
        // A failed write to standard error can't be reported and changes no outcome.
        let _ = writeln!(err, "courier: {}", printable(line));
    }
}

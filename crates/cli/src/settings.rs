//! The producer's settings on the command line, for every command that connects to a cluster.
//!
//! Rules:
//! - An argument takes precedence over the environment, the environment over the file, and the file over the default.
//! - One run reports every error in all four sources.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use clap::builder::TypedValueParser;
use clap::error::ErrorKind;
use clap::{Arg, Args, Command};
use kafka_courier::{ConfigErrors, ConfigLoader, Endpoint, EndpointError, LoadedConfig, Secret};

use crate::argument::ArgumentError;
use crate::exit::{CommandError, Exit};

/// The table of a settings file with the options of `courier serve`.
const SERVE: &str = "serve";

#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Settings")]
pub(crate) struct SettingsArgs {
    /// Connect to the cluster through these brokers [env: KAFKA_BROKERS]
    ///
    /// One or two reachable brokers are enough: they name all others.
    #[arg(long, value_name = "HOST:PORT[,..]", value_parser = Unshown(brokers))]
    brokers: Option<BrokerList>,
    /// Read settings from a TOML or JSON file
    ///
    /// A file whose name ends in .json is JSON, any other is TOML. Names are the option names of `courier config`, or the
    /// property names of the Java client. The table `serve` has the options of `courier serve`. Environment variables take precedence over the file.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Set any option, such as flush_timeout=5ms (repeatable)
    ///
    /// Takes precedence over environment variables and the file. `courier config --explain` describes all options.
    #[arg(long, value_name = "OPTION=VALUE", value_parser = Unshown(setting))]
    set: Vec<(String, Secret)>,
}

fn setting(text: &str) -> Result<(String, Secret), ArgumentError> {
    let (option, value) = text.split_once('=').ok_or(ArgumentError::NotASetting)?;
    match option.trim() {
        "" => Err(ArgumentError::NotASetting),
        option => Ok((option.to_owned(), value.into())),
    }
}

/// The value of one `--brokers`.
#[derive(Clone, Debug)]
struct BrokerList(Vec<Endpoint>);

fn brokers(text: &str) -> Result<BrokerList, ArgumentError> {
    let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
    let brokers = parts.map(str::parse).collect::<Result<_, EndpointError>>()?;
    Ok(BrokerList(brokers))
}

/// Parses an argument's value. Unlike clap's own error, the error does not show the value, which may be a secret.
#[derive(Clone)]
struct Unshown<T>(fn(&str) -> Result<T, ArgumentError>);

impl<T: Clone + Send + Sync + 'static> TypedValueParser for Unshown<T> {
    type Value = T;

    fn parse_ref(&self, command: &Command, argument: Option<&Arg>, value: &OsStr) -> Result<T, clap::Error> {
        let read = value.to_str().ok_or(ArgumentError::NotUtf8).and_then(self.0);
        read.map_err(|why| {
            let name = argument.and_then(Arg::get_long).unwrap_or_default();
            clap::Error::raw(ErrorKind::ValueValidation, format!("invalid value for --{name}: {why}\n"))
                .with_cmd(command)
        })
    }
}

impl SettingsArgs {
    /// Returns the path of the settings file, if the command line names one.
    pub(crate) fn file(&self) -> Option<&Path> {
        self.config.as_deref()
    }

    /// Merges all sources, and prints the warnings.
    pub(crate) fn load(&self) -> Result<LoadedConfig, ConfigErrors> {
        // The options of `courier serve`. The other commands share the file.
        let mut loader = ConfigLoader::new().own_table(SERVE).env();
        if let Some(path) = &self.config {
            loader = loader.file(path);
        }
        for (option, value) in &self.set {
            loader = loader.argument(&format!("--set {option}"), option, value.expose());
        }
        if let Some(BrokerList(brokers)) = &self.brokers {
            let brokers: Vec<String> = brokers.iter().map(ToString::to_string).collect();
            loader = loader.argument("--brokers", "brokers", &brokers.join(","));
        }
        let loaded = loader.load()?;
        for warning in &loaded.warnings {
            crate::say(&format!("warning: {warning}"));
        }
        Ok(loaded)
    }
}

/// Fails if `option` names the topic of dead letters as the destination of events.
pub(crate) fn check_destination(option: &str, topic: Option<&str>, dlq_topic: &str) -> Result<(), CommandError> {
    if topic != Some(dlq_topic) {
        return Ok(());
    }
    let why = format!(
        "{option} and dlq_topic are both {dlq_topic:?}, which would mix events with dead letters: change one of them"
    );
    Err(CommandError(Exit::Config, why))
}

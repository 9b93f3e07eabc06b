//! The producer's settings, as every command that reaches a cluster takes them.
//!
//! Rules: an argument goes before the environment, that before the file, and that before the default; everything that is
//! wrong in any of them is told at once.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use clap::builder::TypedValueParser;
use clap::error::ErrorKind;
use clap::{Arg, Args, Command};
use kafka_courier::{ConfigErrors, ConfigLoader, Endpoint, LoadedConfig, Secret};

use crate::exit::{Exit, Refusal};

#[derive(Args, Clone, Debug)]
pub(crate) struct SettingsArgs {
    /// Where to begin: host:port of some brokers, separated by commas; instead of KAFKA_BROKERS.
    #[arg(long, value_name = "HOST:PORT[,..]", value_parser = Unshown(brokers))]
    brokers: Option<Brokers>,
    /// A file of settings: TOML, or JSON if its name ends in .json; names are the options' (courier config prints one) or
    /// those of Java's properties. The environment goes before it.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Sets any option, such as flush_timeout=5ms; may be given again. Goes before environment and file.
    #[arg(long, value_name = "OPTION=VALUE", value_parser = Unshown(setting))]
    set: Vec<(String, Secret)>,
}

fn setting(text: &str) -> Result<(String, Secret), String> {
    let (option, value) = text.split_once('=').ok_or("it is an option and its value, such as flush_timeout=5ms")?;
    Ok((option.trim().to_owned(), value.into()))
}

/// The list of one `--brokers`.
#[derive(Clone, Debug)]
struct Brokers(Vec<Endpoint>);

fn brokers(text: &str) -> Result<Brokers, String> {
    let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
    parts.map(str::parse).collect::<Result<_, _>>().map(Brokers)
}

/// Reads an argument's value. The error leaves the value out, unlike clap's own: it may be a secret.
#[derive(Clone)]
struct Unshown<T>(fn(&str) -> Result<T, String>);

impl<T: Clone + Send + Sync + 'static> TypedValueParser for Unshown<T> {
    type Value = T;

    fn parse_ref(&self, command: &Command, argument: Option<&Arg>, value: &OsStr) -> Result<T, clap::Error> {
        let read = value.to_str().ok_or_else(|| "it is not UTF-8".to_owned()).and_then(self.0);
        read.map_err(|why| {
            let name = argument.and_then(Arg::get_long).unwrap_or_default();
            clap::Error::raw(ErrorKind::ValueValidation, format!("the value of --{name} is not taken: {why}\n"))
                .with_cmd(command)
        })
    }
}

impl SettingsArgs {
    /// The file of settings, if one is named.
    pub(crate) fn file(&self) -> Option<&Path> {
        self.config.as_deref()
    }

    /// Puts all sources together, and prints what is not understood and changes nothing.
    pub(crate) fn load(&self) -> Result<LoadedConfig, ConfigErrors> {
        let mut loader = ConfigLoader::new().env();
        if let Some(path) = &self.config {
            loader = loader.file(path);
        }
        for (option, value) in &self.set {
            loader = loader.argument(&format!("--set {option}"), option, value.expose());
        }
        if let Some(Brokers(brokers)) = &self.brokers {
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

/// Fails if events would go to the topic of dead letters, named by `option`: they would be lost among them.
pub(crate) fn check_destination(option: &str, topic: Option<&str>, dlq_topic: &str) -> Result<(), Refusal> {
    if topic != Some(dlq_topic) {
        return Ok(());
    }
    let why = format!(
        "{option} and dlq_topic are both {dlq_topic:?}: events would be lost among the dead letters; name another topic in one of them"
    );
    Err(Refusal(Exit::Config, why))
}

//! The producer's settings, as every command that reaches a cluster takes them.
//!
//! Rules: an argument goes before the environment, that before the file, and that before the default; everything that is
//! wrong in any of them is told at once.

use std::path::{Path, PathBuf};

use clap::Args;
use kafka_courier::{ConfigErrors, ConfigLoader, Endpoint, LoadedConfig};

#[derive(Args, Clone, Debug)]
pub(crate) struct SettingsArgs {
    /// Where to begin: host:port of some brokers, separated by commas; instead of KAFKA_BROKERS.
    #[arg(long, value_name = "HOST:PORT[,..]", value_delimiter = ',')]
    brokers: Vec<Endpoint>,
    /// A file of settings: TOML, or JSON if its name ends in .json; names are the options' (courier config prints one) or
    /// those of Java's properties. The environment goes before it.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Sets any option, such as flush_timeout=5ms; may be given again. Goes before environment and file.
    #[arg(long, value_name = "OPTION=VALUE", value_parser = setting)]
    set: Vec<(String, String)>,
}

fn setting(text: &str) -> Result<(String, String), String> {
    let (option, value) = text.split_once('=').ok_or("it is an option and its value, such as flush_timeout=5ms")?;
    Ok((option.trim().to_owned(), value.to_owned()))
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
            loader = loader.argument(&format!("--set {option}"), option, value);
        }
        if !self.brokers.is_empty() {
            let brokers: Vec<String> = self.brokers.iter().map(ToString::to_string).collect();
            loader = loader.argument("--brokers", "brokers", &brokers.join(","));
        }
        let loaded = loader.load()?;
        for warning in &loaded.warnings {
            crate::say(&format!("warning: {warning}"));
        }
        Ok(loaded)
    }
}

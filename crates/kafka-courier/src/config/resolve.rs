//! Merges the settings of several sources into one configuration.
//!
//! Rules:
//! - A later source overrides an earlier one, in the order file, environment, argument. Problems of all sources are
//!   reported.
//! - A problem begins with the place of its setting. The value of a secret is never shown.
//! - This module does no IO. A source passes on the settings that it could not read as problems.

use std::collections::HashMap;
use std::fmt;
use std::path::{Path, PathBuf};

use kafka_courier_client::{HIDDEN, Secret};

use super::load::ReadError;
use super::names::{self, Meaning, shown_key};
use super::problem::ConfigProblem;
use super::warning::{self, ConfigWarning};
use super::{ConfigErrors, KafkaConfig, SetError, is_misplaced};

/// The source of a setting.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum Origin {
    /// No source sets the option, which has its default.
    Default,
    /// A file.
    File(PathBuf),
    /// An environment variable.
    Environment(String),
    /// A command-line argument.
    Argument(String),
    /// The application.
    Application,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File(path) => path.display().fmt(f),
            Self::Environment(variable) => f.write_str(variable),
            Self::Argument(argument) => f.write_str(argument),
            Self::Application => f.write_str("the application"),
        }
    }
}

/// One setting of a source.
#[derive(Clone)]
pub(super) struct SourceEntry {
    pub(super) origin: Origin,
    /// The name as the source spells it.
    pub(super) key: String,
    /// The option's name, without the prefix of a variable.
    pub(super) name: String,
    /// The value, or the reason for a missing value. Any value may be a secret, even if the name is misspelt.
    pub(super) value: Result<Secret, EntryError>,
    /// The file with the value, if the setting names one.
    pub(super) file: Option<PathBuf>,
}

/// The reason for a missing value of a setting.
#[derive(Clone, Debug, thiserror::Error)]
pub(super) enum EntryError {
    #[error("the value is not UTF-8")]
    NotUtf8,
    /// The value may have been given instead of the path of its file.
    #[error("the value is not the path of a file: set it to the path of a file with {value}")]
    NotAPath { value: String },
    #[error("{path}: {error}")]
    Unreadable { path: String, error: ReadError },
}

/// Shows neither the value nor the reason for a missing value. A problem reports the reason.
impl fmt::Debug for SourceEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SourceEntry").field("place", &self.place()).finish_non_exhaustive()
    }
}

impl Origin {
    /// Returns the source without the name of a setting.
    fn source(&self) -> String {
        match self {
            Self::Argument(_) => "the arguments".to_owned(),
            Self::Environment(_) => "the environment".to_owned(),
            Self::Default | Self::File(_) | Self::Application => self.to_string(),
        }
    }
}

impl SourceEntry {
    /// Returns whether the value is an option's name. The setting's name may then be the secret.
    fn is_name_and_value_swapped(&self) -> bool {
        self.value.as_ref().is_ok_and(|value| names::meaning(value.expose()) != Meaning::Unknown)
    }

    /// Returns the place of the setting, as problems show it.
    fn place(&self) -> String {
        place(&self.origin, &self.key)
    }

    /// Returns the place of the setting of the option `name`.
    fn place_of(&self, name: &str) -> String {
        option_place(&self.origin, &self.key, name)
    }
}

/// Returns the place of a setting, and the option's name in parentheses if the setting has another name.
fn option_place(origin: &Origin, key: &str, name: &str) -> String {
    let place = place(origin, key);
    if key == name { place } else { format!("{place} ({name})") }
}

fn place(origin: &Origin, key: &str) -> String {
    let shown = shown_key(key);
    match origin {
        Origin::Default | Origin::Application | Origin::Environment(_) => shown.to_owned(),
        Origin::File(path) => format!("{shown} in {}", path.display()),
        Origin::Argument(argument) if shown != key => argument.replace(key, shown),
        Origin::Argument(argument) => argument.clone(),
    }
}

/// A configuration, and the source of each option.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct LoadedConfig {
    /// The configuration.
    pub config: KafkaConfig,
    /// Ignored variables, and options that weaken security.
    pub warnings: Vec<ConfigWarning>,
    origins: HashMap<&'static str, (Origin, String)>,
    value_files: Vec<(String, PathBuf)>,
}

/// The effective value of an option.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct EffectiveOption {
    /// The option's name.
    pub name: &'static str,
    /// The value as text, or `***` for a secret that is set.
    pub value: String,
    /// Whether the value is hidden.
    pub secret: bool,
    /// The source of the value.
    pub origin: Origin,
}

impl LoadedConfig {
    /// Returns the configuration, and logs the warnings.
    pub(super) fn into_config(self) -> KafkaConfig {
        warning::log(&self.warnings);
        self.config
    }

    /// Returns the source of an option's value.
    pub fn origin(&self, option: &str) -> Origin {
        self.origins.get(option).map_or(Origin::Default, |(origin, _)| origin.clone())
    }

    /// Returns the files from which values were read, each with the setting that names it, such as
    /// `KAFKA_SASL_PASSWORD_FILE`. The list includes files of values that another source overrides.
    pub fn value_files(&self) -> impl Iterator<Item = (&str, &Path)> {
        self.value_files.iter().map(|(setting, path)| (setting.as_str(), path.as_path()))
    }

    /// Returns every option with its effective value, in the order of the documentation. Secrets are hidden.
    pub fn effective(&self) -> Vec<EffectiveOption> {
        let effective = |(name, value, secret)| EffectiveOption { name, value, secret, origin: self.origin(name) };
        self.config.values().into_iter().map(effective).collect()
    }
}

/// The state of a merge of sources.
#[derive(Debug, Default)]
pub(super) struct Resolver {
    config: KafkaConfig,
    origins: HashMap<&'static str, (Origin, String)>,
    value_files: Vec<(String, PathBuf)>,
    warnings: Vec<ConfigWarning>,
    problems: Vec<String>,
}

impl Resolver {
    /// Starts from the defaults, with the warnings and problems of reading the sources.
    pub(super) fn new(warnings: Vec<ConfigWarning>, problems: Vec<String>) -> Self {
        Self { warnings, problems, ..Self::default() }
    }

    /// Adds the settings of a source without an order. Each option may occur once.
    pub(super) fn add_source(&mut self, entries: Vec<SourceEntry>) {
        let mut seen: HashMap<&'static str, String> = HashMap::new();
        for entry in entries {
            let place = entry.place();
            let Some(name) = self.add(&entry) else { continue };
            if let Some(other) = seen.insert(name, entry.key.clone()) {
                self.problems.push(format!("{place} sets {name}, and {other} sets it too: remove one of them"));
            }
        }
    }

    /// Adds a setting, and returns the option that it names.
    pub(super) fn add(&mut self, entry: &SourceEntry) -> Option<&'static str> {
        self.value_files.extend(entry.file.clone().map(|path| (entry.key.clone(), path)));
        match names::meaning(&entry.name) {
            Meaning::Option { name, millis } => {
                self.set(name, millis, entry);
                Some(name)
            }
            Meaning::Fixed(allowed, why) => {
                match entry.value.as_ref().map(Secret::expose) {
                    Ok(value) if allowed.contains(&value.to_lowercase().as_str()) => {}
                    Ok(value) => {
                        self.problems.push(format!("{} is {value:?}, which is not allowed: {why}", entry.place()));
                    }
                    Err(why) => self.problems.push(format!("{}: {why}", entry.place())),
                }
                None
            }
            Meaning::Unsupported(instead) => {
                self.problems.push(format!("{} is not an option of kafka-courier: {instead}", entry.place()));
                None
            }
            Meaning::Unknown if entry.is_name_and_value_swapped() => {
                let why = "name and value are swapped: write the name first, then the value";
                self.problems.push(format!("{HIDDEN} in {}: {why}", entry.origin.source()));
                None
            }
            Meaning::Unknown => {
                let meant = names::nearest(&entry.name)
                    .map_or_else(|| names::OPTIONS_HINT.to_owned(), |near| format!(": did you mean {near}?"));
                self.problems.push(format!("{} is not an option of kafka-courier{meant}", entry.place()));
                None
            }
        }
    }

    fn set(&mut self, name: &'static str, millis: bool, entry: &SourceEntry) {
        let value = match &entry.value {
            Ok(value) => value.expose(),
            Err(why) => return self.problems.push(format!("{}: {why}", entry.place())),
        };
        if matches!(entry.origin, Origin::Argument(_)) && !entry.key.ends_with("_file") && KafkaConfig::is_secret(name)
        {
            let why = "is a secret, and every user of this machine can read the arguments of a process";
            let instead = format!("set KAFKA_{}, or set {name}_file to a file with the secret", name.to_uppercase());
            return self.problems.push(format!("{} {why}: {instead}", entry.place()));
        }
        if is_misplaced(name, value) {
            let why = "must be the path of a file: write the present value to a file, and set the option to its path";
            return self.problems.push(format!("{} is {HIDDEN}, which is not allowed: {why}", entry.place_of(name)));
        }
        let is_number = !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit());
        let set = match millis {
            true if is_number => self.config.set(name, &format!("{value}ms")),
            true => {
                Err(SetError { shown: format!("{value:?}"), allowed: "must be whole milliseconds, such as 500".into() })
            }
            false => self.config.set(name, value),
        };
        match set {
            Ok(()) => {
                self.origins.insert(name, (entry.origin.clone(), entry.key.clone()));
            }
            Err(SetError { shown, allowed }) => {
                self.problems.push(format!("{} is {shown}, which is not allowed: {allowed}", entry.place_of(name)));
            }
        }
    }

    /// Checks the merged configuration.
    ///
    /// # Errors
    /// Returns the problems of all sources and of the merged configuration, and the warnings: a misspelt name may be
    /// the cause of another problem.
    pub(super) fn finish(mut self) -> Result<LoadedConfig, ConfigErrors> {
        if !self.origins.contains_key("retry_backoff_max") {
            self.config.raise_backoff_max();
        }
        let whole: Vec<String> = self.config.typed_problems().iter().map(|problem| self.locate(problem)).collect();
        self.problems.extend(whole);
        if !self.problems.is_empty() {
            self.warnings.sort_by_cached_key(ToString::to_string);
            self.problems.extend(self.warnings.iter().map(|warning| format!("warning: {warning}")));
            return Err(ConfigErrors(self.problems));
        }
        self.warnings.extend(self.config.security_warnings());
        self.warnings.sort_by_cached_key(ToString::to_string);
        let Self { config, origins, value_files, warnings, .. } = self;
        Ok(LoadedConfig { config, warnings, origins, value_files })
    }

    /// Returns the text of a problem with the place of the option's setting instead of the option's name, and with the
    /// place of the related option's setting at the end.
    fn locate(&self, problem: &ConfigProblem) -> String {
        let (option, text) = (problem.option(), problem.to_string());
        let rest = text.strip_prefix(option).unwrap_or(&text);
        let mut text = match self.origins.get(option) {
            Some((origin, key)) => format!("{}{rest}", option_place(origin, key, option)),
            None => format!("KAFKA_{} ({option}){rest}", option.to_uppercase()),
        };
        if let Some(related) = problem.related()
            && let Some((origin, key)) = self.origins.get(related)
        {
            text += &format!(" [{related}: {}]", place(origin, key));
        }
        text
    }
}

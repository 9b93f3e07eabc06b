//! Merges the settings of several sources into one configuration.
//!
//! Rules:
//! - A later source overrides an earlier one, in the order file, environment, argument. Problems of all sources are
//!   reported.
//! - A problem begins with the place of its setting. The value of a secret is never shown.
//! - An option whose setting was rejected has another value than the sources say. The problems of that value are not
//!   reported.
//! - A source passes on the settings that it could not read as problems.
//! - A valid configuration causes no IO here. An invalid one is checked with the files of TLS and SASL, so that one error
//!   has all problems.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};

use kafka_courier_client::Secret;

use super::cause::ProblemCause;
use super::names::{self, Meaning, shown_key};
use super::origin::{Origin, SettingPlace};
use super::problem::ConfigProblem;
use super::source::SourceEntry;
use super::value::{AllowedValues, InvalidValue};
use super::warning::{self, ConfigWarning};
use super::{ConfigErrors, KafkaConfig, is_misplaced};

/// A configuration, and the source of each option.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct LoadedConfig {
    /// The configuration.
    pub config: KafkaConfig,
    /// Ignored variables, and options that weaken security.
    pub warnings: Vec<ConfigWarning>,
    origins: HashMap<&'static str, SettingPlace>,
    value_files: Vec<(String, PathBuf)>,
    pub(super) own_settings: Vec<(String, Secret)>,
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
    /// Returns the names and values in the table of the application: [`ConfigLoader::own_table`](crate::ConfigLoader::own_table).
    pub fn own_settings(&self) -> &[(String, Secret)] {
        &self.own_settings
    }

    /// Returns the configuration, and logs the warnings.
    pub(super) fn into_config(self) -> KafkaConfig {
        warning::log(&self.warnings);
        self.config
    }

    /// Returns the source of an option's value.
    pub fn origin(&self, option: &str) -> Origin {
        self.origins.get(option).map_or(Origin::Default, |place| place.origin().clone())
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
    origins: HashMap<&'static str, SettingPlace>,
    /// Options whose last setting was rejected.
    rejected: HashSet<&'static str>,
    value_files: Vec<(String, PathBuf)>,
    warnings: Vec<ConfigWarning>,
    problems: Vec<ConfigProblem>,
}

impl Resolver {
    /// Starts from the defaults, with the warnings and problems of reading the sources.
    pub(super) fn new(warnings: Vec<ConfigWarning>, problems: Vec<ConfigProblem>) -> Self {
        Self { warnings, problems, ..Self::default() }
    }

    /// Adds the settings of a source without an order. Each option may occur once.
    pub(super) fn add_source(&mut self, entries: Vec<SourceEntry>) {
        let mut seen: HashMap<&'static str, String> = HashMap::new();
        for entry in entries {
            let Some(option) = self.add(&entry) else { continue };
            if let Some(other) = seen.insert(option, entry.key.clone()) {
                let cause = match other == entry.key {
                    true => ProblemCause::Repeated { option },
                    false => ProblemCause::SetTwice { option, other },
                };
                self.report(&entry, cause);
            }
        }
    }

    /// Adds a setting, and returns the option that it names.
    pub(super) fn add(&mut self, entry: &SourceEntry) -> Option<&'static str> {
        self.value_files.extend(entry.file.clone().map(|path| (entry.key.clone(), path)));
        let key = || shown_key(&entry.key).to_owned();
        match names::meaning(&entry.name) {
            Meaning::Option { name, millis } => {
                match self.set(name, millis, entry) {
                    Ok(()) => {
                        self.rejected.remove(name);
                        self.origins.insert(name, entry.place());
                    }
                    Err(cause) => {
                        self.rejected.insert(name);
                        self.report(entry, cause);
                    }
                }
                return Some(name);
            }
            Meaning::Fixed { name, values, reason } => {
                if let Err(cause) = check_fixed(name, values, reason, entry) {
                    self.report(entry, cause);
                }
            }
            Meaning::Unsupported(instead) => {
                self.report(entry, ProblemCause::UnsupportedOption { key: key(), instead });
            }
            Meaning::Unknown if entry.is_name_and_value_swapped() => {
                self.problems.push(ConfigProblem::of_swapped_setting(&entry.origin));
            }
            Meaning::Unknown => {
                let suggestion = names::nearest(&entry.name);
                self.report(entry, ProblemCause::UnknownOption { key: key(), suggestion });
            }
        }
        None
    }

    fn report(&mut self, entry: &SourceEntry, cause: ProblemCause) {
        self.problems.push(ConfigProblem::of_setting(entry.place(), cause));
    }

    fn set(&mut self, option: &'static str, millis: bool, entry: &SourceEntry) -> Result<(), ProblemCause> {
        let value = match &entry.value {
            Ok(value) => value.expose(),
            Err(error) => return Err(ProblemCause::NoValue { option, error: error.clone() }),
        };
        if entry.is_value_in_argument() && KafkaConfig::is_secret(option) {
            return Err(ProblemCause::SecretArgument { option });
        }
        let set = if is_misplaced(option, value) {
            Err(InvalidValue::hidden(AllowedValues::FilePath))
        } else if millis {
            let is_number = !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit());
            match is_number {
                true => self.config.set(option, &format!("{value}ms")),
                false => Err(InvalidValue::shown_as(value.to_owned(), AllowedValues::Milliseconds)),
            }
        } else {
            self.config.set(option, value)
        };
        set.map_err(|error| ProblemCause::InvalidValue { option, error })
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
        let mut merged = self.config.problems();
        if !(merged.is_empty() && self.problems.is_empty()) {
            merged.extend(self.config.file_problems());
        }
        merged.retain(|problem| !self.rejected.iter().any(|option| problem.concerns(option)));
        self.problems.extend(merged.into_iter().map(|problem| problem.located(|option| self.origins.get(option))));
        if !self.problems.is_empty() {
            self.warnings.sort_by_cached_key(ToString::to_string);
            return Err(ConfigErrors::with_warnings(self.problems, self.warnings));
        }
        self.warnings.extend(self.config.security_warnings());
        self.warnings.sort_by_cached_key(ToString::to_string);
        let Self { config, origins, value_files, warnings, .. } = self;
        Ok(LoadedConfig { config, warnings, origins, value_files, own_settings: Vec::new() })
    }
}

/// Checks the value of a Java property with a fixed meaning.
fn check_fixed(
    option: &'static str,
    values: &'static [&'static str],
    reason: &'static str,
    entry: &SourceEntry,
) -> Result<(), ProblemCause> {
    match entry.value.as_ref().map(Secret::expose) {
        Ok(value) if values.contains(&value.to_lowercase().as_str()) => Ok(()),
        Ok(value) => {
            let error = InvalidValue::shown_as(value.to_owned(), AllowedValues::Only { values, reason });
            Err(ProblemCause::InvalidValue { option, error })
        }
        Err(error) => Err(ProblemCause::NoValue { option, error: error.clone() }),
    }
}

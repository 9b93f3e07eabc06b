//! Settings from several sources, made into one configuration.
//!
//! Rules:
//! - What is set last in the order file, environment, argument holds; what is wrong in any of them is reported.
//! - A problem begins with where its setting was written; the value of a secret is never told.
//! - No IO here: what a source could not read comes in as a problem of its own.

use std::collections::HashMap;
use std::fmt;
use std::path::{Path, PathBuf};

use kafka_courier_idempotent_sender::{HIDDEN, Secret};

use super::names::{self, Meaning, shown_key};
use super::{ConfigErrors, KafkaConfig, SetError, is_misplaced};

/// Where a setting was written.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum Origin {
    /// Nowhere: it is the default.
    Default,
    /// In this file.
    File(PathBuf),
    /// In this variable of the environment.
    Environment(String),
    /// In this argument of the command line.
    Argument(String),
    /// By the application.
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

/// One setting as a source has it.
#[derive(Clone)]
pub(super) struct Entry {
    pub(super) origin: Origin,
    /// As it was written.
    pub(super) key: String,
    /// The option, without a variable's prefix.
    pub(super) name: String,
    /// Its text, or why there is none. Any may be a secret, also where the name was misspelt.
    pub(super) value: Result<Secret, String>,
    /// The file that its text was read from, if the setting names one.
    pub(super) file: Option<PathBuf>,
}

/// Without the value, or why there is none: that is told as a problem.
impl fmt::Debug for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Entry").field("place", &self.place()).finish_non_exhaustive()
    }
}

impl Origin {
    /// The source as a whole, without a setting's name.
    fn source(&self) -> String {
        match self {
            Self::Argument(_) => "the arguments".to_owned(),
            Self::Environment(_) => "the environment".to_owned(),
            Self::Default | Self::File(_) | Self::Application => self.to_string(),
        }
    }
}

impl Entry {
    /// Whether its value is an option's name, so that its name may be the secret.
    fn is_swapped(&self) -> bool {
        self.value.as_ref().is_ok_and(|value| names::meaning(value.expose()) != Meaning::Unknown)
    }

    /// Where it was written, as problems begin.
    fn place(&self) -> String {
        place(&self.origin, &self.key)
    }
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

/// A configuration, and where each of its settings came from.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct LoadedConfig {
    /// The configuration.
    pub config: KafkaConfig,
    /// What was not understood and changes nothing.
    pub warnings: Vec<String>,
    origins: HashMap<&'static str, (Origin, String)>,
    value_files: Vec<(String, PathBuf)>,
}

/// An option as it is set.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct EffectiveOption {
    /// Its name.
    pub name: &'static str,
    /// Its value as text, `***` for a secret that is set.
    pub value: String,
    /// Whether its value is hidden.
    pub secret: bool,
    /// Where it was set.
    pub origin: Origin,
}

impl LoadedConfig {
    /// Where an option was set.
    pub fn origin(&self, option: &str) -> Origin {
        self.origins.get(option).map_or(Origin::Default, |(origin, _)| origin.clone())
    }

    /// Returns the files that options' values were read from, each with the setting that names it, such as
    /// `KAFKA_SASL_PASSWORD_FILE`; those of values that another source replaces too.
    pub fn value_files(&self) -> impl Iterator<Item = (&str, &Path)> {
        self.value_files.iter().map(|(setting, path)| (setting.as_str(), path.as_path()))
    }

    /// Every option as it is set, in the documentation's order; secrets are hidden.
    pub fn effective(&self) -> Vec<EffectiveOption> {
        let effective = |(name, value, secret)| EffectiveOption { name, value, secret, origin: self.origin(name) };
        self.config.values().into_iter().map(effective).collect()
    }
}

/// What the sources made, while they are read.
#[derive(Debug, Default)]
pub(super) struct Resolver {
    config: KafkaConfig,
    origins: HashMap<&'static str, (Origin, String)>,
    value_files: Vec<(String, PathBuf)>,
    warnings: Vec<String>,
    problems: Vec<String>,
}

impl Resolver {
    /// The defaults, and what was found while the sources were read.
    pub(super) fn new(warnings: Vec<String>, problems: Vec<String>) -> Self {
        Self { warnings, problems, ..Self::default() }
    }

    /// Takes one source's settings, whose order is of no consequence: each option may stand once.
    pub(super) fn take_once(&mut self, entries: Vec<Entry>) {
        let mut seen: HashMap<&'static str, String> = HashMap::new();
        for entry in entries {
            let place = entry.place();
            let Some(name) = self.take(&entry) else { continue };
            if let Some(other) = seen.insert(name, entry.key.clone()) {
                self.problems.push(format!("{place} sets {name}, which {other} sets too: leave one of them out"));
            }
        }
    }

    /// Takes a setting; what it set.
    pub(super) fn take(&mut self, entry: &Entry) -> Option<&'static str> {
        self.value_files.extend(entry.file.clone().map(|path| (entry.key.clone(), path)));
        match names::meaning(&entry.name) {
            Meaning::Option { name, millis } => {
                self.set(name, millis, entry);
                Some(name)
            }
            Meaning::Fixed(allowed, why) => {
                match entry.value.as_ref().map(Secret::expose) {
                    Ok(value) if allowed.contains(&value.to_lowercase().as_str()) => {}
                    Ok(value) => self.problems.push(format!("{} is {value:?}: {why}", entry.place())),
                    Err(why) => self.problems.push(format!("{}: {why}", entry.place())),
                }
                None
            }
            Meaning::Strange(instead) => {
                self.problems.push(format!("{} is no option of kafka-courier: {instead}", entry.place()));
                None
            }
            Meaning::Unknown if entry.is_swapped() => {
                let why = "a setting is written the other way round: its name first, then its value";
                self.problems.push(format!("{HIDDEN} in {}: {why}", entry.origin.source()));
                None
            }
            Meaning::Unknown => {
                let meant = names::nearest(&entry.name)
                    .map_or_else(|| names::LIST.to_owned(), |near| format!(": did you mean {near}?"));
                self.problems.push(format!("{} is no option of kafka-courier{meant}", entry.place()));
                None
            }
        }
    }

    fn set(&mut self, name: &'static str, millis: bool, entry: &Entry) {
        let value = match &entry.value {
            Ok(value) => value.expose(),
            Err(why) => return self.problems.push(format!("{}: {why}", entry.place())),
        };
        if matches!(entry.origin, Origin::Argument(_)) && !entry.key.ends_with("_file") && KafkaConfig::is_secret(name)
        {
            let why = "is a secret, and arguments can be read by everybody on this machine";
            let instead = format!("set KAFKA_{}, or {name}_file to a file with it", name.to_uppercase());
            return self.problems.push(format!("{} {why}: {instead}", entry.place()));
        }
        if is_misplaced(name, value) {
            let why = "it is the path of a file: write what it holds now to a file, and give that file's path";
            return self.problems.push(format!("{} is {HIDDEN}, which is not allowed: {why}", entry.place()));
        }
        let is_number = !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit());
        let set = match millis {
            true if is_number => self.config.set(name, &format!("{value}ms")),
            true => {
                Err(SetError { shown: format!("{value:?}"), allowed: "it is whole milliseconds, such as 500".into() })
            }
            false => self.config.set(name, value),
        };
        match set {
            Ok(()) => {
                self.origins.insert(name, (entry.origin.clone(), entry.key.clone()));
            }
            Err(SetError { shown, allowed }) => {
                self.problems.push(format!("{} is {shown}, which is not allowed: {allowed}", entry.place()));
            }
        }
    }

    /// Checks the whole. Errors: all that is wrong, in any source and together, and what would have been warned of: a name
    /// that was misspelt may be why something else is wrong.
    pub(super) fn finish(mut self) -> Result<LoadedConfig, ConfigErrors> {
        if !self.origins.contains_key("retry_backoff_max") {
            self.config.lift_longest_wait();
        }
        let whole: Vec<String> = self.config.problems().iter().map(|problem| self.locate(problem)).collect();
        self.problems.extend(whole);
        if !self.problems.is_empty() {
            self.warnings.sort();
            self.problems.extend(self.warnings.iter().map(|warning| format!("warning: {warning}")));
            return Err(ConfigErrors(self.problems));
        }
        self.warnings.extend(self.config.security_warnings().map(str::to_owned));
        self.warnings.sort();
        let Self { config, origins, value_files, warnings, .. } = self;
        Ok(LoadedConfig { config, warnings, origins, value_files })
    }

    /// A problem that begins with an option's name begins with where that was set instead, and ends with where the
    /// others were that it speaks of.
    fn locate(&self, problem: &str) -> String {
        let is_name = |c: char| c.is_ascii_lowercase() || c == '_';
        let (first, rest) = problem.split_at(problem.find(|c| !is_name(c)).unwrap_or(problem.len()));
        let mut text = match self.origins.get(first) {
            Some((origin, key)) if key == first => format!("{}{rest}", place(origin, key)),
            Some((origin, key)) => format!("{} ({first}){rest}", place(origin, key)),
            None => format!("KAFKA_{} ({first}){rest}", first.to_uppercase()),
        };
        let mut others: Vec<&str> = rest.split(|c| !is_name(c)).filter(|word| *word != first).collect();
        others.sort_unstable();
        others.dedup();
        for other in others {
            if let Some((origin, key)) = self.origins.get(other) {
                text += &format!(" [{other}: {}]", place(origin, key));
            }
        }
        text
    }
}

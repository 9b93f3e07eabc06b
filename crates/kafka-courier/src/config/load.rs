//! The sources of a configuration: a file, the environment, and single settings of an argument or the application.
//!
//! Rules:
//! - Single settings take precedence over the environment, the environment over the file, and the file over the
//!   defaults.
//! - `<VAR>_FILE` names a file with the variable's value, as Docker and Kubernetes provide secrets.
//! - An unknown name in a file is an error. An unknown variable is a warning, because Kubernetes sets `KAFKA_PORT` and
//!   `KAFKA_SERVICE_HOST` for a service named kafka.
//! - Any text may be a secret. It is not shown, and the buffer that it was read into is overwritten after use.

use std::ffi::OsString;
#[cfg(feature = "config-file")]
use std::path::Path;

use kafka_courier_client::{HIDDEN, Secret};
use serde::de::{self, Deserialize, Deserializer};

#[cfg(feature = "config-file")]
use super::file::SettingsFileError;
use super::names::{self, Meaning, shown_key};
use super::origin::Origin;
use super::problem::ConfigProblem;
use super::resolve::{LoadedConfig, Resolver};
use super::source::{SettingValueError, SourceEntry};
use super::tree::{self, SettingsNode};
use super::warning::ConfigWarning;
use super::{ConfigErrors, KafkaConfig};

const PREFIX: &str = "KAFKA_";
/// The name of `KAFKA_BROKERS` in most other clients. `KAFKA_BROKERS` takes precedence.
const BOOTSTRAP_SERVERS: &str = "KAFKA_BOOTSTRAP_SERVERS";

/// Loads a configuration from several sources. [`load`](Self::load) merges them.
///
/// ```
/// use kafka_courier::ConfigLoader;
///
/// let loaded = ConfigLoader::new().env().set("flush_timeout", "5ms").load()?;
/// assert_eq!(loaded.config.flush_timeout.as_millis(), 5);
/// assert_eq!(loaded.origin("flush_timeout").to_string(), "the application");
/// # Ok::<(), kafka_courier::ConfigErrors>(())
/// ```
#[derive(Clone, Debug, Default)]
#[must_use = "`load()` merges the sources"]
pub struct ConfigLoader {
    file: Vec<SourceEntry>,
    environment: Vec<SourceEntry>,
    settings: Vec<SourceEntry>,
    /// The table of the application, with the dot of its settings' names.
    own_table: Option<String>,
    own_settings: Vec<(String, Secret)>,
    warnings: Vec<ConfigWarning>,
    problems: Vec<ConfigProblem>,
}

impl ConfigLoader {
    /// Creates a loader without a source, which loads the defaults.
    pub fn new() -> Self {
        Self::default()
    }

    /// Leaves a table of later files to the application: `[name]`. [`LoadedConfig::own_settings`] returns its settings.
    pub fn own_table(mut self, name: &str) -> Self {
        self.own_table = Some(format!("{name}."));
        self
    }

    /// Reads a file: JSON if its name ends in `.json`, else TOML. Keys are names of options or of Java properties.
    #[cfg(feature = "config-file")]
    pub fn file(mut self, path: impl AsRef<Path>) -> Self {
        let path = path.as_ref();
        let is_json = path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("json"));
        let read = super::source::read_text(path).map_err(SettingsFileError::from);
        match read.and_then(|text| super::file::read(text.expose(), is_json)) {
            Ok(pairs) => self.add_pairs(pairs, &Origin::File(path.to_owned())),
            Err(error) => self.problems.push(ConfigProblem::of_file(path, error)),
        }
        self
    }

    /// Reads the `KAFKA_*` variables of this process. An empty variable counts as unset.
    pub fn env(self) -> Self {
        self.os_variables(std::env::vars_os())
    }

    /// Reads `KAFKA_*` variables as [`env`](Self::env) does, from the given variables.
    pub fn variables(self, variables: impl IntoIterator<Item = (String, String)>) -> Self {
        self.os_variables(variables.into_iter().map(|(name, value)| (name.into(), value.into())))
    }

    /// Sets an option by its name or the name of its Java property. A later call overrides an earlier one.
    pub fn set(self, option: &str, value: &str) -> Self {
        self.with_setting(Origin::Application, option, value)
    }

    /// Sets an option as [`set`](Self::set) does, on behalf of a command-line argument. Problems begin with the
    /// argument. Secrets are refused, because the process list shows them to every user.
    pub fn argument(self, argument: &str, option: &str, value: &str) -> Self {
        self.with_setting(Origin::Argument(argument.to_owned()), option, value)
    }

    fn with_setting(mut self, origin: Origin, option: &str, value: &str) -> Self {
        self.settings.push(SourceEntry::read(origin, option.to_owned(), option, Ok(value.into())));
        self
    }

    /// Merges the sources and checks the result.
    ///
    /// # Errors
    /// Returns the problems of all sources.
    pub fn load(self) -> Result<LoadedConfig, ConfigErrors> {
        let mut resolver = Resolver::new(self.warnings, self.problems);
        resolver.add_source(self.file);
        resolver.add_source(self.environment);
        for setting in &self.settings {
            resolver.add(setting);
        }
        let own_settings = self.own_settings;
        let mut loaded = resolver.finish()?;
        loaded.own_settings = own_settings;
        Ok(loaded)
    }

    /// Adds the names and values of a settings file. `<option>_file` names a file with the value.
    fn add_pairs(&mut self, pairs: Vec<(String, String)>, origin: &Origin) {
        for (key, value) in pairs {
            if let Some(own) = self.own_table.as_deref().and_then(|table| key.strip_prefix(table)) {
                self.own_settings.push((own.to_owned(), value.into()));
                continue;
            }
            let option = key.clone();
            self.file.push(SourceEntry::read(origin.clone(), key, &option, Ok(value.into())));
        }
    }

    fn os_variables(mut self, variables: impl IntoIterator<Item = (OsString, OsString)>) -> Self {
        let mut fallback = None;
        for (variable, value) in variables {
            let Ok(variable) = variable.into_string() else { continue };
            let Some(rest) = variable.strip_prefix(PREFIX).filter(|_| !value.is_empty()) else { continue };
            let value = value.into_string().map(Secret::from).map_err(|_| SettingValueError::NotUtf8);
            let is_fallback = variable == BOOTSTRAP_SERVERS;
            let option = if is_fallback { "brokers".to_owned() } else { rest.to_lowercase() };
            let entry = SourceEntry::read(Origin::Environment(variable.clone()), variable, &option, value);
            if is_fallback {
                fallback = Some(entry);
            } else if names::option_named(&entry.name).is_some() {
                self.environment.push(entry);
            } else {
                self.warnings.push(unknown_variable(&entry.key, &entry.name));
            }
        }
        let has_brokers = self.environment.iter().any(|entry| entry.name == "brokers");
        match fallback {
            Some(entry) if !has_brokers => self.environment.push(entry),
            Some(_) => self
                .warnings
                .push(ConfigWarning::IgnoredVariable { variable: BOOTSTRAP_SERVERS, preferred: "KAFKA_BROKERS" }),
            None => {}
        }
        self
    }
}

/// Returns the warning about a variable that names no option.
fn unknown_variable(variable: &str, name: &str) -> ConfigWarning {
    let hidden = format!("{PREFIX}{HIDDEN}");
    let variable = if shown_key(variable) == variable { variable.to_owned() } else { hidden };
    if let Meaning::Unsupported(instead) = names::meaning(name) {
        return ConfigWarning::UnsupportedVariable { variable, instead };
    }
    let near = names::nearest(name).filter(|near| !near.contains('.'));
    let suggestion = near.map(|near| format!("{PREFIX}{}", near.to_uppercase()));
    ConfigWarning::UnknownVariable { variable, suggestion }
}

impl KafkaConfig {
    /// Returns the defaults, changed by the `KAFKA_*` variables of this process. An empty variable counts as unset.
    ///
    /// Warnings are logged, for example about a variable that names no option. [`ConfigLoader`] returns them.
    ///
    /// # Errors
    /// Returns all problems of the variables.
    pub fn from_env() -> Result<Self, ConfigErrors> {
        ConfigLoader::new().env().load().map(LoadedConfig::into_config)
    }

    /// Returns a configuration as [`from_env`](Self::from_env) does, from the given variables.
    ///
    /// # Errors
    /// Returns all problems of the variables.
    pub fn from_variables(variables: impl IntoIterator<Item = (String, String)>) -> Result<Self, ConfigErrors> {
        ConfigLoader::new().variables(variables).load().map(LoadedConfig::into_config)
    }

    /// Returns the defaults, changed by a file: JSON if its name ends in `.json`, else TOML. Keys are names of options
    /// or of Java properties.
    ///
    /// # Errors
    /// Returns all problems of the file, including unknown names.
    #[cfg(feature = "config-file")]
    pub fn from_file(path: impl AsRef<Path>) -> Result<Self, ConfigErrors> {
        ConfigLoader::new().file(path).load().map(LoadedConfig::into_config)
    }
}

/// Deserializes a configuration from any format, for instance as a part of an application's own configuration. Keys are
/// names of options or of Java properties. The error contains all problems.
impl<'de> Deserialize<'de> for KafkaConfig {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let pairs = tree::pairs(SettingsNode::deserialize(deserializer)?).map_err(de::Error::custom)?;
        let mut loader = ConfigLoader::new();
        loader.add_pairs(pairs, &Origin::Default);
        loader
            .load()
            .map(|loaded| loaded.config)
            .map_err(|errors| de::Error::custom(errors.lines().collect::<Vec<_>>().join("; ")))
    }
}

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
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use kafka_courier_client::{HIDDEN, Secret, shown_file, shown_path};

#[cfg(feature = "config-file")]
use super::file::SettingsFileError;
use super::names::{self, Meaning, shown_key};
use super::resolve::{EntryError, LoadedConfig, Origin, Resolver, SourceEntry};
use super::warning::ConfigWarning;
use super::{ConfigErrors, KafkaConfig};

const PREFIX: &str = "KAFKA_";
/// The name of `KAFKA_BROKERS` in most other clients. `KAFKA_BROKERS` takes precedence.
const BOOTSTRAP_SERVERS: &str = "KAFKA_BOOTSTRAP_SERVERS";
const FILE_SUFFIX: &str = "_file";
/// The byte order mark that some editors write.
const BYTE_ORDER_MARK: char = '\u{feff}';
/// The largest file of settings, or of one setting, in bytes.
const MAX_FILE_BYTES: u64 = 1 << 20;

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
    warnings: Vec<ConfigWarning>,
    problems: Vec<String>,
}

impl ConfigLoader {
    /// Creates a loader without a source, which loads the defaults.
    pub fn new() -> Self {
        Self::default()
    }

    /// Reads a file: JSON if its name ends in `.json`, else TOML. Keys are names of options or of Java properties.
    #[cfg(feature = "config-file")]
    pub fn file(mut self, path: impl AsRef<Path>) -> Self {
        let path = path.as_ref();
        let is_json = path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("json"));
        let read = read_text(path).map_err(SettingsFileError::from);
        match read.and_then(|text| super::file::read(text.expose(), is_json)) {
            Ok(pairs) => self.add_pairs(pairs, &Origin::File(path.to_owned())),
            Err(error) => self.problems.push(format!("{}: {error}", shown_file(path))),
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
        self.settings.push(source_entry(origin, option.to_owned(), option, Ok(value.into())));
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
        resolver.finish()
    }

    /// Adds the names and values of a settings file. `<option>_file` names a file with the value.
    pub(super) fn add_pairs(&mut self, pairs: Vec<(String, String)>, origin: &Origin) {
        for (key, value) in pairs {
            let option = key.clone();
            self.file.push(source_entry(origin.clone(), key, &option, Ok(value.into())));
        }
    }

    fn os_variables(mut self, variables: impl IntoIterator<Item = (OsString, OsString)>) -> Self {
        let mut fallback = None;
        for (variable, value) in variables {
            let Ok(variable) = variable.into_string() else { continue };
            let Some(rest) = variable.strip_prefix(PREFIX).filter(|_| !value.is_empty()) else { continue };
            let value = value.into_string().map(Secret::from).map_err(|_| EntryError::NotUtf8);
            let is_fallback = variable == BOOTSTRAP_SERVERS;
            let option = if is_fallback { "brokers".to_owned() } else { rest.to_lowercase() };
            let entry = source_entry(Origin::Environment(variable.clone()), variable, &option, value);
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

/// Returns a setting of a source. If `option` is an option's name with the suffix `_file`, `value` is the path of a
/// file with the value.
fn source_entry(origin: Origin, key: String, option: &str, value: Result<Secret, EntryError>) -> SourceEntry {
    let Some(name) = option.strip_suffix(FILE_SUFFIX).and_then(names::option_named) else {
        return SourceEntry { origin, key, name: option.to_owned(), value, file: None };
    };
    let path = value.map(|path| PathBuf::from(path.expose()));
    let value = path.clone().and_then(|path| {
        let text = read_text(&path).map_err(|error| unreadable_value(name, &path, error))?;
        Ok(without_line_end(text.expose().trim_start_matches(BYTE_ORDER_MARK)).into())
    });
    let file = path.ok().filter(|_| value.is_ok());
    SourceEntry { origin, key, name: name.to_owned(), value, file }
}

/// Returns the error of an unreadable file with a value. The value itself, which may be a secret, may be given instead
/// of the file's path.
pub(super) fn unreadable_value(value: &str, path: &Path, error: ReadError) -> EntryError {
    // A password can be as short as a path.
    let is_option = names::option_named(value).is_some();
    let shown = if is_option && !KafkaConfig::is_secret(value) { shown_file(path) } else { shown_path(path) };
    match shown {
        shown if shown == HIDDEN => EntryError::NotAPath { value: value.to_owned() },
        path => EntryError::Unreadable { path, error },
    }
}

/// Removes the line end that editors append.
fn without_line_end(text: &str) -> &str {
    text.strip_suffix('\n').map_or(text, |text| text.strip_suffix('\r').unwrap_or(text))
}

/// The error of reading a file of settings, of one setting or of a token.
#[derive(Clone, Debug, thiserror::Error)]
pub(super) enum ReadError {
    #[error("{0}")]
    Io(Arc<std::io::Error>),
    #[error("the file is larger than {MAX_FILE_BYTES} bytes")]
    TooLarge,
    #[error("the file is not UTF-8: save it as UTF-8")]
    NotUtf8,
}

impl From<std::io::Error> for ReadError {
    fn from(error: std::io::Error) -> Self {
        match error.kind() {
            std::io::ErrorKind::InvalidData => Self::NotUtf8,
            _ => Self::Io(Arc::new(error)),
        }
    }
}

/// Reads a file of settings, of one setting or of a token, up to [`MAX_FILE_BYTES`] bytes.
pub(super) fn read_text(path: &Path) -> Result<Secret, ReadError> {
    let file = std::fs::File::open(path)?;
    // The buffer has spare room for the whole file: a buffer that grows, or a probe read into a small rest, leaves
    // copies of a secret in memory.
    let length = file.metadata().map_or(0, |metadata| metadata.len()).min(MAX_FILE_BYTES);
    let mut text = String::with_capacity(usize::try_from(length).unwrap_or(0) + 64);
    let read = file.take(MAX_FILE_BYTES + 1).read_to_string(&mut text);
    let (length, text) = (text.len() as u64, Secret::new(text)); // overwrites the text when dropped
    match read {
        Ok(_) if length > MAX_FILE_BYTES => Err(ReadError::TooLarge),
        Ok(_) => Ok(text),
        Err(error) => Err(error.into()),
    }
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

//! The sources that a configuration is read from: a file, the environment, settings by name.
//!
//! Rules:
//! - What is given by name (an argument, the application) goes before the environment, that before the file, and that before
//!   the default.
//! - `<VAR>_FILE` names a file that holds the variable's value, as Docker and Kubernetes hand secrets out.
//! - In a file an unknown name is an error; in the environment it is a warning: Kubernetes sets `KAFKA_PORT` and
//!   `KAFKA_SERVICE_HOST` for a service named kafka.
//! - Any text may be a secret: it is not shown, and what was read is overwritten once it was taken in.

use std::ffi::OsString;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use kafka_courier_idempotent_sender::{HIDDEN, Secret, shown_file, shown_path};

use super::names::{self, Meaning, shown_key};
use super::resolve::{Entry, LoadedConfig, Origin, Resolver};
use super::{ConfigErrors, KafkaConfig};

const PREFIX: &str = "KAFKA_";
/// What most other clients call `KAFKA_BROKERS`, which goes before it.
const BOOTSTRAP: &str = "KAFKA_BOOTSTRAP_SERVERS";
const FILE: &str = "_file";
/// The byte order mark, which some editors write.
const MARK: char = '\u{feff}';
/// No file that holds settings or a setting is larger.
const LARGEST: u64 = 1 << 20;

/// Gathers a configuration from its sources; [`load`](Self::load) puts them together.
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
#[must_use = "`load()` puts the sources together"]
pub struct ConfigLoader {
    file: Vec<Entry>,
    environment: Vec<Entry>,
    given: Vec<Entry>,
    warnings: Vec<String>,
    problems: Vec<String>,
}

impl ConfigLoader {
    /// No source yet: the defaults.
    pub fn new() -> Self {
        Self::default()
    }

    /// Reads a file: JSON if its name ends in `.json`, else TOML. Names are the options', or Java's.
    #[cfg(feature = "config-file")]
    pub fn file(mut self, path: impl AsRef<Path>) -> Self {
        let path = path.as_ref();
        let is_json = path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("json"));
        let read = read_text(path).and_then(|text| super::file::read(text.expose(), is_json));
        match read {
            Ok(pairs) => self.take_pairs(pairs, &Origin::File(path.to_owned())),
            Err(why) => self.problems.push(format!("{}: {why}", shown_file(path))),
        }
        self
    }

    /// Reads this process' `KAFKA_*` variables. One that is set to nothing counts as not set.
    pub fn env(self) -> Self {
        self.os_variables(std::env::vars_os())
    }

    /// As [`env`](Self::env), with these variables.
    pub fn variables(self, variables: impl IntoIterator<Item = (String, String)>) -> Self {
        self.os_variables(variables.into_iter().map(|(name, value)| (name.into(), value.into())))
    }

    /// Sets an option by its name, or Java's; the last one holds.
    pub fn set(self, option: &str, value: &str) -> Self {
        self.given(Origin::Application, option, value)
    }

    /// As [`set`](Self::set), on behalf of an argument of the command line, which problems begin with. Secrets are
    /// refused: the list of processes shows them to everybody.
    pub fn argument(self, argument: &str, option: &str, value: &str) -> Self {
        self.given(Origin::Argument(argument.to_owned()), option, value)
    }

    fn given(mut self, origin: Origin, option: &str, value: &str) -> Self {
        self.given.push(entry(origin, option.to_owned(), option, Ok(value.into())));
        self
    }

    /// Puts the sources together. Errors: everything that is wrong in any of them.
    pub fn load(self) -> Result<LoadedConfig, ConfigErrors> {
        let mut resolver = Resolver::new(self.warnings, self.problems);
        resolver.take_once(self.file);
        resolver.take_once(self.environment);
        for setting in &self.given {
            resolver.take(setting);
        }
        resolver.finish()
    }

    /// Takes names and values of a tree of settings: `<option>_file` names a file with the value.
    pub(super) fn take_pairs(&mut self, pairs: Vec<(String, String)>, origin: &Origin) {
        for (key, value) in pairs {
            let option = key.clone();
            self.file.push(entry(origin.clone(), key, &option, Ok(value.into())));
        }
    }

    fn os_variables(mut self, variables: impl IntoIterator<Item = (OsString, OsString)>) -> Self {
        let mut fallback = None;
        for (variable, value) in variables {
            let Ok(variable) = variable.into_string() else { continue };
            let Some(rest) = variable.strip_prefix(PREFIX).filter(|_| !value.is_empty()) else { continue };
            let value = value.into_string().map(Secret::from).map_err(|_| "its value is not UTF-8".to_owned());
            let is_fallback = variable == BOOTSTRAP;
            let option = if is_fallback { "brokers".to_owned() } else { rest.to_lowercase() };
            let entry = entry(Origin::Environment(variable.clone()), variable, &option, value);
            if is_fallback {
                fallback = Some(entry);
            } else if names::own(&entry.name).is_some() {
                self.environment.push(entry);
            } else {
                self.warnings.push(unknown(&entry.key, &entry.name));
            }
        }
        let has_brokers = self.environment.iter().any(|entry| entry.name == "brokers");
        match fallback {
            Some(entry) if !has_brokers => self.environment.push(entry),
            Some(_) => self.warnings.push(format!("{BOOTSTRAP} is ignored: KAFKA_BROKERS is set too")),
            None => {}
        }
        self
    }
}

fn unknown(variable: &str, name: &str) -> String {
    let hidden = format!("{PREFIX}{HIDDEN}");
    let variable = if shown_key(variable) == variable { variable } else { &hidden };
    if let Meaning::Strange(instead) = names::meaning(name) {
        return format!("{variable} is no option of kafka-courier and is ignored: {instead}");
    }
    let meant = names::nearest(name).filter(|near| !near.contains('.'));
    let meant = meant.map_or_else(String::new, |near| format!(": did you mean {PREFIX}{}?", near.to_uppercase()));
    format!("{variable} is no option of kafka-courier and is ignored{meant}")
}

/// A setting. Where `option` is an option's name with `_file` behind it, its value is what the file holds that it names.
fn entry(origin: Origin, key: String, option: &str, value: Result<Secret, String>) -> Entry {
    let Some(name) = option.strip_suffix(FILE).and_then(names::own) else {
        return Entry { origin, key, name: option.to_owned(), value, file: None };
    };
    let path = value.map(|path| PathBuf::from(path.expose()));
    let value = path.clone().and_then(|path| {
        let text = read_text(&path).map_err(|why| unreadable_value(name, &path, &why))?;
        Ok(without_line_end(text.expose().trim_start_matches(MARK)).into())
    });
    let file = path.ok().filter(|_| value.is_ok());
    Entry { origin, key, name: name.to_owned(), value, file }
}

/// Why a file was not read that should hold a value, any of which may be a secret. The value itself may be written in place
/// of the file's path.
pub(super) fn unreadable_value(what: &str, path: &Path, why: &str) -> String {
    // A password may be as short as a path.
    let is_option = names::own(what).is_some();
    let shown = if is_option && !KafkaConfig::is_secret(what) { shown_file(path) } else { shown_path(path) };
    match shown {
        shown if shown == HIDDEN => format!("it names no file: it takes the path of a file that holds {what}"),
        shown => format!("{shown}: {why}"),
    }
}

/// Without the end of the line that editors write.
fn without_line_end(text: &str) -> &str {
    text.strip_suffix('\n').map_or(text, |text| text.strip_suffix('\r').unwrap_or(text))
}

/// What a file of settings, of one setting or of a token holds; never more than any of those does.
pub(super) fn read_text(path: &Path) -> Result<Secret, String> {
    let file = std::fs::File::open(path).map_err(|error| error.to_string())?;
    // With room for all of it and more: what grows, or is read into a small rest, leaves copies behind.
    let length = file.metadata().map_or(0, |metadata| metadata.len()).min(LARGEST);
    let mut text = String::with_capacity(usize::try_from(length).unwrap_or(0) + 64);
    let read = file.take(LARGEST + 1).read_to_string(&mut text);
    let (length, text) = (text.len() as u64, Secret::new(text)); // overwritten, whatever becomes of it
    match read {
        Ok(_) if length > LARGEST => Err(format!("it is larger than {LARGEST} bytes")),
        Ok(_) => Ok(text),
        Err(error) if error.kind() == std::io::ErrorKind::InvalidData => {
            Err("it is no text in UTF-8: save it as that".to_owned())
        }
        Err(error) => Err(error.to_string()),
    }
}

impl KafkaConfig {
    /// The defaults, changed by the environment's `KAFKA_*` variables, and what in it is not understood.
    /// An empty variable counts as not set.
    pub fn from_env() -> Result<(Self, Vec<String>), ConfigErrors> {
        ConfigLoader::new().env().load().map(|loaded| (loaded.config, loaded.warnings))
    }

    /// As [`from_env`](Self::from_env), with these variables.
    pub fn from_variables(
        variables: impl IntoIterator<Item = (String, String)>,
    ) -> Result<(Self, Vec<String>), ConfigErrors> {
        ConfigLoader::new().variables(variables).load().map(|loaded| (loaded.config, loaded.warnings))
    }

    /// The defaults, changed by a file: JSON if its name ends in `.json`, else TOML. Names are the options', or those
    /// of Java's properties. Errors: everything that is wrong with it, names that are no option's among it.
    #[cfg(feature = "config-file")]
    pub fn from_file(path: impl AsRef<Path>) -> Result<Self, ConfigErrors> {
        ConfigLoader::new().file(path).load().map(|loaded| loaded.config)
    }
}

//! One setting of a source, and the reading of its file.
//!
//! Rules: any text may be a secret. An error does not show it, and the buffer that it was read into is overwritten after
//! use.

use std::fmt;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use kafka_courier_client::{HIDDEN, Secret, shown_file, shown_path};

use super::KafkaConfig;
use super::names::{self, Meaning};
use super::origin::{Origin, SettingPlace};

const FILE_SUFFIX: &str = "_file";
/// The byte order mark that some editors write.
const BYTE_ORDER_MARK: char = '\u{feff}';
/// The largest file of settings, or of one setting, in bytes.
const MAX_FILE_BYTES: u64 = 1 << 20;

/// One setting of a source.
#[derive(Clone)]
pub(super) struct SourceEntry {
    pub(super) origin: Origin,
    /// The name as the source spells it.
    pub(super) key: String,
    /// The option's name, without the prefix of a variable.
    pub(super) name: String,
    /// The value, or the reason for a missing value. Any value may be a secret, even if the name is misspelt.
    pub(super) value: Result<Secret, SettingValueError>,
    /// The file with the value, if the setting names one.
    pub(super) file: Option<PathBuf>,
}

/// The reason for a missing value of a setting.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub(super) enum SettingValueError {
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
        f.debug_struct("SourceEntry").field("place", &self.place().to_string()).finish_non_exhaustive()
    }
}

impl SourceEntry {
    /// Returns a setting of a source. If `option` is an option's name with the suffix `_file`, `value` is the path of a
    /// file with the value.
    pub(super) fn read(origin: Origin, key: String, option: &str, value: Result<Secret, SettingValueError>) -> Self {
        let Some(name) = option.strip_suffix(FILE_SUFFIX).and_then(names::option_named) else {
            return Self { origin, key, name: option.to_owned(), value, file: None };
        };
        let path = value.map(|path| PathBuf::from(path.expose()));
        let value = path.clone().and_then(|path| {
            let text = read_text(&path).map_err(|error| unreadable_value(name, &path, error))?;
            Ok(without_line_end(text.expose().trim_start_matches(BYTE_ORDER_MARK)).into())
        });
        let file = path.ok().filter(|_| value.is_ok());
        Self { origin, key, name: name.to_owned(), value, file }
    }

    /// Returns whether the value is an option's name. The setting's name may then be the secret.
    pub(super) fn is_name_and_value_swapped(&self) -> bool {
        self.value.as_ref().is_ok_and(|value| names::meaning(value.expose()) != Meaning::Unknown)
    }

    /// Returns whether the setting is an argument with the value itself, not with the path of the value's file.
    pub(super) fn is_value_in_argument(&self) -> bool {
        matches!(self.origin, Origin::Argument(_)) && !self.key.ends_with(FILE_SUFFIX)
    }

    /// Returns the place of the setting.
    pub(super) fn place(&self) -> SettingPlace {
        SettingPlace::new(&self.origin, &self.key)
    }
}

/// Removes the line end that editors append.
fn without_line_end(text: &str) -> &str {
    text.strip_suffix('\n').map_or(text, |text| text.strip_suffix('\r').unwrap_or(text))
}

/// An error of the operating system, as comparable data.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{text}")]
pub(super) struct SystemError {
    kind: std::io::ErrorKind,
    text: String,
}

impl From<std::io::Error> for SystemError {
    fn from(error: std::io::Error) -> Self {
        Self { kind: error.kind(), text: error.to_string() }
    }
}

/// Returns the error of an unreadable file with a value. The value itself, which may be a secret, may be given instead
/// of the file's path.
pub(super) fn unreadable_value(value: &str, path: &Path, error: ReadError) -> SettingValueError {
    // A password can be as short as a path.
    let is_option = names::option_named(value).is_some();
    let shown = if is_option && !KafkaConfig::is_secret(value) { shown_file(path) } else { shown_path(path) };
    match shown {
        shown if shown == HIDDEN => SettingValueError::NotAPath { value: value.to_owned() },
        path => SettingValueError::Unreadable { path, error },
    }
}

/// The error of reading a file of settings, of one setting or of a token.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub(super) enum ReadError {
    #[error(transparent)]
    Io(SystemError),
    #[error("the file is larger than {MAX_FILE_BYTES} bytes")]
    TooLarge,
    #[error("the file is not UTF-8: save it as UTF-8")]
    NotUtf8,
}

impl From<std::io::Error> for ReadError {
    fn from(error: std::io::Error) -> Self {
        match error.kind() {
            std::io::ErrorKind::InvalidData => Self::NotUtf8,
            _ => Self::Io(error.into()),
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

//! The sources of settings, and the places of settings in them.
//!
//! Rule: a place shows no secret. A name that is unlike any option's name may be a misplaced secret, and is hidden.

use std::fmt;
use std::path::PathBuf;

use super::names::shown_key;

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

/// The place of a setting: its source, and its name as the source spells it. Names that may be secrets are hidden.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct SettingPlace {
    origin: Origin,
    key: String,
}

impl SettingPlace {
    pub(super) fn new(origin: &Origin, key: &str) -> Self {
        let shown = if key.is_empty() { "\"\"" } else { shown_key(key) };
        let origin = match origin {
            origin if key.is_empty() => origin.clone(),
            Origin::Argument(argument) if shown != key => Origin::Argument(argument.replace(key, shown)),
            Origin::Environment(variable) if shown != key => Origin::Environment(variable.replace(key, shown)),
            origin => origin.clone(),
        };
        Self { origin, key: shown.to_owned() }
    }

    pub(super) const fn origin(&self) -> &Origin {
        &self.origin
    }

    /// Returns the place, and the option's name in parentheses if the source spells the name in another way.
    pub(super) fn with_option(&self, option: &str) -> String {
        if self.key == option { self.to_string() } else { format!("{self} ({option})") }
    }
}

impl fmt::Display for SettingPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.origin {
            Origin::Default | Origin::Application | Origin::Environment(_) => f.write_str(&self.key),
            Origin::File(path) => write!(f, "{} in {}", self.key, path.display()),
            Origin::Argument(argument) => f.write_str(argument),
        }
    }
}

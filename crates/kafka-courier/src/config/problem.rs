//! The problems of a configuration: what is wrong, and where.
//!
//! Rules:
//! - A problem is data. [`Display`](fmt::Display) alone makes a text of it.
//! - A text begins with the place of the setting, or with the option's name if no source is known. The place of the
//!   other option of a contradiction follows in brackets.
//! - Nothing here shows a secret: neither a text nor an accessor.

use std::fmt;
#[cfg(feature = "config-file")]
use std::path::Path;
use std::sync::Arc;

use kafka_courier_client::HIDDEN;
use kafka_courier_client::security::SecurityError;
use kafka_courier_dlq::OpenError;
use kafka_courier_idempotent_sender::core::ConfigError as CoreError;
use kafka_courier_producer::{SpoolOpenError, debug_as_display};

use super::cause::{ConfigProblemKind, DlqFileError, ProblemCause, SpoolError};
use super::origin::{Origin, SettingPlace};
use super::value::InvalidValue;
use super::warning::ConfigWarning;

/// A problem of a configuration.
///
/// `Display` names the setting, the value, the allowed values and the remedy. `Debug` is the same text. Secrets are
/// shown as `***`.
///
/// # Examples
///
/// ```
/// use kafka_courier::{ConfigLoader, ConfigProblemKind, Origin};
///
/// let errors = ConfigLoader::new().set("max_in_flight", "6").load().unwrap_err();
/// let problem = &errors.problems()[0];
/// assert_eq!(problem.kind(), ConfigProblemKind::InvalidValue);
/// assert_eq!((problem.option(), problem.value().as_deref()), (Some("max_in_flight"), Some("6")));
/// assert_eq!(problem.origin(), Some(&Origin::Application));
/// assert!(problem.allowed().unwrap().starts_with("1 to 5"));
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct ConfigProblem {
    cause: ProblemCause,
    place: ProblemPlace,
    /// The place of the other option, if a source sets it.
    related: Option<SettingPlace>,
}

debug_as_display!(ConfigProblem, ConfigErrors);

/// Where the option of a problem is set.
#[derive(Clone, PartialEq, Eq)]
enum ProblemPlace {
    /// The configuration has no known source.
    Unknown,
    /// No source sets the option.
    Unset,
    /// A setting.
    Setting(SettingPlace),
    /// A file of settings as a whole.
    #[cfg(feature = "config-file")]
    File(Origin),
    /// A setting whose name may be a secret.
    HiddenSetting(Origin),
}

impl From<ProblemCause> for ConfigProblem {
    fn from(cause: ProblemCause) -> Self {
        Self { cause, place: ProblemPlace::Unknown, related: None }
    }
}

impl From<CoreError> for ConfigProblem {
    fn from(error: CoreError) -> Self {
        ProblemCause::from(error).into()
    }
}

impl From<SecurityError> for ConfigProblem {
    fn from(error: SecurityError) -> Self {
        ProblemCause::Security(error).into()
    }
}

impl ConfigProblem {
    /// Returns the problem of a setting.
    pub(super) const fn of_setting(place: SettingPlace, cause: ProblemCause) -> Self {
        Self { cause, place: ProblemPlace::Setting(place), related: None }
    }

    /// Returns the problem of an unreadable file of settings. The path may be a misplaced secret.
    #[cfg(feature = "config-file")]
    pub(super) fn of_file(path: &Path, error: super::file::SettingsFileError) -> Self {
        let place = ProblemPlace::File(Origin::File(kafka_courier_client::shown_file(path).into()));
        Self { cause: ProblemCause::SettingsFile(error), place, related: None }
    }

    /// Returns the problem of a setting whose name and value are swapped. Its name may be a secret.
    pub(super) fn of_swapped_setting(origin: &Origin) -> Self {
        let origin = match origin {
            Origin::Argument(_) => Origin::Argument(HIDDEN.to_owned()),
            Origin::Environment(_) => Origin::Environment(HIDDEN.to_owned()),
            origin => origin.clone(),
        };
        Self { cause: ProblemCause::NameAndValueSwapped, place: ProblemPlace::HiddenSetting(origin), related: None }
    }

    /// Returns the problem of an option that the application set to a text.
    pub(crate) fn of_text(option: &'static str, error: InvalidValue) -> Self {
        let place = SettingPlace::new(&Origin::Application, option);
        Self::of_setting(place, ProblemCause::InvalidValue { option, error })
    }

    pub(crate) fn no_runtime() -> Self {
        ProblemCause::NoRuntime.into()
    }

    /// Returns the problem of a `dlq_file` that cannot be opened.
    pub(crate) fn dlq_file(error: OpenError) -> Self {
        ProblemCause::DlqFile(DlqFileError(Arc::new(error))).into()
    }

    /// Returns the problem of a dead-letter thread that cannot be started.
    pub(crate) fn dead_letter_thread(error: std::io::Error) -> Self {
        ProblemCause::DeadLetterThread(error.into()).into()
    }

    /// Returns the problem of a `spool_dir` that cannot be opened.
    pub(crate) fn spool(error: SpoolOpenError) -> Self {
        ProblemCause::Spool(SpoolError(Arc::new(error))).into()
    }

    /// Returns the problem of a spool's thread that cannot be started.
    pub(crate) fn spool_thread(error: std::io::Error) -> Self {
        ProblemCause::SpoolThread(error.into()).into()
    }

    /// Returns why the spool cannot be opened, if that is the problem.
    pub fn spool_error(&self) -> Option<&SpoolOpenError> {
        match &self.cause {
            ProblemCause::Spool(error) => Some(&error.0),
            _ => None,
        }
    }

    /// Returns why the file of dead letters cannot be opened, if that is the problem.
    pub fn dead_letter_error(&self) -> Option<&OpenError> {
        match &self.cause {
            ProblemCause::DlqFile(error) => Some(&error.0),
            _ => None,
        }
    }

    /// Returns the problem with the places of its options in the sources. `place` returns an option's place.
    pub(super) fn located<'a>(mut self, place: impl Fn(&str) -> Option<&'a SettingPlace>) -> Self {
        let found = self.cause.option().and_then(&place).cloned();
        self.place = found.map_or(ProblemPlace::Unset, ProblemPlace::Setting);
        self.related = self.cause.related().and_then(place).cloned();
        self
    }

    /// Returns whether the problem concerns the option, alone or together with another one.
    pub(crate) fn concerns(&self, option: &str) -> bool {
        [self.cause.option(), self.cause.related()].contains(&Some(option))
    }

    /// Returns the kind of the problem.
    pub fn kind(&self) -> ConfigProblemKind {
        self.cause.kind()
    }

    /// Returns the option's name. If the option does not exist, returns the name in the source, or `***` if the name
    /// may be a secret. `None` if the problem is about no single option.
    pub fn option(&self) -> Option<&str> {
        self.cause.option()
    }

    /// Returns the other option of a contradiction.
    pub fn related_option(&self) -> Option<&str> {
        self.cause.related()
    }

    /// Returns the value that is not allowed. A secret is `***`.
    pub fn value(&self) -> Option<String> {
        self.cause.value()
    }

    /// Returns the allowed values, as a phrase such as `1 to 5` or `true or false`.
    pub fn allowed(&self) -> Option<String> {
        self.cause.allowed()
    }

    /// Returns the option with a name similar to a name that does not exist.
    pub fn suggestion(&self) -> Option<&str> {
        match &self.cause {
            ProblemCause::UnknownOption { suggestion, .. } => *suggestion,
            _ => None,
        }
    }

    /// Returns the source of the setting, [`Origin::Default`] if no source sets the option, or `None` if the
    /// configuration was not loaded from sources.
    pub fn origin(&self) -> Option<&Origin> {
        match &self.place {
            ProblemPlace::Unknown => None,
            ProblemPlace::Unset => Some(&Origin::Default),
            ProblemPlace::Setting(place) => Some(place.origin()),
            #[cfg(feature = "config-file")]
            ProblemPlace::File(origin) => Some(origin),
            ProblemPlace::HiddenSetting(origin) => Some(origin),
        }
    }

    /// Writes the place of the problem, which begins the sentence.
    fn fmt_place(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let option = self.cause.option().unwrap_or_default();
        match &self.place {
            ProblemPlace::Unknown => f.write_str(option),
            ProblemPlace::Unset => write!(f, "KAFKA_{} ({option})", option.to_uppercase()),
            ProblemPlace::Setting(place) if self.cause.names_option() => f.write_str(&place.with_option(option)),
            ProblemPlace::Setting(place) => write!(f, "{place}"),
            #[cfg(feature = "config-file")]
            ProblemPlace::File(origin) => write!(f, "{origin}"),
            ProblemPlace::HiddenSetting(Origin::Argument(_)) => write!(f, "{HIDDEN} in the arguments"),
            ProblemPlace::HiddenSetting(Origin::Environment(_)) => write!(f, "{HIDDEN} in the environment"),
            ProblemPlace::HiddenSetting(origin) => write!(f, "{HIDDEN} in {origin}"),
        }
    }
}

impl fmt::Display for ConfigProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.cause.is_sentence() {
            self.fmt_place(f)?;
        }
        write!(f, "{}", self.cause)?;
        match (self.cause.related(), &self.related) {
            (Some(option), Some(place)) => write!(f, " [{option}: {place}]"),
            _ => Ok(()),
        }
    }
}

impl std::error::Error for ConfigProblem {}

/// All problems of a configuration.
///
/// `Display` writes one line for each problem. The warnings of the sources ([`ConfigLoader`](crate::ConfigLoader))
/// follow, because a misspelt name may be the cause of another problem. Each of these lines begins with `warning: `.
#[derive(Clone, PartialEq, Eq)]
pub struct ConfigErrors {
    problems: Vec<ConfigProblem>,
    warnings: Vec<ConfigWarning>,
}

impl ConfigErrors {
    /// Returns the problems, at least one.
    pub fn problems(&self) -> &[ConfigProblem] {
        &self.problems
    }

    /// Returns the warnings of the sources.
    pub fn warnings(&self) -> &[ConfigWarning] {
        &self.warnings
    }

    pub(super) fn with_warnings(problems: Vec<ConfigProblem>, warnings: Vec<ConfigWarning>) -> Self {
        Self { problems, warnings }
    }

    /// Returns the lines of the text.
    pub(super) fn lines(&self) -> impl Iterator<Item = String> {
        let warnings = self.warnings.iter().map(|warning| format!("warning: {warning}"));
        self.problems.iter().map(ToString::to_string).chain(warnings)
    }
}

impl From<Vec<ConfigProblem>> for ConfigErrors {
    fn from(problems: Vec<ConfigProblem>) -> Self {
        Self { problems, warnings: Vec::new() }
    }
}

impl From<ConfigProblem> for ConfigErrors {
    fn from(problem: ConfigProblem) -> Self {
        vec![problem].into()
    }
}

impl IntoIterator for ConfigErrors {
    type Item = ConfigProblem;
    type IntoIter = std::vec::IntoIter<ConfigProblem>;

    fn into_iter(self) -> Self::IntoIter {
        self.problems.into_iter()
    }
}

impl<'a> IntoIterator for &'a ConfigErrors {
    type Item = &'a ConfigProblem;
    type IntoIter = std::slice::Iter<'a, ConfigProblem>;

    fn into_iter(self) -> Self::IntoIter {
        self.problems.iter()
    }
}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.lines().collect::<Vec<_>>().join("\n"))
    }
}

impl std::error::Error for ConfigErrors {}

#[cfg(test)]
mod tests {
    use kafka_courier_event_model::TopicMappingProblem;

    use super::super::choices::{SaslMechanism, SecurityProtocol, SslRoots};
    use super::super::value::AllowedValues;
    use super::*;

    /// Returns a cause of each variant that merged configurations have.
    fn causes() -> Vec<ProblemCause> {
        let value = || "x".to_owned();
        let (protocol, mechanism) = (SecurityProtocol::Ssl, SaslMechanism::Plain);
        vec![
            ProblemCause::OutOfBounds { option: "brokers", value: value(), allowed: "y" },
            ProblemCause::AboveOption { option: "a", value: value(), limit: "b", limit_value: value() },
            ProblemCause::NoReplayRate,
            ProblemCause::BatchExceedsMemory { memory: 1, batch: 2 },
            ProblemCause::FlushExceedsDelivery { delivery: value(), flush: value() },
            ProblemCause::TopicMapping(TopicMappingProblem::Twice { event_type: value() }.into()),
            ProblemCause::DlqTopicHasEvents { topic: value(), event_type: value() },
            ProblemCause::WithoutEffect { option: "ssl_roots", protocol, feature: "TLS", remedy: "y" },
            ProblemCause::TwoRoots { roots: SslRoots::System, file: value() },
            ProblemCause::HalfCertificate { option: "ssl_key_location", file: value(), missing: "z" },
            ProblemCause::NoMechanism { protocol },
            ProblemCause::UnusedCredential { option: "sasl_username", mechanism, credential: "token" },
            ProblemCause::NoUsername { username: value(), mechanism },
            ProblemCause::NoPassword { mechanism },
            ProblemCause::PasswordWithNul,
            ProblemCause::TokensWithoutSasl { protocol },
            ProblemCause::TokensWithoutMechanism,
            ProblemCause::TwoTokenSources { file: value() },
            ProblemCause::NoToken,
        ]
    }

    #[test]
    fn texts_contain_their_data() {
        for problem in causes().into_iter().map(ConfigProblem::from) {
            let text = problem.to_string();
            assert!(text.starts_with(problem.option().unwrap()), "{text}");
            assert!(problem.related_option().is_none_or(|related| text.contains(related)), "{text}");
            assert!(problem.value().is_none_or(|value| value == HIDDEN || text.contains(&value)), "{text}");
            assert_eq!(problem.origin(), None);
        }
    }

    #[test]
    fn located_texts_begin_with_places() {
        let place = SettingPlace::new(&Origin::Environment("KAFKA_A".to_owned()), "KAFKA_A");
        for cause in causes() {
            let related = cause.related();
            let problem = ConfigProblem::from(cause).located(|option| (Some(option) != related).then_some(&place));
            let (text, option) = (problem.to_string(), problem.option().unwrap_or_default());
            assert!(text.starts_with(&format!("KAFKA_A ({option})")) && !text.ends_with(']'), "{text}");
            assert_eq!(problem.origin(), Some(place.origin()));
            let unset = problem.located(|_| None);
            assert!(unset.to_string().starts_with(&format!("KAFKA_{} (", unset.option().unwrap().to_uppercase())));
            assert_eq!(unset.origin(), Some(&Origin::Default));
        }
    }

    #[test]
    fn hidden_values_stay_hidden() {
        let error = InvalidValue::hidden(AllowedValues::FilePath);
        let problem = ConfigProblem::of_text("ssl_key_location", error);
        assert_eq!(problem.value().as_deref(), Some(HIDDEN));
        assert!(problem.to_string().starts_with("ssl_key_location is ***, which is not allowed"), "{problem}");
        for origin in [Origin::Argument("--set hunter2".into()), Origin::Environment("hunter2".into())] {
            let problem = ConfigProblem::of_swapped_setting(&origin);
            assert!(!format!("{problem} {:?}", problem.origin()).contains("hunter2"), "{problem}");
        }
    }

    #[test]
    fn read_failures_are_equal() {
        let failure = || ConfigProblem::dead_letter_thread(std::io::ErrorKind::NotFound.into());
        assert_eq!(failure(), failure());
        assert_eq!(failure().kind(), ConfigProblemKind::Environment);
    }
}

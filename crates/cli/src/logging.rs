//! Logging to standard error, as text with colour only on a terminal, or as JSON.
//!
//! Rules:
//! - An invalid `--log-level` is an error.
//! - Every Rust program reads RUST_LOG, so filters for other programs are ignored, and an invalid value is a warning.

mod json;

use std::io::IsTerminal;
use std::sync::atomic::{AtomicBool, Ordering};

use tracing_subscriber::EnvFilter;

type BoxError = Box<dyn std::error::Error + Send + Sync>;

const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];
const DEFAULT: &str = "error";

/// The format of log lines.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, clap::ValueEnum)]
pub(crate) enum LogFormat {
    /// For people
    #[default]
    Text,
    /// An object in each line, messages of the command included
    Json,
}

/// Whether messages of the command are JSON.
static IS_JSON: AtomicBool = AtomicBool::new(false);

/// Returns a message of the command as a line of its log, if the log is JSON.
pub(crate) fn json_message(text: &str) -> Option<String> {
    IS_JSON.load(Ordering::Relaxed).then(|| json::message(text))
}

/// Starts logging at this level, or with the filter in RUST_LOG if `level` is `None`.
///
/// # Errors
/// If `level` is neither a level nor a filter.
pub(crate) fn start(level: Option<&str>, format: LogFormat) -> Result<(), BoxError> {
    IS_JSON.store(format == LogFormat::Json, Ordering::Relaxed);
    let filter = match level {
        Some(text) => strict(text)?,
        None => from_environment()?,
    };
    let colour = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    match format {
        LogFormat::Text => builder.with_ansi(colour).try_init(),
        LogFormat::Json => builder.with_ansi(false).event_format(json::JsonLines).try_init(),
    }
}

/// Parses a level, or a filter with a target. `EnvFilter` would parse any other single word as the name of a target.
fn strict(text: &str) -> Result<EnvFilter, BoxError> {
    let is_level = |word: &str| LEVELS.iter().any(|level| word.eq_ignore_ascii_case(level));
    match text.split(',').map(str::trim).find(|part| !part.contains(['=', '[']) && !is_level(part)) {
        Some(word) => Err(format!(
            "{:?} is not a log level: use {}, or a filter such as rskafka=debug",
            crate::usage::shown_word(word),
            LEVELS.join(", ")
        )
        .into()),
        None => Ok(EnvFilter::builder().parse(text)?),
    }
}

fn from_environment() -> Result<EnvFilter, BoxError> {
    let text = std::env::var("RUST_LOG").ok().filter(|text| !text.is_empty());
    match EnvFilter::builder().parse(text.as_deref().unwrap_or(DEFAULT)) {
        Ok(filter) => Ok(filter),
        Err(error) => {
            crate::say(&format!("warning: RUST_LOG is ignored: {error}"));
            Ok(EnvFilter::builder().parse(DEFAULT)?)
        }
    }
}

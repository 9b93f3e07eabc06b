//! Log lines on standard error: colour only on a terminal.
//!
//! Rules: a level that is asked for on the command line must be one; RUST_LOG is everybody's, so that what it has for
//! other programs is passed over, and what makes no sense in it is a warning.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

type Error = Box<dyn std::error::Error + Send + Sync>;

const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];
const DEFAULT: &str = "error";

/// Starts logging at the level asked for, else as RUST_LOG says. Errors: what was asked for makes no sense.
pub(crate) fn start(asked: Option<&str>) -> Result<(), Error> {
    let filter = match asked {
        Some(text) => strict(text)?,
        None => from_environment()?,
    };
    let colour = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(colour).try_init()
}

/// A level, or a filter that says of what: a word alone would be taken for the name of some code.
fn strict(text: &str) -> Result<EnvFilter, Error> {
    let is_level = |word: &str| LEVELS.iter().any(|level| word.eq_ignore_ascii_case(level));
    match text.split(',').map(str::trim).find(|part| !part.contains(['=', '[']) && !is_level(part)) {
        Some(word) => Err(format!(
            "{:?} is none of {}, nor like rskafka=debug",
            crate::usage::shown_word(word),
            LEVELS.join(", ")
        )
        .into()),
        None => Ok(EnvFilter::builder().parse(text)?),
    }
}

fn from_environment() -> Result<EnvFilter, Error> {
    let text = std::env::var("RUST_LOG").ok().filter(|text| !text.is_empty());
    match EnvFilter::builder().parse(text.as_deref().unwrap_or(DEFAULT)) {
        Ok(filter) => Ok(filter),
        Err(error) => {
            crate::say(&format!("warning: RUST_LOG is ignored: {error}"));
            Ok(EnvFilter::builder().parse(DEFAULT)?)
        }
    }
}

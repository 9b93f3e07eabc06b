//! Printing of command-line errors.
//!
//! Rules:
//! - An argument that may be a secret is not shown: a user may paste a key in place of a file's path.
//! - No control character of an argument reaches the terminal.

use std::io::Write;
use std::path::Path;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use kafka_courier::shown_file;

use crate::terminal::{is_unprintable, printable};

/// Longest option value in bytes that is shown. A longer value may be a secret.
const LONGEST_VALUE: usize = 32;
/// Longest option name in bytes, with its dashes.
const LONGEST_OPTION: usize = 40;

/// Parts of an error that repeat an argument as the user typed it.
const SUGGESTIONS: [ContextKind; 4] =
    [ContextKind::Suggested, ContextKind::SuggestedArg, ContextKind::SuggestedSubcommand, ContextKind::SuggestedValue];

/// Prints an error of clap. The error has colour on a terminal, unless an argument has control characters.
pub(crate) fn print(mut error: clap::Error) {
    hide(&mut error);
    let is_plain = |argument: std::ffi::OsString| !argument.to_string_lossy().contains(is_unprintable);
    if std::env::args_os().all(is_plain) {
        // A failed write to standard error can't be reported.
        let _ = error.print();
        return;
    }
    let mut err = std::io::stderr().lock();
    for line in error.render().to_string().lines() {
        let _ = writeln!(err, "{}", printable(line));
    }
}

/// Replaces each argument that may be a secret by `***`, and escapes control characters in the others.
fn hide(error: &mut clap::Error) {
    let mut kinds = vec![ContextKind::InvalidValue, ContextKind::InvalidSubcommand, ContextKind::TrailingArg];
    if error.kind() == ErrorKind::UnknownArgument {
        // Other errors name the argument as this command declares it.
        kinds.push(ContextKind::InvalidArg);
    }
    for kind in kinds {
        let Some(ContextValue::String(text)) = error.get(kind) else { continue };
        let is_shown = match kind {
            ContextKind::InvalidValue => is_value(text),
            _ => is_option(text) || shown_word(text) == *text,
        };
        let shown = if is_shown { printable(text).into_owned() } else { "***".to_owned() };
        error.insert(kind, ContextValue::String(shown));
        if !is_shown {
            for suggestion in SUGGESTIONS {
                error.remove(suggestion);
            }
        }
    }
}

/// Returns a word of the command line, or `***` if the word may be a secret.
pub(crate) fn shown_word(text: &str) -> String {
    if text.is_empty() { String::new() } else { shown_file(Path::new(text)) }
}

/// Whether an error shows this value of an option.
pub(crate) fn is_value(text: &str) -> bool {
    text.len() <= LONGEST_VALUE && !text.contains("-----")
}

fn is_option(text: &str) -> bool {
    let is_name = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    let name = text.strip_prefix("--").unwrap_or_default();
    text.len() <= LONGEST_OPTION && name.starts_with(|c: char| c.is_ascii_lowercase()) && name.chars().all(is_name)
        || text.len() == 2 && text.starts_with('-')
}

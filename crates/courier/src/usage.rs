//! Errors of the command line, as they are printed.
//!
//! Rules:
//! - A text that may be a secret is not shown: a key may be pasted where a file's path belongs.
//! - No control character of an argument reaches the terminal.

use std::io::Write;
use std::path::Path;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use kafka_courier::shown_file;

use crate::terminal::{is_unprintable, printable};

/// A longer value of an option may be a secret.
const LONGEST_VALUE: usize = 32;
/// No option's name is longer.
const LONGEST_OPTION: usize = 40;

/// What repeats an argument as it was typed.
const SUGGESTIONS: [ContextKind; 4] =
    [ContextKind::Suggested, ContextKind::SuggestedArg, ContextKind::SuggestedSubcommand, ContextKind::SuggestedValue];

/// Prints an error of clap: in colour on a terminal, but plain where an argument has control characters.
pub(crate) fn print(mut error: clap::Error) {
    hide(&mut error);
    let is_plain = |argument: std::ffi::OsString| !argument.to_string_lossy().contains(is_unprintable);
    if std::env::args_os().all(is_plain) {
        // Nothing more can be said if that fails.
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
        // In other errors it is the argument as this command declares it.
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

/// A word of the command line, or `***` where it may be a secret.
pub(crate) fn shown_word(text: &str) -> String {
    shown_file(Path::new(text))
}

/// Whether the value of an option is shown.
pub(crate) fn is_value(text: &str) -> bool {
    text.len() <= LONGEST_VALUE && !text.contains("-----")
}

fn is_option(text: &str) -> bool {
    let is_name = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    let name = text.strip_prefix("--").unwrap_or_default();
    text.len() <= LONGEST_OPTION && name.starts_with(|c: char| c.is_ascii_lowercase()) && name.chars().all(is_name)
        || text.len() == 2 && text.starts_with('-')
}

//! Configuration files: TOML or JSON.
//!
//! Rules: an error has the place and a hint. It repeats neither the text nor the parser's error, because any line may
//! contain a secret, and parsers quote the text that they reject.

use super::source::ReadError;
use super::tree::{SettingsNode, TreeError, pairs};

/// An error of a settings file. It shows no text of the file except names of settings.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub(super) enum SettingsFileError {
    #[error(transparent)]
    Read(#[from] ReadError),
    #[error("invalid JSON settings (line {line}, column {column}): {hint}")]
    Json { line: usize, column: usize, hint: &'static str },
    #[error("invalid TOML settings (line {line}): {hint}")]
    Toml { line: usize, hint: &'static str },
    /// The parser did not return a position.
    #[error("invalid TOML settings: check for unclosed quotes and brackets")]
    TomlWithoutLine,
    #[error("invalid {format} settings: {error}")]
    Tree { format: &'static str, error: TreeError },
}

/// Returns the names and values in a file's text.
pub(super) fn read(text: &str, is_json: bool) -> Result<Vec<(String, String)>, SettingsFileError> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let (format, node) = if is_json { ("JSON", read_json(text)?) } else { ("TOML", read_toml(text)?) };
    pairs(node).map_err(|error| SettingsFileError::Tree { format, error })
}

fn read_json(text: &str) -> Result<SettingsNode, SettingsFileError> {
    serde_json::from_str(text).map_err(|error| {
        let (line, column) = (error.line(), error.column());
        let hint = match error.classify() {
            serde_json::error::Category::Eof => "unexpected end of file: close the open quote, bracket or brace",
            _ => "check for missing or extra quotes, commas, colons and backslashes",
        };
        SettingsFileError::Json { line, column, hint }
    })
}

fn read_toml(text: &str) -> Result<SettingsNode, SettingsFileError> {
    toml::from_str(text).map_err(|error| {
        let Some(before) = error.span().and_then(|span| text.get(..span.start)) else {
            return SettingsFileError::TomlWithoutLine;
        };
        let number = before.matches('\n').count();
        let line = text.split('\n').nth(number).unwrap_or_default();
        let earlier = text.split('\n').take(number);
        SettingsFileError::Toml { line: number + 1, hint: hint(line, earlier) }
    })
}

/// Returns the probable error in a line of TOML.
fn hint<'a>(line: &str, mut earlier: impl Iterator<Item = &'a str>) -> &'static str {
    let name = |line: &'a str| line.split_once('=').map(|(name, _)| name.trim());
    let Some((key, value)) = line.split_once('=').map(|(name, value)| (name.trim(), value.trim())) else {
        return "a setting has the form name = value";
    };
    if !key.is_empty() && earlier.any(|line| name(line) == Some(key)) {
        return "the setting appears twice: remove one of them";
    }
    match value.chars().next() {
        None => "the value after = is missing",
        Some(quote @ ('"' | '\'')) => match value.matches(quote).count() {
            count if count % 2 == 1 => "a quote is missing or extra",
            _ if quote == '"' && value.contains('\\') => {
                "a backslash in double quotes begins an escape: write two, or use single quotes"
            }
            _ => "unexpected text after the closing quote: use the other kind of quotes around the value",
        },
        Some('[' | '{') => "check for missing or extra brackets, commas and quotes",
        Some(c) if c.is_ascii_digit() => "the value is not a number: put text in quotes",
        Some(_) => "put text in quotes",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_mistake_has_a_hint() {
        for (text, words) in [
            ("a = b", ": put text in quotes"),
            ("a = \"b", "a quote is missing"),
            ("a = \"b\\q\"", "a backslash"),
            ("a = \"b\" \"c\"", "after the closing quote"),
            ("a", "name = value"),
            ("a =", "is missing"),
            ("a = 1\na = 2", "twice"),
            ("a = [1", "brackets"),
            ("a = 1b", "not a number"),
        ] {
            let error = read(text, false).unwrap_err().to_string();
            assert!(error.starts_with("invalid TOML settings (line ") && error.contains(words), "{text}: {error}");
        }
        assert!(read("{", true).unwrap_err().to_string().contains("unexpected end"));
        assert!(matches!(read("{]", true), Err(SettingsFileError::Json { line: 1, column: 2, .. })));
    }
}

//! Configuration files: TOML or JSON.
//!
//! Rules: an error says where it is and never repeats the line, which may hold a secret.

use super::tree::Pairs;

/// Names and values of a file's text.
pub(super) fn read(text: &str, is_json: bool) -> Result<Vec<(String, String)>, String> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let read = if is_json { read_json(text) } else { read_toml(text) };
    read.map(|Pairs(pairs)| pairs)
}

fn read_json(text: &str) -> Result<Pairs, String> {
    serde_json::from_str(text).map_err(|error| format!("this is no JSON of settings: {error}"))
}

fn read_toml(text: &str) -> Result<Pairs, String> {
    toml::from_str(text).map_err(|error| {
        let before = error.span().and_then(|span| text.get(..span.start));
        let line = before.map_or_else(String::new, |before| format!(" (line {})", before.matches('\n').count() + 1));
        format!("this is no TOML of settings{line}: {}", error.message().replace('\n', ", "))
    })
}

//! Configuration files: TOML or JSON.
//!
//! Rules: an error says where it is and what to look for. It repeats neither the text nor the parser's error: any line may
//! hold a secret, and parsers quote what they could not read.

use super::tree::{Node, pairs};

/// Names and values of a file's text.
pub(super) fn read(text: &str, is_json: bool) -> Result<Vec<(String, String)>, String> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let (kind, read) = if is_json { ("JSON", read_json(text)) } else { ("TOML", read_toml(text)) };
    read.and_then(|node| pairs(node).map_err(|why| format!(": {why}")))
        .map_err(|why| format!("this is no {kind} of settings{why}"))
}

fn read_json(text: &str) -> Result<Node, String> {
    serde_json::from_str(text).map_err(|error| {
        let (line, column) = (error.line(), error.column());
        let hint = match error.classify() {
            serde_json::error::Category::Eof => "it ends too early: a quote, a bracket or a brace is not closed",
            _ => "look for quotes, commas, colons and backslashes that are missing or too many",
        };
        format!(" (line {line}, column {column}): {hint}")
    })
}

fn read_toml(text: &str) -> Result<Node, String> {
    toml::from_str(text).map_err(|error| {
        let Some(before) = error.span().and_then(|span| text.get(..span.start)) else {
            return ": look for quotes and brackets that are not closed".to_owned();
        };
        let number = before.matches('\n').count();
        let line = text.split('\n').nth(number).unwrap_or_default();
        let earlier = text.split('\n').take(number);
        format!(" (line {}): {}", number + 1, hint(line, earlier))
    })
}

/// What is probably wrong with a line of TOML.
fn hint<'a>(line: &str, mut earlier: impl Iterator<Item = &'a str>) -> &'static str {
    let name = |line: &'a str| line.split_once('=').map(|(name, _)| name.trim());
    let Some((own, value)) = line.split_once('=').map(|(name, value)| (name.trim(), value.trim())) else {
        return "a setting is written name = value";
    };
    if !own.is_empty() && earlier.any(|line| name(line) == Some(own)) {
        return "the setting is there twice: leave one of them out";
    }
    match value.chars().next() {
        None => "the value behind = is missing",
        Some(quote @ ('"' | '\'')) => match value.matches(quote).count() {
            count if count % 2 == 1 => "a quote is missing, or there is one too many",
            _ if quote == '"' && value.contains('\\') => {
                "a backslash between double quotes begins an escape: write two, or use single quotes"
            }
            _ => "there is more than a text in quotes: use the other kind of quotes around it",
        },
        Some('[' | '{') => "look for brackets, commas and quotes that are missing or too many",
        Some(c) if c.is_ascii_digit() => "this is no number: a text is put in quotes",
        Some(_) => "a text is put in quotes",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_slip_has_its_hint() {
        for (text, words) in [
            ("a = b", "a text is put in quotes"),
            ("a = \"b", "a quote is missing"),
            ("a = \"b\\q\"", "a backslash"),
            ("a = \"b\" \"c\"", "more than a text"),
            ("a", "name = value"),
            ("a =", "is missing"),
            ("a = 1\na = 2", "twice"),
            ("a = [1", "brackets"),
            ("a = 1b", "no number"),
        ] {
            let error = read(text, false).unwrap_err();
            assert!(
                error.starts_with("this is no TOML of settings (line ") && error.contains(words),
                "{text}: {error}"
            );
        }
        assert!(read("{", true).unwrap_err().contains("ends too early"));
        assert!(read("{]", true).unwrap_err().contains("(line 1, column 2)"));
    }
}

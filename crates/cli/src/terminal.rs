//! Escaping of text for a terminal.
//!
//! Rules: text from input, settings or brokers reaches a terminal without control characters and without marks that
//! change the direction of writing.

use std::borrow::Cow;

/// Whether a terminal acts on a character, for example moves the cursor or reorders the line.
pub(crate) fn is_unprintable(c: char) -> bool {
    let is_bidi = matches!(c, '\u{200e}' | '\u{200f}' | '\u{61c}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    c.is_control() || is_bidi
}

/// Escapes control characters and the marks that change the direction of writing.
pub(crate) fn printable(text: &str) -> Cow<'_, str> {
    if text.contains(is_unprintable) {
        let escaped = |c: char| if is_unprintable(c) { c.escape_default().to_string() } else { c.to_string() };
        return text.chars().map(escaped).collect();
    }
    Cow::Borrowed(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_are_escaped() {
        assert_eq!(printable("a\u{1b}[31mb\u{9b}c\r\t"), "a\\u{1b}[31mb\\u{9b}c\\r\\t");
        assert_eq!(printable("a\u{202e}b\u{2066}c\u{200f}"), "a\\u{202e}b\\u{2066}c\\u{200f}");
        assert!(matches!(printable("\u{20ac} plain"), Cow::Borrowed(_)));
    }
}

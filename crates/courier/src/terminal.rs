//! Text on its way to a terminal.
//!
//! Rules: nothing that comes from input, settings or brokers reaches a terminal as a control character.

use std::borrow::Cow;

/// The text with its control characters escaped: they could move the cursor, or worse.
pub(crate) fn printable(text: &str) -> Cow<'_, str> {
    if text.contains(char::is_control) {
        let escaped = |c: char| if c.is_control() { c.escape_default().to_string() } else { c.to_string() };
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
        assert!(matches!(printable("\u{20ac} plain"), Cow::Borrowed(_)));
    }
}

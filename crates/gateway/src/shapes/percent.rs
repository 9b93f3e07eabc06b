//! Percent-decoding of paths, queries and CloudEvents' header values.
//!
//! Rules:
//! - One round of decoding. A `+` is a `+`.
//! - An incomplete escape is invalid.

/// Decodes percent escapes. `None` if an escape is invalid.
pub fn decode(text: &[u8]) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((first, after)) = rest.split_first() {
        rest = after;
        if *first != b'%' {
            out.push(*first);
            continue;
        }
        let (digits, after) = rest.split_at_checked(2)?;
        let digit = |at: usize| char::from(*digits.get(at)?).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
        out.push(digit(0)? << 4 | digit(1)?);
        rest = after;
    }
    Some(out)
}

/// Decodes percent escapes to text. `None` if an escape or the UTF-8 is invalid.
pub fn decode_text(text: &[u8]) -> Option<String> {
    String::from_utf8(decode(text)?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_round_is_decoded() {
        assert_eq!(decode_text(b"a%20b%2520+").as_deref(), Some("a b%20+"));
        assert_eq!(decode_text("%C3%A4ö".as_bytes()).as_deref(), Some("äö"));
        assert_eq!(decode(b"%ff"), Some(vec![0xff]));
    }

    #[test]
    fn invalid_escapes_are_refused() {
        for text in ["%", "%2", "%zz", "%2g", "a%"] {
            assert_eq!(decode(text.as_bytes()), None, "{text}");
        }
        assert_eq!(decode_text(b"%C0%A0"), None, "overlong UTF-8");
    }
}

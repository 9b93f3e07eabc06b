//! Removes the white space between JSON tokens and keeps every token.
//!
//! - The input must be valid JSON.
//! - Nesting is bounded, so that other readers, which bound it too, can read the output.

/// Deepest nesting of an event: serde_json's own bound, and below Jackson's 1000.
pub(crate) const MAX_DEPTH: usize = 127;

/// Returns `json` without white space between tokens, or `None` if it is nested deeper than [`MAX_DEPTH`].
pub(crate) fn compact(json: &str) -> Option<String> {
    let mut out = String::with_capacity(json.len());
    let bytes = json.as_bytes();
    let mut depth = 0_usize;
    let mut copied = 0;
    let mut at = 0;
    while let Some(byte) = bytes.get(at) {
        at += 1;
        match byte {
            b'"' => at = string_end(bytes, at),
            b'{' | b'[' => {
                depth += 1;
                if depth > MAX_DEPTH {
                    return None;
                }
            }
            b'}' | b']' => depth = depth.saturating_sub(1),
            b' ' | b'\n' | b'\r' | b'\t' => {
                out.push_str(&json[copied..at - 1]);
                copied = at;
            }
            _ => {}
        }
    }
    out.push_str(&json[copied..]);
    Some(out)
}

/// Returns the position after the closing quote of a string whose content starts at `at`.
fn string_end(bytes: &[u8], mut at: usize) -> usize {
    while let Some(byte) = bytes.get(at) {
        match byte {
            b'"' => return at + 1,
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
    bytes.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_space_between_tokens_is_removed() {
        let json = " { \"a b\" :\t[ 1 , \"x \\\" y\\\\\" , {} ] ,\r\n \"c\" : 1.50E+3 } ";
        assert_eq!(compact(json).unwrap(), r#"{"a b":[1,"x \" y\\",{}],"c":1.50E+3}"#);
    }

    #[test]
    fn nesting_is_bounded() {
        let nested = |depth| "[".repeat(depth) + &"]".repeat(depth);
        assert_eq!(compact(&nested(MAX_DEPTH)), Some(nested(MAX_DEPTH)));
        assert_eq!(compact(&nested(MAX_DEPTH + 1)), None);
        assert_eq!(compact(&"[]".repeat(10_000)), Some("[]".repeat(10_000)));
    }
}

//! JSON without the white space between its tokens, every token as it was.
//!
//! - The input is known to be JSON.
//! - Nesting is bounded, so that whatever is passed on can be read again by readers with a bound of their own.

/// Deepest nesting that is passed on: serde_json's own bound, and below Jackson's 1000.
pub(crate) const MAX_DEPTH: usize = 127;

/// `json` without white space between tokens; `None` if it is nested deeper than [`MAX_DEPTH`].
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

/// Where the string goes on behind its closing quote, its content being at `at`.
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
    fn white_space_between_tokens_goes_and_within_strings_stays() {
        let json = " { \"a b\" :\t[ 1 , \"x \\\" y\\\\\" , {} ] ,\r\n \"c\" : 1.50E+3 } ";
        assert_eq!(compact(json).unwrap(), r#"{"a b":[1,"x \" y\\",{}],"c":1.50E+3}"#);
    }

    #[test]
    fn nesting_is_taken_up_to_the_bound_and_no_further() {
        let nested = |depth| "[".repeat(depth) + &"]".repeat(depth);
        assert_eq!(compact(&nested(MAX_DEPTH)), Some(nested(MAX_DEPTH)));
        assert_eq!(compact(&nested(MAX_DEPTH + 1)), None);
        assert_eq!(compact(&"[]".repeat(10_000)), Some("[]".repeat(10_000)));
    }
}

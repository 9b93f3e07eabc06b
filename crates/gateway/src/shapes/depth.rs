//! The bound on the nesting of JSON, checked before a parser reads it.

use super::failure::Failure;
use super::problem::Problem;

/// Checks that arrays and objects are nested at most `max` levels. The bytes need not be valid JSON.
///
/// # Errors
///
/// [`Problem::TooDeep`].
pub fn check(json: &[u8], max: usize) -> Result<(), Failure> {
    let (mut depth, mut is_text, mut is_escaped) = (0_usize, false, false);
    for byte in json {
        if is_text {
            is_text = is_escaped || *byte != b'"';
            is_escaped = !is_escaped && *byte == b'\\';
            continue;
        }
        match byte {
            b'"' => is_text = true,
            b'{' | b'[' => {
                depth += 1;
                if depth > max {
                    let why = format!("nested deeper than {max} levels: flatten the data, or carry it as a string");
                    return Err(Failure::new(Problem::TooDeep, why));
                }
            }
            b'}' | b']' => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nesting_is_bounded() {
        let nested = |depth| "[".repeat(depth) + &"]".repeat(depth);
        check(nested(3).as_bytes(), 3).unwrap();
        assert_eq!(check(nested(4).as_bytes(), 3).unwrap_err().problem, Problem::TooDeep);
        check("[]".repeat(100).as_bytes(), 1).unwrap();
    }

    #[test]
    fn brackets_in_texts_do_not_count() {
        check(br#"{"a":"[[[[","b\"[[":"\\"}"#, 1).unwrap();
        assert!(check(br#"{"a":"\\"[["#, 2).is_err());
    }
}

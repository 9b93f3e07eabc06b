//! Durations in the format of Go: `1m30s`, `100ms`, `1.5h`.
//!
//! Rules: each number has a unit, except `0`. The units are ns, us, µs, ms, s, m and h. Signs are not allowed.

use std::fmt::Write as _;
use std::time::Duration;

const UNITS: &[(&str, f64)] =
    &[("ns", 1e-9), ("us", 1e-6), ("µs", 1e-6), ("ms", 1e-3), ("s", 1.0), ("m", 60.0), ("h", 3600.0)];

/// Parses a duration.
pub(super) fn parse(text: &str) -> Option<Duration> {
    if text == "0" {
        return Some(Duration::ZERO);
    }
    let (mut rest, mut total) = (text, Duration::ZERO);
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let (number, tail) = rest.split_at(digits);
        let letters = tail.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(letters);
        let seconds = UNITS.iter().find(|known| known.0 == unit).map(|known| known.1);
        let value = number.parse::<f64>().ok().filter(|value| value.is_finite());
        let part = seconds.zip(value).and_then(|(unit, value)| Duration::try_from_secs_f64(unit * value).ok());
        total = part.and_then(|part| total.checked_add(part))?;
        rest = tail;
    }
    Some(total)
}

/// Formats a duration as a text that [`parse`] reads back.
pub(super) fn format(duration: Duration) -> String {
    let nanos = duration.as_nanos();
    if nanos == 0 {
        return "0s".to_owned();
    }
    let (mut text, mut rest) = (String::new(), nanos);
    for (unit, size) in [
        ("h", 3_600_000_000_000),
        ("m", 60_000_000_000),
        ("s", 1_000_000_000),
        ("ms", 1_000_000),
        ("us", 1_000),
        ("ns", 1),
    ] {
        if rest >= size {
            let _ = write!(text, "{}{unit}", rest / size);
            rest %= size;
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn go_durations_are_parsed() {
        for (text, millis) in
            [("100ms", 100), ("1s", 1000), ("1m30s", 90_000), ("1.5h", 5_400_000), ("0", 0), ("2h45m0.5s", 9_900_500)]
        {
            assert_eq!(parse(text), Some(Duration::from_millis(millis)), "{text}");
        }
    }

    #[test]
    fn invalid_durations_are_errors() {
        for text in ["", "5", "-1s", "s", "1x", "1 s", "1..5s", "1e400s", "99999999999999999999h", "∞s"] {
            assert!(parse(text).is_none(), "{text}");
        }
    }

    #[test]
    fn formatted_durations_parse_back() {
        for nanos in [0, 1, 1_500, 90_000_000_000, 3_600_000_000_001, 123_456_789] {
            let duration = Duration::from_nanos(nanos);
            assert_eq!(parse(&format(duration)), Some(duration), "{}", format(duration));
        }
    }
}

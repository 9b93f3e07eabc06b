//! Writes times as RFC 3339 in UTC, with the same text as jiff and without its general formatter.
//!
//! - Covers 1970 and later. jiff itself writes earlier times.

use std::cell::Cell;

use jiff::Timestamp;
use serde::Serialize;
use serde::ser::Serializer;

const SECONDS_PER_DAY: u64 = 86_400;
/// `2024-01-15T10:00:00.123456789Z`.
const LEN: usize = 30;

thread_local! {
    /// The second that this thread wrote last, in seconds since 1970, and its text.
    static LAST: Cell<(u64, [u8; 19])> = const { Cell::new((0, *b"1970-01-01T00:00:00")) };
}

/// Serializes a time. A target of `serialize_with`.
pub(crate) fn serialize<S: Serializer>(time: &Timestamp, serializer: S) -> Result<S::Ok, S::Error> {
    match text(*time, &mut [0; LEN]) {
        Some(text) => serializer.serialize_str(text),
        None => serializer.collect_str(time),
    }
}

/// Serializes an optional time. A target of `serialize_with`.
pub(crate) fn serialize_option<S: Serializer>(time: &Option<Timestamp>, serializer: S) -> Result<S::Ok, S::Error> {
    time.map(Rfc3339).serialize(serializer)
}

/// A time that serializes as its text.
pub(crate) struct Rfc3339(pub(crate) Timestamp);

impl Serialize for Rfc3339 {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serialize(&self.0, serializer)
    }
}

/// Appends a time's text, without quotes.
pub(crate) fn append(out: &mut Vec<u8>, time: Timestamp) {
    let mut buffer = [0; LEN];
    match bytes(time, &mut buffer) {
        Some(len) => out.extend_from_slice(&buffer[..len]),
        None => out.extend_from_slice(time.to_string().as_bytes()),
    }
}

fn text(time: Timestamp, buffer: &mut [u8; LEN]) -> Option<&str> {
    let len = bytes(time, buffer)?;
    std::str::from_utf8(&buffer[..len]).ok()
}

/// Writes a time's text and returns its length, or `None` before 1970.
fn bytes(time: Timestamp, buffer: &mut [u8; LEN]) -> Option<usize> {
    let seconds = u64::try_from(time.as_second()).ok()?;
    let nanos = u32::try_from(time.subsec_nanosecond()).ok()?;
    let (micros, below) = (nanos / 1000, nanos % 1000);
    let [[f0, f1], [f2, f3], [f4, f5]] = [pair(micros / 10_000), pair(micros / 100), pair(micros)];
    let ([f6, f7], f8) = (pair(below / 10), b'0' + (below % 10) as u8);
    buffer[..19].copy_from_slice(&to_the_second(seconds));
    buffer[19..].copy_from_slice(&[b'.', f0, f1, f2, f3, f4, f5, f6, f7, f8, b'Z']);
    let end = if nanos == 0 {
        // A time without fraction has no decimal point either.
        19
    } else {
        let written = if below == 0 { 26 } else { 29 };
        written - buffer[20..written].iter().rev().take_while(|digit| **digit == b'0').count()
    };
    buffer[end] = b'Z';
    Some(end + 1)
}

/// Returns a time's text without fraction and zone. Caches the last second, because a thread's events are mostly close
/// together.
fn to_the_second(seconds: u64) -> [u8; 19] {
    // The thread-local is gone while the thread exits.
    if let Ok((kept, text)) = LAST.try_with(Cell::get)
        && kept == seconds
    {
        return text;
    }
    let (year, month, day) = date(seconds / SECONDS_PER_DAY);
    let second = (seconds % SECONDS_PER_DAY) as u32;
    let [[c0, c1], [y0, y1], [m0, m1], [d0, d1]] = [pair(year / 100), pair(year), pair(month), pair(day)];
    let [[h0, h1], [n0, n1], [s0, s1]] = [pair(second / 3600), pair(second / 60 % 60), pair(second % 60)];
    let text = [c0, c1, y0, y1, b'-', m0, m1, b'-', d0, d1, b'T', h0, h1, b':', n0, n1, b':', s0, s1];
    let _ = LAST.try_with(|last| last.set((seconds, text)));
    text
}

/// Returns the last two digits of a number.
const fn pair(number: u32) -> [u8; 2] {
    let number = (number % 100) as u8;
    [b'0' + number / 10, b'0' + number % 10]
}

/// Returns year, month and day of a day since 1970
/// (<https://howardhinnant.github.io/date_algorithms.html#civil_from_days>).
const fn date(days: u64) -> (u32, u32, u32) {
    let days = (days + 719_468) as u32;
    let (era, of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    // Months count from March, so that the leap day is the last day of a year.
    let from_march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
    let year = era * 400 + year_of_era + if month <= 2 { 1 } else { 0 };
    (year, month, day)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)] // A test's failure is a panic.
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn assert_as_jiff(time: Timestamp) {
        let written = serde_json::to_string(&Rfc3339(time)).unwrap();
        assert_eq!(written, format!("\"{time}\""));
    }

    #[test]
    fn each_day_equals_jiffs() {
        for day in 0..Timestamp::MAX.as_second() / 86_400 {
            assert_as_jiff(Timestamp::from_second(day * 86_400 + day % 86_400).unwrap());
        }
    }

    #[test]
    fn first_and_last_moments_equal_jiffs() {
        let nanosecond = Timestamp::from_nanosecond(-1).unwrap();
        for time in [Timestamp::MIN, nanosecond, Timestamp::UNIX_EPOCH, Timestamp::MAX] {
            assert_as_jiff(time);
        }
    }

    proptest! {
        #[test]
        fn every_fraction_equals_jiffs(
            second in -1_000_000_000_i64..253_402_207_200, nanos in 0..1_000_000_000_i32, zeros in 0..10_u32,
        ) {
            let unit = 10_i32.pow(zeros.min(9));
            assert_as_jiff(Timestamp::new(second, nanos / unit * unit).unwrap());
        }
    }
}

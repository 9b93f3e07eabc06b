//! Times as RFC 3339 in UTC, letter by letter as jiff writes them, without its general formatter.
//!
//! - From 1970 on; what was before is left to jiff.

use jiff::Timestamp;
use serde::Serialize;
use serde::ser::Serializer;

const SECONDS_PER_DAY: u64 = 86_400;
/// `2024-01-15T10:00:00.123456789Z`.
const LEN: usize = 30;

/// For `serialize_with`.
pub(crate) fn serialize<S: Serializer>(time: &Timestamp, serializer: S) -> Result<S::Ok, S::Error> {
    match text(*time, &mut [0; LEN]) {
        Some(text) => serializer.serialize_str(text),
        None => serializer.collect_str(time),
    }
}

/// For `serialize_with`.
pub(crate) fn serialize_option<S: Serializer>(time: &Option<Timestamp>, serializer: S) -> Result<S::Ok, S::Error> {
    time.map(Rfc3339).serialize(serializer)
}

/// A time whose JSON is its text.
pub(crate) struct Rfc3339(pub(crate) Timestamp);

impl Serialize for Rfc3339 {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serialize(&self.0, serializer)
    }
}

fn text(time: Timestamp, buffer: &mut [u8; LEN]) -> Option<&str> {
    let seconds = u64::try_from(time.as_second()).ok()?;
    let nanos = u32::try_from(time.subsec_nanosecond()).ok()?;
    let (year, month, day) = date(seconds / SECONDS_PER_DAY);
    let second = (seconds % SECONDS_PER_DAY) as u32;
    *buffer = *b"0000-00-00T00:00:00.000000000Z";
    digits(&mut buffer[..4], year);
    digits(&mut buffer[5..7], month);
    digits(&mut buffer[8..10], day);
    digits(&mut buffer[11..13], second / 3600);
    digits(&mut buffer[14..16], second / 60 % 60);
    digits(&mut buffer[17..19], second % 60);
    let end = fraction(buffer, nanos);
    buffer[end] = b'Z';
    std::str::from_utf8(&buffer[..=end]).ok()
}

/// Writes the fraction without its last zeros; where it ends.
fn fraction(buffer: &mut [u8; LEN], nanos: u32) -> usize {
    let (micros, below) = (nanos / 1000, nanos % 1000);
    digits(&mut buffer[20..26], micros);
    let written = if below == 0 {
        26
    } else {
        digits(&mut buffer[26..29], below);
        29
    };
    let zeros = buffer[20..written].iter().rev().take_while(|digit| **digit == b'0').count();
    // Without digits there is no point either.
    if nanos == 0 { 19 } else { written - zeros }
}

fn digits(place: &mut [u8], mut number: u32) {
    for digit in place.iter_mut().rev() {
        *digit = b'0' + (number % 10) as u8;
        number /= 10;
    }
}

/// Year, month and day of a day since 1970 (<https://howardhinnant.github.io/date_algorithms.html#civil_from_days>).
const fn date(days: u64) -> (u32, u32, u32) {
    let days = (days + 719_468) as u32;
    let (era, of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    // Months from March on, so that the leap day is a year's last.
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
    fn each_day_is_written_as_jiff_writes_it() {
        for day in 0..Timestamp::MAX.as_second() / 86_400 {
            assert_as_jiff(Timestamp::from_second(day * 86_400 + day % 86_400).unwrap());
        }
    }

    #[test]
    fn the_first_and_the_last_moments_are_written_as_jiff_writes_them() {
        let nanosecond = Timestamp::from_nanosecond(-1).unwrap();
        for time in [Timestamp::MIN, nanosecond, Timestamp::UNIX_EPOCH, Timestamp::MAX] {
            assert_as_jiff(time);
        }
    }

    proptest! {
        #[test]
        fn every_fraction_is_written_as_jiff_writes_it(
            second in -1_000_000_000_i64..253_402_207_200, nanos in 0..1_000_000_000_i32, zeros in 0..10_u32,
        ) {
            let unit = 10_i32.pow(zeros.min(9));
            assert_as_jiff(Timestamp::new(second, nanos / unit * unit).unwrap());
        }
    }
}

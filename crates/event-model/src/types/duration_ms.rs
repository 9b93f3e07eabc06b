//! A `Duration` as a JSON number of milliseconds with its fraction.

use std::fmt;
use std::time::Duration;

use serde::de::{Deserializer, Error, Unexpected, Visitor};
use serde::ser::Serializer;

const NANOS_PER_MS: u32 = 1_000_000;

pub(super) fn serialize<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    let whole = u64::try_from(duration.as_millis()).ok();
    match whole.filter(|_| duration.subsec_nanos().is_multiple_of(NANOS_PER_MS)) {
        Some(millis) => serializer.serialize_u64(millis),
        // One division of whole nanoseconds keeps the shortest decimal exact up to 11 days.
        None => serializer.serialize_f64(duration.as_nanos() as f64 / f64::from(NANOS_PER_MS)),
    }
}

pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    deserializer.deserialize_f64(Millis)
}

struct Millis;

impl Visitor<'_> for Millis {
    type Value = Duration;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a number of milliseconds, 0 or more")
    }

    fn visit_u64<E: Error>(self, millis: u64) -> Result<Duration, E> {
        Ok(Duration::from_millis(millis))
    }

    fn visit_f64<E: Error>(self, millis: f64) -> Result<Duration, E> {
        let nanos = (millis * f64::from(NANOS_PER_MS)).round();
        // NaN is not in the range. A u64 of nanoseconds holds 584 years.
        if (0.0..u64::MAX as f64).contains(&nanos) {
            Ok(Duration::from_nanos(nanos as u64))
        } else {
            Err(E::invalid_value(Unexpected::Float(millis), &self))
        }
    }
}

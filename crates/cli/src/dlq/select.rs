//! The selection of dead letters on the command line.
//!
//! Rules: a dead letter is selected if it matches all flags. It matches a repeated flag if it matches one of the values.

use clap::Args;
use jiff::civil::Date;
use jiff::tz::TimeZone;
use jiff::{Span, SpanRelativeTo, Timestamp};
use kafka_courier::ErrorCode;
use kafka_courier::dlq::{Bytes, Held, LetterId, Outcome, Selection, SelectionError, StoreError};

use super::store::StoreArgs;
use crate::argument::ArgumentError;
use crate::exit::{CommandError, Exit};

/// Heading of the options that select dead letters.
const SELECTION: &str = "Selection";

/// A selected dead letter, or why its store could not be read further.
pub(super) type ScannedLetter = Result<Held, StoreError>;

/// Conditions that a dead letter must meet.
#[derive(Args, Clone, Default, Debug)]
#[command(next_help_heading = SELECTION)]
pub(super) struct SelectionArgs {
    /// Select events for this topic (repeatable)
    #[arg(long, value_name = "TOPIC")]
    for_topic: Vec<String>,
    /// Select events of this type (repeatable)
    #[arg(long, value_name = "TYPE")]
    event_type: Vec<String>,
    /// Select reasons that contain this text, in upper or lower case
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    /// Select this Kafka error, such as MESSAGE_TOO_LARGE (repeatable)
    #[arg(long, value_name = "NAME", value_parser = error_name)]
    error_code: Vec<String>,
    /// Select events that are not in the log (not_written), or may be (unknown)
    #[arg(long, value_name = "OUTCOME")]
    outcome: Option<Outcome>,
    /// Select temporary causes (true), such as an unreachable cluster, or permanent ones (false)
    #[arg(long, value_name = "BOOL")]
    retriable: Option<bool>,
    /// Select dead letters whose last attempt is at this time or later
    ///
    /// TIME is a time such as 2024-01-15T10:00:00Z, a day in UTC such as 2024-01-15, or an age such as 15m.
    #[arg(long, value_name = "TIME", value_parser = moment)]
    since: Option<Timestamp>,
    /// Select dead letters whose last attempt is before this time
    #[arg(long, value_name = "TIME", value_parser = moment)]
    until: Option<Timestamp>,
    /// Select records with this key (repeatable)
    #[arg(long, value_name = "KEY")]
    key: Vec<String>,
    /// Select the dead letter with this id (repeatable)
    #[arg(long, value_name = "ID")]
    id: Vec<LetterId>,
    /// Select up to N dead letters, the oldest first
    #[arg(long, value_name = "N", allow_negative_numbers = true, value_parser = crate::whole_number::<u64>)]
    pub(super) limit: Option<u64>,
}

/// The store and the explicit selection of a command that changes the store.
#[derive(Args, Debug)]
pub(super) struct ChosenArgs {
    #[command(flatten)]
    pub(super) letters: SelectionArgs,
    /// Select all dead letters
    #[arg(long, help_heading = SELECTION)]
    all: bool,
    #[command(flatten)]
    pub(super) store: StoreArgs,
}

impl ChosenArgs {
    /// Returns the selection for `command`. An empty selection without `--all` is an error.
    pub(super) fn selection(&self, command: &str) -> Result<Selection, CommandError> {
        self.letters.selection().explicit(self.all).map_err(|why| refused(&why, command))
    }
}

/// Returns the error of a selection that `command` refuses, in the words of its options.
fn refused(error: &SelectionError, command: &str) -> CommandError {
    let why = match error {
        SelectionError::Empty => {
            "nothing is selected: select dead letters, for example with --for-topic orders, or pass --all".to_owned()
        }
        SelectionError::AllAndOthers => {
            "--all conflicts with the other selection options: remove --all or the others".to_owned()
        }
        SelectionError::EmptyRange { since, until } => format!(
            "--since {since} is not before --until {until}, which selects nothing: name an earlier --since, or a later \
             --until"
        ),
        _ => error.to_string(),
    };
    CommandError(Exit::Usage, format!("{command}: {why}"))
}

impl SelectionArgs {
    /// Returns the selection for `command`, without the limit. An empty range of times is an error.
    pub(super) fn checked(&self, command: &str) -> Result<Selection, CommandError> {
        self.selection().checked().map_err(|why| refused(&why, command))
    }

    fn selection(&self) -> Selection {
        Selection {
            ids: self.id.clone(),
            topics: self.for_topic.clone(),
            event_types: self.event_type.clone(),
            error_codes: self.error_code.clone(),
            keys: self.key.iter().map(|key| Bytes::from(key.clone())).collect(),
            reason: self.reason.clone(),
            outcome: self.outcome,
            retriable: self.retriable,
            since: self.since,
            until: self.until,
            max_replay_count: None,
        }
    }

    /// Returns the limit as a number of items.
    pub(super) fn max_items(&self) -> usize {
        self.limit.map_or(usize::MAX, |limit| usize::try_from(limit).unwrap_or(usize::MAX))
    }
}

/// Returns Kafka's name of an error in upper case, as dead letters contain it.
fn error_name(text: &str) -> Result<String, ArgumentError> {
    let wanted = text.to_uppercase().replace('-', "_");
    let names = || ErrorCode::all().map(ErrorCode::name);
    if let Some(name) = names().find(|name| *name == wanted) {
        return Ok(name.to_owned());
    }
    let words: Vec<&str> = wanted.split('_').filter(|word| word.len() > 2).collect();
    let shared = |name: &str| name.split('_').filter(|word| words.contains(word)).count();
    let mut similar: Vec<&str> = names().filter(|name| shared(name) > 0).collect();
    similar.sort_by_key(|name| std::cmp::Reverse(shared(name)));
    similar.truncate(3);
    Err(ArgumentError::UnknownErrorName { similar })
}

fn moment(text: &str) -> Result<Timestamp, ArgumentError> {
    moment_at(text, Timestamp::now())
}

/// Parses a time, a day (its start in UTC), or an age before `now`.
fn moment_at(text: &str, now: Timestamp) -> Result<Timestamp, ArgumentError> {
    if let Ok(at) = text.parse() {
        return Ok(at);
    }
    if let Ok(day) = text.parse::<Date>() {
        return TimeZone::UTC.to_timestamp(day.at(0, 0, 0, 0)).map_err(|_| ArgumentError::DayOutOfRange);
    }
    let span: Span = text.parse().map_err(|_| span_error(text))?;
    let ago = span.to_duration(SpanRelativeTo::days_are_24_hours()).map_err(|_| ArgumentError::NotATime)?;
    if ago.is_negative() {
        return Err(ArgumentError::NotATime);
    }
    now.checked_sub(ago).map_err(|_| ArgumentError::AgeTooLarge)
}

/// Returns the error of a text that is no span. A span of small numbers in the same units tells whether the numbers are
/// too large.
fn span_error(text: &str) -> ArgumentError {
    let mut small = String::new();
    for c in text.chars() {
        match (c.is_ascii_digit(), small.ends_with('1')) {
            (true, true) => {}
            (true, false) => small.push('1'),
            (false, _) => small.push(c),
        }
    }
    match small.parse::<Span>() {
        Ok(span) if !span.is_negative() => ArgumentError::AgeTooLarge,
        _ => ArgumentError::NotATime,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wrong_number_names_the_expected() {
        assert_eq!(crate::whole_number::<u64>("x"), Err(ArgumentError::NotANumber));
        assert_eq!(crate::whole_number("7"), Ok(7_u64));
        for text in ["4294967296", "99999999999999999999"] {
            assert_eq!(crate::whole_number::<u32>(text), Err(ArgumentError::NumberTooLarge), "{text}");
        }
    }

    #[test]
    fn zero_rate_names_the_minimum() {
        assert_eq!(crate::positive_number("0").unwrap_err().to_string(), "must be at least 1");
        assert_eq!(crate::positive_number("x"), Err(ArgumentError::NotANumber));
        assert_eq!(crate::positive_number("7").map(u32::from), Ok(7));
    }

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[test]
    fn moment_is_time_or_age() {
        let now = at("2024-01-15T10:00:00Z");
        for (text, wanted) in [
            ("2024-01-15T09:00:00+01:00", "2024-01-15T08:00:00Z"),
            ("15m", "2024-01-15T09:45:00Z"),
            ("1h30m", "2024-01-15T08:30:00Z"),
            ("500ms", "2024-01-15T09:59:59.5Z"),
            ("1.5h", "2024-01-15T08:30:00Z"),
            ("2d", "2024-01-13T10:00:00Z"),
            ("2024-01-15", "2024-01-15T00:00:00Z"),
        ] {
            assert_eq!(moment_at(text, now), Ok(at(wanted)), "{text}");
        }
        for text in ["", "yesterday", "15", "-15m", "15m ago", "2024-01-32", "1y"] {
            assert!(moment_at(text, now).is_err(), "{text}");
        }
    }

    #[test]
    fn overlong_age_is_too_large() {
        let now = at("2024-01-15T10:00:00Z");
        for text in ["99999999999d", "999999999999999999999999h", "7000000d", "1h99999999999999999999m"] {
            assert_eq!(moment_at(text, now), Err(ArgumentError::AgeTooLarge), "{text}");
        }
        for text in ["-99999999999d", "99999999999", "99999999999x"] {
            assert_eq!(moment_at(text, now), Err(ArgumentError::NotATime), "{text}");
        }
    }

    #[test]
    fn empty_range_is_an_error() {
        let (early, late) = (Some(at("2024-01-15T10:00:00Z")), Some(at("2024-01-15T11:00:00Z")));
        let between = |since, until| SelectionArgs { since, until, ..Default::default() }.checked("dlq list");
        assert!(between(early, late).is_ok() && between(late, None).is_ok());
        for until in [early, late] {
            let CommandError(exit, why) = between(late, until).unwrap_err();
            assert!(exit == Exit::Usage && why.starts_with("dlq list: --since 2024-01-15T11:00:00Z is not"), "{why}");
        }
    }

    #[test]
    fn unknown_error_lists_similar_names() {
        assert_eq!(error_name("message_Too-large"), Ok("MESSAGE_TOO_LARGE".to_owned()));
        let wrong = error_name("MESSAGE_LARGE").unwrap_err().to_string();
        assert!(wrong.contains("similar names: MESSAGE_TOO_LARGE"), "{wrong}");
        assert_eq!(error_name("x").unwrap_err().to_string(), "unknown Kafka error");
    }
}

//! Which letters a command is about, as the command line says it.
//!
//! Rules: every flag that is given must hold; of one that is given more than once, any value will do.

use clap::Args;
use jiff::civil::Date;
use jiff::tz::TimeZone;
use jiff::{Span, SpanRelativeTo, Timestamp};
use kafka_courier::ErrorCode;
use kafka_courier::dlq::{Bytes, LetterId, Outcome, Selection};

use super::store::StoreArgs;
use crate::exit::{Exit, Refusal};

/// What the letters must be like.
#[derive(Args, Clone, Default, Debug)]
#[command(next_help_heading = "Which letters")]
pub(super) struct SelectionArgs {
    /// Letters of events for this topic; may be given again.
    #[arg(long, value_name = "TOPIC")]
    for_topic: Vec<String>,
    /// Letters of events of this type; may be given again.
    #[arg(long, value_name = "TYPE")]
    event_type: Vec<String>,
    /// Letters whose reason contains this, in whatever case.
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    /// Letters with this error of Kafka's, such as MESSAGE_TOO_LARGE, in whatever case; may be given again.
    #[arg(long, value_name = "NAME", value_parser = error_name)]
    error_code: Vec<String>,
    /// Letters of events that are certainly not in the log (not_written), or may be (unknown).
    #[arg(long, value_name = "OUTCOME")]
    outcome: Option<Outcome>,
    /// Letters whose cause passes (true), such as an absent cluster, or does not (false).
    #[arg(long, value_name = "BOOL")]
    retriable: Option<bool>,
    /// Letters last tried at this moment or later: a time such as 2024-01-15T10:00:00Z, a day (2024-01-15, from its
    /// begin in UTC), or how long ago, such as 15m.
    #[arg(long, value_name = "TIME", value_parser = moment)]
    since: Option<Timestamp>,
    /// Letters last tried before this moment.
    #[arg(long, value_name = "TIME", value_parser = moment)]
    until: Option<Timestamp>,
    /// Letters of records with this key; may be given again.
    #[arg(long, value_name = "KEY")]
    key: Vec<String>,
    /// The letter of this id; may be given again.
    #[arg(long, value_name = "ID")]
    id: Vec<LetterId>,
    /// At most N, the oldest first.
    #[arg(long, value_name = "N", value_parser = crate::whole_number::<u64>)]
    pub(super) limit: Option<u64>,
}

/// The letters of a store that something is done to.
#[derive(Args, Debug)]
pub(super) struct ChosenArgs {
    #[command(flatten)]
    pub(super) store: StoreArgs,
    #[command(flatten)]
    pub(super) letters: SelectionArgs,
    /// All letters.
    #[arg(long)]
    all: bool,
}

impl ChosenArgs {
    /// The selection, which is never everything unasked; `command` wants it.
    pub(super) fn selection(&self, command: &str) -> Result<Selection, Refusal> {
        self.letters.deliberate(self.all).map_err(|why| Refusal(Exit::Usage, format!("{command}: {why}")))
    }
}

impl SelectionArgs {
    /// The selection, without the limit.
    pub(super) fn selection(&self) -> Selection {
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

    /// As [`Self::selection`]; nothing selected is an error unless `all` are meant.
    fn deliberate(&self, all: bool) -> Result<Selection, &'static str> {
        let selection = self.selection();
        match (all, selection == Selection::all()) {
            (false, true) => Err("nothing is selected: say which letters, such as --for-topic orders, or --all"),
            (true, false) => Err("--all and a selection at once: leave one of them out"),
            _ => Ok(selection),
        }
    }

    /// The limit as a number of items.
    pub(super) fn most(&self) -> usize {
        self.limit.map_or(usize::MAX, |limit| usize::try_from(limit).unwrap_or(usize::MAX))
    }
}

/// Kafka's name of an error, as letters have it.
fn error_name(text: &str) -> Result<String, String> {
    let wanted = text.to_uppercase().replace('-', "_");
    let names = || ErrorCode::all().map(ErrorCode::name);
    if let Some(name) = names().find(|name| *name == wanted) {
        return Ok(name.to_owned());
    }
    let words: Vec<&str> = wanted.split('_').filter(|word| word.len() > 2).collect();
    let shared = |name: &str| name.split('_').filter(|word| words.contains(word)).count();
    let mut near: Vec<&str> = names().filter(|name| shared(name) > 0).collect();
    near.sort_by_key(|name| std::cmp::Reverse(shared(name)));
    near.truncate(3);
    match near.is_empty() {
        true => Err("Kafka has no such error".to_owned()),
        false => Err(format!("Kafka has no such error; perhaps {}", near.join(", "))),
    }
}

fn moment(text: &str) -> Result<Timestamp, String> {
    moment_at(text, Timestamp::now())
}

/// A day's begin in UTC, a time, or how long before `now`.
fn moment_at(text: &str, now: Timestamp) -> Result<Timestamp, String> {
    if let Ok(at) = text.parse() {
        return Ok(at);
    }
    if let Ok(day) = text.parse::<Date>() {
        return TimeZone::UTC.to_timestamp(day.at(0, 0, 0, 0)).map_err(|error| error.to_string());
    }
    let wrong = "it is a time such as 2024-01-15T10:00:00Z, a day such as 2024-01-15, or how long ago, such as 15m, 1h30m or 2d";
    let span: Span = text.parse().map_err(|_| wrong)?;
    let ago = span.to_duration(SpanRelativeTo::days_are_24_hours()).map_err(|_| wrong)?;
    if ago.is_negative() {
        return Err(wrong.to_owned());
    }
    now.checked_sub(ago).map_err(|_| "that is before all time".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wrong_number_names_the_expected() {
        assert_eq!(crate::whole_number::<u64>("x"), Err("a whole number is expected, such as 100".to_owned()));
        assert_eq!(crate::whole_number("7"), Ok(7_u64));
    }

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[test]
    fn a_moment_is_a_time_or_how_long_ago() {
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
    fn an_error_is_known_in_any_case_and_one_that_is_not_has_near_names_told() {
        assert_eq!(error_name("message_Too-large").as_deref(), Ok("MESSAGE_TOO_LARGE"));
        let wrong = error_name("MESSAGE_LARGE").unwrap_err();
        assert!(wrong.contains("perhaps MESSAGE_TOO_LARGE"), "{wrong}");
        assert_eq!(error_name("x").unwrap_err(), "Kafka has no such error");
    }

    #[test]
    fn nothing_selected_is_never_everything_by_itself() {
        let (none, mut some) = (SelectionArgs { limit: Some(9), ..Default::default() }, SelectionArgs::default());
        some.key = vec!["k".into()];
        assert!(none.deliberate(false).is_err() && some.deliberate(true).is_err());
        assert_eq!(none.deliberate(true), Ok(Selection::all()));
        assert_eq!(some.deliberate(false).unwrap().keys, [Bytes::from("k")]);
    }
}

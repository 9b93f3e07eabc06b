//! `courier dlq stats`.

use std::collections::BTreeMap;
use std::io::{self, Write};

use clap::Args;
use indicatif::{HumanBytes, HumanCount};
use kafka_courier::dlq::{Letter, Selection, Timestamp, letters};
use serde::Serialize;

use super::store::StoreArgs;
use super::{output_failed, store_failed};
use crate::exit::{CommandError, Exit};
use crate::terminal::printable;

/// Count dead letters by topic, error and outcome
#[derive(Args, Debug)]
pub(super) struct StatsArgs {
    /// Print the counts as a line of JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    store: StoreArgs,
}

/// Counts of the dead letters in a store.
#[derive(Default, Serialize)]
struct StatsReport {
    store: String,
    letters: u64,
    /// Size of their JSON in bytes.
    bytes: u64,
    /// The earliest last attempt.
    oldest: Option<Timestamp>,
    by_topic: BTreeMap<String, u64>,
    by_error: BTreeMap<String, u64>,
    by_outcome: BTreeMap<String, u64>,
}

pub(super) fn run(args: &StatsArgs) -> Result<Exit, CommandError> {
    let opened = args.store.open_to_read()?;
    let mut stats = StatsReport { store: opened.store.name().to_owned(), ..StatsReport::default() };
    for held in letters(&*opened.store, &Selection::all()) {
        stats.add(&held.map_err(store_failed)?.letter);
    }
    let mut out = io::stdout().lock();
    let text = match args.json {
        true => serde_json::to_string(&stats).map_err(|error| CommandError(Exit::Io, error.to_string()))?,
        false => stats.text(),
    };
    writeln!(out, "{text}").map_err(output_failed)?;
    Ok(Exit::Ok)
}

impl StatsReport {
    fn add(&mut self, letter: &Letter) {
        self.letters += 1;
        self.bytes += letter.to_json().map_or(0, |json| json.len() as u64);
        self.oldest = Some(self.oldest.map_or(letter.last_attempt, |oldest| oldest.min(letter.last_attempt)));
        let error = letter.error_code.as_deref().unwrap_or("none");
        *self.by_topic.entry(letter.topic.clone()).or_default() += 1;
        *self.by_error.entry(error.to_owned()).or_default() += 1;
        *self.by_outcome.entry(letter.outcome.to_string()).or_default() += 1;
    }

    fn text(&self) -> String {
        let mut text = format!("{}\n{}", self.store, super::dead_letters(self.letters));
        if let Some(oldest) = self.oldest {
            text.push_str(&format!(", {}, oldest {oldest:.0}", HumanBytes(self.bytes)));
        }
        for (title, counts) in [("topic", &self.by_topic), ("error", &self.by_error), ("outcome", &self.by_outcome)] {
            let mut counts: Vec<_> = counts.iter().collect();
            counts.sort_by_key(|(_, count)| std::cmp::Reverse(**count));
            for (index, (name, count)) in counts.into_iter().enumerate() {
                let title = if index == 0 { format!("by {title}") } else { String::new() };
                text.push_str(&format!("\n{title:<12}{:>12}  {}", HumanCount(*count).to_string(), printable(name)));
            }
        }
        text
    }
}

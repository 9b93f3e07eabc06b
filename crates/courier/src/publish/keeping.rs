//! Dead letters of a run: where they go, those of events that were not even accepted, and what is said of them at the end.
//!
//! Rules: a letter is kept before its receipt is written; what only memory holds at the end is printed whole, unless that
//! was asked for.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use indicatif::HumanCount;
use jiff::Timestamp;
use kafka_courier::dlq::{DeadLetterStore, Letter, Selection, StoreError};
use kafka_courier::{DeadLetterStats, DeadLetters, KafkaConfig, PublishError};
use kafka_courier_event_model::Event;

use super::PublishArgs;
use super::counts::Counts;
use crate::exit::{Exit, Refusal};
use crate::letters::{SharedFile, Use};
use crate::state;

/// Letters that are kept at once.
const AT_ONCE: usize = 500;

/// The file that is wanted for letters.
pub(super) enum Wanted {
    None,
    /// This option names it.
    Named(&'static str, PathBuf),
    /// No option does.
    Usual(Option<PathBuf>),
}

impl Wanted {
    pub(super) fn of(args: &PublishArgs, config: &KafkaConfig) -> Self {
        match (&args.dlq_file, config.dlq_file.as_str()) {
            _ if args.no_dlq_file => Self::None,
            (Some(path), _) => Self::Named("--dlq-file", path.clone()),
            (None, "") => Self::Usual(state::dead_letters()),
            (None, path) => Self::Named("dlq_file", path.into()),
        }
    }

    /// The option that names it, and its path.
    pub(super) fn path(&self) -> Option<(&'static str, &Path)> {
        match self {
            Self::None | Self::Usual(None) => None,
            Self::Named(option, path) => Some((option, path)),
            Self::Usual(Some(path)) => Some(("the dead letters", path)),
        }
    }

    /// Opens it. A file that was named and can't be had is an error; the usual one is done without. Blocks.
    pub(super) fn open(self, config: &KafkaConfig) -> Result<Option<Arc<SharedFile>>, Refusal> {
        let without = |why: &str| crate::say(&format!("warning: dead letters are kept in memory only: {why}"));
        match self {
            Self::None => Ok(None),
            Self::Named(_, path) => match SharedFile::open(&path, config, Use::Publish) {
                Ok(file) => Ok(Some(Arc::new(file))),
                Err(error) => Err(Refusal(Exit::CantCreate, format!("dead letters: {error}"))),
            },
            Self::Usual(None) => {
                without("there is no home folder for their file (--dlq-file names one)");
                Ok(None)
            }
            Self::Usual(Some(path)) => match SharedFile::open(&path, config, Use::Publish) {
                Ok(file) => Ok(Some(Arc::new(file))),
                Err(error) => {
                    without(&error.to_string());
                    Ok(None)
                }
            },
        }
    }
}

/// Of the events that were read and not delivered, those that are a letter, kept or printed whole at the end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Kept {
    All,
    /// Not all of them, for certain.
    Some,
    /// Nobody wanted them.
    None,
}

/// What is to be said of letters at the end.
pub(super) struct Said {
    pub(super) lines: Vec<String>,
    /// Letters that nothing holds any more: their JSON.
    pub(super) whole: Vec<String>,
    pub(super) kept: Kept,
}

impl Said {
    /// Says what stands in the way of all being kept, where that was wanted.
    fn lacks(&mut self, why: String) {
        self.lines.push(why);
        if self.kept == Kept::All {
            self.kept = Kept::Some;
        }
    }
}

/// The failures of a run, as far as they decide what helps its dead letters.
#[derive(Clone, Copy, Debug)]
pub(super) struct Advice {
    has_unknown: bool,
    has_retriable: bool,
}

impl Advice {
    pub(super) fn of(counts: &Counts) -> Self {
        Self { has_unknown: counts.unknown > 0, has_retriable: counts.retriable > 0 }
    }

    /// What to do with the letters. A replay that does not verify sends dead letters that could prove that others are not in
    /// the log; those `of_others` in the store may be such.
    fn text(self, option: &str, them: &str, of_others: bool) -> String {
        let verify = if self.has_unknown || of_others { " --verify" } else { "" };
        let replay = format!("`courier dlq replay --all{verify}{option}`");
        if !self.has_retriable {
            let they = if them == "it" { "it fails" } else { "they fail" };
            return format!(
                "{they} again as long as the cause is there: raise the topic's max.message.bytes or fix what rejects {them}, \
                 then {replay} sends {them}, with --to-topic to another topic; `courier dlq purge{option}` with a selection removes {them}"
            );
        }
        match verify {
            "" => format!("{replay} sends {them} again"),
            _ => format!("{replay} looks for those that may be in the log, and sends {them} again where not"),
        }
    }
}

/// A run's letters.
pub(super) struct Keeping {
    letters: DeadLetters,
    file: Option<Arc<SharedFile>>,
    /// Nobody wants what only memory holds.
    forgets: bool,
    began: Timestamp,
    /// Of events that were not accepted, to be kept.
    waiting: Vec<Letter>,
}

impl Keeping {
    pub(super) fn new(letters: DeadLetters, file: Option<Arc<SharedFile>>, forgets: bool) -> Self {
        Self { letters, file, forgets, began: Timestamp::now(), waiting: Vec::new() }
    }

    /// Takes the letter of an event that was not accepted. One without JSON has none: what was read as JSON has it.
    pub(super) fn refused(&mut self, topic: &str, event: &dyn Event, error: &PublishError) {
        match DeadLetters::letter_of(topic, event, error) {
            Ok(letter) => self.waiting.push(letter),
            Err(error) => tracing::error!(%error, id = %event.id(), "an event has no dead letter"),
        }
    }

    pub(super) fn is_full(&self) -> bool {
        self.waiting.len() >= AT_ONCE
    }

    /// Keeps what was taken: it is as durable as it gets when this returns.
    ///
    /// Cancel safety: it is kept all the same.
    pub(super) async fn keep(&mut self) {
        if !self.waiting.is_empty() {
            self.letters.put(std::mem::take(&mut self.waiting)).await;
        }
    }

    /// The lines about the dead letters of this run. Gives the file back.
    pub(super) async fn end(self, advice: Advice) -> Said {
        let kept = if self.forgets { Kept::None } else { Kept::All };
        let mut said = Said { lines: Vec::new(), whole: Vec::new(), kept };
        match self.letters.stats().await {
            Ok(stores) => {
                if !self.forgets {
                    stores.iter().filter(|store| store.stats.dropped > 0).for_each(|store| said.lacks(dropped(store)));
                }
                for store in stores.iter().filter(|store| store.kept > 0 && store.store != "memory") {
                    match &store.error {
                        None => said.lines.push(self.kept(&store.store, store.kept, store.stats.letters, advice)),
                        Some(error) => said.lacks(unread(store.kept, error)),
                    }
                }
                if stores.iter().any(|store| store.store == "memory" && store.stats.letters > 0) {
                    self.in_memory(&mut said).await;
                }
            }
            Err(error) => said.lacks(format!("dead letters: {error}")),
        }
        if let Some(file) = self.file {
            let released = tokio::task::spawn_blocking(move || file.release()).await;
            debug_assert!(released.is_ok());
        }
        said
    }

    fn kept(&self, store: &str, count: u64, held: u64, advice: Advice) -> String {
        let (what, them) = if count == 1 { ("dead letter was", "it") } else { ("dead letters were", "them") };
        let usual = state::dead_letters().is_some_and(|path| path.display().to_string() == store);
        let option = match &self.file {
            Some(_) if usual => String::new(),
            Some(file) if file.name() == store => format!(" --file {store}"),
            _ => format!(" --store-topic {store}"),
        };
        if self.file.as_ref().is_some_and(|file| file.name() == store) && held == 0 {
            return emptied(store, count);
        }
        // Letters of before are there too, and those that turned out to be delivered are not; of a topic nobody knows.
        let is_file = self.file.as_ref().is_some_and(|file| file.name() == store);
        let holds_others = held != count;
        let now = if is_file && holds_others { format!(", which holds {}", HumanCount(held)) } else { String::new() };
        let count = HumanCount(count);
        let advice = advice.text(&option, them, is_file && holds_others);
        format!("{count} {what} kept in {store}{now}: `courier dlq list{option}` shows {them}, {advice}")
    }

    /// The letters that end with this process.
    async fn in_memory(&self, said: &mut Said) {
        let since = Selection { since: Some(self.began), ..Selection::all() };
        let file = self.file.clone();
        let held = match self.letters.list(&since, usize::MAX).await {
            Ok(held) => held,
            Err(error) => return said.lacks(format!("dead letters in memory: {error}")),
        };
        let ids: Vec<_> = held.iter().map(|held| held.letter.id).collect();
        let found = tokio::task::spawn_blocking(move || file.and_then(|file| file.find(&ids).ok()));
        let found = found.await.ok().flatten();
        let is_in_file =
            |index: usize| found.as_ref().is_some_and(|found| found.get(index).is_some_and(Option::is_some));
        let lost: Vec<&Letter> =
            held.iter().enumerate().filter(|(index, _)| !is_in_file(*index)).map(|(_, held)| &held.letter).collect();
        let what = if lost.len() == 1 { "dead letter was" } else { "dead letters were" };
        let count = HumanCount(lost.len() as u64);
        if self.forgets {
            return said.lines.push(format!("{count} {what} in memory only (--no-dlq-file)"));
        }
        said.lines
            .push(format!("{count} {what} in memory only, and here whole: `courier dlq import` takes such lines"));
        for letter in lost {
            match letter.to_json().map(String::from_utf8) {
                Ok(Ok(json)) => said.whole.push(json),
                _ => said.lacks(format!("the dead letter {} has no JSON", letter.id)),
            }
        }
    }
}

/// What was kept where it can't be looked at any more.
fn unread(count: u64, error: &StoreError) -> String {
    let what = if count == 1 { "dead letter was" } else { "dead letters were" };
    format!("{} {what} kept in a store that can't be read now: {error}", HumanCount(count))
}

/// Dead letters that have left the file again: a correction, a replay or another command removed them.
fn emptied(store: &str, count: u64) -> String {
    let them =
        if count == 1 { "1 dead letter was".to_owned() } else { format!("{} dead letters were", HumanCount(count)) };
    format!("{them} kept in {store} until settled or removed: it holds no dead letters now")
}

/// What a store dropped to make room.
fn dropped(store: &DeadLetterStats) -> String {
    let option = if store.store == "memory" { "dlq_buffer" } else { "dlq_max_letters, dlq_max_bytes, dlq_overflow" };
    let what = if store.stats.dropped == 1 { "dead letter was" } else { "dead letters were" };
    let (count, name) = (HumanCount(store.stats.dropped), &store.store);
    format!("{count} {what} dropped from {name} to make room ({option}), each in an error line")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn advice(counts: Counts, holds_others: bool) -> String {
        Advice::of(&counts).text(" --file f", "them", holds_others)
    }

    #[test]
    fn final_failures_get_other_advice() {
        let counts = Counts { not_written: 2, ..Counts::default() };
        let text = advice(counts.clone(), false);
        assert!(text.starts_with("they fail again as long as the cause is there: raise"), "{text}");
        assert!(
            text.contains("then `courier dlq replay --all --file f`") && text.contains("`courier dlq purge"),
            "{text}"
        );
        let text = advice(Counts { retriable: 1, ..counts }, false);
        assert_eq!(text, "`courier dlq replay --all --file f` sends them again");
    }

    #[test]
    fn verify_is_for_doubt_only() {
        let counts = Counts { not_written: 1, retriable: 1, ..Counts::default() };
        assert!(!advice(counts.clone(), false).contains("--verify"));
        assert!(advice(counts.clone(), true).contains("--all --verify --file f` looks for"));
        assert!(advice(Counts { unknown: 1, ..counts }, false).contains("--all --verify --file f` looks for"));
    }
}

//! The dead letters of a run: their file, those of events that were not accepted, and the lines of the summary.
//!
//! Rules:
//! - A dead letter is stored before the receipt of its event is written.
//! - Dead letters that only memory has at the end are printed in full, unless `--no-dlq-file` is set.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use indicatif::HumanCount;
use jiff::Timestamp;
use kafka_courier::dlq::{DeadLetterStore, Letter, LetterId, Selection, StoreError};
use kafka_courier::spool::InputItem;
use kafka_courier::{DeadLetterStats, DeadLetters, KafkaConfig, PublishError};
use kafka_courier_event_model::Event;
use sha2::{Digest, Sha256};
use uuid::Uuid;

use super::PublishArgs;
use super::counts::InputCounts;
use crate::exit::{CommandError, Exit};
use crate::shared_file::{FileUse, SharedFile};
use crate::state_folder;

/// Dead letters that are stored in one call.
const GROUP: usize = 500;

/// The file of dead letters that arguments and settings choose.
pub(super) enum FileChoice {
    None,
    /// The option that names the file, and its path.
    Named(&'static str, PathBuf),
    /// The default file. `None` if there is no home folder.
    Default(Option<PathBuf>),
}

impl FileChoice {
    pub(super) fn of(args: &PublishArgs, config: &KafkaConfig) -> Self {
        match (&args.dlq_file, config.dlq_file.as_str()) {
            _ if args.no_dlq_file => Self::None,
            (Some(path), _) => Self::Named("--dlq-file", path.clone()),
            (None, "") => Self::Default(state_folder::dead_letters()),
            (None, path) => Self::Named("dlq_file", path.into()),
        }
    }

    /// Returns the option that names the file, and the path.
    pub(super) fn path(&self) -> Option<(&'static str, &Path)> {
        match self {
            Self::None | Self::Default(None) => None,
            Self::Named(option, path) => Some((option, path)),
            Self::Default(Some(path)) => Some(("the dead letters", path)),
        }
    }

    /// Opens the file. Blocks. If the default file can't be opened, prints a warning and returns `None`.
    ///
    /// # Errors
    /// If a file that an option names can't be opened.
    pub(super) fn open(self, config: &KafkaConfig) -> Result<Option<Arc<SharedFile>>, CommandError> {
        let has_spool = !config.spool_dir.is_empty();
        let warn = |why: &str| {
            // The folder of a spool has a file for them.
            if !has_spool {
                crate::say(&format!("warning: dead letters are kept in memory only: {why}"));
            }
        };
        match self {
            Self::None => Ok(None),
            Self::Named(_, path) => match SharedFile::open(&path, config, FileUse::Publish) {
                Ok(file) => Ok(Some(Arc::new(file))),
                Err(error) => {
                    Err(CommandError(Exit::CantCreate, format!("cannot open the file of dead letters: {error}")))
                }
            },
            Self::Default(None) => {
                warn("no home folder for the default file (--dlq-file names a file)");
                Ok(None)
            }
            Self::Default(Some(path)) => match SharedFile::open(&path, config, FileUse::Publish) {
                Ok(file) => Ok(Some(Arc::new(file))),
                Err(error) => {
                    warn(&error.to_string());
                    Ok(None)
                }
            },
        }
    }
}

/// How many of the undelivered events are dead letters, stored or printed in full at the end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Kept {
    All,
    /// Some may be missing.
    Some,
    /// None, because of `--no-dlq-file`.
    None,
}

/// The part of the summary about dead letters.
pub(super) struct DeadLetterSummary {
    pub(super) lines: Vec<String>,
    /// The JSON of dead letters that no store keeps.
    pub(super) whole: Vec<String>,
    pub(super) kept: Kept,
}

impl DeadLetterSummary {
    /// Adds a line about dead letters that may be missing.
    fn add_missing(&mut self, why: String) {
        self.lines.push(why);
        if self.kept == Kept::All {
            self.kept = Kept::Some;
        }
    }
}

/// The advice for the dead letters of a run, by the kinds of its failures.
#[derive(Clone, Copy, Debug)]
pub(super) struct Advice {
    has_unknown: bool,
    has_retriable: bool,
}

impl Advice {
    pub(super) fn of(counts: &InputCounts) -> Self {
        Self { has_unknown: counts.unknown > 0, has_retriable: counts.retriable > 0 }
    }

    /// Returns the advice. `of_others` means that the store also has dead letters of other runs: a replay without
    /// `--verify` could send dead letters that would have proved others absent.
    fn text(self, option: &str, them: &str, of_others: bool) -> String {
        let verify = if self.has_unknown || of_others { " --verify" } else { "" };
        let replay = format!("`courier dlq replay --all{verify}{option}`");
        if !self.has_retriable {
            let they = if them == "it" { "it fails" } else { "they fail" };
            return format!(
                "{they} again until the cause is fixed: raise the topic's max.message.bytes or change the setting that rejects {them}, \
                 then {replay} sends {them} (--to-topic sends {them} to another topic), or `courier dlq purge{option}` with \
                 a selection removes {them}"
            );
        }
        match verify {
            "" => format!("{replay} sends {them} again"),
            _ => format!("{replay} sends {them} again, except for events that it finds in the log"),
        }
    }
}

/// The dead letters of a run.
pub(super) struct RunDeadLetters {
    letters: DeadLetters,
    file: Option<Arc<SharedFile>>,
    /// `--no-dlq-file`: dead letters in memory are not printed.
    forgets: bool,
    began: Timestamp,
    /// Dead letters of events that were not accepted, not stored yet.
    waiting: Vec<Letter>,
}

impl RunDeadLetters {
    pub(super) fn new(letters: DeadLetters, file: Option<Arc<SharedFile>>, forgets: bool) -> Self {
        Self { letters, file, forgets, began: Timestamp::now(), waiting: Vec::new() }
    }

    /// Adds the dead letter of an event that was not accepted, and returns its id. Every event that was read as JSON has one.
    /// A later run makes the same dead letter of an item, and a store keeps both once.
    pub(super) fn refused(
        &mut self,
        topic: &str,
        event: &dyn Event,
        error: &PublishError,
        item: Option<InputItem>,
    ) -> Option<LetterId> {
        match DeadLetters::letter_of(topic, event, error) {
            Ok(mut letter) => {
                if let Some(item) = item {
                    letter.id = item_id(topic, &item);
                }
                let id = letter.id;
                self.waiting.push(letter);
                Some(id)
            }
            Err(error) => {
                tracing::error!(%error, id = %event.id(), "event has no dead letter");
                None
            }
        }
    }

    pub(super) fn is_full(&self) -> bool {
        self.waiting.len() >= GROUP
    }

    /// Stores the added dead letters. They are as durable as their store when the method returns. Returns the ids of dead
    /// letters that no durable store took.
    ///
    /// # Cancel safety
    /// Cancel safe: the dead letters are stored even if the future is dropped.
    pub(super) async fn keep(&mut self) -> HashSet<LetterId> {
        match self.waiting.is_empty() {
            true => HashSet::new(),
            false => self.letters.put(std::mem::take(&mut self.waiting)).await,
        }
    }

    /// Closes the file and returns the summary of this run's dead letters.
    pub(super) async fn end(self, advice: Advice) -> DeadLetterSummary {
        let kept = if self.forgets { Kept::None } else { Kept::All };
        let mut summary = DeadLetterSummary { lines: Vec::new(), whole: Vec::new(), kept };
        match self.letters.stats().await {
            Ok(stores) => {
                if !self.forgets {
                    stores
                        .iter()
                        .filter(|store| store.stats.dropped > 0)
                        .for_each(|store| summary.add_missing(dropped(store)));
                }
                for store in stores.iter().filter(|store| store.kept > 0 && store.store != "memory") {
                    match &store.error {
                        None => summary.lines.push(self.kept(&store.store, store.kept, store.stats.letters, advice)),
                        Some(error) => summary.add_missing(unread(store.kept, error)),
                    }
                }
                if stores.iter().any(|store| store.store == "memory" && store.stats.letters > 0) {
                    self.in_memory(&mut summary).await;
                }
            }
            Err(error) => summary.add_missing(format!("cannot count dead letters: {error}")),
        }
        if let Some(file) = self.file {
            let released = tokio::task::spawn_blocking(move || file.release()).await;
            debug_assert!(released.is_ok());
        }
        summary
    }

    fn kept(&self, store: &str, count: u64, held: u64, advice: Advice) -> String {
        let (what, them) = if count == 1 { ("dead letter was", "it") } else { ("dead letters were", "them") };
        let usual = state_folder::dead_letters().is_some_and(|path| path.display().to_string() == store);
        let option = match &self.file {
            Some(_) if usual => String::new(),
            Some(file) if file.name() == store => format!(" --file {store}"),
            // The file in the folder of a spool. No topic has such a name.
            _ if store.contains(std::path::is_separator) => format!(" --file {store}"),
            _ => format!(" --store-topic {store}"),
        };
        if self.file.as_ref().is_some_and(|file| file.name() == store) && held == 0 {
            return emptied(store, count);
        }
        // The file may have dead letters of earlier runs, and may no longer have dead letters that were delivered after
        // all. The count of a topic is not known.
        let is_file = self.file.as_ref().is_some_and(|file| file.name() == store);
        let holds_others = held != count;
        let now = if is_file && holds_others { format!(", which holds {}", HumanCount(held)) } else { String::new() };
        let count = HumanCount(count);
        let advice = advice.text(&option, them, is_file && holds_others);
        format!("{count} {what} kept in {store}{now}: `courier dlq list{option}` shows {them}, {advice}")
    }

    /// Adds the dead letters that end with this process.
    async fn in_memory(&self, summary: &mut DeadLetterSummary) {
        let since = Selection { since: Some(self.began), ..Selection::all() };
        let file = self.file.clone();
        let held = match self.letters.list(&since, usize::MAX).await {
            Ok(held) => held,
            Err(error) => return summary.add_missing(format!("cannot list dead letters in memory: {error}")),
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
            return summary.lines.push(format!("{count} {what} in memory only (--no-dlq-file)"));
        }
        summary.lines.push(format!(
            "{count} {what} in memory only and printed below in full: `courier dlq import` imports these lines"
        ));
        for letter in lost {
            match letter.to_json().map(String::from_utf8) {
                Ok(Ok(json)) => summary.whole.push(json),
                _ => summary.add_missing(format!("dead letter {} cannot be written as JSON", letter.id)),
            }
        }
    }
}

/// Returns the id of the dead letter of an item: a UUIDv8 (RFC 9562) that begins with the item's number, and continues with
/// a hash of the spool, the input, the item and the topic.
fn item_id(topic: &str, item: &InputItem) -> LetterId {
    let hash = Sha256::new()
        .chain_update(item.input.to_bytes())
        .chain_update(item.number.to_be_bytes())
        .chain_update(item.check.to_be_bytes())
        .chain_update(topic);
    let mut bytes = [0; 16];
    bytes.iter_mut().zip(hash.finalize()).for_each(|(byte, of_hash)| *byte = of_hash);
    let [_, _, number @ ..] = item.number.to_be_bytes();
    bytes[..6].copy_from_slice(&number);
    bytes[6] = bytes[6] & 0x0f | 0x80; // version 8
    bytes[8] = bytes[8] & 0x3f | 0x80; // variant of RFC 9562
    Uuid::from_bytes(bytes).into()
}

/// Returns the line about dead letters in a store that can't be read any more.
fn unread(count: u64, error: &StoreError) -> String {
    let what = if count == 1 { "dead letter was" } else { "dead letters were" };
    format!("{} {what} kept in a store that can't be read now: {error}", HumanCount(count))
}

/// Returns the line about dead letters that a late verdict, a replay or another command removed from the file.
fn emptied(store: &str, count: u64) -> String {
    let them =
        if count == 1 { "1 dead letter was".to_owned() } else { format!("{} dead letters were", HumanCount(count)) };
    format!("{them} kept in {store} and since delivered or removed: the file holds no dead letters now")
}

/// Returns the line about dead letters that a store dropped.
fn dropped(store: &DeadLetterStats) -> String {
    let option = if store.store == "memory" { "dlq_buffer" } else { "dlq_max_letters, dlq_max_bytes, dlq_overflow" };
    let what = if store.stats.dropped == 1 { "dead letter was" } else { "dead letters were" };
    let (count, name) = (HumanCount(store.stats.dropped), &store.store);
    format!("{count} {what} dropped from {name} to make room ({option}) and logged in full at level error")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn advice(counts: InputCounts, holds_others: bool) -> String {
        Advice::of(&counts).text(" --file f", "them", holds_others)
    }

    #[test]
    fn final_failures_get_other_advice() {
        let counts = InputCounts { not_written: 2, ..InputCounts::default() };
        let text = advice(counts.clone(), false);
        assert!(text.starts_with("they fail again until the cause is fixed: raise"), "{text}");
        assert!(
            text.contains("then `courier dlq replay --all --file f`") && text.contains("`courier dlq purge"),
            "{text}"
        );
        let text = advice(InputCounts { retriable: 1, ..counts }, false);
        assert_eq!(text, "`courier dlq replay --all --file f` sends them again");
    }

    #[test]
    fn verify_is_for_doubt_only() {
        let counts = InputCounts { not_written: 1, retriable: 1, ..InputCounts::default() };
        assert!(!advice(counts.clone(), false).contains("--verify"));
        assert!(advice(counts.clone(), true).contains("--all --verify --file f` sends them again, except"));
        assert!(
            advice(InputCounts { unknown: 1, ..counts }, false)
                .contains("--all --verify --file f` sends them again, except")
        );
    }
}

//! `courier dlq import`: dead letters from NDJSON.
//!
//! Rules:
//! - Memory is bounded: dead letters are stored in groups while the input is read.
//! - An invalid line ends the import with an error that names the line. Earlier lines are imported. `--skip-invalid`
//!   skips such lines.
//! - A dead letter with an invalid topic name is refused: no replay could send it. Stores may hold such letters.
//! - An import may be repeated: the store replaces a dead letter only by a newer state of it. An edited dead letter is
//!   reported, and replaces the stored one only with `--replace`.
//! - Ctrl-C ends the import after the lines that were read completely, even while the command waits for input.
//! - The producers that wrote the dead letters may be alive, so their ids are not fenced (see the store's `import`).

use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::time::Duration;

use clap::Args;
use indicatif::{HumanCount, ProgressBar, ProgressDrawTarget, ProgressStyle};
use kafka_courier::dlq::{AppendError, DeadLetterStore, Edited, Imported, Letter, SCAN_BYTES};
use kafka_courier::shown_file;
use kafka_courier_event_model::{TopicNameError, validate_topic_name};

use super::store::StoreArgs;
use crate::exit::{CommandError, Exit};
use crate::input;
use crate::signals::Signals;

/// Dead letters in a group, unless they exceed [`SCAN_BYTES`].
const GROUP: usize = 1000;
/// Invalid lines, and edited dead letters, that are printed one by one.
const PRINTED: u64 = 20;
/// Longest line in bytes. No dead letter that a service accepts is longer.
const LONGEST_LINE: u64 = 64 << 20;
/// Interval of checks for a signal while the command waits for input.
const SIGNAL_POLL: Duration = Duration::from_millis(50);

/// Import dead letters from NDJSON, as export writes it
///
/// An import may be repeated: no dead letter is stored twice, and none is set back to an older state.
#[derive(Args, Debug)]
pub(super) struct ImportArgs {
    /// Skip lines that are not dead letters
    ///
    /// Without this option the first such line ends the import. The dead letters before that line are imported.
    #[arg(long)]
    skip_invalid: bool,
    /// Replace stored dead letters by edited ones
    ///
    /// Without this option a dead letter that was edited since its export is reported and not imported. Attempts since the
    /// export stay recorded.
    #[arg(long)]
    replace: bool,
    /// Read from this file (- is standard input)
    #[arg(value_name = "FILE", default_value = "-")]
    from: PathBuf,
    #[command(flatten)]
    store: StoreArgs,
}

pub(super) fn run(args: &ImportArgs) -> Result<Exit, CommandError> {
    let name = if args.from == Path::new("-") { "standard input".to_owned() } else { shown_file(&args.from) };
    let from = input::open(&args.from, "dead letters").map_err(|error| CommandError(Exit::Data, error.to_string()))?;
    let signals = Signals::catch();
    let opened = args.store.open_or_create(&args.from)?;
    let lines = read_ahead(LetterLines::of(BufReader::new(from)));
    let edited = if args.replace { Edited::Replace } else { Edited::Leave };
    let mut import = ImportRun::into(&*opened.store, args.skip_invalid, edited);
    let done = import.run(|| next(&lines, &signals), &name);
    import.bar.finish_and_clear();
    if let Some(exit) = done? {
        crate::say(&format!("stopped by a signal: {}; run the import again for the rest", import.summary()));
        return Ok(exit);
    }
    crate::say(&import.summary());
    for id in import.done.different.iter().take(PRINTED as usize) {
        crate::say(&format!("  dead letter {id} differs from the one in {}", opened.store.name()));
    }
    Ok(match (import.bad, import.done.different.is_empty()) {
        (0, true) => Exit::Ok,
        (0, false) => Exit::SomeFailed,
        _ => Exit::Data,
    })
}

/// The next step of an import.
#[expect(clippy::large_enum_variant, reason = "there is one at a time")]
enum ImportStep {
    Line(LetterLine),
    End,
    /// Reading the input failed in this line.
    Failed(u64, io::Error),
    /// A signal arrived.
    Stopped(Exit),
}

/// Reads on a separate thread, because reading can't be interrupted. The thread ends with the input or the process.
fn read_ahead(mut lines: LetterLines<impl BufRead + Send + 'static>) -> Receiver<ImportStep> {
    let (sender, receiver) = sync_channel(1);
    std::thread::spawn(move || while sender.send(lines.read()).is_ok() {});
    receiver
}

fn next(lines: &Receiver<ImportStep>, signals: &Signals) -> ImportStep {
    loop {
        if signals.times() > 0 {
            return ImportStep::Stopped(signals.exit());
        }
        match lines.recv_timeout(SIGNAL_POLL) {
            Ok(next) => return next,
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return ImportStep::End,
        }
    }
}

/// A running import.
struct ImportRun<'s> {
    store: &'s dyn DeadLetterStore,
    skip_invalid: bool,
    edited: Edited,
    done: Imported,
    bad: u64,
    group: Vec<Letter>,
    /// Approximate memory of the group.
    bytes: u64,
    bar: ProgressBar,
}

impl<'s> ImportRun<'s> {
    fn into(store: &'s dyn DeadLetterStore, skip_invalid: bool, edited: Edited) -> Self {
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
        if let Ok(style) = ProgressStyle::with_template("{spinner} {msg}") {
            bar.set_style(style);
        }
        Self { store, skip_invalid, edited, done: Imported::default(), bad: 0, group: Vec::new(), bytes: 0, bar }
    }

    /// Imports all lines. Returns the exit code if a signal stops the import.
    fn run(&mut self, mut next: impl FnMut() -> ImportStep, name: &str) -> Result<Option<Exit>, CommandError> {
        loop {
            match next() {
                ImportStep::Line(Ok(letter)) => {
                    self.bytes += letter.memory_bytes();
                    self.group.push(letter);
                    if self.group.len() >= GROUP || self.bytes >= SCAN_BYTES {
                        self.take()?;
                    }
                }
                ImportStep::Line(Err(error)) => self.reject_line(name, &error)?,
                ImportStep::End => return self.take().map(|()| None),
                ImportStep::Stopped(exit) => return self.take().map(|()| Some(exit)),
                ImportStep::Failed(number, error) => {
                    self.take()?;
                    return Err(CommandError(
                        Exit::Io,
                        format!("cannot read {name}, line {number}: {error} ({})", self.summary()),
                    ));
                }
            }
        }
    }

    fn reject_line(&mut self, name: &str, error: &LetterLineError) -> Result<(), CommandError> {
        if !self.skip_invalid {
            self.take()?;
            let remedy = "fix the line and import again, or skip invalid lines with --skip-invalid";
            return Err(CommandError(Exit::Data, format!("{name}, {error} ({}): {remedy}", self.summary())));
        }
        self.bad += 1;
        if self.bad <= PRINTED {
            self.bar.suspend(|| crate::say(&format!("{name}, {error}")));
        }
        Ok(())
    }

    /// Stores the group.
    fn take(&mut self) -> Result<(), CommandError> {
        if self.group.is_empty() {
            return Ok(());
        }
        let done = self.store.import_with(&self.group, self.edited).map_err(|error| {
            let exit = if matches!(error, AppendError::Store(_)) { Exit::Io } else { Exit::CantCreate };
            CommandError(exit, format!("{error} ({}): run the import again for the rest", self.summary()))
        })?;
        self.group.clear();
        self.bytes = 0;
        self.done.add(done);
        self.bar.set_message(self.summary());
        self.bar.tick();
        Ok(())
    }

    fn summary(&self) -> String {
        let mut summary = format!("{} imported into {}", super::dead_letters(self.done.taken), self.store.name());
        for (count, text) in [
            (self.done.known, "already stored"),
            (self.done.updated, "updated to a newer state"),
            (self.done.replaced, "replaced"),
            (self.done.different.len() as u64, "edited and not imported (--replace imports them)"),
            (self.done.dropped, "older ones dropped to make room"),
            (self.bad, "invalid, skipped"),
        ] {
            if count > 0 {
                summary.push_str(&format!(", {} {text}", HumanCount(count)));
            }
        }
        summary
    }
}

/// The dead letter of a line.
type LetterLine = Result<Letter, LetterLineError>;

/// Why a line is not a dead letter.
#[derive(Debug, thiserror::Error)]
#[error("{}", self.text())]
struct LetterLineError {
    /// The number of the line, counted from 1.
    number: u64,
    cause: LetterLineFault,
}

#[derive(Debug)]
enum LetterLineFault {
    TooLong { max: u64 },
    Json(serde_json::Error),
    Topic(TopicNameError),
}

impl LetterLineError {
    /// Returns the error with the line of the input and the column.
    fn text(&self) -> String {
        let number = self.number;
        let error = match &self.cause {
            LetterLineFault::TooLong { max } => {
                return format!("line {number}: longer than {max} bytes, the limit of a dead letter");
            }
            LetterLineFault::Topic(error) => return format!("line {number}: the topic is invalid: {error}"),
            LetterLineFault::Json(error) => error,
        };
        let (column, text) = (error.column(), error.to_string());
        // The parser appends the position in its own input, which is one line.
        let position = format!(" at line {} column {column}", error.line());
        let text = text.strip_suffix(&position).unwrap_or(&text);
        if column == 0 { format!("line {number}: {text}") } else { format!("line {number}, column {column}: {text}") }
    }
}

/// A reader of the input's lines.
struct LetterLines<R> {
    from: R,
    line: Vec<u8>,
    /// The number of the last line, counted from 1.
    number: u64,
    longest: u64,
}

impl<R: BufRead> LetterLines<R> {
    fn of(from: R) -> Self {
        Self { from, line: Vec::new(), number: 0, longest: LONGEST_LINE }
    }

    fn error(&self, cause: LetterLineFault) -> LetterLineError {
        LetterLineError { number: self.number, cause }
    }

    fn read(&mut self) -> ImportStep {
        match self.next() {
            Ok(Some(line)) => ImportStep::Line(line),
            Ok(None) => ImportStep::End,
            Err(error) => ImportStep::Failed(self.number, error),
        }
    }

    /// Returns the next line that is not empty.
    fn next(&mut self) -> io::Result<Option<LetterLine>> {
        loop {
            self.line.clear();
            self.number += 1;
            if (&mut self.from).take(self.longest).read_until(b'\n', &mut self.line)? == 0 {
                return Ok(None);
            }
            if self.line.len() as u64 == self.longest && self.line.last() != Some(&b'\n') {
                self.from.skip_until(b'\n')?;
                return Ok(Some(Err(self.error(LetterLineFault::TooLong { max: self.longest }))));
            }
            if !self.line.trim_ascii().is_empty() {
                return Ok(Some(letter(&self.line).map_err(|fault| self.error(fault))));
            }
        }
    }
}

/// Parses a line, and checks the topic's name.
fn letter(line: &[u8]) -> Result<Letter, LetterLineFault> {
    let letter: Letter = serde_json::from_slice(line).map_err(LetterLineFault::Json)?;
    validate_topic_name(&letter.topic).map_err(LetterLineFault::Topic)?;
    Ok(letter)
}

#[cfg(test)]
mod tests {
    use kafka_courier::dlq::MemoryStore;

    use super::*;

    fn letter() -> Letter {
        Letter::new("t", None, "why", "2024-01-15T10:00:00Z".parse().unwrap())
    }

    fn line(letter: &Letter) -> String {
        String::from_utf8(letter.to_json().unwrap()).unwrap() + "\n"
    }

    fn parsed(text: &str, longest: u64) -> Vec<LetterLine> {
        let mut lines = LetterLines { longest, ..LetterLines::of(text.as_bytes()) };
        std::iter::from_fn(|| lines.next().unwrap()).collect()
    }

    #[test]
    fn invalid_line_reports_its_position() {
        let letter = letter();
        let good = line(&letter);
        let text = format!("{good}\n{{\"id\":7}}\n{}\r\n[\n{}", good.trim_end(), good.trim_end());
        let lines = parsed(&text, LONGEST_LINE);
        let bad: Vec<String> = lines.iter().filter_map(|line| line.as_ref().err()).map(ToString::to_string).collect();
        assert_eq!(lines.iter().flatten().collect::<Vec<_>>(), vec![&letter; 3]);
        assert!(bad[0].starts_with("line 3, column 7: ") && !bad[0].contains("at line"), "{bad:?}");
        assert!(bad[1].starts_with("line 5") && bad.len() == 2, "{bad:?}");
    }

    #[test]
    fn invalid_topic_is_an_error() {
        let good = line(&letter());
        for topic in ["a b", "", "..", &"a".repeat(250)] {
            let wrong = line(&Letter { topic: topic.to_owned(), ..letter() });
            let lines = parsed(&format!("{good}{wrong}{good}"), LONGEST_LINE);
            assert!(
                matches!(&lines[..], [Ok(_), Err(bad), Ok(_)] if bad.to_string().starts_with("line 2: the topic is")),
                "{lines:?}"
            );
        }
    }

    #[test]
    fn overlong_line_is_an_error() {
        let good = line(&letter());
        let text = format!("{}\n{good}", "x".repeat(2 * good.len()));
        let lines = parsed(&text, good.len() as u64);
        assert!(matches!(&lines[..], [Err(bad), Ok(_)] if bad.to_string().starts_with("line 1: longer")), "{lines:?}");
    }

    /// 5000 valid lines, and the largest number of lines read but not stored.
    struct ValidLines<'a> {
        store: &'a MemoryStore,
        held_most: &'a std::cell::Cell<u64>,
        given: u64,
        line: Vec<u8>,
    }

    impl Read for ValidLines<'_> {
        fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
            if self.line.is_empty() && self.given < 5000 {
                self.given += 1;
                self.line = line(&letter()).into_bytes();
                let ahead = self.given - self.store.len();
                self.held_most.set(self.held_most.get().max(ahead));
            }
            let length = self.line.len().min(into.len());
            into[..length].copy_from_slice(&self.line[..length]);
            self.line.drain(..length);
            Ok(length)
        }
    }

    #[test]
    fn import_holds_one_group() {
        let store = MemoryStore::new(10_000);
        let held_most = std::cell::Cell::new(0);
        let input = ValidLines { store: &store, held_most: &held_most, given: 0, line: Vec::new() };
        let mut import = ImportRun::into(&store, false, Edited::Leave);
        let mut lines = LetterLines::of(BufReader::with_capacity(1, input));
        assert!(import.run(|| lines.read(), "input").unwrap().is_none());
        assert_eq!((store.len(), import.done.taken), (5000, 5000));
        assert!(held_most.get() <= GROUP as u64 + 1, "{}", held_most.get());
    }
}

//! `courier dlq import`: letters from NDJSON.
//!
//! Rules:
//! - Memory is bounded: letters are taken in groups as they are read, whatever the input's length.
//! - A bad line is told with its place and ends the import; what was read before it is taken. With --skip-invalid it is
//!   passed over. A letter that is there already is taken only in a newer state, so that an import may be repeated; one that
//!   was edited is named, and replaces what is there with --replace.
//! - Ctrl-C ends it with what was read whole; it is seen also while the input is waited for.
//! - Whose letters these are is not known: their producers may live, and are left alone (see the store's `import`).

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::time::Duration;

use clap::Args;
use indicatif::{HumanCount, ProgressBar, ProgressDrawTarget, ProgressStyle};
use kafka_courier::dlq::{AppendError, DeadLetterStore, Edited, Imported, Letter, SCAN_BYTES};
use kafka_courier::shown_file;

use super::store::StoreArgs;
use crate::exit::{Exit, Refusal};
use crate::signals::Signals;

/// Letters that are taken at once, if they come to no more than [`SCAN_BYTES`].
const AT_ONCE: usize = 1000;
/// Bad lines that are told one by one.
const TOLD: u64 = 20;
/// Bytes of a line: no letter that a service takes is longer.
const LONGEST: u64 = 64 << 20;
/// How often is looked for a signal while there is no input.
const LOOK: Duration = Duration::from_millis(50);

#[derive(Args, Debug)]
pub(super) struct ImportArgs {
    /// Passes over lines that are no letters. Without it the first of them ends the import; the letters before it are taken,
    /// and importing again takes none twice.
    #[arg(long)]
    skip_invalid: bool,
    /// Puts letters that were edited since they were exported in the place of what the store has under their ids. Without it
    /// they are named and left. What is known of attempts since then stays.
    #[arg(long)]
    replace: bool,
    /// The file to read; - is standard input.
    #[arg(value_name = "FILE", default_value = "-")]
    from: PathBuf,
    #[command(flatten)]
    store: StoreArgs,
}

pub(super) fn run(args: &ImportArgs) -> Result<Exit, Refusal> {
    let name = if args.from == Path::new("-") { "standard input".to_owned() } else { shown_file(&args.from) };
    let from: Box<dyn BufRead + Send> = if args.from == Path::new("-") {
        Box::new(BufReader::new(io::stdin()))
    } else {
        let file = File::open(&args.from).map_err(|error| Refusal(Exit::Data, format!("{name}: {error}")))?;
        Box::new(BufReader::new(file))
    };
    let signals = Signals::catch();
    let opened = args.store.open_or_create(&args.from)?;
    let lines = ahead(Lines::of(from));
    let edited = if args.replace { Edited::Replace } else { Edited::Leave };
    let mut import = Import::into(&*opened.store, args.skip_invalid, edited);
    let done = import.all(|| next(&lines, &signals), &name);
    import.bar.finish_and_clear();
    if let Some(exit) = done? {
        crate::say(&format!("stopped by a signal: {}; importing again takes none twice", import.said()));
        return Ok(exit);
    }
    crate::say(&import.said());
    for id in import.done.different.iter().take(TOLD as usize) {
        crate::say(&format!("  letter {id} is not what {} has under its id", opened.store.name()));
    }
    Ok(match (import.bad, import.done.different.is_empty()) {
        (0, true) => Exit::Ok,
        (0, false) => Exit::SomeFailed,
        _ => Exit::Data,
    })
}

/// What comes next.
#[expect(clippy::large_enum_variant, reason = "there is one at a time")]
enum Next {
    Line(Line),
    End,
    /// The input can't be read on, in this line.
    Failed(u64, io::Error),
    /// A signal came.
    Stopped(Exit),
}

/// Reads on a thread of its own, which ends with the input or the process: reading can't be interrupted.
fn ahead(mut lines: Lines<impl BufRead + Send + 'static>) -> Receiver<Next> {
    let (sender, receiver) = sync_channel(1);
    std::thread::spawn(move || while sender.send(lines.read()).is_ok() {});
    receiver
}

fn next(lines: &Receiver<Next>, signals: &Signals) -> Next {
    loop {
        if signals.times() > 0 {
            return Next::Stopped(signals.exit());
        }
        match lines.recv_timeout(LOOK) {
            Ok(next) => return next,
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return Next::End,
        }
    }
}

/// An import under way.
struct Import<'s> {
    store: &'s dyn DeadLetterStore,
    skip_invalid: bool,
    edited: Edited,
    done: Imported,
    bad: u64,
    group: Vec<Letter>,
    /// Of the group's letters, about.
    bytes: u64,
    bar: ProgressBar,
}

impl<'s> Import<'s> {
    fn into(store: &'s dyn DeadLetterStore, skip_invalid: bool, edited: Edited) -> Self {
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
        if let Ok(style) = ProgressStyle::with_template("{spinner} {msg}") {
            bar.set_style(style);
        }
        Self { store, skip_invalid, edited, done: Imported::default(), bad: 0, group: Vec::new(), bytes: 0, bar }
    }

    /// Takes the letters of all lines; if a signal ends it before, how the command is to end.
    fn all(&mut self, mut next: impl FnMut() -> Next, name: &str) -> Result<Option<Exit>, Refusal> {
        loop {
            match next() {
                Next::Line(Ok(letter)) => {
                    self.bytes += letter.memory_bytes();
                    self.group.push(letter);
                    if self.group.len() >= AT_ONCE || self.bytes >= SCAN_BYTES {
                        self.take()?;
                    }
                }
                Next::Line(Err(bad)) => self.on_bad(name, &bad)?,
                Next::End => return self.take().map(|()| None),
                Next::Stopped(exit) => return self.take().map(|()| Some(exit)),
                Next::Failed(number, error) => {
                    self.take()?;
                    return Err(Refusal(Exit::Io, format!("{name}, line {number}: {error} ({})", self.said())));
                }
            }
        }
    }

    fn on_bad(&mut self, name: &str, bad: &str) -> Result<(), Refusal> {
        if !self.skip_invalid {
            self.take()?;
            let what = format!("{name}, {bad}");
            let remedy =
                "mend the line and import again, which takes none twice, or pass over such lines with --skip-invalid";
            return Err(Refusal(Exit::Data, format!("{what} ({}; {remedy})", self.said())));
        }
        self.bad += 1;
        if self.bad <= TOLD {
            self.bar.suspend(|| crate::say(&format!("{name}, {bad}")));
        }
        Ok(())
    }

    /// Takes the group.
    fn take(&mut self) -> Result<(), Refusal> {
        if self.group.is_empty() {
            return Ok(());
        }
        let done = self.store.import_with(&self.group, self.edited).map_err(|error| {
            let exit = if matches!(error, AppendError::Store(_)) { Exit::Io } else { Exit::CantCreate };
            let said = self.said();
            Refusal(exit, format!("{error} ({said} before; importing again takes those that are missing)"))
        })?;
        self.group.clear();
        self.bytes = 0;
        self.done.add(done);
        self.bar.set_message(self.said());
        self.bar.tick();
        Ok(())
    }

    fn said(&self) -> String {
        let mut said = format!("{} taken into {}", super::letters(self.done.taken), self.store.name());
        for (count, what) in [
            (self.done.known, "there already"),
            (self.done.updated, "there in an older state, now in this one"),
            (self.done.replaced, "replaced"),
            (self.done.different.len() as u64, "different from what is there, and left (--replace takes them)"),
            (self.done.dropped, "older ones dropped to make room"),
            (self.bad, "lines passed over"),
        ] {
            if count > 0 {
                said.push_str(&format!(", {} {what}", HumanCount(count)));
            }
        }
        said
    }
}

/// A letter, or what is wrong with its line, with the place.
type Line = Result<Letter, String>;

/// The input's lines, each read by itself.
struct Lines<R> {
    from: R,
    line: Vec<u8>,
    /// The last line's number, from 1.
    number: u64,
    longest: u64,
}

impl<R: BufRead> Lines<R> {
    fn of(from: R) -> Self {
        Self { from, line: Vec::new(), number: 0, longest: LONGEST }
    }

    fn read(&mut self) -> Next {
        match self.next() {
            Ok(Some(line)) => Next::Line(line),
            Ok(None) => Next::End,
            Err(error) => Next::Failed(self.number, error),
        }
    }

    /// The next line that is not empty.
    fn next(&mut self) -> io::Result<Option<Line>> {
        loop {
            self.line.clear();
            self.number += 1;
            if (&mut self.from).take(self.longest).read_until(b'\n', &mut self.line)? == 0 {
                return Ok(None);
            }
            if self.line.len() as u64 == self.longest && self.line.last() != Some(&b'\n') {
                self.from.skip_until(b'\n')?;
                let (number, longest) = (self.number, self.longest);
                return Ok(Some(Err(format!("line {number}: longer than the {longest} bytes that a letter may take"))));
            }
            if !self.line.trim_ascii().is_empty() {
                let letter = serde_json::from_slice(&self.line);
                return Ok(Some(letter.map_err(|error| place(self.number, &error))));
            }
        }
    }
}

/// The line in the input, and the column in it.
fn place(number: u64, error: &serde_json::Error) -> String {
    let (column, said) = (error.column(), error.to_string());
    let within = format!(" at line {} column {column}", error.line());
    let what = said.strip_suffix(&within).unwrap_or(&said);
    if column == 0 { format!("line {number}: {what}") } else { format!("line {number}, column {column}: {what}") }
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

    fn parsed(text: &str, longest: u64) -> Vec<Line> {
        let mut lines = Lines { longest, ..Lines::of(text.as_bytes()) };
        std::iter::from_fn(|| lines.next().unwrap()).collect()
    }

    #[test]
    fn a_bad_line_is_told_with_its_line_and_column_and_good_ones_are_read() {
        let letter = letter();
        let good = line(&letter);
        let text = format!("{good}\n{{\"id\":7}}\n{}\r\n[\n{}", good.trim_end(), good.trim_end());
        let lines = parsed(&text, LONGEST);
        let bad: Vec<&String> = lines.iter().filter_map(|line| line.as_ref().err()).collect();
        assert_eq!(lines.iter().flatten().collect::<Vec<_>>(), vec![&letter; 3]);
        assert!(bad[0].starts_with("line 3, column 7: ") && !bad[0].contains("at line"), "{bad:?}");
        assert!(bad[1].starts_with("line 5") && bad.len() == 2, "{bad:?}");
    }

    #[test]
    fn a_line_that_no_letter_can_have_is_passed_over_without_being_held() {
        let good = line(&letter());
        let text = format!("{}\n{good}", "x".repeat(2 * good.len()));
        let lines = parsed(&text, good.len() as u64);
        assert!(matches!(&lines[..], [Err(bad), Ok(_)] if bad.starts_with("line 1: longer")), "{lines:?}");
    }

    /// Good lines without end, counted as they are asked for.
    struct Endless<'a> {
        store: &'a MemoryStore,
        held_most: &'a std::cell::Cell<u64>,
        given: u64,
        line: Vec<u8>,
    }

    impl Read for Endless<'_> {
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
    fn however_long_the_input_is_no_more_than_a_group_is_held_at_a_time() {
        let store = MemoryStore::new(10_000);
        let held_most = std::cell::Cell::new(0);
        let endless = Endless { store: &store, held_most: &held_most, given: 0, line: Vec::new() };
        let mut import = Import::into(&store, false, Edited::Leave);
        let mut lines = Lines::of(BufReader::with_capacity(1, endless));
        assert!(import.all(|| lines.read(), "input").unwrap().is_none());
        assert_eq!((store.len(), import.done.taken), (5000, 5000));
        assert!(held_most.get() <= AT_ONCE as u64 + 1, "{}", held_most.get());
    }
}

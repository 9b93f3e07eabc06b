//! `courier dlq import`: letters from NDJSON.
//!
//! Rules: bad lines are told with their place; if there is one, nothing is taken, unless the caller said to pass over
//! them. A letter that is there already is not taken again, so that an import may be repeated.

use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::path::{Path, PathBuf};

use clap::Args;
use kafka_courier::dlq::{AppendError, Appended, Letter};

use super::store::{Opened, StoreArgs};
use crate::exit::{Exit, Refusal};

/// Letters that are taken at once.
const AT_ONCE: usize = 1000;
/// Bad lines that are told one by one.
const TOLD: usize = 20;

#[derive(Args, Debug)]
pub(super) struct ImportArgs {
    #[command(flatten)]
    store: StoreArgs,
    /// Takes the letters of good lines though others are bad.
    #[arg(long)]
    skip_invalid: bool,
    /// The file to read; - is standard input.
    #[arg(value_name = "FILE", default_value = "-")]
    from: PathBuf,
}

pub(super) fn run(args: &ImportArgs) -> Result<Exit, Refusal> {
    let name = args.from.display().to_string();
    let read = if args.from == Path::new("-") {
        parse(io::stdin().lock())
    } else {
        let file = File::open(&args.from).map_err(|error| Refusal(Exit::Data, format!("{name}: {error}")))?;
        parse(BufReader::new(file))
    };
    let Parsed { letters, bad } = read.map_err(|error| Refusal(Exit::Io, format!("{name}: {error}")))?;
    for line in bad.iter().take(TOLD) {
        crate::say(line);
    }
    if !bad.is_empty() && !args.skip_invalid {
        let why =
            format!("{} of the lines are no letters: nothing was taken (--skip-invalid takes the others)", bad.len());
        return Err(Refusal(Exit::Data, why));
    }
    let opened = args.store.open_or_create()?;
    let Appended { taken, known, dropped, .. } = take(&opened, &letters)?;
    let mut said = format!("{} taken into {}", super::letters(taken), opened.store.name());
    for (count, what) in [
        (known, "there already"),
        (dropped, "older ones dropped to make room"),
        (bad.len() as u64, "lines passed over"),
    ] {
        if count > 0 {
            said.push_str(&format!(", {} {what}", indicatif::HumanCount(count)));
        }
    }
    crate::say(&said);
    Ok(if bad.is_empty() { Exit::Ok } else { Exit::SomeFailed })
}

fn take(opened: &Opened, letters: &[Letter]) -> Result<Appended, Refusal> {
    let mut all = Appended::default();
    for some in letters.chunks(AT_ONCE) {
        let done = opened.store.append(some).map_err(|error| {
            let exit = if matches!(error, AppendError::Store(_)) { Exit::Io } else { Exit::CantCreate };
            let before = super::letters(all.taken);
            Refusal(exit, format!("{error} ({before} taken before; import again takes those that are missing)"))
        })?;
        all.taken += done.taken;
        all.known += done.known;
        all.dropped += done.dropped;
    }
    Ok(all)
}

#[derive(Debug, Default)]
struct Parsed {
    letters: Vec<Letter>,
    /// What is wrong, with the place.
    bad: Vec<String>,
}

fn parse(mut from: impl BufRead) -> io::Result<Parsed> {
    let (mut parsed, mut line) = (Parsed::default(), Vec::new());
    for number in 1_u64.. {
        line.clear();
        if from.read_until(b'\n', &mut line)? == 0 {
            break;
        }
        if line.trim_ascii().is_empty() {
            continue;
        }
        match serde_json::from_slice(&line) {
            Ok(letter) => parsed.letters.push(letter),
            Err(error) => parsed.bad.push(place(number, &error)),
        }
    }
    Ok(parsed)
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
    use super::*;

    #[test]
    fn a_bad_line_is_told_with_its_line_and_column_and_good_ones_are_read() {
        let letter = Letter::new("t", None, "why", "2024-01-15T10:00:00Z".parse().unwrap());
        let good = String::from_utf8(letter.to_json().unwrap()).unwrap();
        let text = format!("{good}\n\n{{\"id\":7}}\n{good}\r\n[\n{good}");
        let parsed = parse(text.as_bytes()).unwrap();
        assert_eq!(parsed.letters, vec![letter; 3]);
        assert_eq!(parsed.bad.len(), 2);
        assert!(
            parsed.bad[0].starts_with("line 3, column 7: ") && !parsed.bad[0].contains("at line"),
            "{:?}",
            parsed.bad
        );
        assert!(parsed.bad[1].starts_with("line 5"), "{:?}", parsed.bad);
    }
}

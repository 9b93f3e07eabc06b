//! `courier dlq list`.

use std::io::{self, BufWriter, Write};

use clap::Args;
use console::Term;
use kafka_courier::dlq::letters;

use super::select::{ScannedLetter, SelectionArgs};
use super::store::StoreArgs;
use super::table::{LetterRow, LetterTable};
use super::{output_failed, store_failed};
use crate::exit::{CommandError, Exit};

/// Dead letters that decide the table's widths.
const SAMPLE: usize = 1000;

/// List dead letters in the order of their arrival
#[derive(Args, Debug)]
pub(super) struct ListArgs {
    /// Print each dead letter as a line of JSON, as export writes it
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    selection: SelectionArgs,
    #[command(flatten)]
    store: StoreArgs,
}

pub(super) fn run(args: &ListArgs) -> Result<Exit, CommandError> {
    let selection = args.selection.checked("dlq list")?;
    let opened = args.store.open_to_read()?;
    let found = letters(&*opened.store, &selection).take(args.selection.max_items());
    let mut out = BufWriter::new(io::stdout().lock());
    if args.json {
        json(&mut out, found)?
    } else {
        table(&mut out, found)?
    }
    out.flush().map_err(output_failed)?;
    Ok(Exit::Ok)
}

fn json(out: &mut impl Write, found: impl Iterator<Item = ScannedLetter>) -> Result<(), CommandError> {
    for held in found {
        super::export::write_line(out, &held.map_err(store_failed)?.letter, output_failed)?;
    }
    Ok(())
}

fn table(out: &mut impl Write, mut found: impl Iterator<Item = ScannedLetter>) -> Result<(), CommandError> {
    let first: Vec<LetterRow> = rows(found.by_ref().take(SAMPLE))?;
    if first.is_empty() {
        crate::say("no dead letters");
        return Ok(());
    }
    // Lines fit a terminal. Output to a file or a pipe is not cut.
    let width = Term::stdout().size_checked().map(|(_, columns)| usize::from(columns));
    let table = LetterTable::fit(&first, width);
    writeln!(out, "{}", table.title()).map_err(output_failed)?;
    for row in &first {
        writeln!(out, "{}", table.line(row)).map_err(output_failed)?;
    }
    for held in found {
        let row = LetterRow::of(&held.map_err(store_failed)?.letter);
        writeln!(out, "{}", table.line(&row)).map_err(output_failed)?;
    }
    Ok(())
}

fn rows(found: impl Iterator<Item = ScannedLetter>) -> Result<Vec<LetterRow>, CommandError> {
    found.map(|held| Ok(LetterRow::of(&held.map_err(store_failed)?.letter))).collect()
}

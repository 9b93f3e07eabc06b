//! `courier dlq list`.

use std::io::{self, BufWriter, Write};

use clap::Args;
use console::Term;
use kafka_courier::dlq::{Held, StoreError, letters};

use super::select::SelectionArgs;
use super::store::StoreArgs;
use super::table::{Row, Table};
use super::{output_failed, store_failed};
use crate::exit::{Exit, Refusal};

/// Letters after which the table's widths are settled.
const SAMPLE: usize = 1000;

#[derive(Args, Debug)]
pub(super) struct ListArgs {
    /// A line of JSON a letter, all of it, as export writes it.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    store: StoreArgs,
    #[command(flatten)]
    selection: SelectionArgs,
}

pub(super) fn run(args: &ListArgs) -> Result<Exit, Refusal> {
    let opened = args.store.open_to_read()?;
    let selection = args.selection.selection();
    let found = letters(&*opened.store, &selection).take(args.selection.most());
    let mut out = BufWriter::new(io::stdout().lock());
    if args.json {
        json(&mut out, found)?
    } else {
        table(&mut out, found)?
    }
    out.flush().map_err(output_failed)?;
    Ok(Exit::Ok)
}

type Found = Result<Held, StoreError>;

fn json(out: &mut impl Write, found: impl Iterator<Item = Found>) -> Result<(), Refusal> {
    for held in found {
        super::export::write_line(out, &held.map_err(store_failed)?.letter, output_failed)?;
    }
    Ok(())
}

fn table(out: &mut impl Write, mut found: impl Iterator<Item = Found>) -> Result<(), Refusal> {
    let first: Vec<Row> = rows(found.by_ref().take(SAMPLE))?;
    if first.is_empty() {
        crate::say("no letters");
        return Ok(());
    }
    // On a terminal no line is broken; elsewhere nothing is cut.
    let width = Term::stdout().size_checked().map(|(_, columns)| usize::from(columns));
    let table = Table::fit(&first, width);
    writeln!(out, "{}", table.title()).map_err(output_failed)?;
    for row in &first {
        writeln!(out, "{}", table.line(row)).map_err(output_failed)?;
    }
    for held in found {
        let row = Row::of(&held.map_err(store_failed)?.letter);
        writeln!(out, "{}", table.line(&row)).map_err(output_failed)?;
    }
    Ok(())
}

fn rows(found: impl Iterator<Item = Found>) -> Result<Vec<Row>, Refusal> {
    found.map(|held| Ok(Row::of(&held.map_err(store_failed)?.letter))).collect()
}

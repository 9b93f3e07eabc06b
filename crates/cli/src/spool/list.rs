//! `courier spool list`.

use std::io::{self, BufWriter, Write};

use clap::Args;
use console::Term;
use indicatif::HumanBytes;
use jiff::Timestamp;
use kafka_courier::dlq::Letter;
use kafka_courier::spool::{SpoolRecordError, SpoolView, UnsettledRecord, spool_records};
use serde_json::Value;

use super::folder::FolderArgs;
use super::{output_failed, read_failed};
use crate::exit::{CommandError, Exit};
use crate::table::{Layout, Table, key_cell};
use crate::terminal::printable;

/// Events that decide the table's widths.
const SAMPLE: usize = 1000;
const COLUMNS: usize = 7;
const LAYOUT: Layout<COLUMNS> = Layout {
    titles: ["TOPIC", "PARTITION", "NUMBER", "TIME", "SIZE", "SENT", "KEY"],
    least: [8, 9, 6, 20, 6, 5, 4],
    most: [48, 9, 20, 20, 12, 5, usize::MAX],
    cut: &[6, 0],
    omitted: &[4, 6, 3],
};

/// List the events in a spool, by topic, partition and number
///
/// The number counts the events that the spool ever took for a partition, from 0. SENT is maybe for an event that a process
/// may have sent already, and no otherwise. Changes nothing, and also works while a process has the spool.
#[derive(Args, Debug)]
pub(super) struct ListArgs {
    /// List only the events of this topic
    #[arg(long, value_name = "TOPIC", value_parser = crate::topic_name)]
    topic: Option<String>,
    /// List up to N events
    #[arg(long, value_name = "N", allow_negative_numbers = true, value_parser = crate::whole_number::<u64>)]
    limit: Option<u64>,
    /// Print each event as a line of JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    folder: FolderArgs,
}

pub(super) fn run(args: &ListArgs) -> Result<Exit, CommandError> {
    let chosen = args.folder.choose()?;
    let view = chosen.read()?;
    let limit = args.limit.map_or(usize::MAX, |limit| usize::try_from(limit).unwrap_or(usize::MAX));
    let found = records(&view, args.topic.as_deref()).take(limit);
    let mut out = BufWriter::new(io::stdout().lock());
    if args.json {
        for record in found {
            writeln!(out, "{}", line(&record?)?).map_err(output_failed)?;
        }
    } else {
        table(&mut out, found)?;
    }
    out.flush().map_err(output_failed)?;
    Ok(Exit::Ok)
}

type FoundRecord = Result<UnsettledRecord, CommandError>;

/// Returns the records of a topic, or of all.
pub(super) fn records(view: &SpoolView, topic: Option<&str>) -> impl Iterator<Item = FoundRecord> {
    spool_records(view, topic).map(|record| {
        record.map_err(|error| match error {
            SpoolRecordError::View(error) => read_failed(error),
            error => CommandError(Exit::Data, error.to_string()),
        })
    })
}

fn table(out: &mut impl Write, mut found: impl Iterator<Item = FoundRecord>) -> Result<(), CommandError> {
    let first: Vec<UnsettledRecord> = found.by_ref().take(SAMPLE).collect::<Result<_, _>>()?;
    let first: Vec<_> = first.iter().map(row).collect();
    if first.is_empty() {
        crate::say("no events");
        return Ok(());
    }
    // Lines fit a terminal. Output to a file or a pipe is not cut.
    let width = Term::stdout().size_checked().map(|(_, columns)| usize::from(columns));
    let table = Table::fit(&LAYOUT, first.iter(), width);
    writeln!(out, "{}", table.title()).map_err(output_failed)?;
    for row in &first {
        writeln!(out, "{}", table.line(row)).map_err(output_failed)?;
    }
    for record in found {
        writeln!(out, "{}", table.line(&row(&record?))).map_err(output_failed)?;
    }
    Ok(())
}

fn row(record: &UnsettledRecord) -> [String; COLUMNS] {
    let letter = &record.letter;
    let cells = [
        letter.topic.clone(),
        letter.partition.map_or("-".to_owned(), |partition| partition.to_string()),
        record.number.to_string(),
        time(letter).map_or("-".to_owned(), |time| format!("{time:.0}")),
        HumanBytes(record.size()).to_string(),
        if record.may_be_sent() { "maybe" } else { "no" }.to_owned(),
        key_cell(letter.key.as_deref()),
    ];
    cells.map(|cell| printable(&cell).into_owned())
}

fn time(letter: &Letter) -> Option<Timestamp> {
    Timestamp::from_millisecond(letter.timestamp_ms).ok()
}

/// Returns the line of JSON of a record.
fn line(record: &UnsettledRecord) -> Result<Value, CommandError> {
    record.to_json().map_err(|error| CommandError(Exit::Io, error.to_string()))
}

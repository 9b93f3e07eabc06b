//! `courier spool stats`.

use std::io::{self, Write};

use clap::Args;
use console::Term;
use indicatif::{HumanBytes, HumanCount};
use kafka_courier::spool::{SpoolHolder, SpoolInputReport, SpoolPartitionReport, SpoolReport, SpoolView};

use super::folder::FolderArgs;
use super::{output_failed, read_failed};
use crate::exit::{CommandError, Exit};
use crate::table::{Layout, Table};
use crate::terminal::printable;

const LAYOUT: Layout<6> = Layout {
    titles: ["TOPIC", "PARTITION", "EVENTS", "BYTES", "OLDEST", "LOST"],
    least: [8, 9, 6, 5, 20, 4],
    most: [64, 9, 16, 12, 20, 16],
    cut: &[0],
    omitted: &[3, 5, 4],
};

/// Count the events in a spool by topic and partition
///
/// Counts events that are neither delivered nor dead letters, and the lines of files that were published with
/// `courier publish --spool`. Changes nothing, and also works while a process has the
/// spool.
#[derive(Args, Debug)]
pub(super) struct StatsArgs {
    /// Print the counts as a line of JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    folder: FolderArgs,
}

pub(super) fn run(args: &StatsArgs) -> Result<Exit, CommandError> {
    let chosen = args.folder.choose()?;
    let view = chosen.read()?;
    let holder = SpoolView::holder_of(&chosen.dir).map_err(read_failed)?;
    let report = SpoolReport::of(chosen.shown(), &view, holder).map_err(read_failed)?;
    let mut out = io::stdout().lock();
    let text = match args.json {
        true => serde_json::to_string(&report).map_err(|error| CommandError(Exit::Io, error.to_string()))?,
        false => text(&report, holder),
    };
    writeln!(out, "{text}").map_err(output_failed)?;
    Ok(Exit::Ok)
}

/// Returns the report for a terminal.
fn text(report: &SpoolReport, holder: Option<SpoolHolder>) -> String {
    let mut text = report.dir.clone();
    if let Some(holder) = holder {
        text.push_str(&format!(", held by {holder}"));
    }
    text.push_str(&format!("\n{}, {}", super::events(report.events), HumanBytes(report.bytes)));
    if let Some(oldest) = report.oldest {
        text.push_str(&format!(", oldest {oldest:.0}"));
    }
    if report.lost > 0 {
        text.push_str(&format!(", {} lost", HumanCount(report.lost)));
    }
    let plural = if report.segments == 1 { "" } else { "s" };
    text.push_str(&format!("\n{} segment{plural}, {} of files", report.segments, HumanBytes(report.file_bytes)));
    if report.damaged_files > 0 {
        text.push_str(&format!(", {} kept because of damage", report.damaged_files));
    }
    report.inputs.iter().for_each(|input| text.push_str(&input_line(input)));
    let rows: Vec<_> = report.partitions.iter().map(row).collect();
    if rows.is_empty() {
        return text;
    }
    let width = Term::stdout().size_checked().map(|(_, columns)| usize::from(columns));
    let table = Table::fit(&LAYOUT, rows.iter(), width);
    text.push_str(&format!("\n\n{}", table.title()));
    rows.iter().for_each(|row| text.push_str(&format!("\n{}", table.line(row))));
    text
}

fn input_line(input: &SpoolInputReport) -> String {
    let (items, last) = (HumanCount(input.items), HumanCount(input.last.unwrap_or_default()));
    format!("\n{}: {items} items are stored or delivered, up to item {last}", printable(&input.name))
}

fn row(partition: &SpoolPartitionReport) -> [String; 6] {
    [
        printable(&partition.topic).into_owned(),
        partition.partition.to_string(),
        HumanCount(partition.events).to_string(),
        HumanBytes(partition.bytes).to_string(),
        partition.oldest.map_or("-".to_owned(), |oldest| format!("{oldest:.0}")),
        HumanCount(partition.lost).to_string(),
    ]
}

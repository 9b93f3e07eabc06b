//! `courier spool stats`.

use std::io::{self, Write};

use clap::Args;
use console::Term;
use indicatif::{HumanBytes, HumanCount};
use jiff::Timestamp;
use kafka_courier::spool::{SpoolHolder, SpoolView, SpooledInput, StoredPartition};
use serde::Serialize;
use uuid::Uuid;

use super::folder::{ChosenFolder, FolderArgs};
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

/// The counts of a spool.
#[derive(Serialize)]
struct SpoolReport {
    dir: String,
    /// Kafka's id of the cluster that the events are for.
    cluster: Option<String>,
    /// Whether a process has the spool.
    held: bool,
    /// The process, if its pid is known.
    pid: Option<u32>,
    events: u64,
    /// Bytes of the stored batches with these events.
    bytes: u64,
    oldest: Option<Timestamp>,
    lost: u64,
    segments: usize,
    /// Bytes of all files of segments.
    file_bytes: u64,
    /// Files that are kept because of damage.
    damaged_files: usize,
    partitions: Vec<PartitionReport>,
    /// The files that were published through the spool.
    inputs: Vec<InputReport>,
}

/// The position of an input.
#[derive(Serialize)]
struct InputReport {
    name: String,
    /// Lines or elements that are dealt with.
    items: u64,
    /// The last of them.
    last: Option<u64>,
}

/// The counts of a partition.
#[derive(Serialize)]
struct PartitionReport {
    topic: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    topic_id: Option<Uuid>,
    partition: i32,
    events: u64,
    bytes: u64,
    oldest: Option<Timestamp>,
    lost: u64,
}

pub(super) fn run(args: &StatsArgs) -> Result<Exit, CommandError> {
    let chosen = args.folder.choose()?;
    let view = chosen.read()?;
    let holder = SpoolView::holder_of(&chosen.dir).map_err(read_failed)?;
    let report = SpoolReport::of(&chosen, &view, holder)?;
    let mut out = io::stdout().lock();
    let text = match args.json {
        true => serde_json::to_string(&report).map_err(|error| CommandError(Exit::Io, error.to_string()))?,
        false => report.text(holder),
    };
    writeln!(out, "{text}").map_err(output_failed)?;
    Ok(Exit::Ok)
}

impl SpoolReport {
    fn of(chosen: &ChosenFolder, view: &SpoolView, holder: Option<SpoolHolder>) -> Result<Self, CommandError> {
        let partitions: Vec<_> =
            view.partitions().map_err(read_failed)?.into_iter().map(PartitionReport::from).collect();
        Ok(Self {
            dir: chosen.shown(),
            cluster: view.cluster().map(|cluster| cluster.to_string()),
            held: holder.is_some(),
            pid: holder.and_then(|holder| holder.pid),
            events: partitions.iter().map(|partition| partition.events).sum(),
            bytes: partitions.iter().map(|partition| partition.bytes).sum(),
            oldest: partitions.iter().filter_map(|partition| partition.oldest).min(),
            lost: partitions.iter().map(|partition| partition.lost).sum(),
            segments: view.segment_count(),
            file_bytes: view.file_bytes(),
            damaged_files: view.quarantined().len(),
            partitions,
            inputs: view.inputs().iter().map(InputReport::of).collect(),
        })
    }

    fn text(&self, holder: Option<SpoolHolder>) -> String {
        let mut text = self.dir.clone();
        if let Some(holder) = holder {
            text.push_str(&format!(", held by {holder}"));
        }
        text.push_str(&format!("\n{}, {}", super::events(self.events), HumanBytes(self.bytes)));
        if let Some(oldest) = self.oldest {
            text.push_str(&format!(", oldest {oldest:.0}"));
        }
        if self.lost > 0 {
            text.push_str(&format!(", {} lost", HumanCount(self.lost)));
        }
        let plural = if self.segments == 1 { "" } else { "s" };
        text.push_str(&format!("\n{} segment{plural}, {} of files", self.segments, HumanBytes(self.file_bytes)));
        if self.damaged_files > 0 {
            text.push_str(&format!(", {} kept because of damage", self.damaged_files));
        }
        self.inputs.iter().for_each(|input| text.push_str(&input.line()));
        let rows: Vec<_> = self.partitions.iter().map(PartitionReport::row).collect();
        if rows.is_empty() {
            return text;
        }
        let width = Term::stdout().size_checked().map(|(_, columns)| usize::from(columns));
        let table = Table::fit(&LAYOUT, rows.iter(), width);
        text.push_str(&format!("\n\n{}", table.title()));
        rows.iter().for_each(|row| text.push_str(&format!("\n{}", table.line(row))));
        text
    }
}

impl InputReport {
    fn of(input: &SpooledInput) -> Self {
        Self { name: input.name().to_string(), items: input.count(), last: input.last() }
    }

    fn line(&self) -> String {
        let (items, last) = (HumanCount(self.items), HumanCount(self.last.unwrap_or_default()));
        format!("\n{}: {items} items are stored or delivered, up to item {last}", printable(&self.name))
    }
}

impl From<StoredPartition> for PartitionReport {
    fn from(stored: StoredPartition) -> Self {
        Self {
            topic: stored.topic.to_string(),
            topic_id: stored.topic_id.map(Uuid::from_bytes),
            partition: stored.partition,
            events: stored.records,
            bytes: stored.bytes,
            oldest: stored.oldest_ms.and_then(|ms| Timestamp::from_millisecond(ms).ok()),
            lost: stored.lost,
        }
    }
}

impl PartitionReport {
    fn row(&self) -> [String; 6] {
        [
            printable(&self.topic).into_owned(),
            self.partition.to_string(),
            HumanCount(self.events).to_string(),
            HumanBytes(self.bytes).to_string(),
            self.oldest.map_or("-".to_owned(), |oldest| format!("{oldest:.0}")),
            HumanCount(self.lost).to_string(),
        ]
    }
}

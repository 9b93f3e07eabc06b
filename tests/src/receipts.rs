//! The receipts of `courier publish --receipts`, compared with the log.
use std::collections::HashSet;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;
use uuid::Uuid;

use crate::ledger::{Ledger, LogPosition};

/// One line: the position of an event in the log, or the reason of its failure.
#[derive(Debug, Deserialize)]
pub struct Receipt {
    /// The event's id. None if the input line was no event.
    pub id: Option<Uuid>,
    /// The event's topic.
    pub topic: Option<String>,
    /// The event's partition.
    pub partition: Option<i32>,
    /// The event's offset.
    pub offset: Option<i64>,
    /// The reason of the failure. None if the event was delivered.
    pub error: Option<serde_json::Value>,
}

/// Passes every receipt in the file to `each`.
///
/// # Errors
/// Fails if a line is no receipt, or if `each` fails.
pub fn read(file: &Path, mut each: impl FnMut(Receipt) -> Result<()>) -> Result<()> {
    for line in BufReader::new(File::open(file).with_context(|| file.display().to_string())?).lines() {
        let line = line?;
        let receipt = serde_json::from_str(&line).with_context(|| format!("not a receipt: {line}"))?;
        each(receipt).with_context(|| format!("receipt {line}"))?;
    }
    Ok(())
}

/// Checks that each event of the ledger has exactly one receipt, with the event's position in the log.
///
/// # Errors
/// Returns an error that shows the first wrong receipt, or the numbers of receipts and events.
pub fn check(file: &Path, ledger: &Ledger) -> Result<()> {
    let topics = ledger.topics();
    let mut seen = HashSet::with_capacity(ledger.len());
    read(file, |receipt| {
        let (Some(id), Some(topic), Some(partition), Some(offset)) =
            (receipt.id, receipt.topic, receipt.partition, receipt.offset)
        else {
            bail!("the receipt has no id, topic, partition or offset");
        };
        let topic = topics.iter().position(|name| *name == topic).context("an unknown topic")?;
        let position = LogPosition { topic: u8::try_from(topic)?, partition, offset };
        ensure!(ledger.position(&id) == Some(position), "the log has the event at {:?}", ledger.position(&id));
        ensure!(seen.insert(id), "a second receipt for this event");
        Ok(())
    })?;
    ensure!(seen.len() == ledger.len(), "{} receipts for {} events", seen.len(), ledger.len());
    Ok(())
}

//! What `courier publish --receipts` wrote, held against the log.
use std::collections::HashSet;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;
use uuid::Uuid;

use crate::ledger::{Ledger, Place};

/// One line: an event and where it is, or why it is nowhere.
#[derive(Debug, Deserialize)]
pub struct Receipt {
    /// The event's id; none when the line was no event.
    pub id: Option<Uuid>,
    /// Its topic.
    pub topic: Option<String>,
    /// Its partition.
    pub partition: Option<i32>,
    /// Its offset.
    pub offset: Option<i64>,
    /// Why it was not delivered.
    pub error: Option<serde_json::Value>,
}

/// Hands every receipt in the file to `each`.
///
/// # Errors
/// When a line is no receipt, or `each` fails.
pub fn read(file: &Path, mut each: impl FnMut(Receipt) -> Result<()>) -> Result<()> {
    for line in BufReader::new(File::open(file).with_context(|| file.display().to_string())?).lines() {
        let line = line?;
        let receipt = serde_json::from_str(&line).with_context(|| format!("not a receipt: {line}"))?;
        each(receipt).with_context(|| format!("receipt {line}"))?;
    }
    Ok(())
}

/// Checks that each event of the ledger has exactly one receipt, and that it names the event's place in the log.
///
/// # Errors
/// The first receipt that is wrong, or the number of those missing.
pub fn check(file: &Path, ledger: &Ledger) -> Result<()> {
    let topics = ledger.topics();
    let mut seen = HashSet::with_capacity(ledger.len());
    read(file, |receipt| {
        let (Some(id), Some(topic), Some(partition), Some(offset)) =
            (receipt.id, receipt.topic, receipt.partition, receipt.offset)
        else {
            bail!("it names no place");
        };
        let topic = topics.iter().position(|name| *name == topic).context("an unknown topic")?;
        let place = Place { topic: u8::try_from(topic)?, partition, offset };
        ensure!(ledger.place(&id) == Some(place), "the log has it at {:?}", ledger.place(&id));
        ensure!(seen.insert(id), "a second one for this event");
        Ok(())
    })?;
    ensure!(seen.len() == ledger.len(), "{} receipts for {} events", seen.len(), ledger.len());
    Ok(())
}

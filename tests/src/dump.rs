//! Records as a Java consumer reads them, streamed one at a time.
use std::borrow::Cow;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use serde::Deserialize;

/// A record in the log. A key or value that is not UTF-8 is an error, because the project writes none.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DumpedRecord<'a> {
    /// The record's partition.
    pub partition: i32,
    /// The record's offset in the partition.
    pub offset: i64,
    /// Milliseconds since the epoch.
    pub timestamp: i64,
    /// The partition that the Java client's partitioner chooses for the key. None if the key is null.
    pub java_partition: Option<i32>,
    /// The key. None if it is null, `Some("")` if it is empty.
    #[serde(borrow)]
    pub key: Option<Cow<'a, str>>,
    /// The value. None if it is null.
    #[serde(borrow)]
    pub value: Option<Cow<'a, str>>,
    /// The headers in the record's order. A name may occur more than once.
    #[serde(borrow)]
    pub headers: Vec<(Cow<'a, str>, Option<HeaderValue<'a>>)>,
}

/// The value of a header that is not null.
#[derive(Debug, PartialEq, Eq, Deserialize)]
#[serde(untagged)]
pub enum HeaderValue<'a> {
    /// A UTF-8 value.
    Text(#[serde(borrow)] Cow<'a, str>),
    /// Any other value.
    Binary {
        /// The bytes in base64.
        b64: String,
    },
}

impl DumpedRecord<'_> {
    /// Returns the text of the header `name` if the record has that header exactly once and its value is UTF-8.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut values = self.headers.iter().filter(|(header, _)| header == name);
        match (values.next(), values.next()) {
            (Some((_, Some(HeaderValue::Text(text)))), None) => Some(text),
            _ => None,
        }
    }
}

/// Runs `kafka dump`, passes each record to `each`, and returns the number of records.
pub(crate) fn read(mut command: Command, mut each: impl FnMut(&DumpedRecord<'_>) -> Result<()>) -> Result<u64> {
    let mut child = command.stdout(Stdio::piped()).spawn().context("python3 did not start")?;
    let read = match child.stdout.take() {
        Some(stdout) => read_lines(BufReader::with_capacity(1 << 20, stdout), &mut each),
        None => Ok(0),
    };
    if read.is_err() {
        child.kill()?; // the dump blocks on its full pipe, because no reader is left
    }
    let status = child.wait()?;
    let count = read?;
    ensure!(status.success(), "`kafka dump` failed with {status}; its reason is above");
    Ok(count)
}

fn read_lines(mut from: impl BufRead, each: &mut impl FnMut(&DumpedRecord<'_>) -> Result<()>) -> Result<u64> {
    let mut line = Vec::new();
    let mut count = 0;
    loop {
        line.clear();
        if from.read_until(b'\n', &mut line)? == 0 {
            return Ok(count);
        }
        let record = serde_json::from_slice(&line)
            .with_context(|| format!("not a record: {}", String::from_utf8_lossy(&line).trim_end()))?;
        each(&record)?;
        count += 1;
    }
}

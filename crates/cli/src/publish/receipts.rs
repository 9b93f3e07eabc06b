//! The receipts: a line of JSON for each item of the input.
//!
//! Rules:
//! - An existing file is overwritten only after a broker was reached. With a spool it is kept: the run continues an earlier one.
//! - The first failed write ends all writing, and its error is kept.

use std::fs::File;
use std::io::{self, BufWriter, Read, Seek, SeekFrom, Write};
use std::path::Path;

use kafka_courier_event_model::EventId;
use serde::Serialize;

use super::position::InputPlace;

/// Size of the write buffer in bytes.
const BUFFER: usize = 256 << 10;

/// A receipt. The line has only the fields that are set.
#[derive(Serialize)]
pub(super) struct ReceiptLine<'a> {
    #[serde(serialize_with = "as_text")]
    pub(super) place: InputPlace,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) id: Option<&'a EventId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) topic: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) partition: Option<i32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) offset: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) outcome: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) error: Option<&'a str>,
}

impl ReceiptLine<'_> {
    /// Returns a receipt with only the place.
    pub(super) fn of(place: InputPlace) -> Self {
        Self { place, id: None, topic: None, partition: None, offset: None, outcome: None, error: None }
    }
}

fn as_text<S: serde::Serializer>(place: &InputPlace, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(place)
}

/// The output of receipts, if there is one.
#[derive(Default)]
pub(super) struct Receipts {
    out: Option<BufWriter<Box<dyn Write + Send>>>,
    failed: Option<io::Error>,
}

impl Receipts {
    /// Creates or overwrites this file. `-` is standard output.
    pub(super) fn create(path: &Path) -> io::Result<Self> {
        let out: Box<dyn Write + Send> =
            if path == Path::new("-") { Box::new(io::stdout()) } else { Box::new(File::create(path)?) };
        Ok(Self::to(out))
    }

    /// Opens this file, and writes behind its last line. A process that was killed may have left a part of a line.
    pub(super) fn append(path: &Path) -> io::Result<Self> {
        if path == Path::new("-") {
            return Self::create(path);
        }
        let mut file = File::options().read(true).append(true).create(true).open(path)?;
        let mut last = *b"\n";
        if file.metadata()?.is_file() && file.seek(SeekFrom::End(0))? > 0 {
            file.seek(SeekFrom::End(-1))?;
            file.read_exact(&mut last)?;
        }
        if last != *b"\n" {
            file.write_all(b"\n")?;
        }
        Ok(Self::to(Box::new(file)))
    }

    pub(super) fn to(out: Box<dyn Write + Send>) -> Self {
        Self { out: Some(BufWriter::with_capacity(BUFFER, out)), failed: None }
    }

    pub(super) fn write(&mut self, receipt: &ReceiptLine<'_>) {
        self.attempt(|out| {
            serde_json::to_writer(&mut *out, receipt)?;
            out.write_all(b"\n")
        });
    }

    /// Writes the buffer.
    pub(super) fn flush(&mut self) {
        self.attempt(Write::flush);
    }

    /// Returns the first error, after which nothing was written.
    pub(super) fn failed(&self) -> Option<&io::Error> {
        self.failed.as_ref()
    }

    fn attempt(&mut self, write: impl FnOnce(&mut BufWriter<Box<dyn Write + Send>>) -> io::Result<()>) {
        let Some(out) = &mut self.out else { return };
        if let Err(error) = write(out) {
            self.failed = Some(error);
            // Dropping the `BufWriter` would write again.
            drop(self.out.take().map(BufWriter::into_parts));
        }
    }
}

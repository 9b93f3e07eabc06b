//! The receipts: a line of JSON for each item of the input.
//!
//! Rules: they never go into the input, and take an older file's place only once a broker was reached; after the first
//! write that fails nothing more is written, and what failed is kept for whoever asks.

use std::fs::File;
#[cfg(unix)]
use std::fs::Metadata;
use std::io::{self, BufWriter, Write};
use std::path::Path;

use kafka_courier_event_model::EventId;
use serde::Serialize;

use super::input::Place;

/// What is gathered before it is written, in bytes.
const BUFFER: usize = 256 << 10;

/// One line. What it has not is left out.
#[derive(Serialize)]
pub(super) struct Receipt<'a> {
    #[serde(serialize_with = "as_text")]
    pub(super) place: Place,
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

impl Receipt<'_> {
    /// One that says no more than the place.
    pub(super) fn of(place: Place) -> Self {
        Self { place, id: None, topic: None, partition: None, offset: None, outcome: None, error: None }
    }
}

fn as_text<S: serde::Serializer>(place: &Place, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(place)
}

/// Where receipts go, if anywhere.
#[derive(Default)]
pub(super) struct Receipts {
    out: Option<BufWriter<Box<dyn Write + Send>>>,
    failed: Option<io::Error>,
}

impl Receipts {
    /// Into this file, in place of what was in it; `-` is standard output.
    pub(super) fn create(path: &Path) -> io::Result<Self> {
        let out: Box<dyn Write + Send> =
            if path == Path::new("-") { Box::new(io::stdout()) } else { Box::new(File::create(path)?) };
        Ok(Self::to(out))
    }

    pub(super) fn to(out: Box<dyn Write + Send>) -> Self {
        Self { out: Some(BufWriter::with_capacity(BUFFER, out)), failed: None }
    }

    pub(super) fn write(&mut self, receipt: &Receipt<'_>) {
        self.attempt(|out| {
            serde_json::to_writer(&mut *out, receipt)?;
            out.write_all(b"\n")
        });
    }

    /// Hands over what is gathered.
    pub(super) fn flush(&mut self) {
        self.attempt(Write::flush);
    }

    /// The first error, after which nothing was written.
    pub(super) fn failed(&self) -> Option<&io::Error> {
        self.failed.as_ref()
    }

    fn attempt(&mut self, write: impl FnOnce(&mut BufWriter<Box<dyn Write + Send>>) -> io::Result<()>) {
        let Some(out) = &mut self.out else { return };
        if let Err(error) = write(out) {
            self.failed = Some(error);
            // Dropped as it is it would try once more.
            drop(self.out.take().map(BufWriter::into_parts));
        }
    }
}

/// Whether receipts at `path` would go into the file that the input is read from. `name` is the input's.
#[cfg(unix)]
pub(super) fn is_input(path: &Path, name: &str) -> bool {
    use std::os::unix::fs::MetadataExt;
    let receipts = if path == Path::new("-") { metadata(&io::stdout()) } else { path.metadata() };
    let input = if name == "-" { metadata(&io::stdin()) } else { Path::new(name).metadata() };
    let same = |one: &Metadata, other: &Metadata| (one.dev(), one.ino()) == (other.dev(), other.ino());
    // A file that can't be looked at is not there yet, or will be complained of by whoever opens it.
    receipts.is_ok_and(|receipts| input.is_ok_and(|input| input.is_file() && same(&receipts, &input)))
}

#[cfg(unix)]
fn metadata(stream: &impl std::os::fd::AsFd) -> io::Result<Metadata> {
    File::from(stream.as_fd().try_clone_to_owned()?).metadata()
}

/// Whether receipts at `path` would go into the file that the input is read from. `name` is the input's.
#[cfg(not(unix))]
pub(super) fn is_input(path: &Path, name: &str) -> bool {
    path.canonicalize().is_ok_and(|receipts| Path::new(name).canonicalize().is_ok_and(|input| input == receipts))
}

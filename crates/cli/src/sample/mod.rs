//! `courier sample`: realistic events for trials.
//!
//! - The same seed and start give the same bytes, including ids and timestamps.
//! - Each event has a number within its default topic and key, in a top-level field `"sample":{"seq":0}`. Numbers start
//!   at 0 and have no gaps, so a reader can find missing, duplicate and reordered events.

mod data;
mod generator;

use std::io::{self, BufWriter, Write};

use clap::Args;
use clap::builder::PossibleValuesParser;
use jiff::Timestamp;
use kafka_courier_event_model::{BUILT_IN, Event};

pub(crate) use generator::Samples;

use crate::argument::ArgumentError;

/// Size of a write to standard output in bytes.
const CHUNK: usize = 64 * 1024;

/// Print realistic events as NDJSON
#[derive(Args, Clone, Debug)]
pub(crate) struct SampleArgs {
    /// Print this number of events
    #[arg(long, value_name = "N", default_value_t = 10, allow_negative_numbers = true, value_parser = count)]
    pub(crate) count: u64,
    /// Generate the events from this seed: the same seed gives the same events
    #[arg(long, value_name = "S", allow_negative_numbers = true, value_parser = crate::whole_number::<u64>, default_value_t = 1)]
    pub(crate) seed: u64,
    /// Print only events of this type (repeatable)
    #[arg(long = "type", value_name = "TYPE", value_parser = PossibleValuesParser::new(BUILT_IN.iter().map(|b| b.event_type)))]
    pub(crate) types: Vec<String>,
    /// Start at this event time
    ///
    /// The time in the JSON of the first event. The timestamp of a Kafka record is the time of publishing, so retention
    /// treats the events as new.
    #[arg(long, value_name = "RFC3339", default_value = "2025-01-01T00:00:00Z")]
    pub(crate) start: Timestamp,
}

fn count(text: &str) -> Result<u64, ArgumentError> {
    text.parse().map_err(|_| ArgumentError::NotACount)
}

/// Prints the events as NDJSON to standard output. A reader that ends early is not an error.
pub(crate) fn run(args: &SampleArgs) -> io::Result<()> {
    match write(args, BufWriter::with_capacity(CHUNK, io::stdout().lock())) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        result => result,
    }
}

fn write(args: &SampleArgs, mut out: impl Write) -> io::Result<()> {
    let mut line = Vec::new();
    let samples = Samples::new(args.seed, args.start, &args.types);
    for (_, event) in (0..args.count).zip(samples) {
        line.clear();
        event.encode_into(&mut line).map_err(io::Error::other)?;
        line.push(b'\n');
        out.write_all(&line)?;
    }
    out.flush()
}

#[cfg(test)]
mod tests;

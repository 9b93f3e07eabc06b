//! `courier sample`: realistic events to try things out with.
//!
//! - The same seed and start give the same bytes: ids and timestamps too.
//! - Each event has a running number among those of its default topic and key, from 0 and dense, in a top-level field
//!   `"sample":{"seq":0}`: so a reader can check that nothing is missing, doubled or out of order.

mod samples;
mod world;

use std::io::{self, BufWriter, Write};

use clap::Args;
use clap::builder::PossibleValuesParser;
use jiff::Timestamp;
use kafka_courier_event_model::{BUILT_IN, Event};

pub(crate) use samples::Samples;

/// How much is handed to the pipe at once, in bytes.
const CHUNK: usize = 64 * 1024;

/// Prints realistic events as NDJSON, the same for the same seed.
#[derive(Args, Clone, Debug)]
pub(crate) struct SampleArgs {
    /// How many events to print.
    #[arg(long, value_name = "N", default_value_t = 10, allow_negative_numbers = true, value_parser = count)]
    pub(crate) count: u64,
    /// Other seeds give other events, the same seed the same.
    #[arg(long, value_name = "S", value_parser = crate::whole_number::<u64>, default_value_t = 1)]
    pub(crate) seed: u64,
    /// Events of this type only; may be given several times.
    #[arg(long = "type", value_name = "TYPE", value_parser = PossibleValuesParser::new(BUILT_IN.iter().map(|b| b.event_type)))]
    pub(crate) types: Vec<String>,
    /// When the first event happens, as its JSON has it. A record's own timestamp is the time of its publishing, so that
    /// Kafka keeps old events as long as new ones.
    #[arg(long, value_name = "RFC3339", default_value = "2025-01-01T00:00:00Z")]
    pub(crate) start: Timestamp,
}

fn count(text: &str) -> Result<u64, String> {
    text.parse().map_err(|_| "a number of events is 0 or more".to_owned())
}

/// Prints the events as NDJSON on stdout. A reader that goes away early is no error.
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

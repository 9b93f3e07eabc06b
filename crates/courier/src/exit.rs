//! The exit codes, in one place.
//!
//! Rules: numbers are those of BSD's sysexits where it has one for the case, and the shell's for signals.

use std::process::ExitCode;

use kafka_courier::{HealthError, HealthPart};

/// How a command ended.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
#[repr(u8)]
pub(crate) enum Exit {
    /// Everything was done.
    Ok = 0,
    /// Some records failed.
    SomeFailed = 1,
    /// The command line makes no sense.
    Usage = 64,
    /// The input is bad, or not there.
    Data = 65,
    /// No broker could be reached.
    Unreachable = 69,
    /// A file can't be made.
    CantCreate = 73,
    /// Reading or writing failed.
    Io = 74,
    /// Somebody else has what is needed; it is free later.
    Busy = 75,
    /// The brokers refuse us, or are not to be trusted.
    Refused = 77,
    /// The configuration is wrong.
    Config = 78,
    /// Ctrl-C before the input was read to its end, or a second time, before all had its verdict.
    Interrupted = 130,
    /// SIGTERM or SIGHUP, likewise.
    Terminated = 143,
}

/// Why nothing, or no more, could be done: the exit code, and what to say.
#[derive(Debug)]
pub(crate) struct Refusal(pub(crate) Exit, pub(crate) String);

impl From<HealthError> for Refusal {
    fn from(error: HealthError) -> Self {
        match error.is_refusal() {
            true => Self(Exit::Refused, error.to_string()),
            false => {
                let remedy = remedy(error.part());
                Self(Exit::Unreachable, format!("no broker could be reached: {error}{remedy}"))
            }
        }
    }
}

/// What to look at where no broker can be reached.
fn remedy(part: HealthPart) -> &'static str {
    match part {
        HealthPart::Dns | HealthPart::Connect => {
            ": start the broker, or set brokers (KAFKA_BROKERS, --brokers) to an address where one listens"
        }
        HealthPart::ApiVersions => {
            ": check that brokers (KAFKA_BROKERS, --brokers) names a port of Kafka, and that security_protocol fits the port"
        }
        _ => "",
    }
}

/// What `--help` says of them.
pub(crate) const HELP: &str = "\
Exit codes:
  0   everything was done; all was delivered
  1   some events or letters were not delivered, or some letters not imported because they were edited
  64  the command line makes no sense, or two of its files are the same
  65  some input is no event or letter, or the input is not there
  69  no broker could be reached
  73  a file could not be made
  74  reading or writing failed, the receipts included
  75  another process has the dead letters, or sends them again: try later
  77  the brokers refuse us (SASL, or rights: all that failed, failed for that), or are not to be trusted (TLS)
  78  the configuration is wrong, or the topic of --topic does not exist
  130 Ctrl-C before the input was read to its end, or a second time before all had its verdict; of dlq replay the first, too
  143 SIGTERM or SIGHUP, likewise
Where events failed and some input is no event, the code is that of the failures: 1 or 77. A signal's code takes precedence.";

/// What `courier demo --help` says of them.
pub(crate) const DEMO_HELP: &str = "\
Exit codes:
  0   every verdict agrees with the brokers' logs
  1   the ledger does not balance
  64  the command line makes no sense
  74  the cluster inside the process failed";

/// What `courier sample --help` says of them.
pub(crate) const SAMPLE_HELP: &str = "\
Exit codes:
  0   all events were printed, or the reader ended early
  64  the command line makes no sense
  74  standard output could not be written";

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

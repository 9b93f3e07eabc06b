//! The exit codes, and errors that end a command.
//!
//! Rules: codes from 64 to 78 have their meaning in BSD's sysexits.h. 130 and 143 are the shell's codes for signals.

use std::process::ExitCode;

use kafka_courier::{HealthError, HealthPart};

/// The outcome of a command.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
#[repr(u8)]
pub(crate) enum Exit {
    /// Everything was done.
    Ok = 0,
    /// Some records failed, or a spool is damaged.
    SomeFailed = 1,
    /// The command line is invalid.
    Usage = 64,
    /// The input is invalid, or does not exist.
    Data = 65,
    /// No broker could be reached.
    Unreachable = 69,
    /// A file could not be created.
    CantCreate = 73,
    /// Reading or writing failed.
    Io = 74,
    /// Another process holds the dead letters or the spool, or replays dead letters, or events are left in the spool. A later
    /// run may succeed.
    Busy = 75,
    /// The brokers refuse the client, or the client does not trust the brokers.
    Refused = 77,
    /// The configuration is invalid.
    Config = 78,
    /// Ctrl-C before the end of the input, or a second Ctrl-C before every event had its verdict.
    Interrupted = 130,
    /// SIGTERM or SIGHUP, in the same cases.
    Terminated = 143,
}

/// An error that ends a command: the exit code, and the message.
#[derive(Debug)]
pub(crate) struct CommandError(pub(crate) Exit, pub(crate) String);

impl CommandError {
    /// Prints the reason, which is empty if the command has printed it, and returns the exit code.
    pub(crate) fn report(self) -> Exit {
        let Self(exit, why) = self;
        if !why.is_empty() {
            crate::say(&why);
        }
        exit
    }
}

impl From<HealthError> for CommandError {
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

/// Returns the remedy if no broker can be reached.
fn remedy(part: HealthPart) -> &'static str {
    match part {
        HealthPart::Dns | HealthPart::Connect => {
            ": start the broker, or set brokers (KAFKA_BROKERS, --brokers) to the address of a running broker"
        }
        HealthPart::ApiVersions => {
            ": check that brokers (KAFKA_BROKERS, --brokers) names a port of Kafka, and that security_protocol matches the port"
        }
        _ => "",
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

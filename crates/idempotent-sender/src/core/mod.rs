//! The pure core: everything about delivery that can be wrong.
//!
//! Rules: no IO, no clock, no spawn, no chance of its own. It is driven by inputs that carry `now`, and
//! says what to do by actions; so a simulation drives the very code that the shell drives.

mod backoff;
mod cluster;
mod config;
mod connections;
mod effects;
mod error_code;
mod failure;
mod flight;
mod look;
mod metadata;
mod observe;
mod outage;
mod outcome;
mod partition;
mod schedule;
mod sender;
mod timers;
mod topics;
mod types;
mod version;

pub use backoff::Backoff;
pub use config::{Config, ConfigError};
pub(crate) use connections::REFUSED_PAUSE;
pub use effects::Counters;
pub use error_code::ErrorCode;
pub use look::{LogSearch, LoggedBatch, Look, LookAnswer, SearchAnswer, Wanted};
pub use observe::{BrokerView, OutageView, Reachability};
pub use outage::{BrokerNews, Waiting};
pub use outcome::{Outcome, Treatment, classify};
pub use sender::Sender;
pub use types::*;
pub use version::NoCommonVersion;

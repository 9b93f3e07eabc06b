//! The pure core: all decisions about delivery.
//!
//! Rules:
//!  - The core has no IO, reads no clock, spawns no task, and draws random numbers only from its seed.
//!  - Ids, error codes, reasons and the brokers' answers are kafka-client's types. No codec and no connection is here.
//!  - Inputs carry `now`. The core returns actions. A simulation therefore drives the same code as the driver.

mod backoff;
mod cluster;
mod config;
mod connections;
mod effects;
mod failure;
mod flight;
mod lookup;
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

pub use backoff::Backoff;
pub use config::{Config, ConfigError};
pub use effects::Counters;
pub use lookup::{LogSearch, LogSearchTarget, LoggedBatch, SearchAnswer, StateLookup, StateLookupAnswer};
pub use observe::{BrokerView, OutageView, Reachability};
pub use outage::{OutageReport, WaitingRecords};
pub use outcome::{Classification, Treatment, classify};
pub use sender::Sender;
pub use types::*;

//! The pure core: all decisions about delivery.
//!
//! Rules:
//!  - The core has no IO, reads no clock, spawns no task, and draws random numbers only from its seed.
//!  - Ids, error codes, reasons and the brokers' answers are kafka-client's types. No codec and no connection is here.
//!  - Inputs carry `now`. The core returns actions. A simulation therefore drives the same code as the driver.
//!  - A module imports only modules above it in this list, so no two modules import each other:
//!
//! 1. `ids`, `backoff`, `lookup`, `config`, `failure`, `outcome`: plain data
//! 2. `timers`, `types`, `effects`: what the core and its driver exchange
//! 3. `flight`: one batch
//! 4. `partition`: one partition. Its four states are `leader`, `topic`, `retry`, `stamps`. `unknown` holds failed batches
//!    that an answer may still correct
//! 5. `lane`, `topics`: partitions and their connections
//! 6. `outage`, `cluster`: brokers and connections
//! 7. `metadata`, `producer_ids`, `views`: requests, and data for monitoring
//! 8. `sender`: joins all of them

mod backoff;
mod cluster;
mod config;
#[cfg(test)]
mod directions;
mod effects;
mod failure;
mod flight;
mod ids;
mod lane;
mod lookup;
mod metadata;
mod outage;
mod outcome;
mod partition;
mod producer_ids;
mod sender;
mod timers;
mod topics;
mod types;
mod views;

pub use backoff::Backoff;
pub use config::{Config, ConfigError, DoubtPolicy, ID_MEMORY, is_old};
pub use effects::Counters;
pub use failure::{FOLLOWS_UNKNOWN, FailedOutcome, Failure, UNCONFIRMED};
pub use ids::{ConnId, LookupId, MoveId, RequestId};
pub(crate) use lookup::CLOCK_SKEW_MS;
pub use lookup::{LogSearch, LogSearchTarget, LoggedBatch, SearchAnswer, StateLookup, StateLookupAnswer};
pub use outage::{OutageReport, WaitingRecords};
pub use outcome::{Classification, Treatment, classify};
pub use sender::Sender;
pub use types::*;
pub use views::{BrokerView, OutageView, Reachability};

//! The engine of kafka-courier: it accepts events, batches them, hands the batches to the sender, and gives each event its
//! verdict.
//!
//! - [`Engine`] publishes, flushes, checks the cluster and closes.
//! - [`Delivery`] is the future of one verdict, [`Deliveries`] of many.
//! - [`FailureSink`] takes the records that failed for good. The engine knows neither dead letters nor where settings come
//!   from: the crates `kafka-courier-recovery` and `kafka-courier` add both.
//!
//! Applications use the crate `kafka-courier`, which exports what they need.
#![deny(missing_docs)]

mod callbacks;
mod clock;
mod cluster_view;
mod counts;
mod deliveries;
mod delivery;
mod engine;
mod error;
mod failure_sink;
pub mod headers;
mod health;
mod inputs;
mod intake;
mod keyless_partitioner;
mod ledger;
mod memory;
pub mod metrics;
mod offer;
#[cfg(feature = "mock")]
mod promise;
mod publish;
mod publish_batch;
mod publish_waits;
mod record;
mod recovered_keys;
mod request_keys;
mod shared;
#[cfg(all(test, shuttle))]
mod shuttle_tests;
mod spool;
mod spool_host;
mod spool_start;
mod stats;
mod sync;
mod topics;
mod trace;

pub use clock::ClockOf;
pub use deliveries::Deliveries;
pub use delivery::{Delivery, RecordMetadata, Stored, Tag, Token};
pub use engine::{Engine, EngineConfig, SeparateResult, StartError, Unconnected};
pub use error::{DeliveryError, DeliveryErrorKind, Error, PublishError, StoreError};
pub use failure_sink::{FailureSink, Landed, Undelivered};
pub use health::HealthError;
#[cfg(feature = "mock")]
pub use promise::{Promise, Promises};
pub use publish::with_record;
pub use record::ProducerRecord;
pub use recovered_keys::RecoveredKey;
pub use shared::wall_clock_ms;
pub use spool::adopt as adopt_spool;
pub use spool::{
    BatchReadError, InputId, InputItem, OpenSpool, RequestKey, SpoolDamage, SpoolEnds, SpoolFault, SpoolHolder,
    SpoolOpenError, SpoolSettings, SpoolView, SpoolViewError, SpooledInput, StoredPart, StoredPartition, StoredRecord,
    UnfitFileSystem,
};
pub use stats::{BrokerOutage, BrokerStats, SpoolStats, Stats};
pub use trace::{SpanOrigin, TraceContextSource};

#![doc = include_str!("crate_docs.md")]
#![deny(missing_docs)]

#[cfg(doctest)]
#[doc = include_str!("../../../README.md")]
struct Readme;

mod builder;
mod clock;
mod config;
mod dead_letters;
mod deliveries;
mod delivery;
mod error;
pub mod headers;
mod health;
mod intake;
mod keyless_partitioner;
mod ledger;
mod memory;
mod metrics;
#[cfg(feature = "mock")]
mod mock;
mod producer;
mod publish;
mod publish_batch;
mod publish_waits;
mod publisher;
mod record;
mod replay;
mod shared;
#[cfg(all(test, shuttle))]
mod shuttle_tests;
#[cfg(feature = "sink")]
mod sink;
mod stats;
mod sync;
mod topics;
mod trace;
pub mod verify;

pub use builder::{Builder, Setting};
pub use config::{
    Compression, ConfigErrors, ConfigLoader, ConfigWarning, EffectiveOption, Endpoint, KafkaConfig, LoadedConfig,
    OptionDoc, Origin, SaslMechanism, SecurityProtocol, SslRoots,
};
pub use dead_letters::{DeadLetterStats, DeadLetterTopic, DeadLetters, Listed, TopicWarning, UnfitTopic};
pub use deliveries::Deliveries;
pub use delivery::{Delivery, RecordMetadata};
pub use error::{DeliveryError, Error, PublishError};
pub use health::HealthError;
pub use kafka_courier_batcher::Header;
pub use kafka_courier_client::health_part::HealthPart;
pub use kafka_courier_client::security::{TokenError, TokenSource};
#[doc(hidden)] // used by the command `courier`
pub use kafka_courier_client::shown_file;
pub use kafka_courier_client::{ErrorCode, Reason, Secret};
pub use kafka_courier_dlq as dlq;
pub use kafka_courier_event_model as events;
pub use kafka_courier_idempotent_sender::core::{FailedOutcome, Reachability};
pub use metrics::{METRICS, MetricDoc, MetricKind, describe_metrics};
#[cfg(feature = "mock")]
pub use mock::{MockFailure, MockProducer, PublishedEvent, SentRecord};
pub use producer::{CloseReport, ConnectError, KafkaProducer};
pub use publisher::{Answer, EventPublisher};
pub use record::ProducerRecord;
pub use replay::{Doubtful, Replay, ReplayError, ReplayReport};
pub use stats::{BrokerOutage, BrokerStats, Stats};
pub use trace::TraceContextSource;

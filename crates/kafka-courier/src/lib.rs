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
#[doc(inline)]
pub use kafka_courier_batcher::Header;
#[doc(inline)]
pub use kafka_courier_idempotent_sender::Secret;
#[doc(inline)]
pub use kafka_courier_idempotent_sender::core::{ErrorCode, FailedOutcome, Reachability, Reason};
#[doc(inline)]
pub use kafka_courier_idempotent_sender::driver::HealthPart;
#[doc(inline)]
pub use kafka_courier_idempotent_sender::driver::security::{TokenError, TokenSource};
#[doc(hidden)] // used by the command `courier`
pub use kafka_courier_idempotent_sender::shown_file;
pub use metrics::{METRICS, MetricDoc, MetricKind, describe_metrics};
#[cfg(feature = "mock")]
pub use mock::{MockFailure, MockProducer, PublishedEvent, SentRecord};
pub use producer::{CloseReport, ConnectError, KafkaProducer};
pub use publisher::{Answer, EventPublisher};
pub use record::ProducerRecord;
pub use replay::{Doubtful, Replay, ReplayError, ReplayReport};
pub use stats::{BrokerOutage, BrokerStats, Stats};
pub use trace::TraceContextSource;

/// Typed events: the envelope, its builder, built-in and custom types, and the topic of each type.
///
/// An [`EventBuilder`](events::EventBuilder) makes events, [`event_data!`](events::event_data) adds a type in one line,
/// [`AnyEvent`](events::AnyEvent) reads JSON of any type, and a [`TopicMapping`](events::TopicMapping) chooses topics.
/// Every event implements [`Event`](events::Event).
pub mod events {
    #[doc(inline)]
    pub use kafka_courier_event_model::*;
}

/// Dead letters: failed records with their reasons and outcomes, and the stores that keep them.
///
/// A [`Letter`](dlq::Letter) is a failed record. A [`DeadLetterStore`](dlq::DeadLetterStore) keeps letters, in memory
/// ([`MemoryStore`](dlq::MemoryStore)) or on disk ([`FileStore`](dlq::FileStore)). A [`Selection`](dlq::Selection) selects
/// letters. [`KafkaProducer::dead_letters`] reads those of a producer, and [`KafkaProducer::replay`] publishes them again.
pub mod dlq {
    #[doc(inline)]
    pub use kafka_courier_dlq::*;
}

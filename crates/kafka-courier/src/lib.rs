#![doc = include_str!("crate_docs.md")]
#![deny(missing_docs)]

#[cfg(doctest)]
#[doc = include_str!("../../../README.md")]
struct Readme;

mod awaited;
mod builder;
mod config;
mod dead_letters;
mod engine_config;
mod metrics;
#[cfg(feature = "mock")]
mod mock;
mod producer;
mod publish;
mod publisher;
mod request_keys;
pub mod spool;

pub use awaited::{AwaitedDelivery, AwaitedError};
pub use builder::{Builder, Setting};
pub use config::{
    AllowedValues, Compression, ConfigErrors, ConfigLoader, ConfigProblem, ConfigProblemKind, ConfigWarning,
    EffectiveOption, Endpoint, EndpointError, InvalidValue, KafkaConfig, LoadedConfig, OptionDoc, Origin,
    SaslMechanism, SecurityProtocol, SpoolDoubt, SpoolFull, SpoolOldTimestamps, SslRoots,
};
#[doc(inline)]
pub use kafka_courier_batcher::Header;
#[doc(inline)]
pub use kafka_courier_client::health_part::HealthPart;
#[cfg(feature = "tls")]
#[doc(hidden)] // used by the gateway
pub use kafka_courier_client::security::tls_provider;
#[doc(inline)]
pub use kafka_courier_client::security::{TokenError, TokenSource};
#[doc(hidden)] // used by the command `courier`
pub use kafka_courier_client::shown_file;
#[doc(inline)]
pub use kafka_courier_client::{ErrorCode, Reason, Secret};
#[doc(inline)]
pub use kafka_courier_idempotent_sender::core::{FailedOutcome, Reachability};
#[doc(inline)]
pub use kafka_courier_producer::metrics::{MetricDoc, MetricKind};
#[doc(inline)]
pub use kafka_courier_producer::{
    BatchReadError, BrokerOutage, BrokerStats, Deliveries, Delivery, DeliveryError, DeliveryErrorKind, Error,
    HealthError, ProducerRecord, PublishError, RecordMetadata, RequestKey, SpoolFault, SpoolOpenError, SpoolStats,
    Stats, StoreError, Stored, TraceContextSource,
};
#[doc(inline)]
pub use kafka_courier_recovery::{
    CursorError, DeadLetterStats, DeadLetterTopic, DeadLetters, Doubtful, LetterCursor, LetterPage, Listed, Replay,
    ReplayError, ReplayReport, TopicWarning, UnfitTopic, headers, verify,
};
pub use metrics::{METRICS, describe_metrics};
#[cfg(feature = "mock")]
pub use mock::{MockFailure, MockProducer, PublishedEvent, SentRecord};
pub use producer::{CloseReport, ConnectError, KafkaProducer};
pub use publisher::{Answer, EventPublisher};
pub use request_keys::StoredRequestEvent;

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

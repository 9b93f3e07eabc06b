#![doc = include_str!("crate_docs.md")]
#![deny(missing_docs)]

#[cfg(doctest)]
#[doc = include_str!("../../../README.md")]
struct Readme;

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

pub use builder::{Builder, Setting};
pub use config::{
    Compression, ConfigErrors, ConfigLoader, ConfigWarning, EffectiveOption, Endpoint, KafkaConfig, LoadedConfig,
    OptionDoc, Origin, SaslMechanism, SecurityProtocol, SslRoots,
};
pub use kafka_courier_batcher::Header;
pub use kafka_courier_client::health_part::HealthPart;
pub use kafka_courier_client::security::{TokenError, TokenSource};
#[doc(hidden)] // used by the command `courier`
pub use kafka_courier_client::shown_file;
pub use kafka_courier_client::{ErrorCode, Reason, Secret};
pub use kafka_courier_dlq as dlq;
pub use kafka_courier_event_model as events;
pub use kafka_courier_idempotent_sender::core::{FailedOutcome, Reachability};
#[doc(inline)]
pub use kafka_courier_producer::metrics::{MetricDoc, MetricKind};
#[doc(inline)]
pub use kafka_courier_producer::{
    BrokerOutage, BrokerStats, Deliveries, Delivery, DeliveryError, Error, HealthError, ProducerRecord, PublishError,
    RecordMetadata, Stats, TraceContextSource,
};
#[doc(inline)]
pub use kafka_courier_recovery::{
    DeadLetterStats, DeadLetterTopic, DeadLetters, Doubtful, Listed, Replay, ReplayError, ReplayReport, TopicEngine,
    TopicOptions, TopicWarning, UnfitTopic, headers, verify,
};
pub use metrics::{METRICS, describe_metrics};
#[cfg(feature = "mock")]
pub use mock::{MockFailure, MockProducer, PublishedEvent, SentRecord};
pub use producer::{CloseReport, ConnectError, KafkaProducer};
pub use publisher::{Answer, EventPublisher};

//! The settings of the engine, made from the options.

use std::time::Duration;

use kafka_courier_batcher::{Compression as Codec, Limits};
use kafka_courier_client::config::ClientConfig;
use kafka_courier_client::security::{ConnectionSecurity, TokenSource};
use kafka_courier_idempotent_sender::driver::DriverConfig;
use kafka_courier_producer::{Engine, EngineConfig, SpanOrigin, TraceContextSource};
use kafka_courier_recovery::{DeadLetterTopic, TopicEngine, TopicOptions};

use crate::config::{Compression, ConfigErrors, KafkaConfig};
use crate::producer::{security_and_runtime, start_engine};

/// The longest linger of dead letters in a topic.
const TOPIC_LINGER: Duration = Duration::from_millis(5);

impl KafkaConfig {
    /// Returns the settings of an engine. `is_metered` says whether the metrics count its events.
    pub(crate) fn engine(
        &self,
        security: ConnectionSecurity,
        trace: Option<TraceContextSource>,
        is_metered: bool,
    ) -> Result<EngineConfig, ConfigErrors> {
        let mapping = self.mapping()?;
        let server = self.brokers.first().map(|broker| (broker.host.clone(), broker.port));
        let client = ClientConfig {
            bootstrap: self.brokers.iter().map(|broker| (broker.host.clone(), broker.port)).collect(),
            client_id: self.client_id.as_str().into(),
            connect_timeout: self.connect_timeout,
            request_timeout: self.request_timeout,
            retry_backoff: self.retry_backoff,
            retry_backoff_max: self.retry_backoff_max,
            security,
            default_broker: self.default_broker(),
        };
        let driver = DriverConfig { core: self.core(), client };
        Ok(EngineConfig {
            driver,
            limits: Limits {
                max_records: self.flush_messages,
                max_bytes: self.flush_bytes,
                linger: self.flush_timeout,
            },
            compression: match self.compression {
                Compression::None => Codec::None,
                Compression::Snappy => Codec::Snappy,
            },
            buffer_memory: self.buffer_memory,
            max_block: self.max_block,
            expedite: self.expedite,
            mapping,
            origin: SpanOrigin::new(self.client_id.clone(), server),
            trace,
            is_metered,
            spool: None,
        })
    }
}

/// A dead-letter topic is written by an engine of its own, which gives up quickly and keeps no dead letters.
impl TopicEngine for KafkaConfig {
    type Error = ConfigErrors;

    fn start(&self, tokens: Option<TokenSource>) -> Result<(Engine, TopicOptions), ConfigErrors> {
        let timeout = DeadLetterTopic::DELIVERY_TIMEOUT;
        let mut own = self.clone();
        (own.dlq_topic, own.dlq_file) = (String::new(), String::new());
        own.flush_timeout = own.flush_timeout.min(TOPIC_LINGER);
        own.delivery_timeout = timeout.max(own.flush_timeout);
        own.metadata_timeout = own.metadata_timeout.min(timeout);
        own.max_block = own.max_block.min(timeout);
        let options = TopicOptions {
            client_id: own.client_id.clone(),
            max_age: own.dlq_max_age,
            check_timeout: own.metadata_timeout,
            logs_check: false,
        };
        let (security, runtime) = security_and_runtime(&own, tokens, Vec::new())?;
        let engine = start_engine(own.engine(security, None, false)?, None, &runtime)?;
        Ok((engine, options))
    }
}

//! Writes records to the topic through the engine.
//!
//! Rule: each record has its own outcome, in the order of the records.

use kafka_courier_client::ErrorCode;
use kafka_courier_dlq::{Bytes, Header};
use kafka_courier_producer::{Delivery, DeliveryError, Engine, ProducerRecord, PublishError};

use crate::headers::borrowed_headers;

/// A record to write.
#[derive(Clone, Debug)]
pub(crate) struct OutgoingRecord {
    /// The partition, if the record must follow earlier records of its letter or claim.
    pub(crate) partition: Option<i32>,
    pub(crate) key: Option<Bytes>,
    pub(crate) value: Option<Bytes>,
    pub(crate) headers: Vec<Header>,
}

/// The outcome of writing a record.
#[derive(Clone, Debug)]
pub(crate) enum WriteOutcome {
    /// The record is in the log: its partition, and its offset if known.
    Written(i32, Option<i64>),
    /// The record is not in the log, or its outcome is unknown.
    Failed(WriteFailure),
}

/// The failure of a write.
#[derive(Clone, Debug, thiserror::Error)]
pub(crate) enum WriteFailure {
    /// The producer refused the record.
    #[error(transparent)]
    Publish(#[from] PublishError),
    /// The record was not delivered, or its outcome is unknown.
    #[error(transparent)]
    Delivery(#[from] DeliveryError),
}

impl WriteFailure {
    /// Returns whether the topic currently accepts no record at all.
    pub(crate) fn is_outage(&self) -> bool {
        match self {
            Self::Publish(error) => !matches!(error, PublishError::TooLarge { .. }),
            Self::Delivery(error) => error.code() != Some(ErrorCode::MESSAGE_TOO_LARGE),
        }
    }
}

/// Writes records, and waits for their outcomes.
pub(super) async fn write_each(engine: &Engine, topic: &str, records: &[OutgoingRecord]) -> Vec<WriteOutcome> {
    let mut sent = Vec::with_capacity(records.len());
    for record in records {
        sent.push(send(engine, topic, record).await);
    }
    engine.seal_open();
    let mut written = Vec::with_capacity(sent.len());
    for sent in sent {
        written.push(write_outcome(sent).await);
    }
    written
}

/// Writes one record, and waits for its outcome.
pub(super) async fn write_one(engine: &Engine, topic: &str, record: &OutgoingRecord) -> WriteOutcome {
    let sent = send(engine, topic, record).await;
    engine.seal_open();
    write_outcome(sent).await
}

async fn send(engine: &Engine, topic: &str, record: &OutgoingRecord) -> Result<Delivery, PublishError> {
    let record = ProducerRecord {
        topic,
        partition: record.partition,
        key: record.key.as_deref(),
        value: record.value.as_deref(),
        headers: &borrowed_headers(&record.headers),
        timestamp: None,
    };
    engine.send(&record).await
}

async fn write_outcome(sent: Result<Delivery, PublishError>) -> WriteOutcome {
    match sent {
        Err(error) => WriteOutcome::Failed(error.into()),
        Ok(delivery) => match delivery.await {
            Ok(metadata) => WriteOutcome::Written(metadata.partition, metadata.offset),
            Err(error) => WriteOutcome::Failed(error.into()),
        },
    }
}

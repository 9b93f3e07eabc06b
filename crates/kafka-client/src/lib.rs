//! A Kafka client without a sender: connections, the requests of producers and log readers, and their answers as data.
//! It runs on rskafka's Messenger.
//!
//! | module | holds |
//! |---|---|
//! | [`config`] | the settings of connections |
//! | [`security`] | TLS and SASL |
//! | [`connection`] | one connection: name lookup, TCP, TLS, ApiVersions, SASL |
//! | [`refusals`] | the pause after a broker refused the client |
//! | [`control`] | requests that any broker can answer: metadata, producer ids, topic settings |
//! | [`health_check`], [`health_part`] | the steps of a health check, and how far a check has come |
//! | [`leader_connection`] | questions to the leader of one partition: producer states, offsets, log |
//! | [`log_client`] | reads logs and appends single batches, with retries until a deadline |
//! | this root | ids, error codes, reasons, secrets, and the data of Produce and Metadata |
//!
//! Private: `wire` (a file for each message), `stream` (bytes and frames), `versions` (versions in common).
//!
//! Rules:
//! - Answers are returned as data. This crate has no verdicts, and knows no sequence numbers.
//! - A module imports only modules below it: ids, codes and reasons; `wire`; `stream` and `versions`; `security`;
//!   `connection`; `control`; the health check, the leader connection and the log client.
#![deny(missing_docs)]

pub mod config;
pub mod connection;
pub mod control;
mod error_code;
pub mod health_check;
pub mod health_part;
mod ids;
pub mod leader_connection;
pub mod log_client;
mod no_common_version;
mod reason;
pub mod refusals;
mod secret;
pub mod security;
mod stream;
mod versions;
mod wire;

pub use error_code::ErrorCode;
pub use ids::{BrokerAddress, BrokerId, PartitionId, TopicId, TopicUuid};
pub use no_common_version::NoCommonVersion;
pub use reason::Reason;
pub use secret::{HIDDEN, Secret, may_be_content, shown_file, shown_path};
pub use wire::metadata::{ClusterMetadata, PartitionMetadata, TopicMetadata};
pub use wire::produce::{PartAnswer, ProduceAnswer, ProducePart, RejectedRecord};
pub use wire::{WireError, decode_anything};

//! Typed business events: envelope, builder, topic mapping, JSON. No IO, no Kafka, no async.
#![deny(missing_docs)]

//! The harness itself, against Kafka's own producer: what the other tests rely on must be able to see.

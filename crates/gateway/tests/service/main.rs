//! The service on a cluster inside the process, over real sockets.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod acks;
mod arbitrary;
mod clients;
mod document;
mod drain;
mod events;
#[path = "../../../kafka-courier/tests/dead_letters/gated_store.rs"]
mod gated_store;
mod keys;
mod ledger;
mod limits;
mod management;
mod operator;
mod rates;
mod records;
mod slow_letters;
mod stored_keys;
mod stream;
mod support;
mod tls;

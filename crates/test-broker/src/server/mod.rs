//! Sockets and tasks: what moves requests to the APIs and answers back.

mod connection;
mod frames;
mod listener;

pub(crate) use listener::{Endpoint, Running};

//! The sockets and tasks that carry requests to the APIs and answers back.

mod connection;
mod frames;
mod listener;

pub(crate) use listener::{BrokerTasks, ReservedAddress};

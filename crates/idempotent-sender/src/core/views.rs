//! Views of the core for monitoring.
//!
//! Rules:
//!  - A view changes nothing.
//!  - A view does not depend on the time of the call.

use std::time::Instant;

use kafka_courier_client::BrokerAddress;

use super::outage::WaitingRecords;

/// The state of the connections to a broker.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum Reachability {
    /// There is no connection: none was needed yet, or the last one was closed because it was idle.
    Idle,
    /// The first connection is being opened.
    Connecting,
    /// A connection is open.
    Connected,
    /// The last connection was lost or could not be opened, or the broker has an outage.
    Unreachable,
}

impl Reachability {
    /// Returns `idle`, `connecting`, `connected` or `unreachable`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::Connecting => "connecting",
            Self::Connected => "connected",
            Self::Unreachable => "unreachable",
        }
    }
}

/// A broker and its connections, without the connection for requests that any broker can answer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BrokerView {
    /// The broker and its address.
    pub address: BrokerAddress,
    /// The state of the connections.
    pub reachability: Reachability,
    /// Open connections.
    pub open: u32,
    /// Connections that are being opened.
    pub opening: u32,
    /// The outage, if there is one.
    pub outage: Option<OutageView>,
}

/// The outage of a broker.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct OutageView {
    /// The start of the outage.
    pub since: Instant,
    /// The records that wait for the broker.
    pub waiting: WaitingRecords,
}

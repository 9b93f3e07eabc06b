//! The settings of connections to a cluster.
//!
//! Rule: plain data. The layer that reads settings has checked their bounds.

use std::sync::Arc;
use std::time::Duration;

use crate::security::ConnectionSecurity;

/// Host and port of a broker, from the configuration or from metadata.
pub type BrokerEndpoint = (Arc<str>, u16);

/// The settings of connections to a cluster, and of the requests that any broker can answer.
#[derive(Clone, Debug)]
pub struct ClientConfig {
    /// The bootstrap brokers.
    pub bootstrap: Vec<BrokerEndpoint>,
    /// The client id, sent with each request.
    pub client_id: Arc<str>,
    /// The time limit for opening a connection, over all addresses of a name.
    pub connect_timeout: Duration,
    /// The time limit of one answer.
    pub request_timeout: Duration,
    /// The first pause before a request is retried. It doubles with each failure.
    pub retry_backoff: Duration,
    /// The longest pause before a request is retried.
    pub retry_backoff_max: Duration,
    /// The security of connections.
    pub security: ConnectionSecurity,
    /// The broker that is dialed because none was configured. Errors mention that it is the default.
    pub default_broker: Option<BrokerEndpoint>,
}

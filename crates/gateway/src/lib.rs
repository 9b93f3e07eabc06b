//! Events over HTTP: the service behind `courier serve`.
//!
//! - [`shapes`] is pure: bytes in, records out; verdicts in, status and body out.
//! - [`Gateway`] answers requests with events. An application may call it from its own server.
//! - [`router`] returns the same as a service of hyper, and of tower with the feature `tower`.
//! - [`GatewayServer`] is the whole service: two listeners, probes, metrics and an orderly end.
//!
//! The options are in [`options`], the interface is described in docs/HTTP.md.
#![deny(missing_docs)]

mod limits;
pub mod options;
mod server;
pub mod shapes;

pub use options::{Dedupe, GatewayConfig, GatewayOption, MANAGEMENT_CONNECTIONS, OptionError, OptionGroup};
pub use server::metrics::MetricsText;
pub use server::{
    AnswerBody, AnswerFuture, DrainReport, Gateway, GatewayServer, GatewayService, ResultsUnread, ServeError, router,
};

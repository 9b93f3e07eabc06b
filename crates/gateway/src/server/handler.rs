//! [`Handler`], which answers the requests of a listener.

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::{Request, Response};

use super::gateway::Gateway;
use super::management::Management;

/// The answers of a listener.
#[derive(Clone, Debug)]
pub(super) enum Handler {
    Events(Gateway),
    Management(Management),
}

impl Handler {
    pub(super) async fn answer(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        match self {
            Self::Events(gateway) => gateway.answer(request).await,
            Self::Management(management) => management.answer(&request),
        }
    }
}

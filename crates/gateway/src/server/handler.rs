//! [`Handler`], which answers the requests of a listener.

use hyper::body::Incoming;
use hyper::{Request, Response};

use super::Phase;
use super::answer_body::AnswerBody;
use super::gateway::Gateway;
use super::management::Management;

/// The answers of a listener.
#[derive(Clone, Debug)]
pub(super) enum Handler {
    Events(Gateway),
    Management(Management),
}

impl Handler {
    /// Returns the phase in which connections end. Probes are answered until the producer is closed.
    pub(super) fn closes_at(&self) -> Phase {
        match self {
            Self::Events(_) => Phase::Closing,
            Self::Management(_) => Phase::Ended,
        }
    }

    pub(super) async fn answer(&self, request: Request<Incoming>) -> Response<AnswerBody> {
        match self {
            Self::Events(gateway) => gateway.answer_own(request).await,
            Self::Management(management) => management.answer(request).await.map(AnswerBody::whole),
        }
    }
}

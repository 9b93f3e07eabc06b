//! [`GatewayService`], the routes for events as a service of an application's own server.

use std::convert::Infallible;
use std::fmt::Display;
use std::pin::Pin;

use bytes::Bytes;
use hyper::body::Body;
use hyper::{Request, Response};
use kafka_courier::{KafkaConfig, KafkaProducer};

use super::answer_body::AnswerBody;
use super::{Gateway, ServeError};
use crate::options::GatewayConfig;

/// The routes for events as a service: hyper's `Service`, and with the feature `tower` that of tower. Clones share one gateway.
///
/// A route that it does not have gets 404. Give it the requests below `/v1`.
#[derive(Clone, Debug)]
pub struct GatewayService(Gateway);

/// The future of an answer.
pub type AnswerFuture = Pin<Box<dyn Future<Output = Result<Response<AnswerBody>, Infallible>> + Send>>;

/// Returns the routes for events as a service, for a producer that was built with `kafka`. The application has the listener, TLS and
/// the limits of connections. The clients of `tokens_file`, their rates, and the limits of bodies apply.
///
/// `examples/own_server.rs` serves it with hyper.
///
/// ```
/// # use kafka_courier::{KafkaConfig, KafkaProducer};
/// # use kafka_courier_gateway::{GatewayConfig, router};
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let kafka = KafkaConfig::default();
/// let producer = KafkaProducer::build(kafka.clone())?;
/// let service = router(producer, &kafka, GatewayConfig::default())?;
/// // hyper_util::server::conn::auto::Builder::new(executor).serve_connection(io, service)
/// # drop(service);
/// # Ok(())
/// # }
/// ```
///
/// # Errors
///
/// [`ServeError`] if the options are invalid, or `tokens_file` is unreadable.
pub fn router(
    producer: KafkaProducer,
    kafka: &KafkaConfig,
    config: GatewayConfig,
) -> Result<GatewayService, ServeError> {
    config.validate().map_err(ServeError::Options)?;
    Gateway::new(producer, kafka, config).map(GatewayService)
}

impl GatewayService {
    /// Returns the gateway.
    pub fn gateway(&self) -> &Gateway {
        &self.0
    }

    fn answer<B>(&self, request: Request<B>) -> AnswerFuture
    where
        B: Body<Data = Bytes> + Unpin + Send + 'static,
        B::Error: Display + Send,
    {
        let gateway = self.0.clone();
        Box::pin(async move { Ok(gateway.answer(request).await) })
    }
}

impl<B> hyper::service::Service<Request<B>> for GatewayService
where
    B: Body<Data = Bytes> + Unpin + Send + 'static,
    B::Error: Display + Send,
{
    type Response = Response<AnswerBody>;
    type Error = Infallible;
    type Future = AnswerFuture;

    fn call(&self, request: Request<B>) -> AnswerFuture {
        self.answer(request)
    }
}

#[cfg(feature = "tower")]
impl<B> tower_service::Service<Request<B>> for GatewayService
where
    B: Body<Data = Bytes> + Unpin + Send + 'static,
    B::Error: Display + Send,
{
    type Response = Response<AnswerBody>;
    type Error = Infallible;
    type Future = AnswerFuture;

    fn poll_ready(&mut self, _: &mut std::task::Context<'_>) -> std::task::Poll<Result<(), Infallible>> {
        std::task::Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> AnswerFuture {
        self.answer(request)
    }
}

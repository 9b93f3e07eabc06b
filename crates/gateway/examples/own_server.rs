//! Events over HTTP in an application's own server, beside its own routes.
//!
//! Start it with `KAFKA_BROKERS=localhost:9092 cargo run -p kafka-courier-gateway --example own_server`.

use std::convert::Infallible;
use std::error::Error;

use http_body_util::{BodyExt, Either, Full};
use hyper::body::{Bytes, Incoming};
use hyper::service::{Service, service_fn};
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use kafka_courier::{ConfigLoader, KafkaProducer};
use kafka_courier_gateway::{GatewayConfig, GatewayService, router};
use tokio::net::TcpListener;

type BoxError = Box<dyn Error + Send + Sync>;
type OwnBody = Either<http_body_util::combinators::BoxBody<Bytes, BoxError>, Full<Bytes>>;

/// Answers a route of the application, and leaves the others to the gateway.
async fn answer(events: GatewayService, request: Request<Incoming>) -> Result<Response<OwnBody>, Infallible> {
    if request.uri().path() == "/hello" {
        return Ok(Response::new(Either::Right(Full::new(Bytes::from_static(b"hello\n")))));
    }
    let response = Service::call(&events, request).await?;
    Ok(response.map(|body| Either::Left(body.map_err(BoxError::from).boxed())))
}

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let kafka = ConfigLoader::new().env().load()?.config;
    let producer = KafkaProducer::build(kafka.clone())?;
    let events = router(producer, &kafka, GatewayConfig::default())?;
    let listener = TcpListener::bind("127.0.0.1:8080").await?;
    loop {
        let (stream, _) = listener.accept().await?;
        let events = events.clone();
        tokio::spawn(async move {
            let service = service_fn(move |request| answer(events.clone(), request));
            // A client that hangs up ends only its own connection.
            let _ = Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

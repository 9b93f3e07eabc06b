//! An HTTP service that publishes `api.request` for each request, and `api.error` for each failed request.
//!
//! Rule: a request never waits for Kafka. The service drops and counts an event that finds no room, and the client
//! still receives its response.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::Response;
use axum::routing::get;
use kafka_courier::events::{ApiError, ApiRequest, Event, EventBuilder, Timestamp};
use kafka_courier::{EventPublisher, KafkaProducer};
use kafka_courier_examples::Failure;
use tower::ServiceExt;

/// State of the middleware. The publisher is a trait object, so that tests can use a mock.
#[derive(Clone)]
struct Gateway {
    publisher: Arc<dyn EventPublisher>,
    dropped: Arc<AtomicU64>,
}

impl Gateway {
    fn publish(&self, event: &dyn Event) {
        match self.publisher.try_publish(event) {
            Ok(delivery) => delivery.detach(),
            Err(error) => {
                self.dropped.fetch_add(1, Ordering::Relaxed);
                eprintln!("{} was not published: {error}", event.event_type());
            }
        }
    }
}

fn text(headers: &HeaderMap, name: &str) -> Option<String> {
    headers.get(name)?.to_str().ok().map(str::to_owned)
}

/// Publishes an event for each request, whatever the response.
async fn publish_requests(State(gateway): State<Gateway>, request: Request, next: Next) -> Response {
    let (began, request_time) = (Instant::now(), Timestamp::now());
    let (method, path) = (request.method().to_string(), request.uri().path().to_owned());
    let request_id = text(request.headers(), "x-request-id").unwrap_or_else(|| "none".to_owned());
    let user_id = text(request.headers(), "x-user-id");
    let response = next.run(request).await;

    let status = response.status();
    let builder = EventBuilder::new("gateway", "1.0").with_correlation_id(request_id.as_str());
    if status.is_server_error() {
        gateway.publish(&builder.api_error(ApiError {
            request_id: request_id.clone(),
            method: method.clone(),
            path: path.clone(),
            status_code: status.as_u16(),
            error_type: "server_error".into(),
            error_message: Some(status.to_string()),
            error_time: request_time,
            ..Default::default()
        }));
    }
    gateway.publish(&builder.api_request(ApiRequest {
        request_id,
        user_id,
        method,
        path,
        status_code: status.as_u16(),
        duration: began.elapsed(),
        request_time,
        ..Default::default()
    }));
    response
}

fn app(gateway: Gateway) -> Router {
    Router::new()
        .route("/hello", get(|| async { "hello" }))
        .route("/broken", get(|| async { StatusCode::INTERNAL_SERVER_ERROR }))
        .layer(from_fn_with_state(gateway, publish_requests))
}

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let kafka = kafka_courier_examples::kafka().await?;
    let producer = KafkaProducer::connect(kafka.config()).await?;
    // Load the topics' metadata first, so that the first event needs no waiting.
    producer.health_check_topics(&["api-events", "error-events"], Duration::from_secs(10)).await?;

    let gateway = Gateway { publisher: Arc::new(producer.clone()), dropped: Arc::default() };
    let app = app(gateway.clone());
    // A service would call `axum::serve(listener, app)` here.
    for (path, status) in [("/hello", 200), ("/hello", 200), ("/nowhere", 404), ("/broken", 500)] {
        let request = Request::get(path).header("x-request-id", "r-1").body(Body::empty())?;
        assert_eq!(app.clone().oneshot(request).await?.status(), status);
    }
    let report = producer.close(Duration::from_secs(10)).await;
    assert_eq!((report.delivered, gateway.dropped.load(Ordering::Relaxed)), (4 + 1, 0));
    println!("{} events for 4 requests", report.delivered);
    Ok(())
}

#[test]
fn the_gateway_runs() {
    main().unwrap();
}

#[tokio::test]
async fn gateway_answers_without_kafka() {
    use kafka_courier::{MockFailure, MockProducer, PublishError};
    let mock = MockProducer::new();
    let gateway = Gateway { publisher: Arc::new(mock.clone()), dropped: Arc::default() };
    mock.fail_next(MockFailure::Refuse(PublishError::BufferFull { needed: 1, waited: Duration::ZERO }));
    for _ in 0..2 {
        let request = Request::get("/hello").header("x-user-id", "u-1").body(Body::empty()).unwrap();
        assert_eq!(app(gateway.clone()).oneshot(request).await.unwrap().status(), 200);
    }
    assert_eq!((gateway.dropped.load(Ordering::Relaxed), mock.published().len()), (1, 1));
    assert!(mock.published()[0].json.contains("\"user_id\":\"u-1\""));
}

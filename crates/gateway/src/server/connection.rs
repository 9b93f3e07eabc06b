//! One connection: HTTP/1.1 or HTTP/2, with its deadlines.

use std::convert::Infallible;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use hyper::Request;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::watch;
use tokio::time::Sleep;

use super::handler::Handler;
use super::request_guard::RequestGuard;
use super::watched::{SharedClock, Watched};
use super::{Phase, reached};
use crate::limits::connection_clock::ConnectionClock;
use crate::options::GatewayConfig;
use crate::shapes::certificate::CertificateNames;

/// The maximum number of headers of an HTTP/1.1 request.
const MAX_HEADERS: usize = 100;
/// Bytes of a body that a client may send before the service reads them.
const STREAM_WINDOW: u32 = 256 << 10;
const CONNECTION_WINDOW: u32 = 1 << 20;

/// Serves one connection until it ends, its time is over, or the service ends. `client` has the names in the client's
/// certificate.
pub(super) async fn serve<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
    stream: S,
    client: Option<Arc<CertificateNames>>,
    handler: Handler,
    config: Arc<GatewayConfig>,
    mut phase: watch::Receiver<Phase>,
) {
    let clock = ConnectionClock::new(Instant::now(), config.idle_timeout, config.head_timeout);
    let clock: SharedClock = Arc::new(Mutex::new(clock));
    let io = TokioIo::new(Watched::new(stream, clock.clone()));
    let closes_at = handler.closes_at();
    let service = service_fn(|mut request: Request<Incoming>| {
        client.iter().for_each(|names| _ = request.extensions_mut().insert(names.clone()));
        let guard = Arc::new(RequestGuard::new(&clock));
        request.extensions_mut().insert(guard.clone());
        let handler = handler.clone();
        async move {
            let response = handler.answer(request).await;
            drop(guard);
            Ok::<_, Infallible>(response)
        }
    });
    let builder = builder(&config);
    let mut connection = pin!(builder.serve_connection(io, service));
    let mut overdue = Overdue::new(&clock);
    let mut is_closing = false;
    loop {
        tokio::select! {
            biased;
            served = connection.as_mut() => {
                if let Err(error) = served {
                    tracing::debug!(%error, "connection ended");
                }
                return;
            }
            () = &mut overdue => {
                tracing::debug!("connection timed out");
                return;
            }
            () = reached(&mut phase, closes_at), if !is_closing => {
                is_closing = true;
                connection.as_mut().graceful_shutdown();
            }
        }
    }
}

fn builder(config: &GatewayConfig) -> Builder<TokioExecutor> {
    let mut builder = Builder::new(TokioExecutor::new());
    let head = usize::try_from(config.max_head_bytes).unwrap_or(usize::MAX);
    builder
        .http1()
        .timer(TokioTimer::new())
        // The connection's own clock has the deadline of the head.
        .header_read_timeout(None)
        .max_headers(MAX_HEADERS)
        // Without `pipeline_flush`, which would keep back the answer 431 while unread bytes wait.
        .max_buf_size(head);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_header_list_size(config.max_head_bytes)
        .max_concurrent_streams(config.max_streams)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW);
    builder
}

/// The future that the time of a connection is over. It looks at the clock again whenever its task wakes.
struct Overdue {
    clock: SharedClock,
    sleep: Pin<Box<Sleep>>,
}

impl Overdue {
    fn new(clock: &SharedClock) -> Self {
        let deadline = clock.lock().deadline().unwrap_or_else(Instant::now);
        Self { clock: clock.clone(), sleep: Box::pin(tokio::time::sleep_until(deadline.into())) }
    }
}

impl Future for Overdue {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let Some(deadline) = self.clock.lock().deadline() else { return Poll::Pending };
        if self.sleep.deadline() != deadline.into() {
            self.sleep.as_mut().reset(deadline.into());
        }
        self.sleep.as_mut().poll(cx)
    }
}

//! Reads bodies, within their limits.

use std::fmt::Display;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::Body;

use super::head::{Head, too_large};
use crate::limits::body_pace::BodyPace;
use crate::limits::budget::{Budget, Share};
use crate::limits::gunzip::Gunzip;
use crate::options::GatewayConfig;
use crate::shapes::content::Encoding;
use crate::shapes::failure::Failure;
use crate::shapes::problem::Problem;

/// The bounds of a rest that is dropped.
const MAX_DISCARDED: usize = 1 << 20;
const DISCARD_TIMEOUT: Duration = Duration::from_millis(500);

/// Reads the parts of a body, decompressed.
pub(super) struct BodyReader<B> {
    body: B,
    pace: BodyPace,
    gunzip: Option<Gunzip>,
    /// Compressed bytes that are not decompressed yet.
    compressed: Bytes,
    /// The bytes that arrived.
    arrived: usize,
    is_ended: bool,
}

impl<B: Body<Data = Bytes> + Unpin> BodyReader<B>
where
    B::Error: Display,
{
    pub(super) fn new(body: B, encoding: Encoding, config: &GatewayConfig) -> Self {
        let pace = BodyPace::new(Instant::now(), config.head_timeout, config.min_body_rate);
        let gunzip = (encoding == Encoding::Gzip).then(Gunzip::new);
        Self { body, pace, gunzip, compressed: Bytes::new(), arrived: 0, is_ended: false }
    }

    /// Bounds the time of the whole body.
    fn within(self, longest: Duration) -> Self {
        Self { pace: self.pace.within(longest), ..self }
    }

    /// Notes that the reader itself paused.
    pub(super) fn paused(&mut self, time: Duration) {
        self.pace.paused(time);
    }

    /// Returns the next part, or `None` at the end. A part may be empty.
    pub(super) async fn next(&mut self) -> Result<Option<Bytes>, Failure> {
        let not_gzip = |error: std::io::Error| {
            Failure::new(Problem::NotGzip, format!("content-encoding is gzip, and the body is not: {error}"))
        };
        let step = Gunzip::steps(&self.compressed).next().map_or(0, <[u8]>::len);
        if let Some(gunzip) = self.gunzip.as_mut().filter(|_| step > 0) {
            // A step takes about a millisecond, and other requests of this thread wait.
            tokio::task::yield_now().await;
            let step = self.compressed.split_to(step);
            return gunzip.push(&step).map(|part| Some(part.into())).map_err(not_gzip);
        }
        if self.is_ended {
            return Ok(None);
        }
        match self.arriving().await? {
            Some(part) if self.gunzip.is_some() => {
                self.compressed = part;
                Ok(Some(Bytes::new()))
            }
            Some(part) => Ok(Some(part)),
            None => {
                self.is_ended = true;
                let last = self.gunzip.as_mut().map(|gunzip| gunzip.end().map_err(not_gzip)).transpose()?;
                Ok(last.filter(|last| !last.is_empty()).map(Bytes::from))
            }
        }
    }

    /// Waits for the next bytes of the body.
    async fn arriving(&mut self) -> Result<Option<Bytes>, Failure> {
        let frame = match self.pace.deadline() {
            None => self.body.frame().await,
            Some(deadline) => match tokio::time::timeout_at(deadline.into(), self.body.frame()).await {
                Ok(frame) => frame,
                Err(_) => {
                    return Err(Failure::new(
                        Problem::TooSlow,
                        "the body arrives too slowly (min_body_rate, body_timeout)",
                    ));
                }
            },
        };
        match frame {
            None => Ok(None),
            Some(Err(error)) => Err(Failure::new(Problem::BadRequest, format!("the body ended early: {error}"))),
            Some(Ok(frame)) => {
                // Trailers have no data.
                let part = frame.into_data().unwrap_or_default();
                self.pace.read(part.len(), Instant::now());
                self.arrived += part.len();
                Ok(Some(part))
            }
        }
    }
}

/// Reads a whole body. The share of memory counts until it is dropped.
pub(super) async fn read_whole<B: Body<Data = Bytes> + Unpin>(
    body: B,
    head: &Head,
    config: &GatewayConfig,
    budget: &Budget,
) -> Result<(Vec<u8>, Share), Failure>
where
    B::Error: Display,
{
    let expected = head.length.unwrap_or(0);
    if !budget.has_room(expected) {
        return Err(bodies_full());
    }
    let mut share = budget.empty_share();
    let mut reader = BodyReader::new(body, head.encoding, config).within(config.body_timeout);
    let max = match head.encoding {
        Encoding::Identity => config.max_body_bytes,
        Encoding::Gzip => config.max_decompressed_bytes,
    };
    let mut whole = Vec::new();
    while let Some(part) = reader.next().await? {
        if reader.arrived > config.max_body_bytes {
            return Err(too_large(config.max_body_bytes));
        }
        if part.len() > max - whole.len() {
            let why = format!("the body has more than {max} bytes after decompression (max_decompressed_bytes)");
            return Err(Failure::new(Problem::BodyTooLarge, why));
        }
        let needed = whole.len() + part.len();
        // The buffer doubles, and never grows beyond the longest body.
        let capacity = if needed > whole.capacity() { (2 * needed).min(max).max(needed) } else { whole.capacity() };
        if !share.grow_to(capacity) {
            return Err(bodies_full());
        }
        whole.reserve_exact(capacity - whole.len());
        whole.extend_from_slice(&part);
    }
    Ok((whole, share))
}

/// Reads the rest of a body and drops it, within bounds. A connection that is closed with unread bytes is reset, and the client
/// might never see the answer.
pub(super) async fn discard<B: Body<Data = Bytes> + Unpin>(body: &mut B) {
    let discarded = async {
        let mut bytes = 0;
        while let Some(Ok(frame)) = body.frame().await {
            bytes += frame.data_ref().map_or(0, Bytes::len);
            if bytes > MAX_DISCARDED {
                return;
            }
        }
    };
    // A body that takes longer is cut off with its connection.
    let _ = tokio::time::timeout(DISCARD_TIMEOUT, discarded).await;
}

/// Returns the failure of a request whose body has no room.
pub(super) fn bodies_full() -> Failure {
    Failure::new(Problem::BodiesFull, "the bodies of other requests fill max_inflight_bytes: try again later")
}

//! Reading frames: a length of four bytes, and as many bytes.
//!
//! Rules: memory grows with the bytes that come, never with a length that is only claimed; all requests together are
//! bounded, and a reader waits for room as a broker with `queued.max.request.bytes` does.

use std::io;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::sync::OwnedSemaphorePermit;

use crate::shared::Shared;

/// Requests up to this need no room of their own: the number of connections bounds them.
const SMALL: usize = 4 << 10;
/// How much a buffer grows at once.
const STEP: usize = 64 << 10;

/// A request as it came, and the room that it takes.
pub(crate) struct Frame {
    pub(crate) bytes: Bytes,
    _room: Option<OwnedSemaphorePermit>,
}

/// Reads the next frame. `None`: the other side has ended the connection between two frames.
pub(crate) async fn read_frame(stream: &mut (impl AsyncRead + Unpin), shared: &Shared) -> io::Result<Option<Frame>> {
    let mut length = [0; 4];
    if stream.read(&mut length[..1]).await? == 0 {
        return Ok(None);
    }
    stream.read_exact(&mut length[1..]).await?;
    let length = usize::try_from(i32::from_be_bytes(length)).map_err(|_| bad("a negative length"))?;
    if length > shared.limits.max_request_bytes {
        return Err(bad("more than a request may have"));
    }
    let room = if length > SMALL { Some(room(&shared.request_room, length).await?) } else { None };
    let mut bytes = BytesMut::new();
    let mut stream = stream.take(length as u64);
    while bytes.len() < length {
        bytes.reserve(STEP.min(length - bytes.len()));
        if stream.read_buf(&mut bytes).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
    Ok(Some(Frame { bytes: bytes.freeze(), _room: room }))
}

/// Room for so many bytes.
pub(crate) async fn room(room: &Arc<tokio::sync::Semaphore>, bytes: usize) -> io::Result<OwnedSemaphorePermit> {
    let kib = u32::try_from(bytes.div_ceil(1 << 10)).map_err(|_| bad("too much"))?;
    Arc::clone(room).acquire_many_owned(kib).await.map_err(io::Error::other)
}

fn bad(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

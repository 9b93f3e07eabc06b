//! Reading of frames: a length of four bytes, then that number of bytes.
//!
//! Rules: memory grows with the bytes received, never with the claimed length. The memory of all requests is bounded,
//! and a reader waits for memory, as in a broker with `queued.max.request.bytes`.

use std::io;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::sync::OwnedSemaphorePermit;

use crate::shared::SharedState;

/// Requests up to this size reserve no memory: the number of connections bounds their total.
const SMALL: usize = 4 << 10;
/// The bytes by which a buffer grows in one step.
const STEP: usize = 64 << 10;

/// The bytes of a request, and their reserved memory.
pub(crate) struct Frame {
    pub(crate) bytes: Bytes,
    _memory: Option<OwnedSemaphorePermit>,
}

/// Reads the next frame. `None` means that the client ended the connection between two frames.
pub(crate) async fn read_frame(
    stream: &mut (impl AsyncRead + Unpin),
    shared: &SharedState,
) -> io::Result<Option<Frame>> {
    let mut length = [0; 4];
    if stream.read(&mut length[..1]).await? == 0 {
        return Ok(None);
    }
    stream.read_exact(&mut length[1..]).await?;
    let length =
        usize::try_from(i32::from_be_bytes(length)).map_err(|_| invalid_data("the request's length is negative"))?;
    if length > shared.limits.max_request_bytes {
        return Err(invalid_data("the request exceeds max_request_bytes"));
    }
    let memory = if length > SMALL { Some(reserve_memory(&shared.request_memory, length).await?) } else { None };
    let mut bytes = BytesMut::new();
    let mut stream = stream.take(length as u64);
    while bytes.len() < length {
        bytes.reserve(STEP.min(length - bytes.len()));
        if stream.read_buf(&mut bytes).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
    Ok(Some(Frame { bytes: bytes.freeze(), _memory: memory }))
}

/// Reserves memory for this number of bytes. `memory` has one permit for each KiB.
pub(crate) async fn reserve_memory(
    memory: &Arc<tokio::sync::Semaphore>,
    bytes: usize,
) -> io::Result<OwnedSemaphorePermit> {
    let kib = u32::try_from(bytes.div_ceil(1 << 10)).map_err(|_| invalid_data("the size exceeds 4 TiB"))?;
    Arc::clone(memory).acquire_many_owned(kib).await.map_err(io::Error::other)
}

fn invalid_data(message: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, message)
}

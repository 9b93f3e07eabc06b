//! A layer between a broker and its sockets, such as TLS.
//!
//! Rules: the test provides the layer, and this crate needs no cryptography.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::Arc;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

/// Any bidirectional byte stream.
pub(crate) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

type Wrapping = Pin<Box<dyn Future<Output = io::Result<Box<dyn Stream>>> + Send>>;

/// A function that wraps each accepted connection in another stream.
#[derive(Clone)]
pub struct Layer(Arc<dyn Fn(TcpStream) -> Wrapping + Send + Sync>);

impl Layer {
    /// Creates a layer from a function such as a TLS acceptor's `accept`. An error ends the connection.
    pub fn new<F, Fut, S>(wrap: F) -> Self
    where
        F: Fn(TcpStream) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = io::Result<S>> + Send + 'static,
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        Self(Arc::new(move |stream| {
            let wrapping = wrap(stream);
            Box::pin(async move { wrapping.await.map(|stream| Box::new(stream) as Box<dyn Stream>) })
        }))
    }

    pub(crate) fn wrap(&self, stream: TcpStream) -> Wrapping {
        (self.0)(stream)
    }
}

impl fmt::Debug for Layer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Layer")
    }
}

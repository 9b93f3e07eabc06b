//! The source of OAUTHBEARER tokens (KIP-255).
//!
//! Rules:
//! - A token is requested for each connection, because it may change.
//! - Only a token of valid characters is sent. Other characters could add fields to the message.
//! - A panic in the application's token function fails this connection alone.

use std::fmt;
use std::io::Read as _;
use std::panic::AssertUnwindSafe;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;

use futures_util::FutureExt as _;

use crate::secret::{Secret, shown_path};

/// Why there is no token.
pub type TokenError = Box<dyn std::error::Error + Send + Sync>;

type TokenFuture = Pin<Box<dyn Future<Output = Result<Secret, TokenError>> + Send>>;

/// The largest token file, in bytes. A larger file holds something else.
const LONGEST_FILE: u64 = 1 << 20;

/// Returns a token for each new connection.
#[derive(Clone)]
pub struct TokenSource(Arc<dyn Fn() -> TokenFuture + Send + Sync>);

impl TokenSource {
    /// Creates a source from a function that is called for each connection. `connect_timeout` covers the call
    /// together with the connection. An error counts as an unavailable broker.
    pub fn new<F, Fut>(token: F) -> Self
    where
        F: Fn() -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<Secret, TokenError>> + Send + 'static,
    {
        Self(Arc::new(move || Box::pin(token())))
    }

    /// Creates a source from a file that is read for each connection, such as a token that Kubernetes renews.
    pub fn file(path: PathBuf) -> Self {
        Self::new(move || {
            let path = path.clone();
            async move {
                let read = tokio::task::spawn_blocking(move || {
                    read(&path).map_err(|error| format!("the token in {}: {error}", shown_path(&path)))
                });
                Ok(read.await??)
            }
        })
    }

    /// Returns the token for one connection: not empty, and only characters that RFC 6750 allows.
    pub(super) async fn token(&self) -> Result<Secret, TokenError> {
        let given = AssertUnwindSafe(async { (self.0)().await }).catch_unwind().await;
        let token = given.unwrap_or_else(|_| Err("the token function panicked".into()))?;
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~+/=".contains(&byte);
        match token.expose() {
            "" => Err("the token is empty".into()),
            text if !text.bytes().all(allowed) => {
                Err("the token contains characters that RFC 6750 does not allow".into())
            }
            _ => Ok(token),
        }
    }
}

fn read(path: &Path) -> std::io::Result<Secret> {
    let file = std::fs::File::open(path)?;
    // The buffer has room for the whole file and more. A buffer that grows leaves copies behind.
    let length = file.metadata()?.len().min(LONGEST_FILE);
    let mut text = zeroize::Zeroizing::new(String::with_capacity(usize::try_from(length).unwrap_or(0) + 64));
    file.take(LONGEST_FILE + 1).read_to_string(&mut text)?;
    if text.len() as u64 > LONGEST_FILE {
        return Err(std::io::Error::other(format!("the file is longer than {LONGEST_FILE} bytes")));
    }
    Ok(Secret::new(text.trim_start_matches('\u{feff}').trim()))
}

impl fmt::Debug for TokenSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokenSource")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn invalid_characters_are_not_sent() {
        for token in ["", "a b", "a\u{1}b", "a,b", "t\u{f6}ken", "a\n"] {
            let source = TokenSource::new(move || async move { Ok(Secret::new(token)) });
            assert!(source.token().await.is_err(), "{token:?}");
        }
    }

    #[tokio::test]
    async fn panic_becomes_an_error() {
        let early = TokenSource::new(|| -> std::future::Ready<Result<Secret, TokenError>> { panic!("early") });
        let late = TokenSource::new(|| async { panic!("late") });
        for source in [early, late] {
            assert!(source.token().await.unwrap_err().to_string().contains("panicked"));
        }
    }

    #[tokio::test]
    async fn token_file_is_read_each_time() {
        let path = std::env::temp_dir().join(format!("kafka-courier-token-{}", std::process::id()));
        let source = TokenSource::file(path.clone());
        for token in ["one", "two"] {
            std::fs::write(&path, format!("\u{feff}{token}\n")).unwrap();
            assert_eq!(source.token().await.unwrap().expose(), token);
        }
        std::fs::write(&path, "a".repeat(LONGEST_FILE as usize + 1)).unwrap();
        assert!(source.token().await.unwrap_err().to_string().contains("longer than"));
        std::fs::remove_file(&path).unwrap();
        assert!(source.token().await.unwrap_err().to_string().contains("kafka-courier-token"));
    }
}

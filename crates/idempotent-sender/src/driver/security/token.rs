//! Where the tokens of OAUTHBEARER come from (KIP-255).
//!
//! Rules: a token is asked for anew for each connection, so that it may change; it is sent only if it can't be taken for
//! anything else.

use std::fmt;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;

use crate::secret::Secret;

/// Why there is no token.
pub type TokenError = Box<dyn std::error::Error + Send + Sync>;

type TokenFuture = Pin<Box<dyn Future<Output = Result<Secret, TokenError>> + Send>>;

/// Gives a token whenever a connection is made.
#[derive(Clone)]
pub struct TokenSource(Arc<dyn Fn() -> TokenFuture + Send + Sync>);

impl TokenSource {
    /// Tokens from a function that is called for each connection. It has `connect_timeout` together with the connection;
    /// an error counts as if the broker was not available.
    pub fn new<F, Fut>(token: F) -> Self
    where
        F: Fn() -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<Secret, TokenError>> + Send + 'static,
    {
        Self(Arc::new(move || Box::pin(token())))
    }

    /// Tokens from a file that is read for each connection, such as one that Kubernetes renews.
    pub fn file(path: PathBuf) -> Self {
        Self::new(move || {
            let path = path.clone();
            async move {
                let read = tokio::task::spawn_blocking(move || {
                    let text = std::fs::read_to_string(&path);
                    text.map_err(|error| format!("the token in {}: {error}", path.display()))
                });
                let text = zeroize::Zeroizing::new(read.await??);
                Ok(Secret::new(text.trim()))
            }
        })
    }

    /// The token for one connection: not empty, and of the characters that RFC 6750 allows.
    pub(super) async fn token(&self) -> Result<Secret, TokenError> {
        let token = (self.0)().await?;
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~+/=".contains(&byte);
        match token.expose() {
            "" => Err("the token is empty".into()),
            text if !text.bytes().all(allowed) => {
                Err("the token has characters that a bearer token can't have (RFC 6750)".into())
            }
            _ => Ok(token),
        }
    }
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
    async fn a_token_that_could_pass_for_something_else_is_not_sent() {
        for token in ["", "a b", "a\u{1}b", "a,b", "t\u{f6}ken", "a\n"] {
            let source = TokenSource::new(move || async move { Ok(Secret::new(token)) });
            assert!(source.token().await.is_err(), "{token:?}");
        }
    }

    #[tokio::test]
    async fn a_token_in_a_file_is_read_anew_each_time_and_without_its_line_end() {
        let path = std::env::temp_dir().join(format!("kafka-courier-token-{}", std::process::id()));
        let source = TokenSource::file(path.clone());
        for token in ["one", "two"] {
            std::fs::write(&path, format!("{token}\n")).unwrap();
            assert_eq!(source.token().await.unwrap().expose(), token);
        }
        std::fs::remove_file(&path).unwrap();
        assert!(source.token().await.unwrap_err().to_string().contains("kafka-courier-token"));
    }
}

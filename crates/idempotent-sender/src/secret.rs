//! Passwords and other texts that nobody is to see.
//!
//! Rules: neither `Debug` nor `Display` shows it; clones share one copy, which is overwritten when the last one goes.

use std::fmt;
use std::sync::Arc;

use zeroize::Zeroizing;

/// A text that is not shown: in `Debug` and `Display` it is `***`.
///
/// Clones share one copy in memory. It is overwritten when the last of them is dropped.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Arc<Zeroizing<String>>);

impl Secret {
    /// Takes the text over, without copying it.
    pub fn new(text: impl Into<String>) -> Self {
        Self(Arc::new(Zeroizing::new(text.into())))
    }

    /// The text itself, for the one place that has to send it.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Whether there is no text.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl From<String> for Secret {
    fn from(text: String) -> Self {
        Self::new(text)
    }
}

impl From<&str> for Secret {
    fn from(text: &str) -> Self {
        Self::new(text)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_shows_neither_itself_nor_its_length() {
        for text in ["", "a", "correct horse battery staple"] {
            let secret = Secret::new(text);
            assert_eq!((format!("{secret:?}"), format!("{secret:#?}"), secret.to_string()), {
                let hidden = || "***".to_owned();
                (hidden(), hidden(), hidden())
            });
            assert_eq!(secret.expose(), text);
        }
    }
}

//! Secrets: passwords, tokens and keys in settings.
//!
//! Rule: `Debug` and `Display` never show a secret. Clones share one copy, which is overwritten when the last clone
//! is dropped.

use std::fmt;
use std::path::{Component, Path};
use std::sync::Arc;

use zeroize::Zeroizing;

/// A secret text. `Debug` and `Display` show `***`.
///
/// Clones share one copy in memory. It is overwritten when the last clone is dropped.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Arc<Zeroizing<String>>);

impl Secret {
    /// Creates a secret from a text, without copying the text.
    pub fn new(text: impl Into<String>) -> Self {
        Self(Arc::new(Zeroizing::new(text.into())))
    }

    /// Returns the text, for the code that sends it.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Returns whether the text is empty.
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

/// The replacement of a text that must not be shown.
pub const HIDDEN: &str = "***";

/// Extensions of secret files. No secret itself ends in one of these.
const EXTENSIONS: [&str; 7] = ["pem", "key", "crt", "cer", "txt", "jwt", "token"];

/// The base64 prefixes of DER: a sequence of some length.
const DER_STARTS: [&str; 3] = ["MI", "MC", "MH"];

/// Longer names without a dot or a slash are rarely paths. Keys in base64 are longer.
const LONG_NAME: usize = 40;

/// Returns whether the value of an option for a file may be the file's content: a key or token in place of its path.
pub fn may_be_content(text: &str) -> bool {
    text.contains("-----")
        || text.contains(char::is_control)
        || text.starts_with("eyJ") // how each JSON Web Token begins
        || text.len() > LONG_NAME
            && !text.contains('.')
            && (!text.contains(['/', '\\']) || DER_STARTS.iter().any(|start| text.starts_with(start)))
}

/// Returns the path of a secret file, for errors. Returns `***` if the text may be the secret itself in place of its
/// path. The path is shown if the file or its first folder exists.
pub fn shown_path(path: &Path) -> String {
    let text = path.display().to_string();
    let mut names = path.components().filter(|part| matches!(part, Component::Normal(_) | Component::ParentDir));
    let first: std::path::PathBuf =
        path.components().take_while(|part| !matches!(part, Component::Normal(_))).chain(names.next()).collect();
    let has_folder = names.next().is_some() && first.is_dir();
    let known = path.extension().is_some_and(|extension| EXTENSIONS.iter().any(|known| extension == *known));
    let is_path = path.exists() || !may_be_content(&text) && (has_folder || known);
    if is_path { text } else { HIDDEN.to_owned() }
}

/// A longer path without an extension, in a folder that does not exist, may be a secret.
const SHORT_PATH: usize = 20;
/// The longest extension of a file.
const LONGEST_EXTENSION: usize = 10;

/// Returns the path of any file, for errors. Returns `***` if the text may be a secret in place of a path. Unlike
/// [`shown_path`], it shows short names, and any extension. An empty path is shown as `""`.
pub fn shown_file(path: &Path) -> String {
    let text = path.display().to_string();
    if text.is_empty() {
        return "\"\"".to_owned();
    }
    let is_extension = |extension: &str| {
        extension.len() <= LONGEST_EXTENSION && extension.starts_with(|c: char| c.is_ascii_lowercase())
    };
    let has_extension = path.extension().and_then(|extension| extension.to_str()).is_some_and(is_extension);
    let is_path = !may_be_content(&text) && (text.len() <= SHORT_PATH || has_extension);
    if is_path { text } else { shown_path(path) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_show_as_asterisks() {
        for text in ["", "a", "correct horse battery staple"] {
            let secret = Secret::new(text);
            assert_eq!((format!("{secret:?}"), format!("{secret:#?}"), secret.to_string()), {
                let hidden = || "***".to_owned();
                (hidden(), hidden(), hidden())
            });
            assert_eq!(secret.expose(), text);
        }
    }

    #[test]
    fn secrets_given_as_paths_hide() {
        for path in ["/tmp/none/key", "/tmp", "client.pem", "keys/client.key", "../none/token.jwt"] {
            assert_eq!(shown_path(Path::new(path)), path);
        }
        for secret in [
            "hunter2",
            "-----BEGIN PRIVATE KEY-----/x.pem",
            "/nowhere/at-all",
            "eyJhbGciOi.J9/x.key",
            "ab/cdef",
            "/hunter2",
            "one\ntwo.pem",
        ] {
            assert_eq!(shown_path(Path::new(secret)), HIDDEN, "{secret}");
        }
        for path in ["settings", "none/events.ndjson", "x.TOML", "/tmp/none/a-file-without-an-extension"] {
            assert_eq!(shown_file(Path::new(path)), path);
        }
        for secret in ["Zq7xVr2mKw9pLt4nHs6bJd8f", "Zq7xVr2mKw9/pLt4nHs6bJd8f", "eyJhbGciOi.J9.x", "-----BEGIN"] {
            assert_eq!(shown_file(Path::new(secret)), HIDDEN, "{secret}");
        }
        assert_eq!(shown_file(Path::new("")), "\"\"");
        assert!(may_be_content(&"MIIEvQIBADANBgkqhkiG9w0BAQEFAASCBKcw".repeat(2)));
        assert!(may_be_content("MIGHAgEAMBMG/yqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQg"));
        assert!(!may_be_content("/var/lib/docker/overlay2/0123456789012345678901234567890123456789012345/key"));
        assert!(!may_be_content("/etc/kafka/client.key") && !may_be_content("key"));
    }
}

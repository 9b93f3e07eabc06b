//! Sizes of tests that environment variables change.
use anyhow::{Context, Result};

/// Returns the number in an environment variable, or the default if the variable is not set.
///
/// # Errors
/// Fails if the variable is no number.
pub fn number(name: &str, default: u64) -> Result<u64> {
    let Some(value) = std::env::var_os(name) else { return Ok(default) };
    value.to_str().and_then(|value| value.parse().ok()).with_context(|| format!("{name} is no number: {value:?}"))
}

//! W3C Trace Context (<https://www.w3.org/TR/trace-context/>), forwarded unchanged.

use std::sync::Arc;

use thiserror::Error;

/// The trace of an event: the values of the `traceparent` and `tracestate` headers.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct TraceContext {
    traceparent: Arc<str>,
    tracestate: Option<Arc<str>>,
}

impl TraceContext {
    /// Creates a context and keeps its text.
    ///
    /// # Errors
    /// Returns a [`TraceContextError`] if `traceparent` has not the standard's form, or `tracestate` is not printable
    /// ASCII.
    pub fn new(traceparent: &str, tracestate: Option<&str>) -> Result<Self, TraceContextError> {
        if !is_traceparent(traceparent) {
            return Err(TraceContextError::Traceparent);
        }
        if tracestate.is_some_and(|state| !state.bytes().all(|b| matches!(b, b' '..=b'~' | b'\t'))) {
            return Err(TraceContextError::Tracestate);
        }
        Ok(Self { traceparent: traceparent.into(), tracestate: tracestate.map(Into::into) })
    }

    /// Returns the `traceparent` header: version, trace id, parent id and flags.
    pub fn traceparent(&self) -> &str {
        &self.traceparent
    }

    /// Returns the `tracestate` header.
    pub fn tracestate(&self) -> Option<&str> {
        self.tracestate.as_deref()
    }
}

/// Checks the form. Version 00 is exactly `00-{32 hex}-{16 hex}-{2 hex}`. Later versions may add `-` and more text.
fn is_traceparent(text: &str) -> bool {
    let mut parts = text.split('-');
    let mut hex = |len| {
        parts.next().filter(|part| part.len() == len && part.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')))
    };
    let (Some(version), Some(trace), Some(parent), Some(_)) = (hex(2), hex(32), hex(16), hex(2)) else {
        return false;
    };
    let rest = parts.next();
    let zero = |id: &str| id.bytes().all(|b| b == b'0');
    version != "ff" && !zero(trace) && !zero(parent) && (version != "00" || rest.is_none()) && text.is_ascii()
}

/// Why a trace context is invalid.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
#[non_exhaustive]
pub enum TraceContextError {
    /// The value is not of the form `00-{32 hex}-{16 hex}-{2 hex}` in lower case with ids that are not all zero.
    #[error(
        "traceparent must be like 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01 (lower case hex, ids not all zero)"
    )]
    Traceparent,
    /// The value is not printable ASCII.
    #[error("tracestate must be printable ASCII")]
    Tracestate,
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    #[test]
    fn context_keeps_its_text() {
        let context = TraceContext::new(GOOD, Some("congo=t61rcWkgMzE")).unwrap();
        assert_eq!(context.traceparent(), GOOD);
        assert_eq!(context.tracestate(), Some("congo=t61rcWkgMzE"));
    }

    #[test]
    fn only_later_versions_are_longer() {
        assert!(is_traceparent(&GOOD.replacen("00", "01", 1)));
        assert!(is_traceparent(&format!("{}-more", GOOD.replacen("00", "01", 1))));
        assert!(!is_traceparent(&format!("{GOOD}-more")));
    }

    #[test]
    fn invalid_contexts_are_refused() {
        for bad in [
            "",
            "00",
            "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01",
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-0",
        ] {
            assert_eq!(TraceContext::new(bad, None), Err(TraceContextError::Traceparent), "{bad}");
        }
        assert_eq!(TraceContext::new(GOOD, Some("a=\n")), Err(TraceContextError::Tracestate));
    }
}

//! Builds events. The methods for built-in types are generated from the table in `types`.

use std::fmt;
use std::sync::Arc;

use serde_json::Value;

use crate::any_event::AnyEvent;
use crate::envelope::{Envelope, Head};
use crate::event::EventData;
use crate::parse_error::ParseError;
use crate::stamper::{Stamper, SystemStamper};
use crate::trace::TraceContext;

/// Builds events of one source. Cheap to clone and to share between threads.
#[derive(Clone)]
pub struct EventBuilder {
    source: Arc<str>,
    version: Arc<str>,
    correlation_id: Option<Arc<str>>,
    trace: Option<TraceContext>,
    stamper: Arc<dyn Stamper>,
}

impl EventBuilder {
    /// Creates a builder for events of service `source` in schema version `version`.
    pub fn new(source: impl Into<Arc<str>>, version: impl Into<Arc<str>>) -> Self {
        Self {
            source: source.into(),
            version: version.into(),
            correlation_id: None,
            trace: None,
            stamper: Arc::new(SystemStamper),
        }
    }

    /// Sets the correlation id of all events that this builder makes.
    #[must_use]
    pub fn with_correlation_id(mut self, correlation_id: impl Into<Arc<str>>) -> Self {
        self.correlation_id = Some(correlation_id.into());
        self
    }

    /// Sets the trace of all events that this builder makes.
    #[must_use]
    pub fn with_trace_context(mut self, trace: TraceContext) -> Self {
        self.trace = Some(trace);
        self
    }

    /// Sets the source of ids and timestamps. The default is UUIDv7 and the system's clock.
    #[must_use]
    pub fn with_stamper(mut self, stamper: impl Stamper + 'static) -> Self {
        self.stamper = Arc::new(stamper);
        self
    }

    /// Builds an event of the application's own type.
    pub fn custom<T: EventData>(&self, data: T) -> Envelope<T> {
        const { assert!(!T::TYPE.is_empty(), "an event's type must not be empty") };
        self.envelope(data)
    }

    /// Builds an event whose type is known only at run time.
    ///
    /// # Errors
    /// Returns a [`ParseError`] if `event_type` is empty, or if `data` is no object or is nested too deep.
    pub fn untyped(&self, event_type: &str, data: Value) -> Result<AnyEvent, ParseError> {
        let envelope = self.envelope(data);
        let mut json = Vec::new();
        Head::of(&envelope, event_type)
            .serialize(&envelope.data, envelope.extra(), &mut serde_json::Serializer::new(&mut json))
            .map_err(|error| ParseError::syntax(&error))?;
        AnyEvent::from_json(&json)
    }

    fn envelope<T>(&self, data: T) -> Envelope<T> {
        let names = (self.source.clone(), self.version.clone());
        let mut envelope = Envelope::new(self.stamper.stamp(), names, data);
        envelope.correlation_id.clone_from(&self.correlation_id);
        envelope.trace.clone_from(&self.trace);
        envelope
    }
}

impl fmt::Debug for EventBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EventBuilder")
            .field("source", &self.source)
            .field("version", &self.version)
            .field("correlation_id", &self.correlation_id)
            .field("trace", &self.trace)
            .finish_non_exhaustive()
    }
}

//! The problems of requests and events: stable codes, statuses, and whether a retry helps.
//!
//! Rule: a code never changes its meaning, because clients decide by it. The text beside it may change.

macro_rules! problems {
    ($($(#[doc = $doc:literal])+ $name:ident = $status:literal $code:literal $(, retry after $seconds:literal s)?;)+) => {
        /// A problem of a request or of an event.
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
        #[non_exhaustive]
        pub enum Problem {
            $($(#[doc = $doc])+ $name,)+
        }

        impl Problem {
            /// Every problem, in the order of the table.
            pub const ALL: &'static [Self] = &[$(Self::$name),+];

            /// Returns the status code of an answer with this problem.
            pub fn status(self) -> u16 {
                match self { $(Self::$name => $status,)+ }
            }

            /// Returns the stable code.
            pub fn code(self) -> &'static str {
                match self { $(Self::$name => $code,)+ }
            }

            /// Returns the problem in a few words.
            pub fn title(self) -> &'static str {
                match self { $(Self::$name => concat!($($doc),+).trim_ascii(),)+ }
            }

            /// Returns the seconds after which a retry may help, for a problem with such a time.
            pub fn retry_after(self) -> Option<u32> {
                match self { $(Self::$name => problems!(@seconds $($seconds)?),)+ }
            }
        }
    };
    (@seconds) => { None };
    (@seconds $seconds:literal) => { Some($seconds) };
}

problems! {
    /// The request is not HTTP as this service expects it
    BadRequest = 400 "bad-request";
    /// A parameter of the query is unknown or invalid
    BadQuery = 400 "bad-query";
    /// The body is not JSON
    NotJson = 400 "not-json";
    /// The body can't be decompressed
    NotGzip = 400 "not-gzip";
    /// The name of the topic is invalid
    TopicName = 400 "topic-name";
    /// The acknowledgement is unavailable
    AckUnavailable = 400 "ack-unavailable";
    /// The client is not known
    Unauthenticated = 401 "unauthenticated";
    /// The host of the request is not this machine
    HostNotLocal = 403 "host-not-local";
    /// The client may not publish to the topic
    TopicNotAllowed = 403 "topic-not-allowed";
    /// The acknowledgement is weaker than the topic demands
    AckTooWeak = 403 "ack-too-weak";
    /// Kafka refuses writes to the topic
    TopicForbidden = 403 "topic-forbidden";
    /// There is no such route
    NotFound = 404 "not-found";
    /// The topic does not exist
    TopicUnknown = 404 "topic-unknown";
    /// The partition does not exist
    PartitionUnknown = 404 "partition-unknown";
    /// The route has no such method
    MethodNotAllowed = 405 "method-not-allowed";
    /// A request with the same key is under way
    KeyUnderWay = 409 "key-under-way", retry after 1 s;
    /// The body arrived too slowly
    TooSlow = 408 "too-slow";
    /// The body is too large
    BodyTooLarge = 413 "body-too-large";
    /// The request has too many events
    TooManyEvents = 413 "too-many-events";
    /// The event is too large for the topic
    EventTooLarge = 413 "event-too-large";
    /// The content type is not supported
    UnsupportedType = 415 "unsupported-type";
    /// The content encoding is not supported
    UnsupportedEncoding = 415 "unsupported-encoding";
    /// The JSON is nested too deeply
    TooDeep = 422 "too-deep";
    /// The JSON is not an event
    NotAnEvent = 422 "not-an-event";
    /// The JSON is not a record
    NotARecord = 422 "not-a-record";
    /// The request is not a CloudEvent
    NotACloudEvent = 422 "not-a-cloudevent";
    /// The key belongs to a request with another payload
    KeyReused = 422 "key-reused";
    /// Kafka rejects the record
    Rejected = 422 "rejected";
    /// The client sends more than its rate allows
    RateExceeded = 429 "rate-exceeded", retry after 1 s;
    /// The memory for events is full
    MemoryFull = 503 "memory-full", retry after 1 s;
    /// The memory for bodies of requests is full
    BodiesFull = 503 "bodies-full", retry after 1 s;
    /// The spool is full
    SpoolFull = 503 "spool-full", retry after 5 s;
    /// The spool can't be written
    SpoolFault = 503 "spool-fault", retry after 60 s;
    /// Requests have named too many topics
    TooManyTopics = 503 "too-many-topics", retry after 60 s;
    /// Kafka is unavailable
    KafkaUnavailable = 503 "kafka-unavailable", retry after 1 s;
    /// Kafka refuses this service
    KafkaRefuses = 503 "kafka-refuses", retry after 60 s;
    /// The event failed, and is certainly not in Kafka
    NotWritten = 503 "not-written", retry after 1 s;
    /// An earlier event of the request was not accepted, and the order would be lost
    NotTried = 503 "not-tried", retry after 1 s;
    /// The service ends
    Closing = 503 "closing", retry after 1 s;
    /// The event may be in Kafka
    Unknown = 504 "unknown";
}

impl Problem {
    /// Returns whether the same request may succeed later, and certainly writes no event twice.
    pub fn is_retriable(self) -> bool {
        self.retry_after().is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_differs() {
        let mut codes: Vec<&str> = Problem::ALL.iter().map(|problem| problem.code()).collect();
        codes.sort_unstable();
        let count = codes.len();
        codes.dedup();
        assert_eq!(codes.len(), count);
    }

    #[test]
    fn only_temporary_problems_are_retriable() {
        for problem in Problem::ALL {
            let expected = matches!(problem.status(), 503 | 429) || *problem == Problem::KeyUnderWay;
            assert_eq!(problem.is_retriable(), expected, "{problem:?}");
        }
    }
}

//! The ids that the core assigns: connections, requests, batches and lookups.
//!
//! Rule: an id is a counter and is never reused.

/// One connection to a broker. An id is never reused.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct ConnId(pub u64);

/// One Produce request. An id is never reused.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct RequestId(pub u64);

/// One queued or stamped batch. A batch that is stamped again gets a new id, so late answers to its former stamp never
/// count for the new stamp.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub(crate) struct BatchUid(pub(crate) u64);

/// One lookup: of a leader's producer state, or of its log. Each lookup has its own id, so a late answer never counts
/// for a later lookup.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct LookupId(pub u64);

/// One request to make stamps durable. A late answer never counts for a later request.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct MoveId(pub u64);

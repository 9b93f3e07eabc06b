//! Limits of connections, bodies and memory, as pure decisions: events and times in, deadlines and refusals out.

pub(crate) mod body_pace;
pub(crate) mod budget;
pub(crate) mod connection_clock;
pub(crate) mod dedupe;
pub(crate) mod gunzip;
pub(crate) mod rate;
pub(crate) mod room;
pub(crate) mod topic_names;

//! The process's limit of open files, which bounds its connections.
//!
//! Rule: files and connections to brokers always have descriptors left.

/// Descriptors that connections of clients never use: files and brokers, and the connections for probes.
const RESERVED: u64 = 64 + kafka_courier_gateway::MANAGEMENT_CONNECTIONS as u64;

/// Raises the limit as far as the system allows, and returns the number of connections that fit. `None` if there is no limit.
#[cfg(unix)]
pub(super) fn connections() -> Option<u64> {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum {
        // A refusal leaves the limit as it is.
        let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
    }
    getrlimit(Resource::Nofile).current.map(|files| files.saturating_sub(RESERVED).max(1))
}

#[cfg(not(unix))]
pub(super) fn connections() -> Option<u64> {
    None
}

//! The state that all connections of all brokers share.
//!
//! Rules: there is one lock, never held across an await. Code that changes locked state calls
//! [`SharedState::note_change`], and waiting needs no polling.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use kafka_protocol::messages::ApiKey;
use parking_lot::{Mutex, MutexGuard};
use tokio::sync::{Semaphore, watch};

use crate::fault::FaultRules;
use crate::layer::Layer;
use crate::model::{ClusterModel, RecordFilter};

/// The bounds of connections and requests.
#[derive(Clone, Debug)]
pub(crate) struct WireLimits {
    /// Bytes of one request (`socket.request.max.bytes`).
    pub(crate) max_request_bytes: usize,
    /// Bytes of all buffered requests, and separately of all buffered Fetch answers.
    pub(crate) max_buffered_bytes: usize,
    /// Connections to one broker.
    pub(crate) max_connections: usize,
}

/// The users, tokens and layer that secure connections.
#[derive(Clone, Debug, Default)]
pub(crate) struct ClusterSecurity {
    /// Passwords by user name.
    pub(crate) users: BTreeMap<String, String>,
    /// OAUTHBEARER tokens. Clients need no authentication if there are neither users nor tokens.
    pub(crate) tokens: BTreeSet<String>,
    pub(crate) session_lifetime: Option<Duration>,
    pub(crate) layer: Option<Layer>,
}

/// The state under the lock.
pub(crate) struct LockedState {
    pub(crate) cluster: ClusterModel,
    pub(crate) faults: FaultRules,
    pub(crate) filter: Option<RecordFilter>,
    /// The number of requests that were read, by API key.
    pub(crate) requests: BTreeMap<i16, u64>,
}

/// The state that all connections share.
pub(crate) struct SharedState {
    state: Mutex<LockedState>,
    changed: watch::Sender<u64>,
    pub(crate) limits: WireLimits,
    pub(crate) security: ClusterSecurity,
    /// Memory for requests, one permit for each KiB.
    pub(crate) request_memory: Arc<Semaphore>,
    /// Memory for Fetch answers, one permit for each KiB.
    pub(crate) answer_memory: Arc<Semaphore>,
}

impl SharedState {
    pub(crate) fn new(cluster: ClusterModel, limits: WireLimits, security: ClusterSecurity) -> Self {
        let memory = || Arc::new(Semaphore::new((limits.max_buffered_bytes >> 10).min(Semaphore::MAX_PERMITS)));
        let (request_memory, answer_memory) = (memory(), memory());
        let state = LockedState { cluster, faults: FaultRules::default(), filter: None, requests: BTreeMap::new() };
        Self {
            state: Mutex::new(state),
            changed: watch::Sender::new(0),
            limits,
            security,
            request_memory,
            answer_memory,
        }
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, LockedState> {
        self.state.lock()
    }

    /// Wakes all tasks that wait for a change.
    pub(crate) fn note_change(&self) {
        self.changed.send_modify(|version| *version = version.wrapping_add(1));
    }

    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    pub(crate) fn count_request(&self, api: ApiKey) {
        *self.lock().requests.entry(api as i16).or_default() += 1;
    }
}

/// Returns the current time in milliseconds since the Unix epoch.
pub(crate) fn wall_clock_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

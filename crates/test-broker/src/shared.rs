//! What all connections of all brokers share.
//!
//! Rules: one lock, never held across an await; whoever changes something under it says so, so that waiting needs no
//! polling.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use kafka_protocol::messages::ApiKey;
use parking_lot::{Mutex, MutexGuard};
use tokio::sync::{Semaphore, watch};

use crate::fault::Faults;
use crate::layer::Layer;
use crate::model::{Cluster, RecordFilter};

/// What bounds connections and requests.
#[derive(Clone, Debug)]
pub(crate) struct WireLimits {
    /// Bytes of one request (`socket.request.max.bytes`).
    pub(crate) max_request_bytes: usize,
    /// Bytes of all requests and Fetch answers that are held at once, each.
    pub(crate) max_buffered_bytes: usize,
    /// Connections to one broker.
    pub(crate) max_connections: usize,
}

/// How connections are secured.
#[derive(Clone, Debug, Default)]
pub(crate) struct Security {
    /// Names and passwords.
    pub(crate) users: BTreeMap<String, String>,
    /// Tokens of OAUTHBEARER; with users and these empty nobody has to say who they are.
    pub(crate) tokens: BTreeSet<String>,
    pub(crate) session_lifetime: Option<Duration>,
    pub(crate) layer: Option<Layer>,
}

/// What is under the lock.
pub(crate) struct State {
    pub(crate) cluster: Cluster,
    pub(crate) faults: Faults,
    pub(crate) filter: Option<RecordFilter>,
    /// Requests that were taken, by API key.
    pub(crate) requests: BTreeMap<i16, u64>,
}

/// What all connections share.
pub(crate) struct Shared {
    state: Mutex<State>,
    changed: watch::Sender<u64>,
    pub(crate) limits: WireLimits,
    pub(crate) security: Security,
    /// Room for requests, in KiB.
    pub(crate) request_room: Arc<Semaphore>,
    /// Room for Fetch answers, in KiB.
    pub(crate) answer_room: Arc<Semaphore>,
}

impl Shared {
    pub(crate) fn new(cluster: Cluster, limits: WireLimits, security: Security) -> Self {
        let room = || Arc::new(Semaphore::new((limits.max_buffered_bytes >> 10).min(Semaphore::MAX_PERMITS)));
        let (request_room, answer_room) = (room(), room());
        let state = State { cluster, faults: Faults::default(), filter: None, requests: BTreeMap::new() };
        Self { state: Mutex::new(state), changed: watch::Sender::new(0), limits, security, request_room, answer_room }
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }

    /// Tells everybody who waits that something changed.
    pub(crate) fn note_change(&self) {
        self.changed.send_modify(|version| *version = version.wrapping_add(1));
    }

    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    pub(crate) fn count(&self, api: ApiKey) {
        *self.lock().requests.entry(api as i16).or_default() += 1;
    }
}

/// Milliseconds since the Unix epoch.
pub(crate) fn wall_clock_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

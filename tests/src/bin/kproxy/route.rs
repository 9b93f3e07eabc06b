//! One broker's route: the current faults, the open connections, and the counters.
use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering::Relaxed};

use parking_lot::Mutex;
use tokio::sync::watch;

/// A direction. `Up` is from client to broker.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Direction {
    Up,
    Down,
}

/// Lasting faults of one broker's route.
#[derive(Clone, Default)]
pub(crate) struct Faults {
    pub(crate) latency_ms: u64,
    pub(crate) jitter_ms: u64,
    pub(crate) rate: u64,
    pub(crate) stall: Directions,
    pub(crate) blackhole: Directions,
    pub(crate) refuse: bool,
    pub(crate) api: i64,
    pub(crate) cut_after: u64,
    pub(crate) rst: bool,
}

impl Faults {
    /// Returns whether the one-shot faults aim at requests with this api key.
    pub(crate) fn aims_at(&self, api: i16) -> bool {
        self.api == -1 || self.api == i64::from(api)
    }
}

#[derive(Clone, Copy, Default)]
pub(crate) struct Directions {
    up: bool,
    down: bool,
}

impl Directions {
    pub(crate) fn parse(s: &str) -> Result<Self, String> {
        let (up, down) = match s {
            "up" => (true, false),
            "down" => (false, true),
            "both" | "1" => (true, true),
            "off" | "0" | "none" => (false, false),
            _ => return Err(format!("{s:?} is not up, down, both or off")),
        };
        Ok(Self { up, down })
    }

    pub(crate) fn has(self, dir: Direction) -> bool {
        if dir == Direction::Up { self.up } else { self.down }
    }

    pub(crate) fn name(self) -> &'static str {
        match (self.up, self.down) {
            (true, true) => "both",
            (true, false) => "up",
            (false, true) => "down",
            (false, false) => "off",
        }
    }
}

/// The end of a connection.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum End {
    No,
    Close,
    Reset,
}

pub(crate) struct Route {
    pub(crate) target: SocketAddr,
    pub(crate) faults: watch::Sender<Faults>,
    pub(crate) shots: Shots,
    pub(crate) counts: Counts,
    /// The open connections, for cuts.
    pub(crate) open: Mutex<HashMap<u64, Arc<Conn>>>,
    next: AtomicU64,
}

/// The remaining counts of one-shot faults.
#[derive(Default)]
pub(crate) struct Shots {
    pub(crate) drop_response: AtomicI64,
    pub(crate) drop_request: AtomicI64,
    pub(crate) cut_times: AtomicI64,
}

#[derive(Default)]
pub(crate) struct Counts {
    pub(crate) accepted: AtomicU64,
    pub(crate) up_bytes: AtomicU64,
    pub(crate) down_bytes: AtomicU64,
    pub(crate) produce_requests: AtomicU64,
    pub(crate) dropped_responses: AtomicU64,
    pub(crate) dropped_requests: AtomicU64,
    pub(crate) cuts: AtomicU64,
}

impl Route {
    pub(crate) fn new(target: SocketAddr) -> Self {
        Self {
            target,
            faults: watch::channel(Faults::default()).0,
            shots: Shots::default(),
            counts: Counts::default(),
            open: Mutex::default(),
            next: AtomicU64::new(0),
        }
    }

    /// Returns how the route's faults end a connection.
    pub(crate) fn end(&self) -> End {
        if self.faults.borrow().rst { End::Reset } else { End::Close }
    }

    /// Registers a new connection, and returns it with its number for [`Self::forget`].
    pub(crate) fn register(&self) -> (u64, Arc<Conn>) {
        let id = self.next.fetch_add(1, Relaxed);
        let conn = Arc::new(Conn::new());
        self.open.lock().insert(id, Arc::clone(&conn));
        (id, conn)
    }

    pub(crate) fn forget(&self, id: u64) {
        self.open.lock().remove(&id);
    }
}

/// Takes one of the remaining shots. Returns false if none is left.
pub(crate) fn take_shot(left: &AtomicI64) -> bool {
    left.fetch_update(Relaxed, Relaxed, |n| (n > 0).then_some(n - 1)).is_ok()
}

/// Adds to a counter.
pub(crate) fn count(counter: &AtomicU64, n: u64) {
    counter.fetch_add(n, Relaxed);
}

pub(crate) struct Conn {
    pub(crate) end: watch::Sender<End>,
    /// Whether the connection is encrypted (TLS). The proxy then can't read requests.
    pub(crate) opaque: AtomicBool,
    /// The api keys of the requests that await their response, by correlation id.
    pub(crate) awaited: Mutex<HashMap<i32, i16>>,
    pub(crate) up_seen: AtomicU64,
}

impl Conn {
    fn new() -> Self {
        Self {
            end: watch::channel(End::No).0,
            opaque: AtomicBool::new(false),
            awaited: Mutex::default(),
            up_seen: AtomicU64::new(0),
        }
    }

    /// Ends the connection. Returns false if the connection has been ended before.
    pub(crate) fn finish(&self, how: End) -> bool {
        self.end.send_if_modified(|end| {
            let is_open = *end == End::No;
            if is_open {
                *end = how;
            }
            is_open
        })
    }
}

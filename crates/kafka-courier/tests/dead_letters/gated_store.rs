//! A store of dead letters that keeps its callers waiting. The tests of the gateway include this file, too.

use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};

use kafka_courier::dlq::{
    AppendError, Appended, BeginReplayError, DeadLetterStore, Held, Letter, LetterId, MemoryStore, Position,
    ReplayGuard, StoreError, StoreStats,
};

/// A store whose `append` waits for a message on the channel.
#[derive(Debug)]
pub(crate) struct GatedStore {
    inner: MemoryStore,
    gate: Mutex<Receiver<()>>,
    arrived: Mutex<Sender<()>>,
}

/// Returns the store, the channel that lets one `append` pass, and the channel that has a message for each `append`.
pub(crate) fn gated_store() -> (Arc<GatedStore>, Sender<()>, Receiver<()>) {
    let ((open, gate), (arrived, appends)) = (channel(), channel());
    (Arc::new(GatedStore { inner: MemoryStore::default(), gate: gate.into(), arrived: arrived.into() }), open, appends)
}

impl DeadLetterStore for GatedStore {
    fn name(&self) -> &str {
        "slow"
    }
    fn append(&self, letters: &[Letter]) -> Result<Appended, AppendError> {
        // A test reads only the arrivals that it waits for.
        let _ = self.arrived.lock().unwrap().send(());
        self.gate.lock().unwrap().recv().unwrap();
        self.inner.append(letters)
    }
    fn scan(&self, after: Option<Position>, limit: usize) -> Result<Vec<Held>, StoreError> {
        self.inner.scan(after, limit)
    }
    fn remove(&self, positions: &[Position]) -> Result<usize, StoreError> {
        self.inner.remove(positions)
    }
    fn update(&self, changed: &[Held]) -> Result<usize, StoreError> {
        self.inner.update(changed)
    }
    fn find(&self, ids: &[LetterId]) -> Result<Vec<Option<Position>>, StoreError> {
        self.inner.find(ids)
    }
    fn expire(&self) -> Result<usize, StoreError> {
        self.inner.expire()
    }
    fn stats(&self) -> Result<StoreStats, StoreError> {
        self.inner.stats()
    }
    fn begin_replay(&self) -> Result<ReplayGuard, BeginReplayError> {
        self.inner.begin_replay()
    }
}

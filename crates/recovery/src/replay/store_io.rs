//! Calls of a store, which blocks, from the replay's task.

use std::sync::Arc;

use kafka_courier_dlq::{DeadLetterStore, Held, Position, StoreError};

use super::ReplayError;

pub(super) type SharedStore = Arc<dyn DeadLetterStore>;

/// Returns the next letters, and the last position among them.
pub(super) async fn scan(
    store: &SharedStore,
    after: Option<Position>,
    limit: usize,
) -> Result<Option<(Position, Vec<Held>)>, ReplayError> {
    let reading = store.clone();
    let page = blocking(move || reading.scan(after, limit)).await?;
    Ok(page.last().map(|held| held.position).map(|last| (last, page)))
}

pub(super) async fn remove(store: &SharedStore, positions: Vec<Position>) -> Result<(), ReplayError> {
    if positions.is_empty() {
        return Ok(());
    }
    let store = store.clone();
    blocking(move || store.remove(&positions)).await.map(|_| ())
}

pub(super) async fn update(store: &SharedStore, changed: Vec<Held>) -> Result<usize, ReplayError> {
    if changed.is_empty() {
        return Ok(0);
    }
    let store = store.clone();
    blocking(move || store.update(&changed)).await
}

/// Runs `work` on a thread that may block.
pub(super) async fn blocking<R: Send + 'static>(
    work: impl FnOnce() -> Result<R, StoreError> + Send + 'static,
) -> Result<R, ReplayError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => Ok(result?),
        Err(_) => Err(ReplayError::Closed),
    }
}

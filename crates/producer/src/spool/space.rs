//! [`SpoolSpace`]: the bytes that the spool may still take, for publishers.
//!
//! Rules:
//!  - An open batch reserves its bytes before it accepts a record, so an accepted record has room on the disk.
//!  - The thread sets the room before it releases the reservations of a durable round. Both may be too small for a moment,
//!    never too large.
//!  - A wait reserves nothing, so a dropped future loses nothing.

use tokio::sync::Notify;

use crate::sync::{AtomicU64, Ordering};

/// The room of a spool, and the part of it that batches on their way to the disk reserve.
#[derive(Debug)]
pub(crate) struct SpoolSpace {
    room: AtomicU64,
    reserved: AtomicU64,
    changed: Notify,
    /// Whether publishers wait for room.
    blocks: bool,
}

impl SpoolSpace {
    /// Creates the space of a spool without room. Publishers wait for room if `blocks`.
    pub(crate) fn new(blocks: bool) -> Self {
        Self { room: AtomicU64::new(0), reserved: AtomicU64::new(0), changed: Notify::new(), blocks }
    }

    /// Returns whether publishers wait for room.
    pub(crate) fn blocks(&self) -> bool {
        self.blocks
    }

    /// Reserves bytes. Returns whether there was room.
    pub(crate) fn reserve(&self, bytes: usize) -> bool {
        let room = self.room.load(Ordering::SeqCst);
        let grown = |reserved: u64| reserved.checked_add(bytes as u64).filter(|sum| *sum <= room);
        self.reserved.try_update(Ordering::SeqCst, Ordering::SeqCst, grown).is_ok()
    }

    /// Releases bytes.
    pub(crate) fn release(&self, bytes: usize) {
        self.reserved.fetch_sub(bytes as u64, Ordering::SeqCst);
        self.changed.notify_waiters();
    }

    /// Sets the bytes that the spool may still take, those of reservations included.
    pub(crate) fn set_room(&self, room: u64) {
        self.room.store(room, Ordering::SeqCst);
        self.changed.notify_waiters();
    }

    /// Waits until there is room for `needed` bytes.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future changes nothing.
    pub(crate) async fn room_for(&self, needed: usize) {
        loop {
            let mut changed = std::pin::pin!(self.changed.notified());
            changed.as_mut().enable();
            let reserved = self.reserved.load(Ordering::SeqCst);
            if reserved.saturating_add(needed as u64) <= self.room.load(Ordering::SeqCst) {
                return;
            }
            changed.await;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[tokio::test]
    async fn waiter_gets_released_room() {
        let space = Arc::new(SpoolSpace::new(true));
        assert!(!space.reserve(1));
        space.set_room(10);
        assert!(space.reserve(8) && !space.reserve(3));
        let waiter = tokio::spawn({
            let space = space.clone();
            async move { space.room_for(5).await }
        });
        tokio::task::yield_now().await;
        space.release(2);
        tokio::task::yield_now().await;
        assert!(!waiter.is_finished());
        space.set_room(12);
        waiter.await.unwrap();
    }
}

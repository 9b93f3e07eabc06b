//! The memory for the bodies of all requests.
//!
//! Rules:
//! - A share grows before its bytes are kept, and returns when it is dropped. A client gets no share for bytes that it has not sent.
//! - An answer must be given, and counts also where it exceeds the limit.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// The memory for the bodies of all requests.
#[derive(Clone, Debug)]
pub(crate) struct Budget(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    used: AtomicUsize,
    limit: usize,
}

/// The share of one request.
#[derive(Debug)]
pub(crate) struct Share {
    budget: Budget,
    bytes: usize,
}

impl Budget {
    pub(crate) fn new(limit: usize) -> Self {
        Self(Arc::new(Inner { used: AtomicUsize::new(0), limit }))
    }

    /// Returns a share without bytes.
    pub(crate) fn empty_share(&self) -> Share {
        Share { budget: self.clone(), bytes: 0 }
    }

    /// Returns whether there is room for a share now.
    pub(crate) fn has_room(&self, bytes: usize) -> bool {
        bytes <= self.0.limit.saturating_sub(self.used())
    }

    /// Returns the bytes in use.
    pub(crate) fn used(&self) -> usize {
        self.0.used.load(Ordering::Relaxed)
    }
}

impl Share {
    /// Raises the share to `bytes`. Returns `false`, and changes nothing, if there is no room.
    pub(crate) fn grow_to(&mut self, bytes: usize) -> bool {
        let Some(more) = bytes.checked_sub(self.bytes).filter(|more| *more > 0) else { return true };
        let Inner { used, limit } = &*self.budget.0;
        let raised = used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |used| {
            used.checked_add(more).filter(|used| used <= limit)
        });
        if raised.is_ok() {
            self.bytes = bytes;
        }
        raised.is_ok()
    }
}

impl Share {
    /// Raises the share to `bytes`, if need be above the limit.
    pub(crate) fn exceed_to(&mut self, bytes: usize) {
        let more = bytes.saturating_sub(self.bytes);
        self.budget.0.used.fetch_add(more, Ordering::Relaxed);
        self.bytes += more;
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.budget.0.used.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_return_their_bytes() {
        let budget = Budget::new(10);
        let mut share = budget.empty_share();
        assert!(share.grow_to(9) && share.grow_to(5), "a share never shrinks");
        assert_eq!(budget.used(), 9);
        assert!(!budget.empty_share().grow_to(2) && !share.grow_to(11));
        assert_eq!(budget.used(), 9);
        assert!(budget.has_room(1) && !budget.has_room(2));
        share.exceed_to(12);
        assert!(budget.used() == 12 && !budget.has_room(1));
        drop(share);
        assert_eq!(budget.used(), 0);
    }
}

//! The choice of partition for records without a key.
//!
//! The rules of this module:
//!  - All threads share one sticky partition, so that batches become as large as possible (KIP-480, KIP-794).
//!  - Each thread gets a separate choice once two threads contend for the shared one. No thread waits for another then.
//!  - A batch that leaves because its linger ended, and not because it is full, shows that there are too few records
//!    for several partitions. All threads share one choice again.

use std::sync::atomic::AtomicUsize as Counter;

use kafka_courier_batcher::Sticky;

use crate::sync::{AtomicBool, Mutex, Ordering};

/// The number of separate choices. More threads than this share them.
const STICKY_COUNT: usize = 16;

thread_local! {
    /// The index of this thread's separate choice.
    static OWN: usize = {
        static NEXT: Counter = Counter::new(0);
        NEXT.fetch_add(1, Ordering::Relaxed) % STICKY_COUNT
    };
}

#[derive(Debug)]
pub(crate) struct KeylessPartitioner {
    /// Whether each thread uses a separate choice.
    per_thread: AtomicBool,
    stickies: [PaddedSticky; STICKY_COUNT],
}

/// A sticky choice on separate cache lines.
#[derive(Debug)]
#[repr(align(128))]
struct PaddedSticky(Mutex<Sticky>);

impl KeylessPartitioner {
    /// Creates the choice. `batch_bytes` is the number of bytes that a partition gets before the next one is chosen.
    pub(crate) fn new(batch_bytes: usize) -> Self {
        let choice = |_| PaddedSticky(Mutex::new(Sticky::new(batch_bytes)));
        Self { per_thread: false.into(), stickies: std::array::from_fn(choice) }
    }

    /// Calls `act` with the choice that this thread uses now.
    pub(crate) fn with<R>(&self, act: impl FnOnce(&mut Sticky) -> R) -> R {
        let own = || OWN.with(|own| &self.stickies[*own].0);
        if self.per_thread.load(Ordering::Relaxed) {
            return act(&mut own().lock());
        }
        if let Some(mut shared) = self.stickies[0].0.try_lock() {
            return act(&mut shared);
        }
        self.per_thread.store(true, Ordering::Relaxed);
        act(&mut own().lock())
    }

    /// Makes all threads share one choice again.
    pub(crate) fn share_one(&self) {
        // Read first: an unneeded write would invalidate a cache line that every thread reads.
        if self.per_thread.load(Ordering::Relaxed) {
            self.per_thread.store(false, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::sync::{Arc, Barrier};

    use super::*;

    const PARTITIONS: i32 = 1000;

    fn pick(partitioner: &KeylessPartitioner) -> i32 {
        partitioner.with(|sticky| sticky.pick(1, PARTITIONS, &[], || fastrand::u64(..))).unwrap()
    }

    /// Returns two choices of each of `threads` threads.
    fn chosen(partitioner: &Arc<KeylessPartitioner>, threads: usize) -> Vec<(i32, i32)> {
        let barrier = Arc::new(Barrier::new(threads));
        let running: Vec<_> = (0..threads)
            .map(|_| {
                let (partitioner, barrier) = (partitioner.clone(), barrier.clone());
                std::thread::spawn(move || {
                    let first = pick(&partitioner);
                    barrier.wait();
                    (first, pick(&partitioner))
                })
            })
            .collect();
        running.into_iter().map(|thread| thread.join().unwrap()).collect()
    }

    #[test]
    fn uncontended_threads_share_a_partition() {
        let partitioner = KeylessPartitioner::new(1 << 20);
        let first = pick(&partitioner);
        let others =
            std::thread::scope(|scope| (0..8).map(|_| scope.spawn(|| pick(&partitioner)).join().unwrap()).collect());
        assert_eq!(BTreeSet::from([first]), others);
    }

    #[test]
    fn contending_threads_separate_and_rejoin() {
        let partitioner = Arc::new(KeylessPartitioner::new(1 << 20));
        let shared = pick(&partitioner);
        let held = partitioner.stickies[0].0.lock();
        std::thread::scope(|scope| {
            scope.spawn(|| partitioner.with(|_| ()));
            while !partitioner.per_thread.load(Ordering::Relaxed) {
                std::thread::yield_now();
            }
            // The thread's separate choice may be the one that is locked here.
            drop(held);
        });
        let per_thread = chosen(&partitioner, STICKY_COUNT);
        assert!(per_thread.iter().all(|(first, then)| first == then), "{per_thread:?}");
        assert!(
            per_thread.iter().map(|(first, _)| first).collect::<BTreeSet<_>>().len() > STICKY_COUNT / 2,
            "{per_thread:?}"
        );
        partitioner.share_one();
        assert!(std::thread::scope(
            |scope| (0..8).all(|_| scope.spawn(|| pick(&partitioner)).join().unwrap() == shared)
        ));
    }
}

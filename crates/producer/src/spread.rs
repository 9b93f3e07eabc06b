//! Which partition records without key go to at present.
//!
//! Rules: one for all threads, so that batches become as large as they can (KIP-480, KIP-794), until threads meet at that
//! choice: then each has its own, so that none waits for another. A batch that leaves for its age, not full, says that
//! there is too little for so many partitions: all threads come back to one.

use std::sync::atomic::AtomicUsize as Counter;

use kafka_courier_batcher::Sticky;

use crate::sync::{AtomicBool, Mutex, Ordering};

/// Choices at once, at most; threads beyond so many share them.
const CHOICES: usize = 16;

thread_local! {
    /// This thread's choice among them.
    static OWN: usize = {
        static NEXT: Counter = Counter::new(0);
        NEXT.fetch_add(1, Ordering::Relaxed) % CHOICES
    };
}

#[derive(Debug)]
pub(crate) struct Spread {
    /// Whether each thread has a choice of its own.
    apart: AtomicBool,
    choices: [Choice; CHOICES],
}

/// On cache lines of its own.
#[derive(Debug)]
#[repr(align(128))]
struct Choice(Mutex<Sticky>);

impl Spread {
    /// `batch_bytes` is what a partition gets before it is another's turn.
    pub(crate) fn new(batch_bytes: usize) -> Self {
        let choice = |_| Choice(Mutex::new(Sticky::new(batch_bytes)));
        Self { apart: false.into(), choices: std::array::from_fn(choice) }
    }

    /// Calls `act` with the choice that is this thread's now.
    pub(crate) fn with<R>(&self, act: impl FnOnce(&mut Sticky) -> R) -> R {
        let own = || OWN.with(|own| &self.choices[*own].0);
        if self.apart.load(Ordering::Relaxed) {
            return act(&mut own().lock());
        }
        if let Some(mut shared) = self.choices[0].0.try_lock() {
            return act(&mut shared);
        }
        self.apart.store(true, Ordering::Relaxed);
        act(&mut own().lock())
    }

    /// Brings all threads back to one choice.
    pub(crate) fn gather(&self) {
        // Looked at first: a line that every thread reads is not written without need.
        if self.apart.load(Ordering::Relaxed) {
            self.apart.store(false, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::sync::{Arc, Barrier};

    use super::*;

    const PARTITIONS: i32 = 1000;

    fn pick(spread: &Spread) -> i32 {
        spread.with(|sticky| sticky.pick(1, PARTITIONS, &[], || fastrand::u64(..))).unwrap()
    }

    /// The partitions that so many threads choose, each twice.
    fn chosen(spread: &Arc<Spread>, threads: usize) -> Vec<(i32, i32)> {
        let together = Arc::new(Barrier::new(threads));
        let running: Vec<_> = (0..threads)
            .map(|_| {
                let (spread, together) = (spread.clone(), together.clone());
                std::thread::spawn(move || {
                    let first = pick(&spread);
                    together.wait();
                    (first, pick(&spread))
                })
            })
            .collect();
        running.into_iter().map(|thread| thread.join().unwrap()).collect()
    }

    #[test]
    fn threads_that_do_not_meet_share_a_partition() {
        let spread = Spread::new(1 << 20);
        let first = pick(&spread);
        let others =
            std::thread::scope(|scope| (0..8).map(|_| scope.spawn(|| pick(&spread)).join().unwrap()).collect());
        assert_eq!(BTreeSet::from([first]), others);
    }

    #[test]
    fn threads_that_meet_have_each_their_own_until_a_batch_leaves_for_its_age() {
        let spread = Arc::new(Spread::new(1 << 20));
        let shared = pick(&spread);
        let held = spread.choices[0].0.lock();
        std::thread::scope(|scope| {
            scope.spawn(|| spread.with(|_| ()));
            while !spread.apart.load(Ordering::Relaxed) {
                std::thread::yield_now();
            }
            // What is that thread's own may be the one that is held here.
            drop(held);
        });
        let apart = chosen(&spread, CHOICES);
        assert!(apart.iter().all(|(first, then)| first == then), "{apart:?}");
        assert!(apart.iter().map(|(first, _)| first).collect::<BTreeSet<_>>().len() > CHOICES / 2, "{apart:?}");
        spread.gather();
        assert!(std::thread::scope(|scope| (0..8).all(|_| scope.spawn(|| pick(&spread)).join().unwrap() == shared)));
    }
}

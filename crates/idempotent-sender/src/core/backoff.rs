//! Exponential backoff with jitter, and the random numbers of the core.
//!
//! Rules:
//!  - The step doubles from `base` to `cap`.
//!  - The wait is drawn uniformly between half of the step and the whole step.
//!  - The same seed draws the same numbers, so a simulated schedule can be replayed.

use std::time::Duration;

/// Kafka's retry backoff (KIP-580).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff {
    /// The first step.
    pub base: Duration,
    /// The longest step.
    pub cap: Duration,
}

impl Backoff {
    /// Returns the wait after the `failures`-th failure in a row, counted from 1.
    pub(crate) fn wait(&self, failures: u32, jitter: &mut JitterRng) -> Duration {
        let doublings = failures.saturating_sub(1).min(31);
        let step = self.base.saturating_mul(1 << doublings).min(self.cap);
        step / 2 + (step / 2).mul_f64(jitter.fraction())
    }
}

/// A seeded random number generator (splitmix64).
#[derive(Clone, Debug)]
pub(crate) struct JitterRng(u64);

impl JitterRng {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Returns a number from 0 to 1, 1 excluded, uniformly distributed.
    fn fraction(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^= z >> 31;
        (z >> 11) as f64 / (1u64 << 53) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BACKOFF: Backoff = Backoff { base: Duration::from_millis(100), cap: Duration::from_secs(1) };

    #[test]
    fn wait_is_half_to_full_step() {
        let mut jitter = JitterRng::new(7);
        for (failures, step) in [(1, 100), (2, 200), (3, 400), (4, 800), (5, 1000), (40, 1000), (u32::MAX, 1000)] {
            for _ in 0..200 {
                let wait = BACKOFF.wait(failures, &mut jitter);
                assert!(
                    wait >= Duration::from_millis(step / 2) && wait <= Duration::from_millis(step),
                    "{failures}: {wait:?}"
                );
            }
        }
    }

    #[test]
    fn same_seed_draws_same_waits() {
        let draw = |seed| (1..20).map(|n| BACKOFF.wait(n, &mut JitterRng::new(seed))).collect::<Vec<_>>();
        assert_eq!(draw(3), draw(3));
        assert_ne!(draw(3), draw(4));
    }
}

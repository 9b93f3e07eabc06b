//! Exponential backoff with jitter, and the core's own source of chance.
//!
//! Rules: the step doubles from `base` to `cap`; the wait is drawn evenly between half of the step and
//! all of it; the same seed draws the same numbers, so that a simulated schedule replays.

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
    /// How long to wait after the `failures`-th failure in a row, counted from 1.
    pub(crate) fn wait(&self, failures: u32, chance: &mut Chance) -> Duration {
        let doublings = failures.saturating_sub(1).min(31);
        let step = self.base.saturating_mul(1 << doublings).min(self.cap);
        step / 2 + (step / 2).mul_f64(chance.fraction())
    }
}

/// A seeded generator (splitmix64): the core draws from what it was handed.
#[derive(Clone, Debug)]
pub(crate) struct Chance(u64);

impl Chance {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Evenly from 0 up to, not including, 1.
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
    fn each_wait_lies_between_half_of_its_step_and_all_of_it() {
        let mut chance = Chance::new(7);
        for (failures, step) in [(1, 100), (2, 200), (3, 400), (4, 800), (5, 1000), (40, 1000), (u32::MAX, 1000)] {
            for _ in 0..200 {
                let wait = BACKOFF.wait(failures, &mut chance);
                assert!(
                    wait >= Duration::from_millis(step / 2) && wait <= Duration::from_millis(step),
                    "{failures}: {wait:?}"
                );
            }
        }
    }

    #[test]
    fn the_same_seed_draws_the_same_waits() {
        let draw = |seed| (1..20).map(|n| BACKOFF.wait(n, &mut Chance::new(seed))).collect::<Vec<_>>();
        assert_eq!(draw(3), draw(3));
        assert_ne!(draw(3), draw(4));
    }
}

//! Who has refused us lately, and why.
//!
//! Rule: whoever refused our credentials, or is not the one that it should be, is left alone for as long as the core leaves
//! a broker alone: whoever wants to dial it is told the former refusal. A wrong password that is tried on and on locks accounts.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use parking_lot::Mutex;

use super::health::HealthPart;
use crate::core::{REFUSED_PAUSE, Reason};

/// A refusal, and the part of the way on which it came.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Refusal {
    pub(crate) reason: Reason,
    pub(crate) part: HealthPart,
    until: Instant,
}

impl Refusal {
    pub(crate) fn new(now: Instant, reason: Reason, part: HealthPart) -> Self {
        Self { reason, part, until: now + REFUSED_PAUSE }
    }

    pub(crate) fn stands(&self, now: Instant) -> bool {
        self.until > now
    }
}

/// The refusals of all brokers, by the names that they were dialled under. Clones share them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Refusals(Arc<Mutex<HashMap<(String, u16), Refusal>>>);

impl Refusals {
    /// Notes what came of dialling a broker, if it was a refusal.
    pub(crate) fn note(&self, now: Instant, host: &str, port: u16, reason: &Reason, part: HealthPart) {
        if matches!(reason, Reason::NotAvailable(_)) {
            return;
        }
        let mut known = self.0.lock();
        known.retain(|_, refusal| refusal.stands(now));
        known.insert((host.to_owned(), port), Refusal::new(now, reason.clone(), part));
    }

    /// The broker's refusal, while it stands.
    pub(crate) fn standing(&self, now: Instant, host: &str, port: u16) -> Option<Refusal> {
        let known = self.0.lock();
        let refusal = known.iter().find(|((name, number), _)| name == host && *number == port)?.1;
        refusal.stands(now).then(|| refusal.clone())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::core::ErrorCode;

    fn refused() -> Reason {
        Reason::Broker { code: ErrorCode::SASL_AUTHENTICATION_FAILED, message: None }
    }

    #[test]
    fn a_refusal_stands_for_its_broker_alone_and_until_the_pause_is_over() {
        let (refusals, now) = (Refusals::default(), Instant::now());
        refusals.clone().note(now, "a", 9092, &refused(), HealthPart::Sasl);
        let told = refusals.standing(now + REFUSED_PAUSE - Duration::from_millis(1), "a", 9092).unwrap();
        assert_eq!((told.reason, told.part), (refused(), HealthPart::Sasl));
        assert_eq!(refusals.standing(now, "a", 9093), None);
        assert_eq!(refusals.standing(now, "b", 9092), None);
        assert_eq!(refusals.standing(now + REFUSED_PAUSE, "a", 9092), None);
    }

    #[test]
    fn a_broker_that_could_not_be_reached_has_refused_nobody() {
        let (refusals, now) = (Refusals::default(), Instant::now());
        refusals.note(now, "a", 9092, &Reason::NotAvailable("down".into()), HealthPart::Connect);
        assert_eq!(refusals.standing(now, "a", 9092), None);
    }

    #[test]
    fn refusals_that_are_over_are_not_kept() {
        let (refusals, now) = (Refusals::default(), Instant::now());
        for port in 0..100 {
            refusals.note(now + REFUSED_PAUSE * u32::from(port), "a", port, &refused(), HealthPart::Sasl);
        }
        assert_eq!(refusals.0.lock().len(), 1);
    }
}

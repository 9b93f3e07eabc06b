//! Recent refusals of the client, per broker.
//!
//! Rule: a broker that refused the client is not dialed for [`REFUSED_PAUSE`]. Callers get the earlier refusal meanwhile.
//! A wrong password that is tried again and again locks accounts. Every failure counts as a refusal but an unreachable
//! broker.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::health_part::HealthPart;
use crate::reason::Reason;

/// The pause after a refusal. No connection to that broker is opened meanwhile, and batches that need the broker fail
/// immediately. Repeated attempts with a wrong password would lock accounts.
pub const REFUSED_PAUSE: Duration = Duration::from_secs(5);

/// A refusal, and the part of the connection's setup that failed.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct BrokerRefusal {
    pub(crate) reason: Reason,
    pub(crate) part: HealthPart,
    until: Instant,
}

impl BrokerRefusal {
    pub(crate) fn new(now: Instant, reason: Reason, part: HealthPart) -> Self {
        Self { reason, part, until: now + REFUSED_PAUSE }
    }

    pub(crate) fn is_current(&self, now: Instant) -> bool {
        self.until > now
    }
}

/// The refusals of all brokers, by the dialed name and port. Clones share them.
#[derive(Clone, Debug, Default)]
pub(crate) struct BrokerRefusals(Arc<Mutex<HashMap<(String, u16), BrokerRefusal>>>);

impl BrokerRefusals {
    /// Records the result of dialing a broker, if it was a refusal.
    pub(crate) fn record(&self, now: Instant, host: &str, port: u16, reason: &Reason, part: HealthPart) {
        if matches!(reason, Reason::NotAvailable(_)) {
            return;
        }
        let mut known = self.0.lock();
        known.retain(|_, refusal| refusal.is_current(now));
        known.insert((host.to_owned(), port), BrokerRefusal::new(now, reason.clone(), part));
    }

    /// Returns the broker's refusal while it is current.
    pub(crate) fn current(&self, now: Instant, host: &str, port: u16) -> Option<BrokerRefusal> {
        let known = self.0.lock();
        let refusal = known.iter().find(|((name, number), _)| name == host && *number == port)?.1;
        refusal.is_current(now).then(|| refusal.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error_code::ErrorCode;

    fn refused() -> Reason {
        Reason::Broker { code: ErrorCode::SASL_AUTHENTICATION_FAILED, message: None }
    }

    #[test]
    fn refusal_lasts_for_the_pause() {
        let (refusals, now) = (BrokerRefusals::default(), Instant::now());
        refusals.clone().record(now, "a", 9092, &refused(), HealthPart::Sasl);
        let refusal = refusals.current(now + REFUSED_PAUSE - Duration::from_millis(1), "a", 9092).unwrap();
        assert_eq!((refusal.reason, refusal.part), (refused(), HealthPart::Sasl));
        assert_eq!(refusals.current(now, "a", 9093), None);
        assert_eq!(refusals.current(now, "b", 9092), None);
        assert_eq!(refusals.current(now + REFUSED_PAUSE, "a", 9092), None);
    }

    #[test]
    fn unreachable_broker_is_no_refusal() {
        let (refusals, now) = (BrokerRefusals::default(), Instant::now());
        refusals.record(now, "a", 9092, &Reason::NotAvailable("down".into()), HealthPart::Connect);
        assert_eq!(refusals.current(now, "a", 9092), None);
    }

    #[test]
    fn expired_refusals_are_removed() {
        let (refusals, now) = (BrokerRefusals::default(), Instant::now());
        for port in 0..100 {
            refusals.record(now + REFUSED_PAUSE * u32::from(port), "a", port, &refused(), HealthPart::Sasl);
        }
        assert_eq!(refusals.0.lock().len(), 1);
    }
}

//! Stored batches of which nothing can show whether they are written.
//!
//! Rules:
//!  - [`DoubtPolicy`] decides. A batch whose records the leader rejected fails under every policy: neither a wait nor a
//!    repeat helps.
//!  - A batch that is held is looked up again after each backoff. A right that is granted meanwhile ends the wait.
//!  - A batch that is sent again has a new stamp, and so have all batches behind it, so that their order stays. Its outcome is
//!    unknown if it fails later.

use kafka_courier_client::Reason;

use super::super::config::DoubtPolicy;
use super::super::effects::Context;
use super::super::flight::{Flight, Proof};
use super::super::types::Action;
use super::PartitionSender;
use super::stamps::EpochMove;

/// Why a partition waits.
const IN_DOUBT: &str = "nothing shows whether its events are written: grant Read on the topic, or change spool_doubt";

impl<T: Clone> PartitionSender<T> {
    /// Decides about a head that would fail as unknown. Returns whether it is held or sent again instead.
    pub(super) fn settle_doubt(&mut self, cx: &mut Context<'_, T>) -> bool {
        let Some(head) = self.window.front_mut().filter(|head| head.is_in_doubt()) else { return false };
        match cx.config.doubt {
            DoubtPolicy::Fail => false,
            DoubtPolicy::Hold => {
                head.needs_lookup = true;
                let reason = Reason::NoAnswer(IN_DOUBT.into());
                cx.out.actions.push_back(Action::Waits { partition: self.id, reason });
                self.retry.forget_lookup();
                self.back_off(cx);
                true
            }
            DoubtPolicy::Resend => {
                self.take_back_unconfirmed();
                for flight in &mut self.window {
                    if flight.proof == Proof::None && flight.may_be_written() {
                        flight.may_be_doubled = true;
                        cx.out.counters.resent_in_doubt += 1;
                    }
                }
                self.restamp_all(EpochMove::InDoubt, cx);
                true
            }
        }
    }
}

impl<T: Clone> Flight<T> {
    /// Returns whether nothing shows if this stored batch is written, and it could still be sent.
    fn is_in_doubt(&self) -> bool {
        let is_corrupt = matches!(self.history.reason, Some(Reason::Corrupt(_)));
        let is_open = self.proof == Proof::None && self.outstanding.is_none() && self.may_be_written();
        self.stored.is_some() && is_open && !self.is_rejected && !is_corrupt
    }
}

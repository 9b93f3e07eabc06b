//! [`Promises`], deliveries that their maker settles: for a mock of a producer.

use std::sync::Arc;

use kafka_courier_idempotent_sender::core::{RecordSet, Verdict};
use kafka_courier_spool::core::entry::{Ordinal, Partition, TopicNumber};

use crate::delivery::{Delivery, StoredIdentity, Token};
use crate::ledger::BatchLedger;
use crate::shared::wall_clock_ms;
use crate::spool::StoredPlace;
use crate::trace::SpanOrigin;

/// Makes deliveries, and knows which of them have no verdict yet.
#[derive(Clone, Debug, Default)]
pub struct Promises {
    ledger: Arc<BatchLedger>,
}

/// The verdict that a [`Delivery`] waits for. A promise that is dropped fails the delivery as unknown.
#[derive(Debug)]
pub struct Promise {
    token: Token,
    ledger: Arc<BatchLedger>,
}

impl Promises {
    /// Returns the delivery of an event for partition 0 of `topic`, and the promise of its verdict.
    pub fn promise(&self, topic: &str) -> (Promise, Delivery) {
        let token = Token::new(topic, 0, &self.ledger, &SpanOrigin::default());
        token.state().set_record_count(1);
        // A mock stores everything.
        let partition = Partition { topic: TopicNumber(0), index: 0 };
        let place = StoredPlace { partition, first: Ordinal(0) };
        token.state().set_stored(StoredIdentity { place, spool: [0; 16], nonce: [].into() });
        let delivery = Delivery::new(token.state().clone(), 0, wall_clock_ms());
        (Promise { token, ledger: self.ledger.clone() }, delivery)
    }

    /// Waits until every promise that was made before the call is settled.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future changes nothing.
    pub async fn settled(&self) {
        self.ledger.wait_until_settled().await;
    }
}

impl Promise {
    /// Gives the delivery its verdict.
    pub fn settle(self, verdict: Verdict) {
        self.token.state().settle(RecordSet::Range(0..1), verdict);
        self.ledger.decide();
        self.ledger.remove(self.token.state().number);
    }
}

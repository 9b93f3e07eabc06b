//! The keys of requests whose events an earlier process stored.
//!
//! Rule: a key whose event has no verdict in this process yet has the event's delivery. The event of another key is delivered, or
//! is a durable dead letter.

use std::collections::BTreeMap;
use std::sync::Arc;

use kafka_courier_spool::core::entry::{Ordinal, Partition};
use kafka_courier_spool::core::keys::RecordKey;

use crate::delivery::{BatchState, Delivery};
use crate::spool::StoredPlace;

/// The key of a request, and one event of the request that an earlier process stored.
#[derive(Clone, Debug)]
pub struct RecoveredKey {
    /// The digest of the key and its client.
    pub digest: [u8; 16],
    /// The digest of the request's payload.
    pub payload: [u8; 16],
    /// The time of the request, in milliseconds since 1970-01-01 UTC.
    pub at_ms: u64,
    /// The place of the event in the request, from 0.
    pub index: u32,
    /// The number of events in the request.
    pub count: u32,
    /// The event's delivery. `None` if an earlier process settled the event: it is delivered, or a dead letter.
    pub delivery: Option<Delivery>,
}

/// The batches of earlier processes, by their places in the spool.
#[derive(Debug, Default)]
pub(crate) struct RecoveredBatches(BTreeMap<(Partition, Ordinal), RecoveredState>);

#[derive(Debug)]
struct RecoveredState {
    count: u32,
    timestamp: i64,
    state: Arc<BatchState>,
}

impl RecoveredBatches {
    pub(crate) fn insert(&mut self, place: StoredPlace, count: u32, timestamp: i64, state: Arc<BatchState>) {
        self.0.insert((place.partition, place.first), RecoveredState { count, timestamp, state });
    }

    /// Returns the delivery of a record, if its batch is here.
    fn delivery(&self, partition: Partition, ordinal: Ordinal) -> Option<Delivery> {
        let ((_, first), batch) = self.0.range((partition, Ordinal(0))..=(partition, ordinal)).next_back()?;
        let index = u32::try_from(ordinal.0.checked_sub(first.0)?).ok().filter(|index| *index < batch.count)?;
        Some(Delivery::new(batch.state.clone(), index, batch.timestamp))
    }

    /// Returns the keys with the deliveries of their events.
    pub(crate) fn with_keys(&self, keys: &[RecordKey]) -> Vec<RecoveredKey> {
        let recovered = |key: &RecordKey| RecoveredKey {
            digest: key.key,
            payload: key.payload,
            at_ms: key.at_ms,
            index: key.index,
            count: key.count,
            delivery: self.delivery(key.partition, key.ordinal),
        };
        keys.iter().map(recovered).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::delivery::Token;
    use crate::trace::SpanOrigin;

    #[test]
    fn unsettled_event_has_its_delivery() {
        let token = Token::new("t", 3, &Arc::default(), &SpanOrigin::default());
        let partition = Partition::default();
        let mut batches = RecoveredBatches::default();
        batches.insert(StoredPlace { partition, first: Ordinal(5) }, 2, 7, token.state().clone());
        let key = |ordinal| {
            let (key, payload, ordinal) = ([1; 16], [2; 16], Ordinal(ordinal));
            RecordKey { key, payload, at_ms: 9, partition, ordinal, index: 0, count: 1 }
        };
        let recovered = batches.with_keys(&[key(4), key(5), key(6), key(7)]);
        let has_delivery: Vec<bool> = recovered.iter().map(|key| key.delivery.is_some()).collect();
        assert_eq!(has_delivery, [false, true, true, false]);
    }
}

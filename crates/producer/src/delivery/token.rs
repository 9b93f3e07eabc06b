//! The token of a batch, as the spool sees it: with items and keys of its records, which the spool stores with the batch.
//!
//! Rules:
//!  - A batch without items and keys costs nothing.
//!  - The token of a stored batch is retired once no delivery refers to the batch, and no tag is at a record of it. A ticket
//!    stands for the batch in the ledger from then on.

use std::sync::{Arc, OnceLock};

use kafka_courier_idempotent_sender::core::RecordSet;
use kafka_courier_spool::core::entry::Ordinal;
use kafka_courier_spool::core::inputs::{InputNumber, ItemSet};

use super::{BatchInner, BatchOwner, BatchState, Delivery, Tag, Token};
use crate::ledger::BatchLedger;
use crate::spool::{BatchToken, InputItem, RequestKey, Ticket};
use crate::sync::Mutex;
use crate::trace::{self, SpanOrigin};

impl Token {
    /// Creates the token of a new batch and enters the batch in the ledger.
    pub(crate) fn new(topic: &str, partition: i32, ledger: &Arc<BatchLedger>, origin: &SpanOrigin) -> Self {
        Self::with_number(topic, partition, ledger, origin, ledger.enter())
    }

    /// Creates the token of a batch for which a number stands in the ledger.
    pub(crate) fn with_number(
        topic: &str,
        partition: i32,
        ledger: &Arc<BatchLedger>,
        origin: &SpanOrigin,
        number: u64,
    ) -> Self {
        let span = Some(trace::send_span(topic, partition, origin)).filter(|span| !span.is_disabled());
        let (topic, inner) = (topic.into(), Mutex::new(BatchInner { span, ..BatchInner::default() }));
        let state = Arc::new(BatchState { topic, partition, number, common: OnceLock::new(), inner });
        Self(Arc::new(BatchOwner { state, ledger: ledger.clone() }))
    }

    pub(crate) fn state(&self) -> &Arc<BatchState> {
        &self.0.state
    }
}

impl BatchToken for Token {
    fn items(&self) -> Vec<(InputNumber, ItemSet)> {
        self.state().inner.lock().items.clone()
    }

    fn keys(&self) -> Vec<(u32, RequestKey)> {
        self.state().inner.lock().keys.clone()
    }

    fn retire(&self, ticket: Option<Ticket>) -> Option<Ticket> {
        let (owner, number) = (&self.0, self.state().number);
        // A batch that is sealed gets no further delivery, so both counts only fall.
        let is_asked = Arc::strong_count(owner) > 1 || Arc::strong_count(&owner.state) > 1;
        let ticket = ticket.unwrap_or(Ticket(number));
        // A flush waits for the ticket instead.
        if is_asked || number < ticket.0 || !owner.state.retire() {
            return None;
        }
        if number != ticket.0 {
            owner.ledger.merge(number, ticket.0);
        }
        Some(ticket)
    }
}

impl BatchState {
    /// Ends the state without a verdict, because another stands for the batch. Returns false if a record has a tag.
    fn retire(&self) -> bool {
        let mut inner = self.inner.lock();
        let Some(total) = inner.total.filter(|_| inner.tags.is_empty() && inner.settled == 0) else { return false };
        (inner.decided, inner.settled) = (total, total);
        let ended = inner.span.take();
        drop(inner);
        drop(ended);
        true
    }

    /// Adds the item of the record at `index`.
    pub(crate) fn add_item(&self, index: u32, item: &InputItem) {
        let (input, number) = (item.input.number, Ordinal(item.number));
        let mut inner = self.inner.lock();
        inner.item_records.push(index);
        match inner.items.iter_mut().find(|(of, _)| *of == input) {
            Some((_, items)) => items.insert(number, item.check),
            None => {
                let mut items = ItemSet::default();
                items.insert(number, item.check);
                inner.items.push((input, items));
            }
        }
    }

    /// Adds the key of the record at `index`.
    pub(crate) fn add_key(&self, index: u32, key: &RequestKey) {
        self.inner.lock().keys.push((index, *key));
    }

    /// Returns the records that are items of an input, and the others of a batch of `count` records.
    pub(crate) fn split_items(&self, count: u32) -> (RecordSet, RecordSet) {
        let items = self.inner.lock().item_records.clone();
        if items.is_empty() {
            return (RecordSet::Range(0..0), RecordSet::Range(0..count));
        }
        let others = (0..count).filter(|index| items.binary_search(index).is_err()).collect();
        (RecordSet::List(items), RecordSet::List(others))
    }
}

impl Delivery {
    /// Attaches a tag to the event of an earlier process: the failure sink gets it if the event fails later.
    pub fn set_tag(&self, tag: &Tag) {
        self.state.tag_record(self.index, tag.clone());
    }
}

//! The items of a batch's records: the spool stores them with the batch.
//!
//! Rule: a batch without items costs nothing.

use kafka_courier_spool::core::entry::Ordinal;
use kafka_courier_spool::core::inputs::{InputNumber, ItemSet};

use super::{BatchState, Token};
use crate::spool::{BatchItems, InputItem};

impl BatchItems for Token {
    fn items(&self) -> Vec<(InputNumber, ItemSet)> {
        self.state().inner.lock().items.clone()
    }
}

impl BatchState {
    /// Adds the item of a record.
    pub(crate) fn add_item(&self, item: &InputItem) {
        let (input, number) = (item.input.number, Ordinal(item.number));
        let mut inner = self.inner.lock();
        match inner.items.iter_mut().find(|(of, _)| *of == input) {
            Some((_, items)) => items.insert(number, item.check),
            None => {
                let mut items = ItemSet::default();
                items.insert(number, item.check);
                inner.items.push((input, items));
            }
        }
    }

    /// Returns whether some records are items of an input.
    pub(crate) fn has_items(&self) -> bool {
        !self.inner.lock().items.is_empty()
    }
}

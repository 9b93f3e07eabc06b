//! Values beside the records of a batch: items and keys, which the spool stores with the batch, and tags of stored events.
//!
//! Rule: a batch without items and keys costs nothing.

use kafka_courier_idempotent_sender::core::RecordSet;
use kafka_courier_spool::core::entry::Ordinal;
use kafka_courier_spool::core::inputs::{InputNumber, ItemSet};

use super::{BatchState, Delivery, Tag, Token};
use crate::spool::{BatchItems, InputItem, RequestKey};

impl BatchItems for Token {
    fn items(&self) -> Vec<(InputNumber, ItemSet)> {
        self.state().inner.lock().items.clone()
    }

    fn keys(&self) -> Vec<(u32, RequestKey)> {
        self.state().inner.lock().keys.clone()
    }
}

impl BatchState {
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

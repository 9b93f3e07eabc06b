//! The inputs of a spool, as the rest of the producer and its callers see them.
//!
//! Rule: plain data. The journal keeps the items, and the stage adds those of a batch to the batch's round.

use std::sync::Arc;

use kafka_courier_spool::core::entry::Ordinal;
use kafka_courier_spool::core::inputs::{InputNumber, Inputs, ItemSet};

/// An input of a spool: a file whose items are published through it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct InputId {
    /// The number of the input in its spool.
    pub(crate) number: InputNumber,
    /// The id of the spool.
    pub(crate) spool: [u8; 16],
}

impl InputId {
    /// Returns the id as bytes. An input of another spool has other bytes.
    pub fn to_bytes(self) -> [u8; 20] {
        let mut bytes = [0; 20];
        bytes[..16].copy_from_slice(&self.spool);
        bytes[16..].copy_from_slice(&self.number.0.to_be_bytes());
        bytes
    }
}

/// An item of an input: a line of a file, or an element of its array.
///
/// The spool stores the item together with its event, so that a later process knows whether the event is published.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct InputItem {
    /// The input.
    pub input: InputId,
    /// The number of the item in its input. Each item has another one.
    pub number: u64,
    /// A hash of the item. The spool keeps the sum of all.
    pub check: u64,
}

/// An input, and its items that are dealt with: their events are stored, or they have none.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SpooledInput {
    id: InputId,
    name: Arc<str>,
    items: ItemSet,
}

impl SpooledInput {
    /// Returns the input's id.
    pub fn id(&self) -> InputId {
        self.id
    }

    /// Returns the name that the input was begun with.
    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// Returns whether an item is dealt with.
    pub fn has(&self, number: u64) -> bool {
        self.items.numbers.contains(Ordinal(number))
    }

    /// Returns the number of items that are dealt with.
    pub fn count(&self) -> u64 {
        self.items.numbers.iter().map(|(first, end)| end.0.saturating_sub(first.0)).sum()
    }

    /// Returns the highest number of an item that is dealt with.
    pub fn last(&self) -> Option<u64> {
        self.items.numbers.iter().last().map(|(_, end)| end.0.saturating_sub(1))
    }

    /// Returns the sum of the checks of all items that are dealt with, modulo 2^64.
    pub fn check(&self) -> u64 {
        self.items.check
    }
}

/// Returns the inputs of a spool, in the order in which they were begun.
pub(crate) fn spooled_inputs(spool: [u8; 16], inputs: &Inputs) -> Vec<SpooledInput> {
    let spooled = |(number, input): (InputNumber, &kafka_courier_spool::core::inputs::InputTable)| SpooledInput {
        id: InputId { number, spool },
        name: input.name.clone(),
        items: input.items.clone(),
    };
    inputs.iter().map(spooled).collect()
}

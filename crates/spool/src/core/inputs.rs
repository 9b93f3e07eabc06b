//! Inputs: files whose items are published through the spool, and the items of each that are dealt with.
//!
//! Rules:
//!  - An item is dealt with once a durable frame names it. The same frame holds the batch with the item's record, if the
//!    item has one. An item and its record are therefore durable together, or neither is.
//!  - The items of an input become durable in any order. The table holds their numbers as ranges, so nothing is lost between
//!    two partitions of different speed, and a segment may be retired with its batches.
//!  - Of the items of an entry, the table has none, or it has all: the entry is then a repeat, and changes nothing.
//!  - The check of several items is the sum of theirs. It does not depend on their order.
//!  - An input replaces the earlier one of the same name. The table keeps the last [`INPUTS_KEPT`] inputs.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::ids::Ordinal;
use super::ranges::OrdinalSet;

/// The number of inputs that a table keeps.
pub const INPUTS_KEPT: usize = 1000;

/// An input's number within a spool. A file that is published again from its start is another input.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct InputNumber(pub u32);

/// Items of one input, by their numbers in the input.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ItemSet {
    /// The numbers of the items.
    pub numbers: OrdinalSet,
    /// The sum of the items' checks, modulo 2^64. The layer above defines the check of an item.
    pub check: u64,
}

impl ItemSet {
    /// Adds an item that the set does not have.
    pub fn insert(&mut self, number: Ordinal, check: u64) {
        self.numbers.insert(number, number.plus(1));
        self.check = self.check.wrapping_add(check);
    }

    /// Adds the items of another set. The set must have none of them, or all.
    pub fn merge(&mut self, other: &Self) {
        let mut ranges = other.numbers.iter().peekable();
        if ranges.peek().is_none_or(|(first, _)| self.numbers.contains(*first)) {
            return;
        }
        ranges.for_each(|(first, end)| self.numbers.insert(first, end));
        self.check = self.check.wrapping_add(other.check);
    }

    /// Returns whether the set has no item.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.numbers.is_empty()
    }
}

/// An input, and its items that are dealt with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InputTable {
    /// The name that the layer above gave the input.
    pub name: Arc<str>,
    /// The items that are dealt with.
    pub items: ItemSet,
}

/// The inputs of a spool.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Inputs(BTreeMap<InputNumber, InputTable>);

impl Inputs {
    /// Returns the inputs, by number.
    pub fn iter(&self) -> impl Iterator<Item = (InputNumber, &InputTable)> {
        self.0.iter().map(|(number, input)| (*number, input))
    }

    /// Returns the number for the next input.
    #[must_use]
    pub fn next(&self) -> InputNumber {
        self.0.last_key_value().map_or(InputNumber(1), |(last, _)| InputNumber(last.0.saturating_add(1)))
    }

    /// Adds an input. A repeat changes nothing.
    pub(super) fn begin(&mut self, number: InputNumber, name: &Arc<str>) {
        let is_replaced = |(other, input): (&InputNumber, &InputTable)| *other >= number && input.name == *name;
        if self.0.contains_key(&number) || self.0.iter().any(is_replaced) {
            return;
        }
        self.0.retain(|_, input| input.name != *name);
        self.0.insert(number, InputTable { name: name.clone(), items: ItemSet::default() });
        while self.0.len() > INPUTS_KEPT {
            self.0.pop_first();
        }
    }

    /// Notes items that are dealt with. Items of an input that was replaced are ignored.
    pub(super) fn deal(&mut self, number: InputNumber, items: &ItemSet) {
        if let Some(input) = self.0.get_mut(&number) {
            input.items.merge(items);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn items(numbers: &[u64]) -> ItemSet {
        let mut items = ItemSet::default();
        numbers.iter().for_each(|number| items.insert(Ordinal(*number), number * 1000));
        items
    }

    fn names(inputs: &Inputs) -> Vec<(u32, &str)> {
        inputs.iter().map(|(number, input)| (number.0, &*input.name)).collect()
    }

    #[test]
    fn repeats_change_nothing() {
        let mut inputs = Inputs::default();
        inputs.begin(InputNumber(1), &"a".into());
        let all = [items(&[1, 2, 7]), items(&[3, 5]), items(&[])];
        for dealt in all.iter().chain(&all) {
            inputs.deal(InputNumber(1), dealt);
        }
        inputs.begin(InputNumber(1), &"a".into());
        let (_, input) = inputs.iter().next().unwrap();
        assert_eq!(input.items, items(&[7, 5, 3, 2, 1]));
        assert_eq!(input.items.check, 18_000);
    }

    #[test]
    fn later_input_replaces_its_name() {
        let mut inputs = Inputs::default();
        for (number, name) in [(1, "a"), (2, "b"), (3, "a"), (1, "a")] {
            inputs.begin(InputNumber(number), &name.into());
        }
        inputs.deal(InputNumber(1), &items(&[1]));
        assert_eq!((names(&inputs), inputs.next()), (vec![(2, "b"), (3, "a")], InputNumber(4)));
        assert!(inputs.iter().all(|(_, input)| input.items.is_empty()));
    }

    #[test]
    fn oldest_input_is_dropped() {
        let mut inputs = Inputs::default();
        for number in 1..=INPUTS_KEPT as u32 + 1 {
            inputs.begin(InputNumber(number), &number.to_string().into());
        }
        inputs.begin(InputNumber(1), &"1".into());
        assert_eq!(inputs.iter().count(), INPUTS_KEPT);
        assert_eq!(names(&inputs)[0], (2, "2"));
    }
}

//! Sets of ordinals, as ranges.
//!
//! Rule: ranges of a set neither overlap nor touch.

use std::collections::BTreeMap;

use super::ids::Ordinal;

/// A set of ordinals.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OrdinalSet {
    /// Each range's first ordinal, and the one after its last.
    ranges: BTreeMap<Ordinal, Ordinal>,
}

impl OrdinalSet {
    /// Adds the ordinals from `first` up to `end`, which is not included.
    pub fn insert(&mut self, mut first: Ordinal, mut end: Ordinal) {
        if first >= end {
            return;
        }
        while let Some((&begin, &stop)) = self.ranges.range(..=end).next_back().filter(|(_, stop)| **stop >= first) {
            self.ranges.remove(&begin);
            (first, end) = (first.min(begin), end.max(stop));
        }
        self.ranges.insert(first, end);
    }

    /// Returns the set of the ordinals of all ranges, each with the ordinal after its last.
    pub fn from_ranges(ranges: impl IntoIterator<Item = (Ordinal, Ordinal)>) -> Self {
        let mut set = Self::default();
        ranges.into_iter().for_each(|(first, end)| set.insert(first, end));
        set
    }

    /// Removes all ordinals before `end`.
    pub fn remove_before(&mut self, end: Ordinal) {
        while let Some((&begin, &stop)) = self.ranges.first_key_value().filter(|(begin, _)| **begin < end) {
            self.ranges.remove(&begin);
            if stop > end {
                self.ranges.insert(end, stop);
            }
        }
    }

    /// Returns whether the set holds an ordinal.
    #[must_use]
    pub fn contains(&self, ordinal: Ordinal) -> bool {
        self.ranges.range(..=ordinal).next_back().is_some_and(|(_, stop)| *stop > ordinal)
    }

    /// Returns how many ordinals from `first` up to `end` the set holds.
    #[must_use]
    pub fn count_within(&self, first: Ordinal, end: Ordinal) -> u64 {
        let within = |(begin, stop): (&Ordinal, &Ordinal)| end.min(*stop).0.saturating_sub(first.max(*begin).0);
        self.ranges.range(..end).map(within).sum()
    }

    /// Returns the ranges, each with the ordinal after its last.
    pub fn iter(&self) -> impl Iterator<Item = (Ordinal, Ordinal)> {
        self.ranges.iter().map(|(first, end)| (*first, *end))
    }

    /// Returns whether the set is empty.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn set_equals_the_model(steps in prop::collection::vec((0_u64..40, 0_u64..12, prop::bool::weighted(0.2)), 0..60)) {
            let (mut set, mut model) = (OrdinalSet::default(), BTreeSet::new());
            for (first, length, removes) in steps {
                if removes {
                    set.remove_before(Ordinal(first));
                    model.retain(|ordinal| *ordinal >= first);
                } else {
                    set.insert(Ordinal(first), Ordinal(first + length));
                    model.extend(first..first + length);
                }
                for ordinal in 0..60 {
                    prop_assert_eq!(set.contains(Ordinal(ordinal)), model.contains(&ordinal));
                }
                let counted = model.range(10..30).count() as u64;
                prop_assert_eq!(set.count_within(Ordinal(10), Ordinal(30)), counted);
                let ranges: Vec<_> = set.iter().collect();
                prop_assert!(ranges.windows(2).all(|pair| pair[0].1 < pair[1].0));
            }
        }
    }
}

//! A set of numbers as disjoint, non-adjacent half-open ranges.

use std::collections::BTreeMap;
use std::ops::Range;

/// The set.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct RangeSet(BTreeMap<u64, u64>);

impl RangeSet {
    /// Adds a range; an empty one changes nothing.
    pub(crate) fn insert(&mut self, range: Range<u64>) {
        if range.is_empty() {
            return;
        }
        let Range { mut start, mut end } = range;
        if let Some((&before, &before_end)) = self.0.range(..=start).next_back()
            && before_end >= start
        {
            if before_end >= end {
                return;
            }
            start = before;
        }
        while let Some((&next, &next_end)) = self.0.range(start..=end).next() {
            end = end.max(next_end);
            self.0.remove(&next);
        }
        self.0.insert(start, end);
    }

    /// Whether every number of a range is in it.
    pub(crate) fn covers(&self, range: Range<u64>) -> bool {
        if range.is_empty() {
            return true;
        }
        let before = self.0.range(..=range.start).next_back();
        before.is_some_and(|(_, &end)| end >= range.end)
    }

    /// The first number at or after `from` that is not in it.
    pub(crate) fn first_gap(&self, from: u64) -> u64 {
        let before = self.0.range(..=from).next_back();
        before.map_or(from, |(_, &end)| end.max(from))
    }

    /// The parts of `range` that are not in it, in order.
    pub(crate) fn gaps(&self, range: Range<u64>) -> Vec<Range<u64>> {
        let mut gaps = Vec::new();
        let mut at = range.start;
        for inside in self.within(range.clone()) {
            if at < inside.start {
                gaps.push(at..inside.start);
            }
            at = inside.end;
        }
        if at < range.end {
            gaps.push(at..range.end);
        }
        gaps
    }

    /// The parts of `range` that are in it, in order.
    pub(crate) fn within(&self, range: Range<u64>) -> Vec<Range<u64>> {
        let mut parts = Vec::new();
        if range.is_empty() {
            return parts;
        }
        let first = self
            .0
            .range(..=range.start)
            .next_back()
            .map_or(range.start, |(&at, _)| at);
        for (&start, &end) in self.0.range(first..range.end) {
            let (start, end) = (start.max(range.start), end.min(range.end));
            if start < end {
                parts.push(start..end);
            }
        }
        parts
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn it_holds_exactly_the_numbers_inserted(
            inserted in prop::collection::vec((0_u64..60, 0_u64..12), 0..30),
            asked in (0_u64..70, 0_u64..20),
        ) {
            let mut set = RangeSet::default();
            let mut model = BTreeSet::new();
            for (start, length) in inserted {
                set.insert(start..start + length);
                model.extend(start..start + length);
            }

            let asked = asked.0..asked.0 + asked.1;
            let inside: Vec<u64> = set.within(asked.clone()).into_iter().flatten().collect();
            let outside: Vec<u64> = set.gaps(asked.clone()).into_iter().flatten().collect();
            let expected: Vec<u64> = asked.clone().filter(|n| model.contains(n)).collect();
            prop_assert_eq!(&inside, &expected);
            prop_assert_eq!(inside.len() + outside.len(), asked.clone().count());
            prop_assert_eq!(set.covers(asked.clone()), outside.is_empty());
            let gap = set.first_gap(asked.start);
            prop_assert_eq!(gap, (asked.start..).find(|n| !model.contains(n)).unwrap());
            let ranges: Vec<_> = set.within(0..100);
            prop_assert!(ranges.windows(2).all(|pair| pair[0].end < pair[1].start));
        }
    }
}

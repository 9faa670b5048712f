//! A set of numbers as disjoint, non-adjacent half-open ranges. A prefix costs nothing: what is
//! below a mark is in the set.

use std::collections::BTreeMap;
use std::ops::Range;

/// The set.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct RangeSet {
    /// Every number below it is in the set, itself is not.
    below: u64,
    /// Behind `below`, not touching it.
    ranges: BTreeMap<u64, u64>,
}

impl RangeSet {
    /// Adds a range; an empty one changes nothing.
    pub(crate) fn insert(&mut self, range: Range<u64>) {
        if range.is_empty() || range.end <= self.below {
            return;
        }
        if range.start <= self.below {
            self.insert_below(range.end);
            return;
        }
        let Range { mut start, mut end } = range;
        if let Some((&before, &before_end)) = self.ranges.range(..=start).next_back()
            && before_end >= start
        {
            if before_end >= end {
                return;
            }
            start = before;
        }
        while let Some((&next, &next_end)) = self.ranges.range(start..=end).next() {
            end = end.max(next_end);
            self.ranges.remove(&next);
        }
        self.ranges.insert(start, end);
    }

    fn insert_below(&mut self, end: u64) {
        self.below = self.below.max(end);
        while let Some(entry) = self.ranges.first_entry()
            && *entry.key() <= self.below
        {
            self.below = self.below.max(entry.remove());
        }
        if self.ranges.is_empty() {
            // An emptied map keeps its memory, and there may be many sets.
            self.ranges = BTreeMap::new();
        }
    }

    /// Whether every number of a range is in it.
    pub(crate) fn covers(&self, range: Range<u64>) -> bool {
        if range.is_empty() || range.end <= self.below {
            return true;
        }
        let before = self.ranges.range(..=range.start).next_back();
        before.is_some_and(|(_, &end)| end >= range.end)
    }

    /// The first number at or after `from` that is not in it.
    pub(crate) fn first_gap(&self, from: u64) -> u64 {
        if from < self.below {
            return self.below;
        }
        let before = self.ranges.range(..=from).next_back();
        before.map_or(from, |(_, &end)| end.max(from))
    }

    /// The parts of `range` that are not in it, in order.
    pub(crate) fn gaps(&self, range: Range<u64>) -> Vec<Range<u64>> {
        let mut gaps = Vec::new();
        let mut at = range.start;
        for inside in self.parts(range.clone()) {
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
        self.parts(range).collect()
    }

    /// How many numbers of `range` are in it.
    pub(crate) fn count_within(&self, range: Range<u64>) -> u64 {
        self.parts(range).map(|part| part.end - part.start).sum()
    }

    fn parts(&self, range: Range<u64>) -> impl Iterator<Item = Range<u64>> {
        let below = range.start..range.end.min(self.below);
        let start = range.start.max(self.below);
        let end = range.end.max(start);
        let before = self.ranges.range(..=start).next_back();
        let first = before.map_or(start, |(&at, _)| at);
        let behind = self.ranges.range(first..end.max(first));
        let behind = behind.map(move |(&from, &to)| from.max(start)..to.min(end));
        std::iter::once(below)
            .chain(behind)
            .filter(|part| part.start < part.end)
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
            prop_assert_eq!(set.count_within(asked), inside.len() as u64);
            let ranges: Vec<_> = set.within(0..100);
            prop_assert!(ranges.windows(2).all(|pair| pair[0].end < pair[1].start));
        }
    }
}

//! Equal values, each in memory once however many have it: of many queues, most are declared alike.
//! Follows from who has what, so it is part of no state: all pools are equal.

use alloc::collections::BTreeSet;
use alloc::sync::Arc;

/// Values in a pool before it first looks for those that nobody has any more.
const CLEAN_AT_MIN: usize = 64;

/// Values that others have.
#[derive(Clone, Debug)]
pub(crate) struct Pool<T> {
    values: BTreeSet<Arc<T>>,
    /// So many values make it look for those that nobody has any more.
    clean_at: usize,
}

impl<T> Pool<T> {
    pub(crate) const fn new() -> Self {
        Self {
            values: BTreeSet::new(),
            clean_at: CLEAN_AT_MIN,
        }
    }
}

impl<T> Default for Pool<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T: Clone + Ord> Pool<T> {
    /// The one that everybody has of values equal to this.
    pub(crate) fn share(&mut self, value: &T) -> Arc<T> {
        if let Some(known) = self.values.get(value) {
            return Arc::clone(known);
        }
        if self.values.len() >= self.clean_at {
            self.values.retain(|value| Arc::strong_count(value) > 1);
            // Twice what is left, so that looking costs little for each value that is added.
            self.clean_at = CLEAN_AT_MIN.max(2 * self.values.len());
        }
        let shared = Arc::new(value.clone());
        self.values.insert(Arc::clone(&shared));
        shared
    }
}

impl<T> PartialEq for Pool<T> {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec::Vec;

    use super::*;

    #[test]
    fn equal_values_are_one() {
        let mut pool = Pool::new();
        let (one, same, other) = (pool.share(&7), pool.share(&7), pool.share(&8));
        assert!(Arc::ptr_eq(&one, &same));
        assert_eq!((*one, *other, pool.values.len()), (7, 8, 2));
    }

    #[test]
    fn what_nobody_has_any_more_goes() {
        let mut pool = Pool::new();
        let kept: Vec<_> = (0..10).map(|value| pool.share(&value)).collect();
        for value in 10..10_000 {
            pool.share(&value);
        }
        assert!(pool.values.len() <= CLEAN_AT_MIN);
        for (value, kept) in (0..).zip(&kept) {
            assert!(Arc::ptr_eq(kept, &pool.share(&value)));
        }
    }
}

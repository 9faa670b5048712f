//! The ledger: what was acknowledged, where it had to go, where it arrived.

use std::collections::BTreeMap;
use std::fmt;

/// What every line is known by: its content.
pub(crate) type Line = String;

/// A place a line can arrive at: the address of a queue.
pub(crate) type Place = String;

/// Acknowledged lines with the one place each belongs to, and every arrival.
#[derive(Clone, Debug, Default)]
pub(crate) struct Ledger {
    acknowledged: BTreeMap<Line, Place>,
    arrived: BTreeMap<Line, Vec<Place>>,
}

/// The ledger's verdict.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Balance {
    /// Lines whose publish was acknowledged.
    pub(crate) acknowledged: usize,
    /// Those of them that arrived where they belong.
    pub(crate) delivered: usize,
    /// Those that did not.
    pub(crate) lost: usize,
    /// Arrivals in the right place beyond the first: a publisher that did not hear an
    /// acknowledgement repeats itself.
    pub(crate) duplicated: usize,
    /// Arrivals in a wrong place, or of lines nobody published.
    pub(crate) misrouted: usize,
}

impl Ledger {
    /// A line's publish was acknowledged; it belongs to `place`.
    pub(crate) fn acknowledge(&mut self, line: impl Into<Line>, place: impl Into<Place>) {
        self.acknowledged.insert(line.into(), place.into());
    }

    /// A line arrived at `place`, and its settlement was confirmed.
    pub(crate) fn arrive(&mut self, line: impl Into<Line>, place: impl Into<Place>) {
        self.arrived
            .entry(line.into())
            .or_default()
            .push(place.into());
    }

    /// How many acknowledged lines belong to `place`.
    pub(crate) fn expected_at(&self, place: &str) -> usize {
        self.acknowledged
            .values()
            .filter(|expected| *expected == place)
            .count()
    }

    /// Compares the two.
    pub(crate) fn balance(&self) -> Balance {
        let mut balance = Balance {
            acknowledged: self.acknowledged.len(),
            ..Balance::default()
        };
        for (line, place) in &self.acknowledged {
            let arrivals = self.arrived.get(line).map_or(&[][..], Vec::as_slice);
            let right = arrivals.iter().filter(|at| *at == place).count();
            balance.delivered += right.min(1);
            balance.lost += usize::from(right == 0);
            balance.duplicated += right.saturating_sub(1);
            balance.misrouted += arrivals.len() - right;
        }
        let unknown = |line: &&Line| !self.acknowledged.contains_key(*line);
        let strays = self
            .arrived
            .keys()
            .filter(unknown)
            .map(|line| self.arrived[line].len());
        balance.misrouted += strays.sum::<usize>();
        balance
    }
}

impl fmt::Display for Ledger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Balance {
            acknowledged,
            delivered,
            lost,
            duplicated,
            misrouted,
        } = self.balance();
        write!(
            f,
            "ledger: acknowledged {acknowledged}, delivered {delivered}, lost {lost}, \
             duplicated {duplicated}, misrouted {misrouted}"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_mistake_is_counted() {
        let mut ledger = Ledger::default();
        for line in ["good", "lost", "twice", "astray"] {
            ledger.acknowledge(line, "queue/a/b");
        }
        ledger.arrive("good", "queue/a/b");
        ledger.arrive("twice", "queue/a/b");
        ledger.arrive("twice", "queue/a/b");
        ledger.arrive("astray", "queue/a/c");
        ledger.arrive("invented", "queue/a/b");
        let told = "ledger: acknowledged 4, delivered 2, lost 2, duplicated 1, misrouted 2";
        assert_eq!(ledger.to_string(), told);
    }
}

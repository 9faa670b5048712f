//! What a replica starts from.

use bytes::Bytes;
use millrace_types::LogIndex;
use serde::{Deserialize, Serialize};

use super::entry::{Entry, EntryKind, Mark};
use super::error::{MembersError, OpenError};
use super::members::Members;
use super::options::NUMBER_MAX;
use super::output::HardState;

/// A state of the shard from which the entries after it can be applied: a checkpoint on disk, or a
/// snapshot on its way.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Point {
    /// The last entry it includes.
    pub mark: Mark,
    /// The members then.
    pub members: Members,
}

impl Point {
    pub(crate) fn encode(&self) -> Bytes {
        Bytes::from(postcard::to_allocvec(self).expect("a point is plain data"))
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, postcard::Error> {
        postcard::from_bytes(bytes)
    }
}

/// Entries that are applied and not kept in memory: what of them is still needed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Passed {
    /// Where each term begins, ascending.
    pub(crate) terms: Vec<Mark>,
    /// Changes of members among them.
    pub(crate) changes: Vec<Entry>,
    last: Mark,
    count: u64,
}

impl Passed {
    /// Takes the next one.
    pub fn add(&mut self, entry: &Entry) {
        let term = self.terms.last().map(|mark| mark.term);
        if term != Some(entry.term) {
            self.terms.push(entry.mark());
        }
        if entry.kind == EntryKind::Members {
            self.changes.push(entry.clone());
        }
        self.last = entry.mark();
        self.count += 1;
    }

    /// The last one.
    #[must_use]
    pub fn last(&self) -> Option<Mark> {
        (self.count > 0).then_some(self.last)
    }

    /// Whether they follow a point, one after the other.
    fn check(&self, point: Mark) -> Result<(), OpenError> {
        let Some(first) = self.terms.first() else {
            return Ok(());
        };
        let (after, next) = (point.index, first.index);
        let dense = next.get() + (self.count - 1) == self.last.index.get();
        if next != after.next() || !dense {
            return Err(OpenError::Gap { after, next });
        }
        let mut term = point.term;
        for mark in &self.terms {
            if mark.term < term || mark.term.get() == 0 {
                return Err(OpenError::TermBack { at: mark.index });
            }
            term = mark.term;
        }
        Ok(())
    }
}

/// What the disk has of a replica.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recovered {
    /// The last one that was written; `None` when none ever was.
    pub hard_state: Option<HardState>,
    /// The last checkpoint or installed snapshot, whichever is later.
    pub point: Point,
    /// What follows it, applied and let go.
    pub passed: Passed,
    /// What follows that, without a gap.
    pub entries: Vec<Entry>,
    /// The last entry that the state machine has; not before the point and what was let go.
    pub applied: LogIndex,
}

impl Recovered {
    /// The first start of a shard's founding members: all of them begin with this. The log begins
    /// behind an entry that nobody has, so that whoever joins later starts from a snapshot, which
    /// knows the members.
    ///
    /// # Errors
    /// When the members make no sense.
    pub fn founding(members: Members) -> Result<Self, MembersError> {
        members.check()?;
        let mark = Mark::new(1, 1);
        Ok(Self {
            point: Point { mark, members },
            applied: mark.index,
            ..Self::default()
        })
    }

    /// The last entry, or the point.
    pub(crate) fn last(&self) -> Mark {
        let before = self.passed.last().unwrap_or(self.point.mark);
        self.entries.last().map_or(before, Entry::mark)
    }

    /// Whether it can be as it says.
    pub(crate) fn check(&self) -> Result<(), OpenError> {
        let mut last = self.point.mark;
        if last.index.get() > NUMBER_MAX || (last.index.get() == 0) != (last.term.get() == 0) {
            return Err(OpenError::Point { mark: last });
        }
        let empty = self.point.members.is_empty();
        let has_entries = self.passed.count > 0 || !self.entries.is_empty();
        if empty && (last != Mark::default() || has_entries) {
            return Err(OpenError::Members(MembersError::NoVoter));
        }
        if !empty {
            self.point.members.check()?;
        }
        self.passed.check(last)?;
        last = self.passed.last().unwrap_or(last);
        let first = last.index;
        for entry in &self.entries {
            let (after, next) = (last.index, entry.index);
            if next.get() > NUMBER_MAX || next != after.next() {
                return Err(OpenError::Gap { after, next });
            }
            if entry.term < last.term || entry.term.get() == 0 {
                return Err(OpenError::TermBack { at: next });
            }
            if !entry.is_well_formed() {
                return Err(OpenError::Shape { at: next });
            }
            last = entry.mark();
        }
        let applied = self.applied;
        if applied < first || applied > last.index {
            let last = last.index;
            return Err(OpenError::Applied {
                applied,
                first,
                last,
            });
        }
        if last.term.get() > NUMBER_MAX {
            return Err(OpenError::Point { mark: last });
        }
        let found = self.hard_state.unwrap_or_default();
        if found.term.get() > NUMBER_MAX {
            return Err(OpenError::Point { mark: last });
        }
        if found.commit > last.index {
            let (commit, last) = (found.commit, last.index);
            return Err(OpenError::Commit { commit, last });
        }
        Ok(())
    }

    /// The hard state to go on from. A crash may have left entries and taken the term that was
    /// written behind them: the term is theirs then, and nobody was told of a vote in it.
    pub(crate) fn hard_state(&self) -> HardState {
        let term = self.last().term;
        let found = self.hard_state.unwrap_or_default();
        let is_later = term > found.term;
        HardState {
            term: term.max(found.term),
            vote: found.vote.filter(|_| !is_later),
            commit: found.commit.max(self.applied),
        }
    }
}

#[cfg(test)]
mod tests {
    use millrace_types::{NodeId, ReplicaId, Term};

    use super::*;

    fn recovered(passed: &[(u64, u64)], kept: &[(u64, u64)]) -> Recovered {
        let entry = |(index, term): &(u64, u64)| Entry {
            term: Term::new(*term),
            index: LogIndex::new(*index),
            kind: EntryKind::Command,
            header: Bytes::from_static(b"command"),
            body: Bytes::new(),
        };
        let members = Members::founders([(ReplicaId::new(1), NodeId::new(1))]).unwrap();
        let mut recovered = Recovered {
            point: Point {
                mark: Mark::new(4, 2),
                members,
            },
            entries: kept.iter().map(entry).collect(),
            ..Recovered::default()
        };
        passed
            .iter()
            .map(entry)
            .for_each(|e| recovered.passed.add(&e));
        recovered.applied = recovered.passed.last().unwrap_or(Mark::new(4, 2)).index;
        recovered
    }

    #[test]
    fn what_was_let_go_stands_between_the_point_and_the_entries() {
        let fine = recovered(&[(5, 2), (6, 3), (7, 3)], &[(8, 3)]);
        assert_eq!(fine.check(), Ok(()));
        assert_eq!(fine.last(), Mark::new(8, 3));
        assert_eq!(fine.passed.terms, [Mark::new(5, 2), Mark::new(6, 3)]);
        let gaps = [
            recovered(&[(6, 2)], &[]),
            recovered(&[(5, 2), (7, 2)], &[]),
            recovered(&[(5, 2)], &[(7, 2)]),
        ];
        for gap in gaps {
            assert!(matches!(gap.check(), Err(OpenError::Gap { .. })), "{gap:?}");
        }
        let back = recovered(&[(5, 1)], &[]).check();
        assert!(matches!(back, Err(OpenError::TermBack { .. })));
        let mut early = recovered(&[(5, 2), (6, 2)], &[]);
        early.applied = LogIndex::new(5);
        assert!(matches!(early.check(), Err(OpenError::Applied { .. })));
    }
}

//! What a replica starts from.

use bytes::Bytes;
use millrace_types::LogIndex;
use serde::{Deserialize, Serialize};

use super::entry::{Entry, Mark};
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

/// What the disk has of a replica.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recovered {
    /// The last one that was written; `None` when none ever was.
    pub hard_state: Option<HardState>,
    /// The last checkpoint or installed snapshot, whichever is later.
    pub point: Point,
    /// What follows it, without a gap.
    pub entries: Vec<Entry>,
    /// The last entry that the state machine has; not before the point.
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
        self.entries.last().map_or(self.point.mark, Entry::mark)
    }

    /// Whether it can be as it says.
    pub(crate) fn check(&self) -> Result<(), OpenError> {
        let mut last = self.point.mark;
        if last.index.get() > NUMBER_MAX || (last.index.get() == 0) != (last.term.get() == 0) {
            return Err(OpenError::Point { mark: last });
        }
        let empty = self.point.members.is_empty();
        if empty && (last != Mark::default() || !self.entries.is_empty()) {
            return Err(OpenError::Members(MembersError::NoVoter));
        }
        if !empty {
            self.point.members.check()?;
        }
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
        if applied < self.point.mark.index || applied > last.index {
            let (first, last) = (self.point.mark.index, last.index);
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

//! What of the journal a shard's leader keeps behind its checkpoint: entries that a follower lacks
//! which was there a moment ago. It then gets those, and no snapshot. Who that is serves others,
//! too.

use std::collections::BTreeMap;

use millrace_replica::{Entry, Progress};
use millrace_types::{LogIndex, ReplicaId};

use super::ShardLog;

/// How many ticks a follower is waited for that is not heard of: a minute, in which a pod that is
/// restarted is back.
const WAITED_TICKS: u64 = 600;
/// How often it is noted who is there, in ticks: a leader forgets that itself every eight.
const NOTICED_EVERY: u64 = 4;
/// For how many ticks after it was noticed a follower counts as there: two rounds of noticing, one
/// of which may fall right behind the leader's forgetting.
const LATELY_TICKS: u64 = 8;

/// Whether entries are kept for followers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Keeps {
    /// They are.
    ForFollowers,
    /// There is no room: who lacks them gets a snapshot.
    Nothing,
}

/// What is kept, and for whom.
#[derive(Debug, Default)]
pub(super) struct Keeping {
    /// The last entry that a checkpoint covers which was made here.
    covered: LogIndex,
    /// The last one that was let go.
    gone: LogIndex,
    ticks: u64,
    /// When a follower was last there.
    there: BTreeMap<ReplicaId, u64>,
}

impl Keeping {
    /// Notes who is there.
    fn notice(&mut self, followers: &[Progress]) {
        let now = self.ticks;
        self.there.retain(|_, then| now - *then <= WAITED_TICKS);
        let active = followers.iter().filter(|follower| follower.active);
        self.there
            .extend(active.map(|follower| (follower.replica, now)));
    }

    /// Whether a follower was there a moment ago.
    pub(super) fn was_there(&self, follower: ReplicaId) -> bool {
        let then = self.there.get(&follower);
        then.is_some_and(|then| self.ticks - then <= LATELY_TICKS)
    }

    /// A checkpoint has been made.
    pub(super) fn covered(&mut self, index: LogIndex) {
        self.covered = index.max(self.covered);
    }
}

impl<E> ShardLog<E> {
    /// Notes now and then which followers are there.
    pub(super) fn notice_followers(&mut self) {
        self.keeping.ticks += 1;
        if self.keeping.ticks.is_multiple_of(NOTICED_EVERY) {
            self.keeping.notice(&self.replica.progress());
        }
    }

    /// Lets go of entries that a checkpoint covers and no follower needs; up to which they are gone
    /// now, if that is news.
    pub(crate) fn let_go(&mut self, keeps: Keeps) -> Option<LogIndex> {
        let mut upto = self.keeping.covered;
        if keeps == Keeps::ForFollowers {
            let followers = self.replica.progress();
            self.keeping.notice(&followers);
            let there = followers
                .iter()
                .filter(|p| self.keeping.there.contains_key(&p.replica));
            let least = there.map(|p| p.has).min();
            upto = least.map_or(upto, |least| least.min(upto));
        }
        if upto <= self.keeping.gone {
            return None;
        }
        self.keeping.gone = upto;
        self.replica.compact(upto);
        Some(upto)
    }

    /// Whether entries are kept that a checkpoint covers.
    pub(crate) fn keeps_some(&self) -> bool {
        self.keeping.gone < self.keeping.covered
    }

    /// Entries that a follower needs have been read; none when they are gone.
    pub(crate) fn loaded(&mut self, from: LogIndex, entries: Vec<Entry>) {
        self.news = true;
        if let Err(error) = self.replica.entries_loaded(from, entries) {
            let shard = self.replica.shard();
            tracing::warn!(%shard, %error, "the journal has other entries than the log");
        }
    }
}

#[cfg(test)]
mod tests {
    use millrace_replica::Flow;

    use super::*;

    #[test]
    fn a_follower_is_there_for_a_while_after_it_was_heard_of_and_no_longer() {
        let follower = |active| Progress {
            replica: ReplicaId::new(7),
            matched: LogIndex::new(1),
            has: LogIndex::new(1),
            flow: Flow::Replicating,
            active,
        };
        let mut keeping = Keeping::default();
        assert!(!keeping.was_there(ReplicaId::new(7)));

        keeping.notice(&[follower(true)]);
        keeping.ticks += NOTICED_EVERY;
        keeping.notice(&[follower(false)]);
        assert!(keeping.was_there(ReplicaId::new(7)));

        keeping.ticks += LATELY_TICKS;
        assert!(!keeping.was_there(ReplicaId::new(7)));
    }
}

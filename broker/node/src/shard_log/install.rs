//! A snapshot takes the place of a shard's log and state, in this order: its state is staged and
//! durable, then the replica is told, then the journal has it, then it is in force on disk, then in
//! memory, and only then does the replica hear that it was written.
//!
//! Until then nothing that was written behind it counts as synced. What was committed before is not
//! applied any more: the new state has it.

use millrace_replica::{Message, Point, ReadyNumber, SnapshotChunk};
use millrace_types::{LogIndex, NodeId, ReplicaId};

use super::{Lost, ShardLog};
use crate::snapshots::Fate;

/// A snapshot on its way into the log.
#[derive(Debug, Default)]
pub(super) enum Install {
    /// None.
    #[default]
    None,
    /// One whose state is here; the replica has not seen it.
    Offered(NodeId, Message),
    /// The replica has it; the journal has not.
    Writing(ReadyNumber, Point),
    /// The journal has it, and what was written up to this number.
    Written(ReadyNumber, Point),
}

impl<E> ShardLog<E> {
    /// Whether a stretch of a snapshot from this node may be for this replica.
    pub(crate) fn may_come(&self, from: NodeId, chunk: &SnapshotChunk) -> bool {
        let own = self.replica.id();
        let there = self.replica.members().find(chunk.from);
        // Members may be old ones; a replica that knows nobody believes who speaks to it.
        let is_there = there.is_none_or(|member| member.node == from);
        let leader = self.replica.status().leader;
        let leads = leader.is_none_or(|leader| leader == chunk.from);
        chunk.to == own && chunk.from != own && is_there && leads
    }

    /// Keeps a snapshot's message, whose state is staged, until it can be taken.
    pub(crate) fn offer(&mut self, from: NodeId, message: Message) {
        if matches!(self.install, Install::None | Install::Offered(..)) {
            self.install = Install::Offered(from, message);
        }
    }

    /// Takes what was offered, to be stepped.
    pub(crate) fn take_offered(&mut self) -> Option<(NodeId, Message)> {
        match std::mem::take(&mut self.install) {
            Install::Offered(from, message) => Some((from, message)),
            other => {
                self.install = other;
                None
            }
        }
    }

    /// Whether a snapshot is being installed.
    pub(crate) const fn is_installing(&self) -> bool {
        matches!(self.install, Install::Writing(..) | Install::Written(..))
    }

    /// The replica installs a snapshot with this write: what it replaces is over.
    pub(super) fn begin_install(&mut self, number: ReadyNumber, point: Point) -> Lost<E> {
        let index = point.mark.index;
        self.committed.retain(|entry| entry.index > index);
        self.install = Install::Writing(number, point);
        self.bytes = 0;
        Lost(self.waiting.drain(..).map(|w| w.entry).collect())
    }

    /// Holds back what is synced behind a snapshot; whether that was so, and whether the snapshot
    /// can be put in force now.
    pub(super) fn hold_back(&mut self, number: ReadyNumber) -> Held {
        match std::mem::take(&mut self.install) {
            Install::Writing(install, point) if number >= install => {
                self.install = Install::Written(number, point);
                Held::Promote
            }
            Install::Written(_, point) => {
                self.install = Install::Written(number, point);
                Held::Waits
            }
            other => {
                self.install = other;
                Held::No
            }
        }
    }

    /// The state of the snapshot is in force, on disk and in memory.
    pub(crate) fn installed(&mut self) -> Option<LogIndex> {
        let Install::Written(number, point) = std::mem::take(&mut self.install) else {
            return None;
        };
        self.handed = point.mark.index;
        self.keeping.covered(self.handed);
        self.moved = true;
        self.replica.synced(number);
        self.news = true;
        Some(point.mark.index)
    }

    /// A snapshot has reached its follower, or has not.
    pub(crate) fn snapshot_ended(&mut self, to: ReplicaId, fate: Fate) {
        match fate {
            Fate::Sent => self.replica.snapshot_sent(to),
            Fate::Failed => self.replica.snapshot_failed(to),
            Fate::NoCheckpoint => {
                self.wanted = true;
                self.replica.snapshot_failed(to);
            }
        }
        self.news = true;
    }
}

/// What is to be done with a write that is synced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Held {
    /// It counts.
    No,
    /// It counts when the snapshot before it is in force.
    Waits,
    /// The same, and that can be done now.
    Promote,
}

//! What a replica asks its caller to do, and what it says of itself.

use millrace_types::{LogIndex, ReplicaId, Term};

use super::entry::Entry;
use super::error::NotLeader;
use super::message::Message;
use super::recovered::Point;

/// Names a `Write`; ascending.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ReadyNumber(pub(crate) u64);

/// What a replica must never forget.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HardState {
    /// The latest term it has seen.
    pub term: Term,
    /// For whom it voted in it.
    pub vote: Option<ReplicaId>,
    /// How far it knew the log to be committed. May lag, except that it is written together with
    /// entries when it has changed: who accepts a change of members knows of the one before.
    pub commit: LogIndex,
}

/// What is to be made durable, as one append: the snapshot's point, then the entries, then the hard
/// state. Of an append that was not synced a crash may leave a beginning; a commit must never be
/// left without the entries it speaks of, for what it would find in their place was not committed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Write {
    /// For `synced`.
    pub number: ReadyNumber,
    /// The state that came with a `Snapshot` message takes the place of everything: log and state
    /// machine. `synced` says that both have it.
    pub install: Option<Point>,
    /// Entries; the first index may be one that is there already, which then replaces that entry
    /// and everything behind it.
    pub entries: Vec<Entry>,
    /// The new hard state.
    pub hard_state: Option<HardState>,
}

/// What to do next.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ready {
    /// To be written; `synced` is called when it is durable, in the order of numbers.
    pub write: Option<Write>,
    /// To be sent, now, in this order to each. Any of them may be lost; of a `Snapshot` the caller
    /// tells the fate (`snapshot_sent`, `snapshot_failed`).
    pub messages: Vec<Message>,
    /// To be applied, in order; `applied` says how far that is. All of them are synced here.
    pub committed: Vec<Entry>,
    /// When role, term or leader changed.
    pub status: Option<Status>,
    /// Answers to `read_index`.
    pub reads: Vec<Read>,
    /// Entries to be read from the journal for followers that are behind; each is answered by
    /// `entries_loaded`.
    pub loads: Vec<Load>,
    /// A follower needs a later snapshot than there is: make a checkpoint, then `snapshot_made`.
    pub wants_snapshot: bool,
}

/// What a replica is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Follows a leader, or waits for one.
    Follower,
    /// Asks for votes.
    Candidate,
    /// Leads.
    Leader,
}

/// Role, term and leader.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Status {
    /// What it is.
    pub role: Role,
    /// Its term.
    pub term: Term,
    /// The leader of that term, as far as it knows.
    pub leader: Option<ReplicaId>,
}

/// Chosen by who calls `read_index`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ReadToken(pub u64);

/// The answer to a `read_index`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Read {
    /// The caller's.
    pub token: ReadToken,
    /// A state that has applied this much has everything that was acknowledged before the
    /// question.
    pub answer: Result<LogIndex, NotLeader>,
}

/// Entries that are wanted back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Load {
    /// The first.
    pub from: LogIndex,
    /// Behind the last; less may be given.
    pub to: LogIndex,
    /// As many as fit, at least one.
    pub bytes_max: u64,
}

/// How a leader gets on with a follower.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flow {
    /// Finds out how far it is.
    Probing,
    /// Entries flow.
    Replicating,
    /// It needs a snapshot, which is on its way.
    Snapshot,
}

/// How far a member is, as its leader knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Which; the leader itself is among them.
    pub replica: ReplicaId,
    /// Everything up to here is synced there.
    pub matched: LogIndex,
    /// The same, or where the snapshot ends that is on its way there: what follows has to be sent.
    pub has: LogIndex,
    /// How entries get there.
    pub flow: Flow,
    /// Whether it was heard of lately.
    pub active: bool,
}

impl Progress {
    /// Whether it is there and gets entries as they come, in a log that goes up to `last`. One that
    /// came back to a log to which nothing is added is probed until the next entry, though it has
    /// everything.
    #[must_use]
    pub fn keeps_up(&self, last: LogIndex) -> bool {
        self.active && (self.flow == Flow::Replicating || self.matched >= last)
    }
}

//! Why a replica says no.

use millrace_types::{LogIndex, NodeId, ReplicaId, Term};

use super::entry::Mark;

/// Only the leader can do this.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("this replica does not lead the shard")]
pub struct NotLeader {
    /// Who does, as far as is known.
    pub leader: Option<ReplicaId>,
}

/// Why members make no sense.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MembersError {
    /// There is none that votes.
    #[error("no member votes")]
    NoVoter,
    /// An id is 0.
    #[error("a replica's id is 0")]
    NoId,
    /// An id is there twice.
    #[error("replica {replica} is named twice")]
    Twice {
        /// Which.
        replica: ReplicaId,
    },
    /// A seat that is only there in between two steps.
    #[error("a member joins or leaves, but no change is half done")]
    HalfDone,
    /// They are not what was encoded.
    #[error("members cannot be read")]
    Unreadable,
    /// There are too many.
    #[error("more than {max} members")]
    TooMany {
        /// The limit.
        max: usize,
    },
}

/// Why a replica cannot start from what was recovered.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// The options contradict each other.
    #[error("{0}")]
    Options(&'static str),
    /// The members make no sense.
    #[error("the members make no sense")]
    Members(#[from] MembersError),
    /// The point is no place in a log.
    #[error("the log cannot begin after entry {} of term {}", mark.index, mark.term)]
    Point {
        /// Where it is.
        mark: Mark,
    },
    /// Entries are missing.
    #[error("entries after {after} are missing: the next one is {next}")]
    Gap {
        /// The last one before.
        after: LogIndex,
        /// The first one after.
        next: LogIndex,
    },
    /// An entry has an earlier term than the one before.
    #[error("the term goes back at entry {at}")]
    TermBack {
        /// Where.
        at: LogIndex,
    },
    /// An entry has what its kind does not.
    #[error("entry {at} is not what its kind says")]
    Shape {
        /// Where.
        at: LogIndex,
    },
    /// What was applied is not in the log.
    #[error("{applied} is applied, but the log has {first} to {last}")]
    Applied {
        /// How far.
        applied: LogIndex,
        /// The point.
        first: LogIndex,
        /// The last entry.
        last: LogIndex,
    },
    /// The log has lost entries: it was written down as committed after they were.
    #[error("entry {commit} is committed, but the log ends at {last}")]
    Commit {
        /// What the hard state says.
        commit: LogIndex,
        /// The last entry.
        last: LogIndex,
    },
    /// raft-rs refuses it; the checks above are meant to come first.
    #[error("the consensus library refuses to start: {0}")]
    Refused(String),
}

/// Why a message was not taken. Nothing has changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StepError {
    /// It is for another replica.
    #[error("the message is for replica {to}")]
    NotForUs {
        /// Which.
        to: ReplicaId,
    },
    /// It says that it is from us, or from nobody.
    #[error("a message cannot come from replica {from}")]
    Sender {
        /// Who.
        from: ReplicaId,
    },
    /// A term or an index is out of bounds, or a place has only one of them.
    #[error("a number in the message is out of bounds")]
    Number,
    /// Entries do not follow each other, are of a later term than the leader, or not what their
    /// kind says.
    #[error("the message's entry {index} does not fit")]
    Entry {
        /// The first that does not.
        index: LogIndex,
    },
    /// A leader says that what we do not have is committed, and that we have it: this disk has
    /// lost something. The replica must not go on under its id.
    #[error("entry {commit} is committed, but the log ends at {last}")]
    CommitBeyondLog {
        /// What the leader says.
        commit: LogIndex,
        /// Our last entry.
        last: LogIndex,
    },
    /// A follower says that it has what we do not have.
    #[error("replica {from} accepted entry {index}, but the log ends at {last}")]
    BeyondLog {
        /// Who.
        from: ReplicaId,
        /// What it says.
        index: LogIndex,
        /// Our last entry.
        last: LogIndex,
    },
    /// An answer from a replica that is no member.
    #[error("replica {from} is not a member")]
    NotMember {
        /// Who.
        from: ReplicaId,
    },
    /// Two leaders in one term.
    #[error("replicas {leader} and {other} both lead term {term}")]
    TwoLeaders {
        /// The one we follow.
        leader: ReplicaId,
        /// The one that sent the message.
        other: ReplicaId,
        /// Their term.
        term: Term,
    },
    /// The members in a snapshot make no sense.
    #[error("the members in the snapshot make no sense")]
    Members(#[from] MembersError),
    /// It is overtaken by what has happened since: no harm done.
    #[error("the message is out of date")]
    Stale,
    /// It cannot be taken now, and will be sent again: what was received before is not synced or
    /// applied yet.
    #[error("the replica is busy")]
    Busy,
}

/// Why a command was not taken. Nothing has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProposeError {
    /// Another replica leads.
    #[error(transparent)]
    NotLeader(#[from] NotLeader),
    /// The leader is handing over; whoever leads next can be asked in a moment.
    #[error("leadership is being handed to replica {to}")]
    Transferring {
        /// To whom.
        to: ReplicaId,
    },
    /// It is too large, for ever.
    #[error("the command has {bytes} bytes; at most {max} are possible")]
    TooLarge {
        /// What it has.
        bytes: u64,
        /// The limit.
        max: u64,
    },
    /// Too much is not applied yet; there will be room.
    #[error("{bytes} bytes of commands wait already; at most {max} may")]
    Full {
        /// What waits.
        bytes: u64,
        /// The limit.
        max: u64,
    },
    /// A command has a header.
    #[error("the command has no header")]
    NoHeader,
}

/// Why a change of members was not taken. Nothing has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChangeError {
    /// Another replica leads.
    #[error(transparent)]
    NotLeader(#[from] NotLeader),
    /// The leader is handing over.
    #[error("leadership is being handed to replica {to}")]
    Transferring {
        /// To whom.
        to: ReplicaId,
    },
    /// One change at a time: another is not applied yet, or a new leader has not applied all that
    /// it took over.
    #[error("another change of members is under way")]
    Pending,
    /// The change is empty.
    #[error("the change does nothing")]
    Nothing,
    /// It names a replica twice.
    #[error("replica {replica} is named twice")]
    Twice {
        /// Which.
        replica: ReplicaId,
    },
    /// A new replica needs an id that no other had.
    #[error("the id {replica} was used before")]
    IdUsed {
        /// Which.
        replica: ReplicaId,
    },
    /// A node has one copy of a shard.
    #[error("node {node} has a replica already")]
    NodeTaken {
        /// Which.
        node: NodeId,
    },
    /// There is no such member.
    #[error("replica {replica} is not a member")]
    NotMember {
        /// Which.
        replica: ReplicaId,
    },
    /// Only a learner can be promoted.
    #[error("replica {replica} is not a learner")]
    NotLearner {
        /// Which.
        replica: ReplicaId,
    },
    /// Only a voter can be demoted.
    #[error("replica {replica} is not a voter")]
    NotVoter {
        /// Which.
        replica: ReplicaId,
    },
    /// Somebody has to vote.
    #[error("no voter would be left")]
    NoVoterLeft,
    /// There would be too many.
    #[error("more than {max} members")]
    TooMany {
        /// The limit.
        max: usize,
    },
}

/// Why leadership is not handed over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TransferError {
    /// Another replica leads.
    #[error(transparent)]
    NotLeader(#[from] NotLeader),
    /// Only a voter can lead.
    #[error("replica {replica} is not a voter")]
    NotVoter {
        /// Which.
        replica: ReplicaId,
    },
}

/// Why loaded entries were not taken; they are asked for again when they are still wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LoadError {
    /// An entry is not the one that the log has there.
    #[error("entry {index} is not the one that was asked for")]
    Other {
        /// The first that is not.
        index: LogIndex,
    },
}

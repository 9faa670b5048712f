//! What replicas of a shard tell each other.

use millrace_types::{LogIndex, ReplicaId, Term};

use super::entry::{Entry, Mark};
use super::recovered::Point;

/// A question of a leader's that an answer names, so that it is known to be newer than it; 0 when
/// nobody waits for it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Round(pub u64);

/// Which election.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Would you vote for me? Binds nobody.
    Pre,
    /// Vote for me.
    Real,
    /// Vote for me although you have a leader: it sends me.
    Transfer,
}

/// The answer to a candidate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Yes.
    Granted,
    /// No, and how far the voter knows the log to be committed.
    Refused {
        /// The default when it does not say.
        commit: Mark,
    },
}

/// What a message says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Payload {
    /// A leader's entries.
    Append {
        /// The entry before them.
        prev: Mark,
        /// How far the leader has committed.
        commit: LogIndex,
        /// Dense from `prev` on; none tells a commit or asks how far the follower is.
        entries: Vec<Entry>,
    },
    /// A follower has synced everything up to `last` and agrees with the leader on it. 0 when it
    /// only tells a later term.
    Accepted {
        /// The last entry.
        last: LogIndex,
        /// How far it knows the log to be committed.
        commit: LogIndex,
    },
    /// A follower does not have `prev`.
    Rejected {
        /// The entry before those that were sent.
        prev: LogIndex,
        /// Where the two may agree.
        hint: Mark,
        /// How far it knows the log to be committed.
        commit: LogIndex,
    },
    /// A leader is there.
    Heartbeat {
        /// How far the follower may commit.
        commit: LogIndex,
        /// To be named in the answer.
        round: Round,
    },
    /// A follower has heard it.
    HeartbeatAnswer {
        /// How far it has committed.
        commit: LogIndex,
        /// The heartbeat's.
        round: Round,
    },
    /// A candidate asks for a vote; the message's term is the one it wants to lead.
    Vote {
        /// Which election.
        stage: Stage,
        /// Its last entry.
        last: Mark,
        /// How far it knows the log to be committed.
        commit: Mark,
    },
    /// A voter answers.
    VoteAnswer {
        /// Which election; never `Transfer`, which is answered as `Real`.
        stage: Stage,
        /// What it says.
        verdict: Verdict,
    },
    /// The follower needs entries that the leader has no more. Whoever carries the message streams
    /// the state of this point along, and hands it to `step` when that has arrived.
    Snapshot {
        /// The state to install.
        point: Point,
    },
    /// The leader hands over: start an election now.
    TimeoutNow,
}

/// A message between two replicas of a shard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// Who says it. Whoever receives it from a network checks that it came from that replica's
    /// node.
    pub from: ReplicaId,
    /// To whom. It may be no member that the sender knows: an answer goes back the way the
    /// question came.
    pub to: ReplicaId,
    /// The sender's term, or the one it wants to lead.
    pub term: Term,
    /// What it says.
    pub payload: Payload,
}
